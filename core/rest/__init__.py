"""The REST API of `polling serve` under `/v1`, and the endpoints for monitoring.

It needs the extra `serve`.

    app            assembles the application   schemas     requests and responses
    idempotency    `Idempotency-Key`           metrics     metrics for Prometheus
    routes         a module for each resource

`core.web` holds what the REST API shares with the dashboard. The operations themselves are in
`core.service`, which does not know HTTP.
"""
