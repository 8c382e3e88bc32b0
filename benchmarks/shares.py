"""A user's syncs beside another user who does the worst that a token allows.

The attacker has accounts of two domains, which the same threads serve: accounts whose tasks take
minutes, accounts with long listings, and accounts with many short runs. Whenever one of the runs
ends, the attacker requests the next one. Quick and slow tasks alternate, so that the engine learns
about the slow ones again and again. Another user syncs an account, again and again, beside the
attacker and without it.

Two more measurements belong to it. A user alone runs tasks of half a second: the figure is the part
of the threads that worked. Then 200,000 accounts of another domain have a task that waits for
later, and the same sync is measured again.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from benchmarks.engine import PROCESSES, THREADS, Engine, Testbed
from benchmarks.report import Budget, Options, Report
from core.db.pool import Conn, open_connection
from core.ledger import scheduling

DOMAINS = ("slow", "slower")
SYNCS, WAITING = 60, 200_000
PORTION = 20_000
ALONE_SECONDS = 0.5
"""The accounts that one statement inserts, and the seconds of each task of the user alone."""

HELD_SECONDS, MINUTES = 5.0, 120.0
"""The seconds of some slow tasks of the attacker, and of the others, which outlast the benchmark.

The first kind ends soon enough for its places to be divided again and again.
"""

KINDS = (
    {"pages": 1, "items": 40, "page_seconds": 0.0, "item_seconds": MINUTES},
    {"pages": 1, "items": 40, "page_seconds": 0.0, "item_seconds": HELD_SECONDS},
    {"pages": 1, "items": 40, "page_seconds": 0.0, "item_seconds": 0.2},
    {"pages": 40, "items": 100, "page_seconds": 0.0, "item_seconds": 0.0},
    {"pages": 1, "items": 0, "page_seconds": 0.0, "item_seconds": 0.0},
)
"""The accounts of the attacker: slow for minutes and for seconds, large, and many."""

EACH = 8
"""The number of accounts of each kind in each domain."""

OPEN = "SELECT user_integration_id FROM sync_run WHERE state = 'running'"
ATTACKER = "SELECT id FROM user_integration WHERE user_id = 'attacker'"
STOP = "UPDATE user_integration SET sync_status = 'paused' WHERE user_id = 'attacker'"
CANCEL = """
UPDATE sync_run SET state = 'cancelled', finished_at = now()
WHERE state = 'running' AND user_integration_id IN (
    SELECT id FROM user_integration WHERE user_id = 'attacker')
"""
CLOSE = """
UPDATE sync_task SET state = 'cancelled', lease_until = NULL, finished_at = now()
WHERE state IN ('ready', 'queued') AND user_integration_id IN (
    SELECT id FROM user_integration WHERE user_id = 'attacker')
"""
# Accounts with an open run, of which the only task waits for later.
FILL = """
WITH account AS (
    INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config)
    SELECT gen_random_uuid(), 'user-' || n / 10, 'slower', 'later-' || n, 'later-' || n, '{}'
    FROM generate_series(%s::int, %s::int) n RETURNING id
), run AS (
    INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, start_seq)
    SELECT gen_random_uuid(), id, 'slower', 'live', 'schedule', 0 FROM account
    RETURNING id, user_integration_id
)
INSERT INTO sync_task (
    run_id, user_integration_id, integration_domain, lane, type, payload, dedup_key, available_at)
SELECT id, user_integration_id, 'slower', 'live', 'page', '{"page": 0}', 'later',
    now() + interval '6 hours'
FROM run
"""


def run(bed: Testbed, options: Options) -> Report:
    """Measure the 99th percentile of another user's syncs, with and without an attacker."""
    syncs = options.size(SYNCS, 8)
    calm: list[float] = []
    beside: list[float] = []
    all_calm: list[float] = []
    all_beside: list[float] = []
    with Engine(bed, "benchmarks.slow") as engine:
        other = _account(engine, "other", "slow")
        with engine.workers():
            _times(engine, other, 5)  # warm up
            used = [_alone(engine, options) for _ in range(options.rounds)]
            for _ in range(options.rounds):
                all_calm += (times := _times(engine, other, syncs))
                calm.append(_p99(times))
                with attack(engine):
                    all_beside += (times := _times(engine, other, syncs))
                beside.append(_p99(times))
            short = _times(engine, other, options.size(40, 4))
            fill(engine.conn, options.size(WAITING, 2_000))
            _times(engine, other, 3)
            later = _times(engine, other, options.size(40, 4))
    threads = PROCESSES * THREADS
    budgets = [
        Budget("another user's sync, p99 of all rounds, s", _p99(all_beside), at_most=2.0),
        Budget("threads that a user alone uses", statistics.median(used), at_least=0.9),
        Budget(
            f"a sync beside {options.size(WAITING, 2_000):,} tasks for later, relative to it alone",
            statistics.median(later) / statistics.median(short),
            at_most=1.5,
        ),
    ]
    rows = [
        _row("alone", all_calm),
        _row("beside the attacker", all_beside),
        _row("beside tasks for later", later),
    ]
    details = {f"{threads} threads": rows}
    return Report("shares", "s", beside, calm, "the same sync alone", budgets, details)


def fill(conn: Conn, accounts: int) -> None:
    """Insert accounts with a task that waits for later."""
    for first in range(1, accounts + 1, PORTION):
        conn.execute(FILL, (first, min(first + PORTION - 1, accounts)))
    conn.execute("VACUUM ANALYZE user_integration, sync_run, sync_task")


def _account(engine: Engine, user: str, domain: str, **config: object) -> UUID:
    account = engine.account(domain, **config)
    engine.conn.execute("UPDATE user_integration SET user_id = %s WHERE id = %s", (user, account))
    return account


def _times(engine: Engine, account: UUID, count: int) -> list[float]:
    """Return the seconds of consecutive syncs, from their request to their end."""
    times = []
    for _ in range(count):
        begun = time.monotonic()
        run = engine.start(account)
        while engine.ended(run) is None:
            time.sleep(0.002)
        times.append(time.monotonic() - begun)
    return times


def _alone(engine: Engine, options: Options) -> float:
    """Return the part of the threads that a user alone uses."""
    threads = PROCESSES * THREADS
    tasks = (threads - 1) * options.size(40, 2)
    config = {"page_seconds": 0.0, "item_seconds": ALONE_SECONDS, "pages": 1, "items": tasks}
    _, seconds = engine.sync(_account(engine, "alone", "slow", **config))
    return tasks * ALONE_SECONDS / (seconds * threads)


@contextmanager
def attack(engine: Engine) -> Iterator[None]:
    """Let the attacker work during the block; then stop all of its runs."""
    engine.conn.execute("UPDATE user_integration SET sync_status = 'active'")
    if engine.conn.execute(ATTACKER).fetchone() is None:
        for domain in DOMAINS:
            for kind in KINDS:
                for _ in range(EACH):
                    _account(engine, "attacker", domain, **kind)
    accounts = [account for (account,) in engine.conn.execute(ATTACKER)]
    stop = threading.Event()
    thread = threading.Thread(target=_request, args=[engine, accounts, stop])
    thread.start()
    try:
        time.sleep(1.0)  # until the slow tasks hold their threads
        yield
    finally:
        stop.set()
        thread.join()
        engine.conn.execute(STOP)
        engine.conn.execute(CLOSE)
        engine.conn.execute(CANCEL)
        time.sleep(3.0)  # until the sleeping tasks have noticed it


def _request(engine: Engine, accounts: Sequence[UUID], stop: threading.Event) -> None:
    """Request the next run of each account as soon as its run has ended."""
    with open_connection(engine.urls.database_url) as conn:
        while not stop.wait(0.05):
            running = {account for (account,) in conn.execute(OPEN)}
            for account in accounts:
                if account not in running:
                    scheduling.request_run(conn, account)
            engine.queues.wake()


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[max(round(len(times) * 0.99) - 1, 0)]


def _row(name: str, times: Sequence[float]) -> dict[str, object]:
    return {
        "sync": name,
        "median, s": round(statistics.median(times), 3),
        "p99, s": round(_p99(times), 3),
        "slowest, s": round(max(times), 3),
    }
