"""Outages of servers that keep running; each outage lasts during its block."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import redis

from support.deployment import Deployment
from support.fleet import send
from support.servers import Server

TERMINATE = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'polling'
    ORDER BY random() LIMIT %s) chosen
"""

NOWHERE = ("127.0.0.1", 1)


# Redis
# --------------------------------------------------------------------------------------------------


@contextmanager
def stalled(server: Server) -> Iterator[None]:
    """Stop the server's process: it accepts connections, and does not answer."""
    pid = server.pid
    send(signal.SIGSTOP, pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def out_of_memory(url: str) -> Iterator[None]:
    """Make Redis refuse every command that needs memory."""
    with _configured(url, "maxmemory", "1", "0"):
        yield


@contextmanager
def too_few_replicas(url: str) -> Iterator[None]:
    """Make Redis refuse all writes, as a master that lost its replicas."""
    with _configured(url, "min-replicas-to-write", "1", "0"):
        yield


@contextmanager
def _configured(url: str, name: str, bad: str, good: str) -> Iterator[None]:
    with redis.Redis.from_url(url) as client:
        client.config_set(name, bad)
        try:
            yield
        finally:
            client.config_set(name, good)


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Make Redis a replica of an unreachable master, as after a failover."""
    with redis.Redis.from_url(url) as client:
        client.replicaof(*NOWHERE)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


# PostgreSQL
# --------------------------------------------------------------------------------------------------


def terminate(deployment: Deployment, most: int = 1_000) -> int:
    """End random sessions of the engine, and return their number."""
    ended: int = deployment.value(TERMINATE, most)
    return ended


@contextmanager
def terminating(deployment: Deployment, seconds: float = 0.5) -> Iterator[list[int]]:
    """End a session of the engine every `seconds` during the block.

    Yields:
      The number of ended sessions, as the only item of a list.
    """
    stop, ended = threading.Event(), [0]

    def work() -> None:
        while not stop.wait(seconds):
            ended[0] += terminate(deployment, 1)

    thread = threading.Thread(target=work, name="terminating")
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join()


@contextmanager
def exhausted(deployment: Deployment) -> Iterator[None]:
    """Take every connection of the server, and end the engine's sessions."""
    taken: list[psycopg.Connection[Any]] = []
    try:
        with psycopg.connect(deployment.database_url, autocommit=True) as own:
            # Repeat this, because the engine opens a new connection as soon as it loses one.
            while _take(deployment, taken) or own.execute(TERMINATE, (1_000,)).fetchone() != (0,):
                pass
            _take(deployment, taken)
        _take(deployment, taken)
        yield
    finally:
        for connection in taken:
            connection.close()


def _take(deployment: Deployment, taken: list[psycopg.Connection[Any]]) -> int:
    before = len(taken)
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(psycopg.connect(deployment.database_url, application_name="others"))
    return len(taken) - before


DISK_FULL = """
CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER disk_full BEFORE INSERT
    OR UPDATE ON user_integration_content FOR EACH STATEMENT EXECUTE FUNCTION disk_full();
"""
DISK_FREE = "DROP TRIGGER disk_full ON user_integration_content; DROP FUNCTION disk_full()"


@contextmanager
def disk_full(deployment: Deployment) -> Iterator[None]:
    """Make writes of content fail with a full disk.

    Other writes succeed, as on a real disk that is nearly full.
    """
    deployment.rows(DISK_FULL)
    try:
        yield
    finally:
        deployment.rows(DISK_FREE)
