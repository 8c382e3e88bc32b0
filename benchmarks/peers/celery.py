"""Celery on the same Valkey: the same tree, of tasks that do nothing and keep nothing.

Tuned as its documentation advises for many short tasks
(https://docs.celeryq.dev/en/stable/userguide/optimizing.html): a prefetch multiplier of 128, and no
results; and without what nobody here looks at: events, gossip, mingling, heartbeats. A page sends
its items by one connection. Acknowledgement is late, so that a task whose worker is killed comes
back, as ours does. Two worker nodes of eight threads each; prefork did about as much with two
children a node, and less with eight.

Its durability is that of Valkey alone (append-only file, synced each second): there is no database,
the effects of a task and its follow-ups are not committed together, and a tree that lost a message
never ends.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack

import redis
from celery import Celery

from benchmarks.engine import PROCESSES, THREADS, Testbed
from benchmarks.noop import ITEMS
from benchmarks.processes import program, wait_until

POOL = os.environ.get("CELERY_POOL", "threads")
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR")

app = Celery("bench", broker=os.environ.get("PEER_URL", "memory://"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="page")
def page(number: int, pages: int) -> None:
    """A page of items, by one connection, and the next one ahead of them."""
    with app.producer_or_acquire() as producer:
        if number + 1 < pages:
            page.apply_async((number + 1, pages), producer=producer)
        for index in range(ITEMS):
            item.apply_async((number * ITEMS + index,), producer=producer)


@app.task(name="item")
def item(number: int) -> None:
    """Does nothing."""


def tasks_per_second(bed: Testbed, pages: int) -> float:
    """Start the workers, then the tree; return its duration.

    It lasts from the first message until no message is queued or unacknowledged.
    """
    url = bed.urls.redis_url.replace("unix://", "redis+socket://")
    app.conf.broker_url = url
    log = bed.home / "celery.log"
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        __name__,
        "worker",
        f"--pool={POOL}",
        f"--concurrency={THREADS}",
        *QUIET,
    ]
    with redis.Redis.from_url(bed.urls.redis_url) as client, ExitStack() as stack:
        for number in range(PROCESSES):
            stack.enter_context(
                program([*command, f"--hostname=bench{number}@%h"], {"PEER_URL": url}, log)
            )
        wait_until(
            lambda: len(app.control.ping(timeout=1.0, limit=PROCESSES)) == PROCESSES,
            f"see {log}: no workers",
        )
        begun = time.perf_counter()
        page.delay(0, pages)
        return pages * (ITEMS + 1) / (_ended(client, pages) - begun)


def _ended(client: redis.Redis, pages: int) -> float:
    """When all was done.

    A message is in neither place for a moment while it is fetched, so the workers are asked too.
    """
    while True:
        queued, held = client.llen("celery"), client.hlen("unacked")
        now = time.perf_counter()
        if not queued and not held and _accepted() == pages * (ITEMS + 1):
            return now
        time.sleep(0.01)


def _accepted() -> int:
    stats = app.control.inspect(timeout=1.0, limit=PROCESSES).stats() or {}
    return sum(sum(one["total"].values()) for one in stats.values())
