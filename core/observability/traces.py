"""Spans to OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT is set; http/protobuf.

Name, sampling, headers and resource come from the variables that OpenTelemetry defines, see
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
Off, a span is one shared object that does nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from core.egress import any_host
from core.observability.errors import Redactor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

NAME = "integration-polling"

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

MAX_CLASS_NAME_CHARS = 80
"""Characters."""

END_SECONDS = 3.0

log = logging.getLogger(__name__)

_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_redact: Redactor = str
_OFF: AbstractContextManager[None] = nullcontext()


def start(part: str, make_redactor: Callable[[], Redactor]) -> None:
    """Begin to export, if an endpoint is set."""
    global _provider, _tracer, _redact
    if _tracer is not None or not wanted():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning(
            "an OTLP endpoint is set, and its packages are not installed: pip install"
            " 'integration-polling[otel]'"
        )
        return

    class Exporter(OTLPSpanExporter):
        """The collector may be in a private network, see `core.egress`."""

        def export(self, *args: Any, **kwargs: Any) -> Any:
            with any_host():
                return super().export(*args, **kwargs)

    _redact = make_redactor()
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": NAME}))
    ours = Resource({"service.version": version(NAME), "polling.process": part})
    # It is ours alone: libraries that find one in the process, as FastAPI does, note the words of
    # exceptions in their spans. The second one's values win: the operator's. We end it ourselves:
    # at exit, it would wait for as long as it takes.
    _provider = TracerProvider(resource=ours.merge(resource), shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(Exporter()))
    _tracer = _provider.get_tracer(NAME, version(NAME))


def stop() -> None:
    """Export what is left, within `END_SECONDS`.

    The SDK's own bounds do not hold: a collector that takes connections and says nothing keeps
    `force_flush` for ten seconds a batch, and `shutdown` for half a minute.
    """
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(END_SECONDS)


def wanted() -> bool:
    """Whether the environment asks for traces."""
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not off and any(os.environ.get(name) for name in ENDPOINTS)


def span(
    name: str, attributes: Mapping[str, Any] | None = None
) -> AbstractContextManager[Span | None]:
    """A span around a block of ours. What the block raises is noted by its class."""
    if _tracer is None:
        return _OFF
    return _Noting(_tracer, name, attributes, kind="internal")


def request_span(name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Span | None]:
    """The same for a request that this process answers."""
    return _OFF if _tracer is None else _Noting(_tracer, name, attributes, kind="server")


def task_span(name: str, attributes: Mapping[str, Any]) -> _Noting | None:
    """The same for a task, not yet entered; None where traces are off."""
    return None if _tracer is None else _Noting(_tracer, name, attributes, kind="consumer")


class _Noting(AbstractContextManager["Span"]):
    """A span that is current in its block, and ends with it.

    Errors are their classes: their words may hold anything.
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
    """Say that what it stands for has failed.

    Args:
      error: The name of a class, or the status of an answer; no text of an error.
    """
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR))
    redacted = _redact(error)  # a plugin gives its classes what names it likes
    span.set_attribute(
        "error.type",
        redacted if redacted == error and len(error) <= MAX_CLASS_NAME_CHARS else "other",
    )
