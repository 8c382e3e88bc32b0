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
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from procrastinate import App, PsycopgConnector

from benchmarks.engine import PROCESSES, THREADS, Testbed
from benchmarks.noop import ITEMS
from benchmarks.processes import program, wait_until
from benchmarks.usage import Usage

app = App(connector=PsycopgConnector(conninfo=os.environ.get("PEER_URL", ""), max_size=THREADS + 2))

# A page defers the next page before it ends, so no open job means that the tree is complete.
OPEN = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
TIMES = (
    "SELECT count(DISTINCT job_id), extract(epoch FROM max(at) - min(at)) FROM procrastinate_events"
)
FAILED = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"

# Ended jobs of the last week, with the events that they leave.
ENDED = """
WITH job AS (
    INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, scheduled_at, attempts)
    SELECT 'default', 'item', '{"number": 0}', 'succeeded',
        now() - interval '7 days' * (1 - n::float / %(jobs)s), 1
    FROM generate_series(1, %(jobs)s::int) n RETURNING id, scheduled_at
)
INSERT INTO procrastinate_events (job_id, type, at)
SELECT id, type, scheduled_at
FROM job, unnest(ARRAY['deferred', 'started', 'succeeded']::procrastinate_job_event_type[]) type
"""
DUE = """
INSERT INTO procrastinate_jobs (queue_name, task_name, args, scheduled_at)
SELECT 'default', 'item', '{"number": 0}',
    %(begin)s::timestamptz + (n * 7919 %% %(jobs)s) * %(span)s::float / %(jobs)s
        * interval '1 second'
FROM generate_series(0, %(jobs)s::bigint - 1) n
"""
DUE_LEFT = """
SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE id > %s AND status IN ('todo', 'doing'))
"""
DUE_SECONDS = """
SELECT count(*), extract(epoch FROM max(at) - %(begin)s)::float FROM procrastinate_events
WHERE job_id > %(ended)s AND type = 'succeeded'
"""


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
    log = bed.home / "procrastinate.log"
    with psycopg.connect(url, autocommit=True) as conn:
        _apply_schema(url)
        with _workers(conn, url, log):
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


def due_jobs(bed: Testbed, jobs: int, span: float, ended: int) -> dict[str, float]:
    """Run jobs that are due evenly over some seconds, in a database with ended jobs.

    Returns:
      The jobs/s, the seconds from the first due time to the last end, and the costs of a job.
    """
    url = bed.database("procrastinate")
    log = bed.home / "procrastinate.log"
    with psycopg.connect(url, autocommit=True) as conn:
        _apply_schema(url)
        conn.execute("SET session_replication_role = replica")  # without triggers
        conn.execute(ENDED, {"jobs": ended})
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
        conn.execute("SET session_replication_role = origin")
        begin = datetime.now(UTC) + timedelta(seconds=10 + jobs / 3_000)
        conn.execute(DUE, {"begin": begin, "jobs": jobs, "span": span})
        with _workers(conn, url, log) as workers:
            usage = Usage(conn, bed.home, workers)
            left = (begin - datetime.now(UTC)).total_seconds()
            if left < 0:
                raise TimeoutError("the jobs were not inserted before they were due")
            time.sleep(left + span)
            wait_until(
                lambda: not _figure(conn, DUE_LEFT, (ended,)),
                f"see {log}: the jobs did not end",
                seconds=4 * span + 300,
                pause=1.0,
            )
            costs = usage.of(jobs)
        done, seconds = conn.execute(DUE_SECONDS, {"begin": begin, "ended": ended}).fetchone() or ()
        assert done == jobs
        return {"seconds": round(seconds, 1), "jobs/s": round(jobs / seconds, 1), **costs}


@contextmanager
def _workers(conn: psycopg.Connection[tuple[int, ...]], url: str, log: Path) -> Iterator[list[int]]:
    """Run the workers; yield their process ids when they are ready."""
    worker = [
        *(sys.executable, "-m", "procrastinate", "--log-level=warning", f"--app={__name__}.app"),
        *("worker", f"--concurrency={THREADS}"),
    ]
    with ExitStack() as stack:
        pids = [
            stack.enter_context(program(worker, {"PEER_URL": url}, log)) for _ in range(PROCESSES)
        ]
        wait_until(
            lambda: _figure(conn, "SELECT count(*) FROM procrastinate_workers") >= PROCESSES,
            f"see {log}: no workers",
        )
        yield pids


def _apply_schema(url: str) -> None:
    with app.replace_connector(PsycopgConnector(conninfo=url)) as replaced, replaced.open():
        replaced.schema_manager.apply_schema()


def _figure(
    conn: psycopg.Connection[tuple[int, ...]], statement: str, values: Sequence[int] = ()
) -> int:
    row = conn.execute(statement, values).fetchone()
    return row[0] if row else 0
