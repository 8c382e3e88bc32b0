"""Logging of our own processes: text for people, and JSON lines where output is not a terminal.

JSON lines name account, run and task.

Dramatiq sets up the handlers of its workers; this sets the levels and the form.
"""

from __future__ import annotations

import logging
import os
from typing import Literal

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

Form = Literal["auto", "text", "json"]

QUIET = (
    "dramatiq.worker.WorkerThread",
    "dramatiq.worker.ConsumerThread",
    "dramatiq.broker",
    "psycopg.pool",
    "alembic",
)
"""Loggers that speak of every message with its payload, or of what the engine reports itself."""

NAMES = ("domain", "account", "run", "task")
"""What a line says of the task it is about."""


def place(error: BaseException) -> str:
    """The class of an error and where it was raised, without its text, which may hold anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return f"{type(error).__name__} in an unknown place"
    return f"{type(error).__name__} in {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def configure(level: str, form: Form = "text") -> None:
    """Set the level of our loggers, and silence those that repeat us.

    Args:
      form: `text`, `json`, or `auto`: JSON where standard error is no terminal.
    """
    logging.basicConfig(level=level, format=FORMAT)
    root = logging.getLogger()
    if root.level == logging.CRITICAL and level != "CRITICAL":
        # A command began in silence and goes on as a service: what libraries warn of is heard now,
        # their chatter is not.
        root.setLevel(logging.WARNING)
    logging.getLogger("core").setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    # The file itself is asked: in a worker of Dramatiq's, `sys.stderr` is a pipe to its master.
    if form == "json" or (form == "auto" and not os.isatty(2)):
        formatter = _json()
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)


def _json() -> logging.Formatter:
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ExtraAdder(allow=NAMES),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
