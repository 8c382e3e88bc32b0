"""A mass deletion, and the cost of it to others.

All but one of a million items disappear from the listing of one account, and a sweep deletes them.
Then `polling disconnect --delete-content` deletes their rows. At the same time, another account
syncs again and again. Its syncs are compared with those before and after.

A reader follows the change feed of the other account's user. It measures the time from the commit
of a change until the feed shows it. Another connection looks every 10 ms how long each writing
transaction of the engine has been open. The bound on a transaction leaves out its COMMIT, because a
COMMIT waits for the disk: on a shared disk, the smallest transaction takes up to 0.6 s. The table
has the time with the COMMIT too. A second table has the longest transactions, with the statements
that took most of their time. The memory of the worker and of the command is sampled.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psutil

from benchmarks import statements
from benchmarks.engine import Engine, Testbed
from benchmarks.processes import ended, family, program, resident_bytes
from benchmarks.report import Budget, Options, Report, ratio
from benchmarks.swept import KEPT
from core.db.pool import Conn, open_connection
from core.service.authorization import Principal
from core.service.content import changes

MEBIBYTE = 1024 * 1024
READER, PAGES = "reader", 10
LOOK_SECONDS, WRITE_SECONDS, MEMORY_SECONDS = 0.01, 0.05, 0.2
LONGEST = 3
"""The number of transactions of each deletion that the second table has."""

# Rows as an earlier sync would have left them; half of them are in a folder.
FILL = f"""
INSERT INTO user_integration_content (
    user_integration_id, integration_domain, external_id, kind, parent, name, content_text, size,
    digest, content_seq, metadata_seq, updated_at)
SELECT %(account)s, 'swept', 'folder/a file with a longer name ' || n, 'file',
    CASE WHEN n %% 2 = 0 THEN 'folder' END, 'File ' || n, repeat('What was in it. ', 10), 160,
    decode(md5(n::text), 'hex'), 0, 0, now() - interval '1 day'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
UNION ALL SELECT %(account)s, 'swept', id, 'file', NULL, id, '', 0, '', 0, 0,
    now() - interval '1 day'
FROM unnest(ARRAY['folder', '{KEPT}']) id WHERE %(first)s = 1
"""
LEFT = """
SELECT count(*) FILTER (WHERE deleted_at IS NULL), count(*)
FROM user_integration_content WHERE user_integration_id = %s
"""
CHANGE = """
UPDATE user_integration_content SET name = %s, changed_xid = pg_current_xact_id()::text::bigint
WHERE user_integration_id = %s AND external_id = '0'
"""
# Sessions of the engine that have written and not yet committed: the seconds since they began, the
# seconds until they asked to commit, their statement, and its wait.
WRITING = """
SELECT pid, xact_start, extract(epoch FROM clock_timestamp() - xact_start),
    extract(epoch FROM CASE query WHEN 'COMMIT' THEN query_start ELSE clock_timestamp() END
        - xact_start),
    query, CASE state WHEN 'active' THEN wait_event ELSE 'the engine' END
FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND application_name = 'polling' AND xact_start IS NOT NULL
"""
MODULES = ("content.holds", "content.portions", "content.seen", "service.accounts.disconnect")
"""The modules whose statements are those of a deletion."""

CLI = [sys.executable, "-c", "from core.cli import main; main()"]


@dataclass
class Watched:
    """The measurements beside one deletion.

    Attributes:
      syncs: The seconds of each sync of the other account.
      seconds: The seconds of the deletion.
      late: The seconds from each commit until the feed showed the change.
      transactions: The longest time that each writing transaction was seen open before its COMMIT,
        in seconds.
      committed: The same with its COMMIT.
      looks: The number of looks at each transaction, by its statement and its wait.
      deleting: The keys of the transactions that delete items or look for missing ones.
      grown: The growth of the largest process, in bytes.
    """

    syncs: list[float] = field(default_factory=list)
    seconds: float = 0.0
    late: list[float] = field(default_factory=list)
    transactions: dict[tuple[int, object], float] = field(default_factory=dict)
    committed: dict[tuple[int, object], float] = field(default_factory=dict)
    looks: dict[tuple[int, object], Counter[str]] = field(default_factory=dict)
    deleting: set[tuple[int, object]] = field(default_factory=set)
    grown: int = 0

    @property
    def deletions(self) -> list[float]:
        """The seconds of the transactions of the deletion, each before its COMMIT."""
        return [self.transactions[key] for key in self.deleting]


def run(bed: Testbed, options: Options) -> Report:
    """Measure the syncs of an account beside a sweep and an erasure, and without them."""
    items, alone = options.rows or options.size(1_000_000, 20_000), options.size(8, 2)
    calm: list[float] = []
    sweeps, erasures = list[Watched](), list[Watched]()
    with Engine(bed, "benchmarks.swept") as engine:
        engine.environment = {**engine.environment, "POLLING_MAX_DELETED_SHARE": "1"}
        other = engine.account("swept", pages=PAGES)
        engine.conn.execute(
            "UPDATE user_integration SET user_id = %s WHERE id = %s", (READER, other)
        )
        with engine.workers() as workers:
            for _ in range(options.rounds):
                large = engine.account("swept")
                fill(engine.conn, large, items)
                for _ in range(2):  # warm up
                    engine.sync(other)
                before = [engine.sync(other)[1] for _ in range(alone)]
                sweeps.append(_sweep(engine, large, other, workers))
                between = [engine.sync(other)[1] for _ in range(alone)]
                erasures.append(_erase(engine, large, other))
                after = [engine.sync(other)[1] for _ in range(alone)]
                calm.append(statistics.median([*before, *between, *after]))
    ours = [statistics.median(each.syncs) for each in sweeps]
    rows = [_row("sweep", sweeps), _row("disconnect --delete-content", erasures)]
    budgets = [
        *_budgets("a sweep", sweeps, calm),
        *_budgets("an erasure", erasures, calm),
    ]
    name = "the same sync alone"
    longest = [*_longest_rows("sweep", sweeps), *_longest_rows("disconnect", erasures)]
    details = {f"{items:,} items": rows, "the longest transactions": longest}
    return Report("sweep", "s", ours, calm, name, budgets, details)


def fill(conn: Conn, account: UUID, items: int) -> None:
    """Insert the items of the large account."""
    portion = 100_000
    for first in range(1, items + 1, portion):
        last = min(first + portion - 1, items)
        conn.execute(FILL, {"account": account, "first": first, "last": last})
    conn.execute("VACUUM ANALYZE user_integration_content")
    conn.execute("CHECKPOINT")


def _sweep(engine: Engine, large: UUID, other: UUID, workers: int) -> Watched:
    with watched(engine, other, family(workers)) as seen:
        begun = time.monotonic()
        swept = engine.start(large)
        while (end := engine.ended(swept)) is None:
            seen.syncs.append(engine.sync(other)[1])
        seen.seconds = time.monotonic() - begun
    assert end is not None
    if (left := engine.conn.execute(LEFT, (large,)).fetchone()) is None or left[0] != 1:
        raise RuntimeError(f"the sweep left {left} items instead of one")
    return seen


def _erase(engine: Engine, large: UUID, other: UUID) -> Watched:
    words = [*CLI, "disconnect", str(large), "--delete-content", "--now", "--yes"]
    log, base = engine.home / "disconnect.log", _command_bytes(engine)
    begun = time.monotonic()
    with (
        program(words, engine.environment, log) as command,
        watched(engine, other, family(command), base) as seen,
    ):
        while not (ended(command) and seen.syncs):
            seen.syncs.append(engine.sync(other)[1])
        seen.seconds = time.monotonic() - begun
    if (left := engine.conn.execute(LEFT, (large,)).fetchone()) is None or left[1]:
        raise RuntimeError(f"the command left {left}: {log.read_text('utf-8')}")
    return seen


def _command_bytes(engine: Engine) -> int:
    """Return the memory of the command where it has little to delete."""
    small = engine.account("swept")
    fill(engine.conn, small, 1_000)
    words = [*CLI, "disconnect", str(small), "--delete-content", "--now", "--yes"]
    most = 0
    with program(words, engine.environment, engine.home / "small.log") as command:
        processes = family(command)
        while not ended(command):
            most = max([most, *_resident(processes)])
            time.sleep(LOOK_SECONDS)
    return most


@contextmanager
def watched(
    engine: Engine, other: UUID, processes: list[psutil.Process], base: int | None = None
) -> Iterator[Watched]:
    """Measure beside a deletion during the block.

    Args:
      engine: The engine under measurement.
      other: Another account, whose syncs are timed.
      processes: The processes whose memory is measured.
      base: The memory above which the processes grow, in bytes. Default: their memory now.
    """
    seen, stop = Watched(), threading.Event()
    first = _resident(processes)
    jobs: list[Callable[[], None]] = [
        lambda: _look(engine, seen, stop),
        lambda: _follow(engine, other, seen, stop),
        lambda: _weigh(processes, first, base, seen, stop),
    ]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _look(engine: Engine, seen: Watched, stop: threading.Event) -> None:
    """Record how long each writing transaction is open."""
    with open_connection(engine.urls.database_url) as conn:
        while not stop.wait(LOOK_SECONDS):
            for pid, start, seconds, working, query, wait in conn.execute(WRITING):
                key, name = (pid, start), statements.name(query)
                seen.deleting.update([key] if name.startswith(MODULES) else ())
                looks = seen.looks.setdefault(key, Counter())
                looks[name if wait is None else f"{name} ({wait})"] += 1
                seen.transactions[key] = max(seen.transactions.get(key, 0.0), float(working))
                seen.committed[key] = max(seen.committed.get(key, 0.0), float(seconds))


def _follow(engine: Engine, other: UUID, seen: Watched, stop: threading.Event) -> None:
    """Change an item again and again, and read the feed until it shows the change."""
    principal = Principal(UUID(int=0), READER)
    url = engine.urls.database_url
    with open_connection(url) as writer, open_connection(url) as conn:
        cursor, number = changes.read(conn, principal, after=changes.LATEST).cursor, 0
        while not stop.wait(WRITE_SECONDS):
            number += 1
            writer.execute(CHANGE, (f"change {number}", other))
            committed = time.monotonic()
            cursor = _read_until(conn, principal, cursor, f"change {number}")
            seen.late.append(time.monotonic() - committed)


def _read_until(conn: Conn, principal: Principal, cursor: str, name: str) -> str:
    """Read the feed until it shows the item with this name, or a later change of it."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        feed = changes.read(conn, principal, after=cursor, limit=500)
        cursor = feed.cursor
        rows = [change.content for change in feed.changes if change.content is not None]
        if any(row["external_id"] == "0" for row in rows):
            return cursor
        if not feed.more:
            time.sleep(LOOK_SECONDS)
    raise TimeoutError(f"the feed did not show {name!r} within a minute")


def _weigh(
    processes: list[psutil.Process],
    first: list[int],
    base: int | None,
    seen: Watched,
    stop: threading.Event,
) -> None:
    while not stop.wait(MEMORY_SECONDS):
        now = _resident(processes)
        start = first if base is None else [base] * len(now)
        pairs = zip(now, start, strict=True)
        seen.grown = max([seen.grown, *(bytes - least for bytes, least in pairs)])


def _resident(processes: list[psutil.Process]) -> list[int]:
    try:
        return resident_bytes(processes)
    except psutil.NoSuchProcess:
        return [0] * len(processes)


def _longest(runs: list[Watched]) -> float:
    return max(max(each.deletions, default=0.0) for each in runs)


def _budgets(what: str, runs: list[Watched], calm: list[float]) -> list[Budget]:
    syncs = [statistics.median(each.syncs) for each in runs]
    late = max(max(each.late, default=0.0) for each in runs)
    grown = max(each.grown for each in runs)
    return [
        Budget(f"time of a sync beside {what}, relative to alone", ratio(syncs, calm), at_most=2),
        Budget(f"longest lateness of the feed beside {what}, s", late, at_most=1),
        Budget(
            f"longest transaction of {what} before its COMMIT, ms",
            _longest(runs) * 1000,
            at_most=300,
        ),
        Budget(f"growth of a process by {what}, MiB", grown / MEBIBYTE, at_most=64),
    ]


def _longest_rows(name: str, runs: list[Watched]) -> list[dict[str, str | float]]:
    """Return the longest transactions, with the statements that were seen most often in them."""
    of_deletions = [(one.transactions[key], one.looks[key]) for one in runs for key in one.deleting]
    return [
        {
            "deletion": name,
            "transaction, ms": round(seconds * 1000),
            "statements": "; ".join(
                f"{what} {number / looks.total():.0%}" for what, number in looks.most_common(3)
            ),
        }
        for seconds, looks in sorted(of_deletions, key=lambda each: -each[0])[:LONGEST]
    ]


def _row(name: str, runs: list[Watched]) -> dict[str, str | float]:
    lateness = [each for one in runs for each in one.late]
    open_for = [each for one in runs for each in one.deletions]
    committed = max(one.committed[key] for one in runs for key in one.deleting)
    others = max(max(one.committed.values(), default=0.0) for one in runs)
    syncs = [each for one in runs for each in one.syncs]
    return {
        "deletion": name,
        "seconds": round(statistics.median(each.seconds for each in runs), 1),
        "syncs beside it": len(syncs),
        "slowest sync, s": round(max(syncs), 2),
        "median lateness, ms": round(statistics.median(lateness) * 1000, 1),
        "longest lateness, ms": round(max(lateness) * 1000),
        "transactions seen": len(open_for),
        "median transaction, ms": round(statistics.median(open_for) * 1000, 1),
        "longest transaction, ms": round(max(open_for) * 1000),
        "with its COMMIT, ms": round(committed * 1000),
        "longest of all with COMMIT, ms": round(others * 1000),
        "growth, MiB": round(max(each.grown for each in runs) / MEBIBYTE, 1),
    }
