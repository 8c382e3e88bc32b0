"""The cost of hot statements depends on their results, not on other rows and not on statistics.

The engine's own functions run on tables that are empty, new and grown, without statistics and with
statistics of a quiet moment. Others are after a vacuum at such a moment, and beside an old
snapshot. The test bounds the pages that each of their statements reads, and the rows that its plan
handles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from support.plans import Plan, explained, plan_of

from benchmarks import statements
from core import TaskOutput
from core.db.pool import TUNE, Conn
from core.db.rows import fetch
from core.ledger import (
    breakers,
    carry_over,
    completion,
    dispatching,
    hints,
    leadership,
    leases,
    pruning,
    scheduling,
)
from core.ledger.dispatching import TaskPortion
from core.search.documents import FORM
from core.service.accounts import daily
from core.service.authorization import Principal
from core.service.content import changes, listing
from core.service.content.listing import ContentFilter
from core.service.fleet import health

BATCH = 20
RUNS_PER_ACCOUNT = 8
OPEN, MANY_OPEN = 4_000, 16_000
DUE = 4_000
DONE_TASKS_OF_RUN = 2_000

ACCOUNTS = """
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config, next_sync_at)
SELECT gen_random_uuid(), 'user-' || n, 'shop', %(name)s, gen_random_uuid()::text, '{}',
    now() + interval '1 hour' + random() * interval '10 minutes'
FROM generate_series(1, %(number)s) n
"""
# Runs that ended in the last days; the oldest ones are old enough to be deleted.
ENDED_RUNS = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    started_at, finished_at, pruned)
SELECT gen_random_uuid(), id, 'shop', 'live', 'manual', 'succeeded', 0,
    now() - n * interval '1 day', now() - n * interval '1 day', n > 1
FROM user_integration, generate_series(1, %s) n
"""
ITEMS = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    name, content_text, size, digest, content_seq, metadata_seq)
SELECT %(account)s, 'shop', 'item-' || n, 'item', 'Item', 'hello', 5, '\\x00', 0, 0
FROM generate_series(1, %(number)s) n
"""
CONTENT = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    name, content_text, size, digest, content_seq, metadata_seq)
SELECT id, 'shop', 'item-' || n, 'item', 'Item', 'hello', 5, '\\x00', 0, 0
FROM user_integration, generate_series(1, 3) n ON CONFLICT DO NOTHING
"""
# Accounts with an open run. As after a slow quarter of an hour, they are also due, before others.
# None is overdue.
OPEN_RUNS = """
WITH run AS (
    INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, start_seq)
    SELECT gen_random_uuid(), id, 'shop', 'live', 'schedule', 0 FROM user_integration
    WHERE name = 'open' RETURNING id, user_integration_id
)
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key)
SELECT id, user_integration_id, 'shop', 'live', 'start', '{}', '' FROM run
"""
# Done tasks of the last open run in the order of the accounts.
DONE_TASKS = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, state, started_at, finished_at)
SELECT id, user_integration_id, 'shop', 'live', 'page', '{}', convert_to(n::text, 'UTF8'),
    'done', now(), now()
FROM (SELECT * FROM sync_run WHERE state = 'running'
    ORDER BY user_integration_id DESC LIMIT 1) run, generate_series(1, %s) n
"""
LAST_OPEN_RUN = """
SELECT id FROM sync_run WHERE state = 'running' ORDER BY user_integration_id DESC LIMIT 1
"""
ALL_DUE = """
UPDATE user_integration SET next_sync_at = now()
    - CASE name WHEN 'open' THEN interval '2 minutes' ELSE interval '1 minute' END
WHERE name IN ('open', 'due')
"""
AGE_SNAPSHOT = "SELECT count(*) FROM sync_run"
NO_AUTOVACUUM = "ALTER TABLE {} SET (autovacuum_enabled = off)"
TABLES = ("user_integration", "sync_run", "sync_task", "account_day", "sync_seen",
    "user_integration_content")  # fmt: skip


def empty(conn: Conn) -> None:
    """Leave the tables as an installation creates them."""


def new(conn: Conn) -> None:
    """Fill the tables, without statistics."""
    _fill(conn, DUE)
    _open(conn)


def grown(conn: Conn) -> None:
    """Fill them, and analyze them in the state that they have then."""
    new(conn)
    _analyze(conn)


def stale(conn: Conn) -> None:
    """Analyze at a moment when nothing is due and no run is open; then all runs open."""
    _fill(conn, DUE)
    _analyze(conn)
    _open(conn)


def vacuumed(conn: Conn) -> None:
    """Vacuum and analyze at a moment when all tasks are done; then all runs open.

    Autovacuum leaves the pages of the table. The planner then expects no row in any of them, and
    the height of an index decides whether it is used. There are 16,000 ready tasks, so that the
    heights of their indexes differ. One run has many done tasks.
    """
    _fill(conn, DUE)
    _open(conn, MANY_OPEN)
    conn.execute("DELETE FROM sync_task")
    conn.execute("DELETE FROM sync_run WHERE state = 'running'")
    conn.execute(f"VACUUM (TRUNCATE off, ANALYZE) {', '.join(TABLES)}")
    conn.execute(OPEN_RUNS)
    conn.execute(DONE_TASKS, (DONE_TASKS_OF_RUN,))


def analyzed_small(conn: Conn) -> None:
    """Analyze while the tables are small; then they grow."""
    _fill(conn, 3)
    _analyze(conn)
    new(conn)


def _fill(conn: Conn, accounts: int) -> None:
    conn.execute(ACCOUNTS, {"name": "due", "number": accounts})
    conn.execute(ENDED_RUNS, (RUNS_PER_ACCOUNT,))
    conn.execute(CONTENT)


def _open(conn: Conn, accounts: int = OPEN) -> None:
    conn.execute(ACCOUNTS, {"name": "open", "number": accounts})
    conn.execute(OPEN_RUNS)
    conn.execute(ALL_DUE)


def _analyze(conn: Conn) -> None:
    conn.execute(f"ANALYZE {', '.join(TABLES)}")


PAGES, ROWS = 90, 150
"""The most pages and rows of a plan for each row of its step.

A new row has an entry in each index. A join within a batch compares each row with each other one.
"""

FEW = 300
"""The most pages and rows for the catalog and the first pages of indexes."""

FEW_PAGES = 20
"""The most pages of a listing without results."""

STATES = (empty, new, grown, stale, vacuumed, analyzed_small)


@dataclass(frozen=True, slots=True)
class Step:
    """A call of the engine, and the number of rows for which each of its statements works."""

    call: Callable[[], Any]
    most: int


@pytest.mark.parametrize("beside_an_old_snapshot", [False, True], ids=["alone", "old-snapshot"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_hot_statements_cost_what_they_return(
    desk, connect, state: Callable[[Conn], None], beside_an_old_snapshot: bool
) -> None:
    conn = desk.conn
    for table in TABLES:
        conn.execute(NO_AUTOVACUUM.format(table))
    old = connect()
    if beside_an_old_snapshot:
        old.execute("SET idle_in_transaction_session_timeout = 0")
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute(AGE_SNAPSHOT)
    state(conn)
    conn.execute(TUNE, ("30000",))
    costly = {
        _name(name, plan): f"{plan.pages} pages, {plan.rows:.0f} rows, for {step.most} rows"
        for name, step in _steps(desk)
        for plan in _plans(conn, step.call)
        if plan.pages > FEW + PAGES * step.most or plan.rows > FEW + ROWS * step.most
    }
    assert costly == {}


FILTERS = {
    "deleted": ContentFilter(deleted=True),
    "gone": ContentFilter(gone=True),
    "parent": ContentFilter(parent="a folder"),
    "parent, deleted too": ContentFilter(parent="a folder", deleted=None),
    "kind": ContentFilter(kind="nothing"),
    "external ID": ContentFilter(external_id="nothing"),
}
LATER = datetime(2099, 1, 1, tzinfo=UTC)
SLOW_FILTERS = {
    "updated_since": ContentFilter(updated_since=LATER),
    "since": ContentFilter(since=LATER),
    "gone and kind": ContentFilter(gone=False, kind="item", since=LATER),
}
FEW_SCANNED = 500
"""The number of rows that a page compares in these tests."""

ACCOUNTS_OF_USER = 3
PAGES_OF_SCAN = 1_000
"""The most pages of a listing that compares `FEW_SCANNED` items. Each has a page of its own."""


def _filled_listing(desk: Any) -> UUID:
    """Fill accounts of two users with items, and return the largest one."""
    conn = desk.conn
    large = desk.account("large", user_id="user-1")
    conn.execute(ITEMS, {"account": large, "number": 10_000})
    for number in range(1, ACCOUNTS_OF_USER):
        id = desk.account(f"account-{number}", user_id="user-1")
        conn.execute(ITEMS, {"account": id, "number": 2_000})
    conn.execute(ITEMS, {"account": desk.account("theirs", user_id="v"), "number": 2_000})
    return large


def _listing_pages(conn: Conn, content_filter: ContentFilter) -> int:
    """Return the number of pages that a listing reads.

    The engine plans a listing for its parameters, so there is no generic plan.
    """
    statement, end = listing.statements(content_filter)
    params = asdict(content_filter) | listing.KEY.params(50, None)
    params |= {"skipped": FEW_SCANNED - 1}
    ends = fetch(conn, end, params, prepare=False)
    last = ends[0] if ends else dict.fromkeys(listing.KEY.columns)
    params |= {f"end_{column}": last[column] for column in listing.KEY.columns}
    return plan_of(conn, end, params).pages + plan_of(conn, statement, params).pages


@pytest.mark.parametrize("analyzed", [False, True], ids=["without-statistics", "analyzed"])
@pytest.mark.parametrize("scope", ["account", "user", "all"])
def test_a_listing_reads_only_what_its_index_leaves(desk, scope: str, analyzed: bool) -> None:
    conn, large = desk.conn, _filled_listing(desk)
    if analyzed:
        _analyze(conn)
    conn.execute(TUNE, ("30000",))
    scopes = {"account": {"account": large}, "user": {"user": "user-1"}, "all": {}}
    read = {
        name: _listing_pages(conn, replace(narrowed, **scopes[scope]))
        for name, narrowed in FILTERS.items()
    }
    assert {name: pages for name, pages in read.items() if pages >= 2 * FEW_PAGES} == {}
    read = {
        name: _listing_pages(conn, replace(narrowed, **scopes[scope]))
        for name, narrowed in SLOW_FILTERS.items()
    }
    assert {name: pages for name, pages in read.items() if pages >= PAGES_OF_SCAN} == {}


SEARCHABLE = f"""
INSERT INTO content_search (content_id, document, form, user_integration_id, moment)
SELECT id, 'word', {FORM}, user_integration_id, now() - id * interval '1 minute'
FROM user_integration_content
"""
PAGES_OF_SEARCH = 10 * FEW_SCANNED
"""The most pages of a search that compares `FEW_SCANNED` items; each item needs some."""


@pytest.mark.parametrize("analyzed", [False, True], ids=["without-statistics", "analyzed"])
@pytest.mark.parametrize("scope", ["account", "user", "all"])
def test_a_search_reads_only_the_newest_items_of_its_time(desk, scope: str, analyzed: bool) -> None:
    conn, large = desk.conn, _filled_listing(desk)
    conn.execute(SEARCHABLE)
    if analyzed:
        _analyze(conn)
    source = "newest" if scope == "all" else "newest of accounts"
    given = {"account": {"account": large}, "user": {"user": "user-1"}, "all": {}}[scope]

    def pages(**dates: datetime) -> int:
        params = asdict(ContentFilter()) | given | {"after_day": None, "before_day": None} | dates
        params |= {"q": "nothing", "most_ranked": 100, "most_of_each": FEW_SCANNED}
        with conn.transaction():
            conn.execute(listing.SET_ORDER, {"is_free": "off"})
            statements = listing.COUNT_MATCHES[source], listing.HAS_OLDER[source]
            return sum(plan_of(conn, statement, params).pages for statement in statements)

    assert pages() < PAGES_OF_SEARCH
    assert pages(since=LATER) < FEW_PAGES
    assert pages(before_day=datetime(2001, 1, 1, tzinfo=UTC)) < FEW_PAGES


def _name(step: str, plan: Plan) -> str:
    return f"{step}: {statements.name(plan.statement)}{' (generic)' if plan.generic else ''}"


def _plans(conn: Conn, call: Callable[[], Any]) -> list[Plan]:
    with explained(conn) as plans:
        call()
    return plans


def _steps(desk: Any):
    conn = desk.conn
    leadership.lead(conn, desk.me)
    yield "poll", Step(lambda: scheduling.claim_due(conn, BATCH), BATCH)
    yield "any due", Step(lambda: scheduling.any_due(conn), 1)
    yield "overdue", Step(lambda: fetch(conn, health.ANY_OVERDUE, {"silent_after": 210.0}), 1)
    yield "domains", Step(lambda: dispatching.domains_with_work(conn, ["shop"]), 1)
    yield "look", Step(lambda: dispatching.look(conn, "shop", BATCH), dispatching.MAX_PASSED)
    found = dispatching.look(conn, "shop", BATCH).accounts
    portions = [TaskPortion(one.account, "live", 10) for one in found]
    dispatches: list[Any] = []
    yield (
        "dispatch",
        Step(
            lambda: dispatches.extend(dispatching.claim(conn, desk.me, "shop", portions, 60)), BATCH
        ),
    )
    held = [(one.task_id, one.dispatch_no, one.token) for one in dispatches]
    yield "renew", Step(lambda: leases.renew(conn, held, 60), BATCH)
    yield "in flight", Step(lambda: dispatching.in_flight(conn, "shop"), BATCH)
    yield "queued", Step(lambda: dispatching.queued(conn, "shop"), BATCH)
    yield "expire", Step(lambda: leases.expire(conn), 1)
    outcomes = [desk.outcome(one, output=[TaskOutput("new", "hello")]) for one in dispatches[:10]]
    outcomes += [desk.outcome(one) for one in dispatches[10:]]
    if outcomes:
        yield "save", Step(lambda: desk.save(*outcomes), BATCH)
    runs = [one.run_id for one in dispatches]
    last = conn.execute(LAST_OPEN_RUN).fetchall()
    yield "not yet", Step(lambda: completion.end_runs(conn, [str(id) for (id,) in last]), 1)
    yield "end", Step(lambda: completion.end_runs(conn, runs), BATCH)
    yield (
        "forgotten",
        Step(lambda: completion.end_forgotten_runs(conn), completion.MAX_RUNS_PER_LOOK),
    )
    yield "over limit", Step(lambda: pruning.mark_over_limit(conn), completion.MAX_RUNS_PER_LOOK)
    yield "hints", Step(lambda: hints.open_due(conn), 1)
    yield "carry", Step(lambda: carry_over.carry_on(conn, 1.0), 1)
    yield "deferred", Step(lambda: carry_over.continue_deferred(conn, BATCH), 1)
    yield "limits", Step(lambda: breakers.overdue_limits(conn), 1)
    yield "prune", Step(lambda: pruning.prune(conn), 1)
    yield "prune runs", Step(lambda: pruning.prune_runs(conn, 7.5, 0.0), pruning.RUNS_PER_STATEMENT)
    yield (
        "prune kept runs",
        Step(lambda: pruning.KeptRunPruner().prune(conn, 0.5, 0.0), pruning.RUNS_PER_STATEMENT),
    )
    account = conn.execute("SELECT id FROM user_integration LIMIT 1").fetchone()
    if account is not None:
        yield "days", Step(lambda: daily.latest(conn, account[0], 14), 1)
    yield (
        "feed",
        Step(
            lambda: changes.read(conn, Principal(UUID(int=0), "user-1")), changes.MAX_SCANNED_ROWS
        ),
    )
