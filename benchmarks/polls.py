"""Many small accounts whose polls find nothing, on a database that is not new.

The database has 1.6 million ended runs, and was analyzed while no run was open. Three forms:

* *rate*: 200,000 accounts are due evenly over 180 s, ten times. The peer is Procrastinate, with as
  many jobs that are due over the same time, beside as many ended jobs.
* *punctuality*: 200,000 accounts are due evenly over 900 s, three times. A provider answers after
  0.2 s.
* *growth*: 20,000 accounts are due at the same time, 100 times. After each ten cycles, the day of
  the accounts' figures ends.

`--scale` shortens all forms: accounts and time, so that the rate stays the same. From a scale of
0.1 on, the number of ended runs is the full one. With `--folder`, the servers' data stay there, and
a later call continues; `--minutes` ends a call before a cycle that would take longer. All figures
of the engine come from the database's clock, from `user_integration.last_sync_at`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from redis import Redis

from benchmarks.engine import PROCESSES, THREADS, Engine, Testbed
from benchmarks.kept import Kept, Step
from benchmarks.peers import procrastinate
from benchmarks.processes import program, wait_until
from benchmarks.report import Budget, Options, Report
from benchmarks.statements import log_of, slow
from benchmarks.usage import Usage
from core.db.migrate import migrate
from core.db.pool import Conn

ENDED_RUNS = 1_600_000
SLOW_MS = 100.0
CYCLES_OF_A_DAY = 10
FLAT_FROM = 3
"""The number of days after which the tables must not grow."""

MEBIBYTE = 2**20

FILL = """
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config,
    poll_interval_minutes)
SELECT gen_random_uuid(), 'user-' || n / 10, 'polled', n::text, 'identity-' || n,
    json_build_object('seconds', %s::float), 10000
FROM generate_series(0, %s::int - 1) n
"""
# Runs of the last week, whose tasks were deleted. The last statement is the week's maintenance.
ENDED = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    started_at, finished_at, tasks_done, pruned)
SELECT gen_random_uuid(), a.id, 'polled', 'live', 'schedule', 'succeeded', 0, at, at, 1, true
FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM user_integration) a
JOIN (SELECT n, now() - interval '7 days' * (1 - n::float / %(runs)s) AS at
    FROM generate_series(1, %(runs)s::int) n) run
ON run.n %% %(accounts)s = a.number - 1
"""
# The last statement takes statistics while no run is open.
CLEAN_UP = """
DELETE FROM sync_task;
DELETE FROM sync_run WHERE state = 'running';
DELETE FROM process;
UPDATE user_integration SET next_sync_at = NULL WHERE next_sync_at IS NOT NULL;
ANALYZE
"""
BEGIN = "SELECT clock_timestamp() + %s * interval '1 second'"
# The order of the due times is not that of the table.
SCHEDULE = """
UPDATE user_integration a SET next_sync_at = %(begin)s::timestamptz
        + (name::bigint * 7919 %% %(accounts)s) * %(span)s::float / %(accounts)s
            * interval '1 second',
    empty_day = coalesce((now() AT TIME ZONE 'UTC')::date - %(days_ago)s::int, empty_day)
"""
# A claim sets the next poll a week ahead.
IS_OVER = """
SELECT NOT EXISTS (SELECT FROM user_integration WHERE sync_status = 'active'
        AND next_sync_at < clock_timestamp() + interval '1 hour')
    AND NOT EXISTS (SELECT FROM sync_run WHERE state = 'running')
"""
LATENESS = """
SELECT count(*), extract(epoch FROM max(last_sync_at) - %(begin)s)::float,
    percentile_disc(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP (ORDER BY extract(epoch FROM last_sync_at
        - %(begin)s)::float - (name::bigint * 7919 %% %(accounts)s) * %(span)s::float
            / %(accounts)s)
FROM user_integration WHERE last_sync_at >= %(begin)s
"""
SIZES = """
SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables ORDER BY relname
"""


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the benchmark.

    Attributes:
      accounts, seconds: The number of accounts, and the time over which they are due.
      steps, cycles: The number of measured steps, and the number of cycles of a step.
      provider: The seconds that the provider takes to answer.
      threads: The number of threads of each process.
    """

    name: str
    accounts: int
    seconds: float
    steps: int
    cycles: int = 1
    provider: float = 0.0
    threads: int = THREADS


FORMS = (
    Form("rate", 200_000, 180.0, steps=10),
    Form("punctuality", 200_000, 900.0, steps=3, provider=0.2, threads=4 * THREADS),
    Form("growth", 20_000, 0.0, steps=10, cycles=CYCLES_OF_A_DAY),
)


def run(bed: Testbed, options: Options) -> Report:
    """Measure the forms, as far as the time of this call goes."""
    scale = options.size(1, 0) * options.scale or 0.002
    kept = Kept(bed.home / "polls.json", options.minutes)
    for form in FORMS:
        if options.only in form.name:
            _measure(bed, form, scale, kept)
    return _report(kept, scale)


def _measure(bed: Testbed, form: Form, scale: float, kept: Kept) -> None:
    accounts, seconds = round(form.accounts * scale), form.seconds * scale
    ended = round(ENDED_RUNS * min(1.0, 10 * scale))
    url = _seeded(bed, form, accounts, ended, kept)
    if form.name == "rate" and not kept.of("peer") and kept.may_begin(3 * seconds + 60):
        kept.add("peer", procrastinate.due_jobs(bed, accounts, seconds, ended))
    guess = max([2 * seconds, *(step["took, s"] for step in kept.of(form.name))])
    if len(kept.of(form.name)) >= form.steps or not kept.may_begin(guess):
        return
    with Engine(Testbed(replace(bed.urls, database_url=url), bed.home), "benchmarks.polled") as one:
        one.environment = {
            key: value for key, value in one.environment.items() if key != "POLLING_CRON_SCHEDULE"
        }
        one.conn.execute(CLEAN_UP)
        with Redis.from_url(bed.urls.redis_url) as client:
            client.flushall()
        with _fleet(one, form) as pid, psycopg.connect(url, autocommit=True) as conn:
            # The statements of the benchmark itself do not count.
            conn.execute("SET log_min_duration_statement = -1")
            conn.execute("SET enable_seqscan = off")
            while len(kept.of(form.name)) < form.steps and kept.may_begin(guess):
                begun = time.monotonic()
                days_ago = form.steps - len(kept.of(form.name)) if form.cycles > 1 else None
                step = _step(one.home, conn, pid, form, accounts, seconds, days_ago)
                kept.add(form.name, step | {"took, s": round(time.monotonic() - begun, 1)})
                guess = max(guess, step["seconds"])


def _seeded(bed: Testbed, form: Form, accounts: int, ended: int, kept: Kept) -> str:
    """Return the URL of the form's database. Create it unless an earlier call did."""
    name = f"polls_{form.name}"
    if kept.of(f"seeded {form.name}"):
        migrate(bed.address(name))
        return bed.address(name)
    url, begun = bed.database(name), time.monotonic()
    migrate(url)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(FILL, (form.provider, accounts))
        # Without checks of foreign keys.
        conn.execute("SET session_replication_role = replica")
        conn.execute(ENDED, {"runs": ended, "accounts": accounts})
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
        sizes = _sizes(conn)
    step = {"accounts": accounts, "ended runs": ended, "sizes": sizes}
    kept.add(f"seeded {form.name}", step | {"took, s": round(time.monotonic() - begun, 1)})
    return url


@contextmanager
def _fleet(engine: Engine, form: Form) -> Iterator[int]:
    """Run workers and the scheduler, and log slow statements; yield the workers' process id."""
    scheduler = [sys.executable, "-c", "from core.cli import main; main()", "scheduler"]
    conn = engine.conn
    conn.execute(f"ALTER SYSTEM SET log_min_duration_statement = {SLOW_MS:.0f}")
    conn.execute("SELECT pg_reload_conf()")
    with (
        program(scheduler, engine.environment, engine.home / "scheduler.log"),
        engine.workers(PROCESSES, form.threads) as pid,
    ):
        yield pid


def _step(
    home: Path,
    conn: Conn,
    workers: int,
    form: Form,
    accounts: int,
    seconds: float,
    days_ago: int | None,
) -> Step:
    """Measure the cycles of a step together."""
    logged = len(log_of(home))
    usage = Usage(conn, home, [workers])
    cycles = [
        _cycle(conn, accounts, seconds, None if number else days_ago)
        for number in range(form.cycles)
    ]
    costs = usage.of(accounts * form.cycles)
    statements = slow(log_of(home)[logged:])
    worked = [(name, ms) for name, ms in statements if name != "COMMIT"]
    duration = sum(cycle["seconds"] for cycle in cycles)
    return {
        "seconds": round(duration, 1),
        "polls/s": round(accounts * form.cycles / duration, 1),
        "median lateness, s": round(statistics.median(cycle["median"] for cycle in cycles), 2),
        "p99 lateness, s": round(max(cycle["p99"] for cycle in cycles), 2),
        **costs,
        "slow statements": len(worked),
        "slowest statement, ms": round(max((ms for _, ms in worked), default=SLOW_MS)),
        "slowest COMMIT, ms": round(
            max((ms for name, ms in statements if name == "COMMIT"), default=SLOW_MS)
        ),
        "statements": _worst(worked),
        "sizes": _sizes(conn),
    }


def _cycle(conn: Conn, accounts: int, span: float, days_ago: int | None) -> Mapping[str, float]:
    """Make all accounts due, and wait until all are polled."""
    lead, begin = 1.0 + accounts / 10_000, None
    while begin is None:
        begin = _schedule(conn, accounts, span, lead, days_ago)
        lead *= 2
    time.sleep(lead / 2 + span)
    wait_until(
        lambda: conn.execute(IS_OVER).fetchone() == (True,),
        "all polls ended",
        seconds=4 * span + 300,
        pause=0.2,
    )
    params = {"begin": begin, "accounts": accounts, "span": span}
    row = conn.execute(LATENESS, params).fetchone()
    assert row is not None
    polled, seconds, (median, p99, longest) = row
    if polled != accounts:
        raise RuntimeError(f"{polled} of {accounts} accounts were polled")
    return {"seconds": seconds, "median": median, "p99": p99, "longest": longest}


def _schedule(
    conn: Conn, accounts: int, span: float, lead: float, days_ago: int | None
) -> datetime | None:
    """Set the next poll of all accounts. Returns None if this took longer than the lead."""
    with conn.transaction():
        row = conn.execute(
            "SELECT clock_timestamp() + %s * interval '1 second'", (lead,)
        ).fetchone()
        assert row is not None
        begin: datetime = row[0]
        params = {"begin": begin, "accounts": accounts, "span": span, "days_ago": days_ago}
        conn.execute(SCHEDULE, params)
    is_early = conn.execute("SELECT clock_timestamp() < %s", (begin,)).fetchone() == (True,)
    return begin if is_early else None


def _sizes(conn: Conn) -> dict[str, int]:
    return {name: size for name, size in conn.execute(SIZES) if size >= MEBIBYTE}


def _worst(statements: Sequence[tuple[str, float]]) -> dict[str, tuple[int, int]]:
    """Return the number of slow executions and the longest one, by statement."""
    times: dict[str, list[float]] = {}
    for name, ms in statements:
        times.setdefault(name, []).append(ms)
    worst = sorted(times.items(), key=lambda each: -max(each[1]))[:8]
    return {name: (len(each), round(max(each))) for name, each in worst}


def _report(kept: Kept, scale: float) -> Report:
    measured = {form: kept.of(form.name) for form in FORMS if kept.of(form.name)}
    budgets: list[Budget] = []
    details: dict[str, Any] = {"scale": scale}
    slow_ones: list[dict[str, Any]] = []
    for form, steps in measured.items():
        budgets += _budgets(form, steps, scale)
        details[form.name] = [
            {"form": form.name, "cycles": _cycles(form, number)}
            | {key: value for key, value in step.items() if key not in HIDDEN}
            for number, step in enumerate(steps)
        ]
        slow_ones += _slow_rows(form, steps)
        if form.name == "growth":
            details["tables"] = _growth_rows(kept, form, steps)
    details |= {"slow statements": slow_ones}
    peer = kept.of("peer")
    if peer:
        details["peer"] = [{"peer": "Procrastinate"} | step for step in peer]
    first = next(iter(measured.values()), [{"polls/s": 0.0}])
    ours = [statistics.median(step["polls/s"] for step in first)]
    return Report(
        "polls",
        "polls/s",
        ours,
        [step["jobs/s"] for step in peer],
        "as many due jobs on Procrastinate" if peer else "",
        budgets,
        details,
    )


def _cycles(form: Form, step: int) -> str:
    first = step * form.cycles + 1
    return f"{first} to {first + form.cycles - 1}" if form.cycles > 1 else str(first)


HIDDEN = ("statements", "sizes", "took, s")


def _budgets(form: Form, steps: Sequence[Step], scale: float) -> list[Budget]:
    title = f"{form.name}, {form.accounts * scale:,.0f} accounts"
    if form.name == "growth":
        grown = _grown(steps)
        return [Budget(f"{title}: size of a table relative to the 30th cycle", grown, at_most=1.1)]
    if form.name == "punctuality":
        late = max(step["p99 lateness, s"] for step in steps) - form.provider
        return [Budget(f"{title}: lateness of 99 % of the polls, s", late, at_most=45)]
    longest, allowed = max(step["seconds"] for step in steps), 190 * scale
    found = [
        Budget(f"{title}: longest cycle, s", longest, at_most=round(allowed, 1)),
        Budget(
            f"{title}: longest statement, ms",
            max(step["slowest statement, ms"] for step in steps),
            at_most=SLOW_MS,
        ),
    ]
    if len(steps) > 2:
        change = steps[-1]["seconds"] / steps[1]["seconds"]
        last = f"{title}: cycle {len(steps)} relative to the second"
        found.append(Budget(last, change, at_most=1.1))
    return found


def _slow_rows(form: Form, steps: Sequence[Step]) -> list[dict[str, Any]]:
    counts: dict[str, tuple[int, int]] = {}
    for step in steps:
        for name, (number, ms) in step["statements"].items():
            before = counts.get(name, (0, 0))
            counts[name] = (before[0] + number, max(before[1], ms))
    return [
        {"form": form.name, "statement": f"`{name}`", "over 100 ms": number, "slowest, ms": ms}
        for name, (number, ms) in sorted(counts.items(), key=lambda each: -each[1][1])[:8]
    ]


def _grown(steps: Sequence[Step]) -> float:
    """Return the growth of the table that grew most; that of the daily figures is intended."""
    early = steps[min(FLAT_FROM, len(steps)) - 1]["sizes"]
    return max(
        size / early.get(table, MEBIBYTE)
        for table, size in steps[-1]["sizes"].items()
        if table != "account_day"
    )


def _growth_rows(kept: Kept, form: Form, steps: Sequence[Step]) -> list[dict[str, Any]]:
    seeded = kept.of(f"seeded {form.name}")[0]
    early = steps[min(FLAT_FROM, len(steps)) - 1]["sizes"]
    days = len(steps) - 1
    return [
        {
            "table": f"`{table}`",
            "before, MiB": round(seeded["sizes"].get(table, 0) / MEBIBYTE, 1),
            "after 30 cycles, MiB": round(early.get(table, 0) / MEBIBYTE, 1),
            "after 100 cycles, MiB": round(size / MEBIBYTE, 1),
            "bytes per account and day": round(size / seeded["accounts"] / days)
            if table == "account_day" and days
            else "",
        }
        for table, size in steps[-1]["sizes"].items()
    ]
