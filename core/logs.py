"""Logging of our own processes. Dramatiq sets up the handlers of its workers; this sets the levels."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

QUIET = ("dramatiq.worker.WorkerThread", "dramatiq.worker.ConsumerThread", "dramatiq.broker", "psycopg.pool", "alembic")
"""Loggers that speak of every message with its payload, or of what the engine reports itself."""


def configure(level: str) -> None:
    """Set the level of our loggers, and silence those that repeat us."""
    logging.basicConfig(level=level, format=FORMAT)
    logging.getLogger("core").setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
