"""Gates: places in the engine at which a test makes processes wait, to kill them right there.

A gate is an advisory lock in the database of the test. While the test holds it, whoever comes to
the gate waits, and `pg_locks` shows that somebody does; otherwise they go through at once. The
engine knows nothing of gates: they stand at its public seams.

    gates    what a process does at one, wherever it stands
    plugin   in plugin code, and in an observer
    broker   in a middleware of Dramatiq's, the last one
    kill     in triggers; closing gates, and killing who waits
"""

from __future__ import annotations

import os
from enum import IntEnum

import psycopg


class Gate(IntEnum):
    """Where a process waits; the number is the key of the lock."""

    BEFORE_PLUGIN = 1
    IN_PLUGIN = 2
    BEFORE_COMMIT = 3
    IN_COMMIT = 4
    AFTER_ACK = 5
    IN_CLAIM = 6


def go_through(gate: Gate) -> None:
    """Wait here as long as the gate is closed."""
    with psycopg.connect(
        os.environ["DATABASE_URL"], autocommit=True, application_name="at a gate"
    ) as connection:
        connection.execute("SELECT pg_advisory_lock_shared(%s)", (gate,))
