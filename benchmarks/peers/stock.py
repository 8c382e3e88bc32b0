"""Bare Dramatiq with its defaults, on an idle system.

An actor sends to a second actor, which inserts a row. Dramatiq's consumer polls Redis. Each time it
finds no message, it sleeps longer, up to a second.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq
import psycopg
from dramatiq.brokers.redis import RedisBroker

from benchmarks.engine import PROCESSES, THREADS, Testbed
from benchmarks.processes import program, wait_until

broker = RedisBroker(url=os.environ.get("REDIS_URL", "redis://"), namespace="stock")
dramatiq.set_broker(broker)
local = threading.local()


@dramatiq.actor(queue_name="first")
def first(number: int) -> None:
    """Send a message to the second actor."""
    second.send(number)


@dramatiq.actor(queue_name="second")
def second(number: int) -> None:
    """Insert the row, over a connection that the thread keeps open."""
    if not hasattr(local, "conn"):
        local.conn = psycopg.connect(os.environ["PEER_URL"], autocommit=True)
    local.conn.execute("INSERT INTO arrived VALUES (%s)", (number,))


class Stock:
    """A client that sends one message at a time and checks for its row."""

    def __init__(self, broker: RedisBroker, conn: psycopg.Connection[tuple[bool]]) -> None:
        self._broker, self._conn, self._number = broker, conn, 0

    def trigger(self) -> None:
        self._number += 1
        self._broker.enqueue(first.message(self._number))

    def arrived(self) -> bool:
        row = self._conn.execute(
            "SELECT EXISTS (SELECT FROM arrived WHERE number = %s)", (self._number,)
        ).fetchone()
        return row is not None and row[0]


@contextmanager
def workers(bed: Testbed) -> Iterator[Stock]:
    """Run as many processes and threads as the engine; yield when they process messages."""
    url = bed.database("stock")
    sender = RedisBroker(url=bed.urls.redis_url, namespace="stock")
    sender.declare_queue("first")
    arguments = [
        sys.executable,
        "-m",
        "dramatiq",
        __name__,
        "-p",
        str(PROCESSES),
        "-t",
        str(THREADS),
    ]
    environment = {"REDIS_URL": bed.urls.redis_url, "PEER_URL": url}
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE TABLE arrived (number int PRIMARY KEY)")
        with program(arguments, environment, bed.home / "stock.log"):
            peer = Stock(sender, conn)
            peer.trigger()
            wait_until(peer.arrived, f"see {bed.home / 'stock.log'}: no workers")
            yield peer
    sender.close()
