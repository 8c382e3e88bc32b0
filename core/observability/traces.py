"""Send spans to OpenTelemetry as http/protobuf, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

OpenTelemetry's own variables set the service name, sampling, headers and resource; see
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. If traces are
off, a span is one shared object that does nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from core.egress import any_host
from core.known_secrets import KNOWN, clean

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.trace import Span, Tracer

NAME = "integration-polling"

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

MAX_CLASS_NAME_CHARS = 80
"""The maximum length of an error's class name in a span."""

END_SECONDS = 3.0
"""Seconds to wait for unsent spans at the end."""

log = logging.getLogger(__name__)

_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_OFF: AbstractContextManager[None] = nullcontext()


def start(part: str) -> None:
    """Start to export spans, if an endpoint is set."""
    global _provider, _tracer
    if _tracer is not None or not wanted():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning(
            "an OTLP endpoint is set, but OpenTelemetry's packages are not installed; run in a"
            " clone of the repository: pip install -e '.[otel]'"
        )
        return

    class Exporter(OTLPSpanExporter):
        """An exporter that may reach a collector in a private network, and sends no secret."""

        def export(self, spans: Sequence[ReadableSpan]) -> Any:
            with any_host():
                # Credentials may have been renewed since the spans ended.
                return super().export([_redacted(span, KNOWN.redact_all) for span in spans])

    class Processor(BatchSpanProcessor):
        """A processor that removes the secrets of the task, in whose thread its spans end."""

        def on_end(self, span: ReadableSpan) -> None:
            super().on_end(_redacted(span, KNOWN.redact))

    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": NAME}))
    ours = Resource({"service.version": version(NAME), "polling.process": part})
    # The provider is not the global one: libraries that find a global provider, such as FastAPI,
    # put exception texts into their spans. In `merge`, the operator's values win. `stop` shuts the
    # provider down; its own exit handler would wait without a limit.
    _provider = TracerProvider(resource=ours.merge(resource), shutdown_on_exit=False)
    _provider.add_span_processor(Processor(Exporter()))
    _tracer = _provider.get_tracer(NAME, version(NAME))


def _redacted(span: ReadableSpan, redact: Callable[[str], str]) -> ReadableSpan:
    """Return a span without secrets: a plugin may add attributes and events to it."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, Status

    events: Any = [(item.name, dict(item.attributes or {}), item.timestamp) for item in span.events]
    links: Any = [(item.context, dict(item.attributes or {})) for item in span.links]
    parts = (span.name, span.status.description, dict(span.attributes or {}), events, links)
    if redact(str(parts)) == str(parts):
        return span
    cleaned: Any = clean(parts, redact)
    name, description, attributes, events, links = cleaned
    return ReadableSpan(
        name,
        span.get_span_context(),
        span.parent,
        span.resource,
        attributes,
        [Event(*item) for item in events],
        [Link(*item) for item in links],
        span.kind,
        status=Status(span.status.status_code, description),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def stop() -> None:
    """Export the remaining spans within `END_SECONDS`.

    The SDK's own limits are too long. With a collector that accepts connections but does not
    answer, `force_flush` takes ten seconds for each batch, and `shutdown` half a minute.
    """
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(END_SECONDS)


def wanted() -> bool:
    """Return true if the environment enables traces."""
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not off and any(os.environ.get(name) for name in ENDPOINTS)


def span(
    name: str, attributes: Mapping[str, Any] | None = None
) -> AbstractContextManager[Span | None]:
    """Return a span around a block. If the block raises, the span has the exception's class."""
    if _tracer is None:
        return _OFF
    return _Noting(_tracer, name, attributes, kind="internal")


def request_span(name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Span | None]:
    """Return a span around a request that this process answers."""
    return _OFF if _tracer is None else _Noting(_tracer, name, attributes, kind="server")


def task_span(name: str, attributes: Mapping[str, Any]) -> _Noting | None:
    """Return a span for a task, not yet entered; None if traces are off."""
    return None if _tracer is None else _Noting(_tracer, name, attributes, kind="consumer")


class _Noting(AbstractContextManager["Span"]):
    """A span that is current in its block, and ends with it.

    It records only the class of an error, because the text may contain secrets or content.
    """

    def __init__(
        self, tracer: Tracer, name: str, attributes: Mapping[str, Any] | None, *, kind: str
    ) -> None:
        from opentelemetry.trace import SpanKind

        self._open = tracer.start_as_current_span(
            name,
            kind=SpanKind[kind.upper()],
            attributes=dict(attributes or {}),
            record_exception=False,
            set_status_on_exception=False,
        )

    def __enter__(self) -> Span:
        self._span = self._open.__enter__()
        return self._span

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            mark_failed(self._span, type(error).__name__)
        self._open.__exit__(None, None, None)


def mark_failed(span: Span, error: str) -> None:
    """Mark the operation of a span as failed.

    Args:
      span: The span of the operation.
      error: The name of an error's class or the status of an answer, never the text of an error.
    """
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR))
    redacted = KNOWN.redact(error)  # a plugin may choose any name for its classes
    span.set_attribute(
        "error.type",
        redacted if redacted == error and len(error) <= MAX_CLASS_NAME_CHARS else "other",
    )
