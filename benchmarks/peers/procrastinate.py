"""Procrastinate on the same PostgreSQL: the same tree, of tasks that do nothing and store nothing.

Procrastinate is tuned as its documentation advises (https://procrastinate.readthedocs.io):

* Tasks are coroutines, and each worker runs several concurrently ("Execute multiple jobs at the
  same time"): eight, as many as the engine has threads. 16 and 30 were not faster.
* One statement defers the items of a page ("Batch defer").
* The asynchronous psycopg connector has one connection for each coroutine and two more.
* NOTIFY announces jobs, the default.
* Only warnings are logged.
* There are two processes with one worker each.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import psycopg
from procrastinate import App, PsycopgConnector

from benchmarks.engine import PROCESSES, THREADS, Testbed
from benchmarks.noop import ITEMS
from benchmarks.processes import program, wait_until

app = App(connector=PsycopgConnector(conninfo=os.environ.get("PEER_URL", ""), max_size=THREADS + 2))

# A page defers the next page before it ends, so no open job means that the tree is complete.
OPEN = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
TIMES = (
    "SELECT count(DISTINCT job_id), extract(epoch FROM max(at) - min(at)) FROM procrastinate_events"
)
FAILED = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"


@app.task(name="page")
async def page(number: int, pages: int) -> None:
    """Defer the next page, and then a page of items."""
    if number + 1 < pages:
        await page.configure(priority=1).defer_async(number=number + 1, pages=pages)
    await item.batch_defer_async(*({"number": number * ITEMS + index} for index in range(ITEMS)))


@app.task(name="item")
async def item(number: int) -> None:
    """Do nothing."""


def tasks_per_second(bed: Testbed, pages: int) -> float:
    """Start the workers, then the tree; return the tasks/s.

    The tree lasts from its first event to its last, by the database's clock.
    """
    url = bed.database("procrastinate")
    command = [
        sys.executable,
        "-m",
        "procrastinate",
        "--log-level=warning",
        f"--app={__name__}.app",
    ]
    worker = [*command, "worker", f"--concurrency={THREADS}"]
    log = bed.home / "procrastinate.log"
    with psycopg.connect(url, autocommit=True) as conn, ExitStack() as stack:
        _apply_schema(url)
        for _ in range(PROCESSES):
            stack.enter_context(program(worker, {"PEER_URL": url}, log))
        wait_until(
            lambda: _figure(conn, "SELECT count(*) FROM procrastinate_workers") >= PROCESSES,
            f"see {log}: no workers",
        )
        with app.replace_connector(PsycopgConnector(conninfo=url)), app.open():
            page.defer(number=0, pages=pages)
        wait_until(
            lambda: not _figure(conn, OPEN),
            f"see {log}: the tree did not end",
            seconds=600,
            pause=0.1,
        )
        row = conn.execute(TIMES).fetchone()
        assert row is not None
        assert not _figure(conn, FAILED)
        assert row[0] == pages * (ITEMS + 1)
        return float(row[0] / row[1])


def _apply_schema(url: str) -> None:
    with app.replace_connector(PsycopgConnector(conninfo=url)) as replaced, replaced.open():
        replaced.schema_manager.apply_schema()


def _figure(conn: psycopg.Connection[tuple[int, ...]], statement: str) -> int:
    row = conn.execute(statement).fetchone()
    return row[0] if row else 0
