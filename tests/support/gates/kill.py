"""Closing gates, and holding what a process writes to Valkey: the side of the test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from support.fleet import Fleet, send
from support.gates import Gate

LONGEST_PAUSE_MS = 120_000

# A trigger waits inside the statement, so a client that is killed meanwhile takes its transaction
# along. A deferred one waits inside the commit, which goes through although nobody hears of it.
TRIGGERS = f"""
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint); RETURN NULL; END $$;
CREATE TRIGGER before_commit AFTER UPDATE ON sync_task FOR EACH ROW
    WHEN (NEW.state = 'done' AND OLD.state = 'queued'
        AND NEW.type <> 'start') EXECUTE FUNCTION gate({Gate.BEFORE_COMMIT});
CREATE CONSTRAINT TRIGGER in_commit AFTER UPDATE ON sync_task DEFERRABLE INITIALLY DEFERRED FOR EACH
    ROW
    WHEN (NEW.state = 'done' AND OLD.state = 'queued'
        AND NEW.type <> 'start') EXECUTE FUNCTION gate({Gate.IN_COMMIT});
CREATE TRIGGER in_claim AFTER UPDATE ON sync_task FOR EACH ROW
    WHEN (NEW.state = 'queued' AND OLD.state = 'ready') EXECUTE FUNCTION gate({Gate.IN_CLAIM});
"""
WAITING = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 0
    AND objid = %s AND objsubid = 1
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
AT_GATES = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass
class Closed:
    """A closed gate; it opens for good with `open`, or at the end."""

    gate: Gate
    fleet: Fleet
    _lock: psycopg.Connection[tuple[object, ...]]

    def reached(self, by: int = 1) -> None:
        """Wait until so many wait at it."""
        deployment = self.fleet.deployment
        self.fleet.until(
            lambda: deployment.value(WAITING, self.gate) >= by,
            f"{by} come to {self.gate.name}",
            40.0,
        )

    def open(self) -> None:
        """Let those who wait go on."""
        self._lock.execute("SELECT pg_advisory_unlock_all()")


@contextmanager
def closed(fleet: Fleet, gate: Gate) -> Iterator[Closed]:
    """Close a gate."""
    with psycopg.connect(fleet.deployment.database_url, autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(%s)", (gate,))
        yield Closed(gate, fleet, lock)


@contextmanager
def writes_held(fleet: Fleet) -> Iterator[None]:
    """Valkey answers no command that writes.

    A client that is killed meanwhile takes its command along.
    """
    client = fleet.deployment.queues.client
    client.execute_command("CLIENT", "PAUSE", LONGEST_PAUSE_MS, "WRITE")
    try:
        yield
    finally:
        client.execute_command("CLIENT", "UNPAUSE")


def writing(fleet: Fleet, command: str) -> bool:
    """Whether somebody waits for Valkey to do this command."""
    clients = fleet.deployment.queues.client.client_list()
    return any(client["cmd"] == command and "b" in client["flags"] for client in clients)


def kill_the_writer(fleet: Fleet, pid: int, command: str) -> None:
    """Kill who waits for this command, and wait until Valkey has dropped it."""
    send(signal.SIGKILL, pid)
    fleet.until(lambda: not writing(fleet, command), f"Valkey drops the {command}")


def nobody_at_gates(fleet: Fleet) -> None:
    """Wait until PostgreSQL is done with those who were killed at a gate."""
    fleet.until(lambda: not fleet.deployment.value(AT_GATES), "all have left the gates")
