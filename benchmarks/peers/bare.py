"""Bare Dramatiq without a database: its Redis broker and default middleware.

A no-op actor sends to a second one.
"""

from __future__ import annotations

import os
import sys
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.engine import PROCESSES, THREADS, Testbed
from benchmarks.processes import program

NAMESPACE = "bare"

broker = RedisBroker(url=os.environ.get("REDIS_URL", "redis://"), namespace=NAMESPACE)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="second")
def second(number: int) -> None:
    """Does nothing."""


@dramatiq.actor(queue_name="first")
def first(number: int) -> None:
    """Sends to the second."""
    second.send(number)


def chains_per_second(bed: Testbed, chains: int) -> float:
    """Fill the queue, start the workers, and time the drain.

    Timing starts at a tenth of the messages, so that start-up does not count.
    """
    local = RedisBroker(url=bed.urls.redis_url, namespace=NAMESPACE)
    for queue in ("first", "second"):
        local.declare_queue(queue)
    for number in range(chains):
        local.enqueue(first.message(number))
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
    try:
        with program(arguments, {"REDIS_URL": bed.urls.redis_url}, bed.home / "bare.log"):
            return _drain(local, chains)
    finally:
        local.flush_all()


def _drain(local: RedisBroker, chains: int) -> float:
    """What is left of both queues, in chains: a message of the second one is half of one."""

    def left() -> float:
        firsts, seconds = (
            local.client.hlen(f"{NAMESPACE}:{queue}.msgs") for queue in ("first", "second")
        )
        return firsts + seconds / 2

    while left() > chains * 0.9:
        time.sleep(0.005)
    begun, rest = time.perf_counter(), left()
    while left():
        time.sleep(0.005)
    return rest / (time.perf_counter() - begun)
