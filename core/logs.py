"""Configure logging: text on a terminal, otherwise JSON lines.

JSON lines name the domain, account, run and task. Dramatiq installs the handlers of its workers;
this module sets levels and format.
"""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar
from typing import Any, Literal

from core.log_redaction import install

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

Form = Literal["auto", "text", "json"]

QUIET = (
    "dramatiq.worker.WorkerThread",
    "dramatiq.worker.ConsumerThread",
    "dramatiq.broker",
    "psycopg.pool",
    "alembic",
)
"""Loggers that repeat the engine's own reports, or log every message with its payload."""

NAMES = ("domain", "account", "run", "task")
"""The fields of a JSON line that identify its task."""

HTTP_LIBRARIES = (
    *("aiohttp", "botocore", "google", "google_auth_httplib2", "googleapiclient", "hpack"),
    *("httpcore", "httpcore2", "httplib2", "httpx", "httpx2", "requests", "requests_oauthlib"),
    *("slack", "slack_sdk", "urllib3", "websockets"),
)
"""Loggers of libraries that log addresses, headers or bodies of requests: warnings only."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The name of the HTTP request that this context handles."""

_library_levels: dict[str, int] = {}


def place(error: BaseException) -> str:
    """Return the class of an error and where it was raised.

    The error's text is left out, because it may contain secrets or content.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return f"{type(error).__name__} in an unknown place"
    return f"{type(error).__name__} in {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def configure(level: str, form: Form = "text") -> None:
    """Set the level of the engine's loggers and the format, silence `QUIET` loggers, and redact.

    HTTP libraries log warnings only, unless their level was set before.

    Args:
      level: The level of the engine's loggers.
      form: `text`, `json`, or `auto`: JSON unless standard error is a terminal.
    """
    install()
    lines = logging.StreamHandler()
    lines.setFormatter(_Text(FORMAT))
    logging.basicConfig(level=level, handlers=[lines])
    root = logging.getLogger()
    if root.level == logging.CRITICAL and level != "CRITICAL":
        # The process was a silent command and becomes a service: show the warnings of libraries.
        root.setLevel(logging.WARNING)
    logging.getLogger("core").setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    _quieten_libraries(logging.CRITICAL if level == "CRITICAL" else logging.WARNING)
    # Test the descriptor: in a Dramatiq worker, `sys.stderr` is a pipe to the master process.
    if form == "json" or (form == "auto" and not os.isatty(2)):
        formatter = _json()
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)


class _Text(logging.Formatter):
    """The format of lines of text. A line about an HTTP request names it at its end."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        line, request = super().formatMessage(record), request_id.get()
        return line if request is None else f"{line} [request {request}]"


def _quieten_libraries(level: int) -> None:
    """Set the level of HTTP libraries, unless someone else has set it."""
    for name in HTTP_LIBRARIES:
        library = logging.getLogger(name)
        if library.level in (logging.NOTSET, _library_levels.get(name)):
            library.setLevel(level)
            _library_levels[name] = level


def _json() -> logging.Formatter:
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ExtraAdder(allow=NAMES),
            _with_request,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            _redacted_traceback,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
    )


def _with_request(_logger: Any, _method: str, event: Any) -> Any:
    """Add the name of the HTTP request."""
    if (request := request_id.get()) is not None:
        event["request_id"] = request
    return event


def _redacted_traceback(_logger: Any, _method: str, event: Any) -> Any:
    """Add the traceback of a record whose exception held a secret; see `core.log_redaction`."""
    record = event["_record"]
    if record.exc_text and not record.exc_info:
        event["exception"] = record.exc_text
    return event
