"""Report errors to Sentry if SENTRY_DSN is set.

https://docs.sentry.io/platforms/python/configuration/options/

The client runs without its integrations, which would send bodies, request addresses and the values
of variables. A task's error is reported when the task is parked or its account stops, with the text
that the ledger stores. An error that is followed by a retry is not reported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from core.egress import any_host
from core.known_secrets import KNOWN, clean

if TYPE_CHECKING:
    from sentry_sdk.transport import HttpTransport

log = logging.getLogger(__name__)

OURS = ("core", "dramatiq", "periodiq", "uvicorn")
"""Loggers whose errors are reported.

Loggers of plugins are not, and neither is `ctx.log`: their texts may contain people's data.
"""

PLUGINS_WORDS = "core.task"
"""The logger of `ctx.log`."""

MAX_MESSAGE_CHARS = 1_000
"""The maximum length of a reported log message."""

END_SECONDS = 3.0
"""Seconds to wait for unsent reports at the end."""

Redactor = Callable[[str], str]
"""A function that replaces the secrets in a text."""

_on = False


def start(part: str) -> None:
    """Start to report errors, if `SENTRY_DSN` is set."""
    global _on
    if _on or not os.environ.get("SENTRY_DSN"):
        return
    try:
        import sentry_sdk
    except ImportError:
        log.warning(
            "SENTRY_DSN is set, but Sentry's package is not installed; run in a clone of the"
            " repository: pip install -e '.[sentry]'"
        )
        return
    sentry_sdk.init(
        release=os.environ.get("SENTRY_RELEASE")
        or f"integration-polling@{version('integration-polling')}",
        transport=_transport(),
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_client_reports=False,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        traces_sample_rate=None,
        before_send=_redacted,
        before_send_transaction=_redacted,
        before_send_log=_redacted,
        before_send_metric=_redacted,
        before_breadcrumb=_redacted,
    )
    sentry_sdk.get_global_scope().set_tag("process", part)
    logging.getLogger().addHandler(_Handler(logging.ERROR))
    _on = True


def _transport() -> type[HttpTransport]:
    """Return a transport that may reach Sentry in a private network; see `core.egress`."""
    from sentry_sdk.transport import HttpTransport

    class Transport(HttpTransport):
        def _request(self, *args: Any, **kwargs: Any) -> Any:
            with any_host():
                return super()._request(*args, **kwargs)

    return Transport


def stop() -> None:
    """Send the remaining reports and stop reporting."""
    global _on
    if not _on:
        return
    import sentry_sdk

    sentry_sdk.flush(END_SECONDS)
    for handler in [
        handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler)
    ]:
        logging.getLogger().removeHandler(handler)
    sentry_sdk.get_client().close(END_SECONDS)
    _on = False


def report_task(
    error: BaseException | None,
    text: str,
    tags: Mapping[str, str],
    redact: Redactor = str,
    level: str = "error",
) -> None:
    """Report a task that needs a person.

    Args:
      error: The exception, for its stack; its text is not sent. None: the task has no exception.
      text: The error text that the ledger stores.
      tags: The labels that identify the task; `domain` and `type` are required.
      redact: Redacts the account's secrets. Default: no change.
      level: Sentry's level. Default: `error`.
    """
    if not _on:
        return
    try:
        name = type(error).__name__ if error is not None else "TaskParked"
        event: dict[str, Any] = {"level": level, "logger": PLUGINS_WORDS, "tags": dict(tags)}
        event["fingerprint"] = [tags["domain"], tags["type"], name]
        event["exception"] = (
            {"values": _stacks(error)} if error is not None else {"values": [{"type": name}]}
        )
        event["exception"]["values"][-1]["value"] = text.partition(": ")[2] or text
        _capture(clean(event, redact))
    except Exception:
        log.warning("could not report a task's error", exc_info=True)


def _stacks(error: BaseException) -> list[dict[str, Any]]:
    """Return the exceptions of a chain with their stacks, without their messages.

    A stack consists of files, functions and lines of code.
    """
    from sentry_sdk import get_client
    from sentry_sdk.utils import event_from_exception

    event: Any = event_from_exception(error, client_options=get_client().options)[0]
    values: list[dict[str, Any]] = [dict(value) for value in event["exception"]["values"]]
    for value in values:
        value["value"] = ""
        value.pop("mechanism", None)
    return values


def _capture(event: Any) -> None:
    import sentry_sdk

    sentry_sdk.capture_event(event)


def _redacted(event: Any, hint: Any) -> Any:
    """Redact every known secret in an event. Return None if that fails; it is then not sent.

    Attachments are not sent: they are bytes in a format of their author.
    """
    try:
        hint.pop("attachments", None)
        return clean(event, KNOWN.redact)
    except Exception:  # noqa: BLE001  an event that is not redacted must not be sent
        return None


class _Handler(logging.Handler):
    """Report the errors that the engine's processes log."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] not in OURS or record.name == PLUGINS_WORDS:
            return
        try:
            level = "fatal" if record.levelno >= logging.CRITICAL else "error"
            event: dict[str, Any] = {"level": level, "logger": record.name}
            event["message"] = record.getMessage()[:MAX_MESSAGE_CHARS]
            error = record.exc_info[1] if record.exc_info else None
            if error is not None:
                event["exception"] = {"values": _stacks(error)}
            _capture(event)
        except Exception:  # noqa: BLE001  a logging handler must neither fail nor log
            self.handleError(record)
