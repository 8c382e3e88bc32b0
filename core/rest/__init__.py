"""The HTTP API of `polling serve` under `/v1`, and the endpoints for monitoring.

It needs the extra `serve`. What it shares with the dashboard is in `core.web`.

app          routes, errors, bounds and headers around one backend
schemas      the bodies of requests and responses
idempotency  the header `Idempotency-Key`
metrics      figures for Prometheus
routes       a module for each resource

Routes call the operations of `core.service`, which knows no HTTP.
"""
