"""Tracing: a span for each request with its route, but without its address and body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.observability import traces


def traced(app: ASGIApp) -> ASGIApp:
    """Return the application with a span around each request; unchanged if tracing is off."""
    if not traces.wanted():
        return app

    async def with_span(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        method = scope["method"]
        with traces.request_span(method, {"http.request.method": method}) as span:
            status = 0

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noted)
            finally:
                if span is not None:
                    # Routing has stored the route in the scope by now.
                    route = getattr(scope.get("route"), "path", None)
                    if route is not None:
                        span.update_name(f"{method} {route}")
                        span.set_attribute("http.route", route)
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        traces.mark_failed(span, str(status))

    return with_span
