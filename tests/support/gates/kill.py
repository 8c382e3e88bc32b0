"""The test's side of gates: close them, and hold the writes of a process to Valkey."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from support.fleet import Fleet, send
from support.gates import Gate

MAX_PAUSE_MS = 120_000

# A trigger waits inside the statement. If the client is killed in the meantime, its transaction is
# rolled back. A deferred trigger waits inside the commit, which succeeds without a client.
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
    """A closed gate. It stays open after `open`, or after the block."""

    gate: Gate
    fleet: Fleet
    _lock: psycopg.Connection[tuple[object, ...]]

    def reached(self, by: int = 1) -> None:
        """Wait until `by` processes wait at the gate."""
        deployment = self.fleet.deployment
        self.fleet.until(
            lambda: deployment.value(WAITING, self.gate) >= by,
            f"{by} processes wait at {self.gate.name}",
            40.0,
        )

    def open(self) -> None:
        """Open the gate, so that waiting processes continue."""
        self._lock.execute("SELECT pg_advisory_unlock_all()")


@contextmanager
def closed(fleet: Fleet, gate: Gate) -> Iterator[Closed]:
    """Close a gate during the block."""
    with psycopg.connect(fleet.deployment.database_url, autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(%s)", (gate,))
        yield Closed(gate, fleet, lock)


@contextmanager
def writes_held(fleet: Fleet) -> Iterator[None]:
    """Pause all write commands in Valkey during the block.

    If a client is killed in the meantime, its command is dropped.
    """
    client = fleet.deployment.queues.client
    client.execute_command("CLIENT", "PAUSE", MAX_PAUSE_MS, "WRITE")
    try:
        yield
    finally:
        client.execute_command("CLIENT", "UNPAUSE")


def writing(fleet: Fleet, command: str) -> bool:
    """Return True if a client waits for Valkey to execute this command."""
    clients = fleet.deployment.queues.client.client_list()
    return any(client["cmd"] == command and "b" in client["flags"] for client in clients)


def kill_the_writer(fleet: Fleet, pid: int, command: str) -> None:
    """Kill the process that waits for this command, and wait until Valkey has dropped it."""
    send(signal.SIGKILL, pid)
    fleet.until(lambda: not writing(fleet, command), f"Valkey drops the {command}")


def nobody_at_gates(fleet: Fleet) -> None:
    """Wait until PostgreSQL has ended the sessions of the processes killed at a gate."""
    fleet.until(
        lambda: not fleet.deployment.value(AT_GATES), "all sessions at the gates have ended"
    )
