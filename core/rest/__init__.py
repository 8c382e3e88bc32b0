"""REST over HTTP: the API of `polling serve` under `/v1`, and the endpoints for monitoring.

It needs the extra `serve`.

    app            all of it put together      server      uvicorn, until it is told to end
    dependencies   who asks, and what for      problems    errors as RFC 9457 says
    requests       what is sent                answers     what comes back
    idempotent     `Idempotency-Key`           body_size   how much may be sent
    pulse          waiting for changes         metrics     figures for Prometheus

`routes` has a module for each kind of thing. What they do stands in `core.service`, which knows no
HTTP.
"""
