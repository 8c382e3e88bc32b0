"""The REST API of `polling serve` under `/v1`, and the endpoints for monitoring.

It needs the extra `serve`. `core.web` holds the code that it shares with the dashboard.

app          the application: routes, errors, limits and headers
schemas      the bodies of requests and responses
idempotency  the header `Idempotency-Key`
metrics      Prometheus metrics
routes       one module per resource

Routes call the operations of `core.service`, which does not depend on HTTP.
"""
