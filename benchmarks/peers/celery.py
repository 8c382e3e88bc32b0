"""Celery on the same Valkey: the same tree, of tasks that do nothing and store nothing.

Celery is tuned as its documentation advises for many short tasks
(https://docs.celeryq.dev/en/stable/userguide/optimizing.html): a prefetch multiplier of 128, and no
results. Events, gossip, mingling and heartbeats are off, because the benchmark does not use them. A
page sends its items over one connection. Acknowledgement is late, so that the task of a killed
worker is redelivered, as in the engine. There are two worker nodes of eight threads each. With two
children for each node, prefork was about as fast; with eight, it was slower.

The only durability is Valkey's (append-only file, synced each second). It has no database, and the
effects of a task and its follow-ups are not committed together. A tree that lost a message
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
    """Send the next page, and then a page of items, over one connection."""
    with app.producer_or_acquire() as producer:
        if number + 1 < pages:
            page.apply_async((number + 1, pages), producer=producer)
        for index in range(ITEMS):
            item.apply_async((number * ITEMS + index,), producer=producer)


@app.task(name="item")
def item(number: int) -> None:
    """Do nothing."""


def tasks_per_second(bed: Testbed, pages: int) -> float:
    """Start the workers, then the tree; return the tasks/s.

    The tree lasts from the first message until no message is queued or unacknowledged.
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
    """Wait until all tasks are done, and return the time.

    While it is fetched, a message is in neither place for a moment. Therefore the number of tasks
    that the workers accepted must match too.
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
