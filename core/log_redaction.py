"""A gate for log records: it removes secrets before any handler sees a record.

`install` replaces `logging.Logger.handle`, which every record of every logger passes once, before
the handlers. So it holds for handlers that libraries and plugins add later, for loggers that do not
propagate, and for records with `extra` fields. A filter on handlers would miss the former, and a
factory of records the latter. Sentry's SDK hooks the same class for its breadcrumbs.

Messages that Python itself prints pass the same redaction: warnings, and exceptions that end a
thread or the process, or cannot be raised.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from core.known_secrets import KNOWN, clean

WITHHELD = "(withheld: logged while a renewal of credentials failed; it may hold new credentials)"
UNREADABLE = "(withheld: this record could not be searched for secrets)"

MAX_HELD = 1_000
"""The maximum number of records of one renewal; further ones are dropped."""

_TEXTS = ("exc_text", "stack_info", "name", "threadName", "processName", "taskName")
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""`taskName` is a field since Python 3.12. A library may name an `asyncio` task by a URL."""

_handle = logging.Logger.handle
_held: ContextVar[list[tuple[logging.Logger, logging.LogRecord]] | None] = ContextVar(
    "held", default=None
)


def install() -> None:
    """Redact every log record of this process. Further calls have no effect."""
    if logging.Logger.handle is _gate:
        return
    logging.Logger.handle = _gate  # type: ignore[method-assign]
    threading.excepthook = _of_thread
    sys.excepthook = _of_process
    sys.unraisablehook = _of_finalizer
    warnings.formatwarning = _redacting(warnings.formatwarning)


@contextmanager
def renewing() -> Iterator[None]:
    """Hold the records of this thread back until the block has ended.

    Nothing knows new credentials while a plugin requests them. The block makes them known before it
    ends. If it fails, the texts of the records are withheld.
    """
    held: list[tuple[logging.Logger, logging.LogRecord]] = []
    token = _held.set(held)
    failed = True
    try:
        yield
        failed = False
    finally:
        _held.reset(token)
        for logger, record in held:
            if failed:
                _replace(record, WITHHELD)
            logger.handle(record)


def redact_record(record: logging.LogRecord) -> None:
    """Remove the secrets from a record: its text, arguments, traceback, names and extra fields."""
    try:
        _redact(record)
    except Exception:  # noqa: BLE001  printing a plugin's object may raise anything
        _replace(record, UNREADABLE)


def _gate(self: logging.Logger, record: logging.LogRecord) -> None:
    held = _held.get()
    if held is None:
        if not self.disabled:
            redact_record(record)
        _handle(self, record)
    elif len(held) < MAX_HELD:
        held.append((self, record))


def _redact(record: logging.LogRecord) -> None:
    text, extra = _text_of(record), vars(record).keys() - _STANDARD
    error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
    shown = [text, error, str(record.args or "")]
    shown += [str(getattr(record, name, "") or "") for name in _TEXTS]
    for name in extra:
        shown += [str(getattr(record, name)), repr(getattr(record, name))]
    complete = "\0".join(shown)
    if KNOWN.redact(complete) == complete:
        return  # most records hold no secret
    _redact_text(record, KNOWN.redact(text))
    if error and KNOWN.redact(error) != error:
        # A handler's formatter would print the exception itself.
        record.exc_info, record.exc_text = None, error.rstrip("\n")
    for name in (*_TEXTS, *extra):
        if hasattr(record, name):
            setattr(record, name, clean(getattr(record, name), KNOWN.redact))


def _text_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  `logging` would print the arguments to standard error
        record.msg, record.args = f"{record.msg} {record.args!r}", ()
        return str(record.msg)


def _redact_text(record: logging.LogRecord, text: str) -> None:
    """Redact the template and the arguments; if they do not give `text`, keep only the text."""
    record.msg = clean(record.msg, KNOWN.redact)
    record.args = clean(record.args, KNOWN.redact)  # type: ignore[assignment]
    with suppress(TypeError, ValueError):  # an argument that was a number is now a text
        if record.getMessage() == text:
            return
    record.msg, record.args = text, ()


def _replace(record: logging.LogRecord, text: str) -> None:
    record.msg, record.args = text, ()
    record.exc_info = record.exc_text = record.stack_info = None
    for name in vars(record).keys() - _STANDARD:
        delattr(record, name)


def _of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        _print(f"Exception in thread {name}:", args.exc_value, args.exc_traceback)


def _of_process(_kind: type[BaseException], error: BaseException, trace: Any) -> None:
    _print("", error, trace)


def _of_finalizer(args: Any) -> None:
    _print(f"Exception ignored in: {args.object!r}", args.exc_value, args.exc_traceback)


def _print(heading: str, error: BaseException | None, trace: Any) -> None:
    kind = type(error) if error is not None else None
    text = "".join(traceback.format_exception(kind, error, trace))
    if sys.stderr is not None:
        sys.stderr.write(KNOWN.redact(f"{heading}\n{text}" if heading else text))
        sys.stderr.flush()


def _redacting(show: Callable[..., str]) -> Callable[..., str]:
    def formatwarning(*args: Any, **kwargs: Any) -> str:
        return KNOWN.redact(show(*args, **kwargs))

    return formatwarning
