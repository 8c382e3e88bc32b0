"""Gates: places in the engine where a test makes processes wait, to kill them there.

A gate is an advisory lock in the database of the test. While the test holds the lock, a process
that reaches the gate waits, and `pg_locks` shows it. Otherwise the process passes immediately. The
gates use public extension points, so the engine has no code for them.

* `gates`: the code that a process runs at a gate.
* `gates.plugin`: gates in plugin code and in an observer.
* `gates.broker`: a gate in a Dramatiq middleware, the last one.
* `gates.kill`: gates in triggers, and functions that close gates and kill waiting processes.
"""

from __future__ import annotations

import os
from enum import IntEnum

import psycopg


class Gate(IntEnum):
    """The places where a process can wait; the number is the key of the lock."""

    BEFORE_PLUGIN = 1
    IN_PLUGIN = 2
    BEFORE_COMMIT = 3
    IN_COMMIT = 4
    AFTER_ACK = 5
    IN_CLAIM = 6


def go_through(gate: Gate) -> None:
    """Wait while the gate is closed."""
    with psycopg.connect(
        os.environ["DATABASE_URL"], autocommit=True, application_name="at a gate"
    ) as connection:
        connection.execute("SELECT pg_advisory_lock_shared(%s)", (gate,))
