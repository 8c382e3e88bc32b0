"""Bare Dramatiq: its own Redis broker and default middleware, a no-op actor that sends to a second one; no database at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.engine import PROCESSES, THREADS

CHAINS = 10_000
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


def chains_per_second(redis_url: str) -> float:
    """Fill the queue, start the workers, and time the drain between a tenth and the end, so that start-up does not count."""
    local = RedisBroker(url=redis_url, namespace=NAMESPACE)
    for queue in ("first", "second"):
        local.declare_queue(queue)
    for number in range(CHAINS):
        local.enqueue(first.message(number))
    arguments = [sys.executable, "-m", "dramatiq", "benchmarks.peers.bare", "-p", str(PROCESSES), "-t", str(THREADS)]
    environment = os.environ | {"REDIS_URL": redis_url, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    program = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return _drain(local)
    finally:
        program.terminate()
        program.wait()
        local.flush_all()


def _drain(local: RedisBroker) -> float:
    """What is left of both queues, in chains: a message of the second one is half of one."""

    def left() -> float:
        firsts, seconds = (local.client.hlen(f"{NAMESPACE}:{queue}.msgs") for queue in ("first", "second"))
        return firsts + seconds / 2

    while left() > CHAINS * 0.9:
        time.sleep(0.005)
    begun, chains = time.perf_counter(), left()
    while left():
        time.sleep(0.005)
    return chains / (time.perf_counter() - begun)
