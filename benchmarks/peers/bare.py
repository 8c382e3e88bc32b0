"""Bare Dramatiq without a database: its Redis broker and default middleware.

A no-op actor sends to a second no-op actor.
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
    """Do nothing."""


@dramatiq.actor(queue_name="first")
def first(number: int) -> None:
    """Send a message to the second actor."""
    second.send(number)


def chains_per_second(bed: Testbed, chains: int) -> float:
    """Fill the queue, start the workers, and measure how fast they empty it.

    The measurement starts after a tenth of the messages, so that start-up does not count.
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
    """Wait until both queues are empty, and return the chains/s of the last nine tenths."""

    def left() -> float:
        # A message to the second actor is half of a chain.
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
