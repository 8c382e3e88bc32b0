"""The clock of PostgreSQL may step: `core.db.clocks` has the rule of every point in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import DateTime
from support.old_clocks import OLD, YOUNG
from support.waiting import until

from core import Task
from core.accounts.refresh import CLAIM_REFRESH
from core.content.blobs import TOUCH
from core.db import clocks
from core.db.clocks import RULES, Age, Deadline, Renewed
from core.db.schema import metadata
from core.dispatcher.maintenance import Maintenance
from core.ledger import (
    breakers,
    dispatching,
    far_ahead,
    leadership,
    leases,
    monotonic,
    processes,
    pruning,
)
from core.ledger.commit import BLOCK
from core.plugins import Registry

COLUMNS = {
    f"{table.name}.{column.name}"
    for table in metadata.tables.values()
    for column in table.columns
    if isinstance(column.type, DateTime)
}
IN_DATABASE = """
SELECT table_name || '.' || column_name
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND data_type LIKE 'timestamp%'
"""
SPANS = {
    "poll_interval_minutes": 15,
    "snoozed_seconds": 0.0,
    "finished_at": None,
    "dispatch_no": 0,
}
"""The values of the columns that a span depends on."""
JUDGED = """
SELECT {condition} FROM (SELECT clock_timestamp() + {offset} AS {column},
    %(poll_interval_minutes)s::int AS poll_interval_minutes,
    %(snoozed_seconds)s::float AS snoozed_seconds,
    %(finished_at)s::timestamptz AS finished_at,
    %(dispatch_no)s::int AS dispatch_no, clock_timestamp() AS created_at,
    clock_timestamp() AS paused_at, clock_timestamp() AS blocked_at) row
"""
DEADLINES = [name for name, rule in RULES.items() if isinstance(rule, Deadline)]
RENEWED = [name for name, rule in RULES.items() if isinstance(rule, Renewed)]
DAY_AHEAD = "clock_timestamp() + interval '1 day 10 seconds'"


def test_every_point_in_time_has_one_rule(conn) -> None:
    """A new column needs a row in `core.db.clocks.RULES`."""
    assert set(RULES) == COLUMNS
    assert {name for (name,) in conn.execute(IN_DATABASE)} == COLUMNS


@pytest.mark.parametrize("name", DEADLINES)
def test_a_deadline_beyond_its_longest_span_has_passed(name: str, conn) -> None:
    rule = RULES[name]
    assert isinstance(rule, Deadline)
    column = name.partition(".")[2]
    params = SPANS | {"longest_lease": 3600}
    for offset, over in (
        ("interval '-1 second'", True),
        (f"({rule.span}) * 0.9", False),
        (f"({rule.span}) + interval '10 seconds'", True),
        ("interval '1 day 10 seconds'", True),
    ):
        inner = offset.replace("created_at", "clock_timestamp()")
        for one, value in SPANS.items():
            inner = inner.replace(one, "NULL::timestamptz" if value is None else str(value))
        for condition, wanted in ((clocks.passed(name), over), (clocks.lasts(name), not over)):
            statement = JUDGED.format(condition=condition, offset=inner, column=column)
            assert conn.execute(statement, params).fetchone() == (wanted,), (offset, condition)


@pytest.mark.parametrize("name", RENEWED)
def test_a_heartbeat_of_the_future_is_not_recent(name: str, conn) -> None:
    column = name.partition(".")[2]
    for offset, wanted in (("0", True), ("-3600", False), ("86400", False)):
        moment = f"{offset} * interval '1 second'"
        statement = JUDGED.format(condition=clocks.recent(name), offset=moment, column=column)
        assert conn.execute(statement, SPANS).fetchone() == (wanted,)


def test_a_leader_of_the_future_gives_way(desk) -> None:
    old, new = uuid4(), uuid4()
    for me in (old, new):
        process = processes.Process(me, "dispatcher", "host", 1, [], 0)
        processes.heartbeat(desk.conn, process, None)
    assert leadership.lead(desk.conn, old)
    assert not leadership.lead(desk.conn, new)
    desk.conn.execute(f"UPDATE engine_state SET leader_until = {DAY_AHEAD}")
    assert not leadership.status(desk.conn).leads
    assert leadership.vacant(desk.conn)
    assert leadership.lead(desk.conn, new)


def test_a_lease_of_the_future_gets_its_normal_length(desk) -> None:
    """Its holder may live, and renews it. If it is dead, the lease expires."""
    desk.root(desk.account())
    assert far_ahead.shorten_leases(desk.conn, 60) == 0
    desk.conn.execute(f"UPDATE sync_task SET lease_until = {DAY_AHEAD}")
    assert far_ahead.shorten_leases(desk.conn, 3 * 86_400) == 0
    assert far_ahead.shorten_leases(desk.conn, 0.01) == 1
    until(lambda: leases.expire(desk.conn), "the lease expires")


def test_no_live_task_is_suspected_because_the_clock_stepped_ahead(
    maintenance: Maintenance, desk
) -> None:
    desk.root(desk.account())
    maintenance._gap_at = float("-inf")
    maintenance._expire_leases(desk.conn)
    assert maintenance._ahead is not None
    maintenance._ahead -= 86_400
    desk.conn.execute("UPDATE sync_task SET lease_until = now() - interval '1 day'")
    maintenance._expire_leases(desk.conn)
    assert desk.rows("SELECT state FROM sync_task") == [("queued",)]
    maintenance._gap_at = float("-inf")
    maintenance._expire_leases(desk.conn)
    assert desk.rows("SELECT state FROM sync_task") == [("ready",)]


def test_a_poll_of_the_future_is_due_and_others_are_not(desk) -> None:
    far, near, yearly = desk.account("far"), desk.account("near"), desk.account("yearly")
    desk.conn.execute(f"UPDATE user_integration SET next_sync_at = {DAY_AHEAD}")
    minutes = "UPDATE user_integration SET poll_interval_minutes = %s WHERE id = %s"
    desk.conn.execute(minutes, (2 * 1440, near))
    desk.conn.execute(minutes, (525_600, yearly))
    assert far_ahead.make_due(desk.conn) == 1
    due = "SELECT id FROM user_integration WHERE next_sync_at <= clock_timestamp()"
    assert desk.rows(due) == [(far,)]
    assert far_ahead.make_due(desk.conn) == 0


def test_the_index_finds_polls_of_the_future(desk) -> None:
    desk.account()
    with desk.conn.transaction(force_rollback=True):
        desk.conn.execute("DROP INDEX user_integration_due, user_integration_reader")
        desk.conn.execute("SET LOCAL enable_seqscan = off")
        plan = str(desk.conn.execute(f"EXPLAIN {far_ahead.POLL_NOW}").fetchall())
    assert "user_integration_far_ahead" in plan
    assert "Index Cond: (((next_sync_at" in plan


def test_a_deferred_task_of_the_future_is_due(desk) -> None:
    desk.root(desk.account())
    desk.conn.execute(
        f"UPDATE sync_task SET state = 'deferred', finished_at = now(), available_at = {DAY_AHEAD}"
    )
    assert far_ahead.make_due(desk.conn) == 1
    assert far_ahead.make_due(desk.conn) == 0


def test_a_ready_task_of_the_future_is_dispatched(desk) -> None:
    root = desk.root(desk.account())
    desk.add(root.run_id, "a")
    desk.conn.execute(
        "UPDATE sync_task SET dispatch_no = 1, available_at = now() + interval '50 minutes'"
    )
    assert not desk.claim()
    desk.conn.execute(f"UPDATE sync_task SET available_at = {DAY_AHEAD}")
    assert len(desk.claim()) == 1


def test_a_delayed_task_waits_for_up_to_a_day(desk) -> None:
    root = desk.root(desk.account())
    tasks = [Task("step", {"number": delay}, delay=delay) for delay in (4_000, 86_400)]
    desk.finish(root, tasks=tasks)
    assert not desk.claim()
    desk.conn.execute("UPDATE sync_task SET available_at = available_at - interval '4000 seconds'")
    assert len(desk.claim()) == 1


def test_a_delay_that_begins_in_the_future_has_ended(desk) -> None:
    root = desk.root(desk.account())
    desk.add(root.run_id, "a")
    desk.conn.execute(
        "UPDATE sync_task SET created_at = clock_timestamp() + interval '2 hours',"
        " available_at = clock_timestamp() + interval '3 hours' WHERE state = 'ready'"
    )
    assert len(desk.claim()) == 1


def test_a_long_snooze_is_kept(desk) -> None:
    root = desk.root(desk.account())
    desk.add(root.run_id, "a")
    desk.conn.execute(
        "UPDATE sync_task SET available_at = now() + interval '20 hours', snoozed_seconds = 75000"
    )
    assert not desk.claim()


@pytest.mark.parametrize("seconds", [5, 86_000])
def test_a_pause_that_begins_in_the_future_has_ended(desk, seconds: int) -> None:
    """The clock was a day ahead when the pause began, and was set back a minute later."""
    account = desk.account()
    began = "clock_timestamp() + interval '1 day' - interval '1 minute'"
    until = f"{began} + {seconds} * interval '1 second'"
    desk.conn.execute(BLOCK, ("k", float(seconds), None))
    desk.conn.execute(f"UPDATE limit_block SET blocked_at = {began}, until = {until}")
    assert "k" not in dispatching.blocks(desk.conn, [str(account)]).limits
    desk.conn.execute(BLOCK, ("k", 60.0, None))
    assert "k" in dispatching.blocks(desk.conn, [str(account)]).limits
    assert desk.value("SELECT until < now() + interval '1 hour' FROM limit_block")
    desk.conn.execute(
        f"""
        INSERT INTO breaker (user_integration_id, limit_name, integration_domain, failed_tasks,
            first_failed_at, opened_at, paused_at, probe_at)
        VALUES (%s, '', 'shop', '{{}}', now(), now(), {began}, {until})
        """,
        (account,),
    )
    due = f"SELECT {breakers.PROBE_DUE} FROM breaker b"
    assert desk.rows(due) == [(True,)]
    desk.conn.execute("UPDATE breaker SET paused_at = now(), probe_at = now() + interval '1 min'")
    assert desk.rows(due) == [(False,)]


def test_a_task_that_was_deferred_in_the_future_is_due(desk) -> None:
    root = desk.root(desk.account())
    desk.add(root.run_id, "a")
    desk.conn.execute(
        "UPDATE sync_task SET state = 'deferred',"
        " finished_at = clock_timestamp() + interval '1 day' - interval '1 minute',"
        " available_at = clock_timestamp() + interval '1 day'"
    )
    assert far_ahead.make_due(desk.conn) == desk.value("SELECT count(*) FROM sync_task")


def test_blocks_and_probes_of_the_future_end(desk) -> None:
    account = desk.account()
    desk.conn.execute(f"INSERT INTO limit_block (key, until) VALUES ('k', {DAY_AHEAD})")
    assert "k" not in dispatching.blocks(desk.conn, [str(account)]).limits
    desk.conn.execute(BLOCK, ("k", 60.0, None))
    assert "k" in dispatching.blocks(desk.conn, [str(account)]).limits
    desk.conn.execute(
        f"""
        INSERT INTO breaker (user_integration_id, limit_name, integration_domain, failed_tasks,
            first_failed_at, opened_at, probe_at)
        VALUES (%s, '', 'shop', '{{}}', now(), now(), {DAY_AHEAD})
        """,
        (account,),
    )
    due = f"SELECT {breakers.PROBE_DUE} FROM breaker b"
    assert desk.rows(due) == [(True,)]


def test_a_refresh_of_the_future_is_taken_over(desk) -> None:
    account = desk.account()
    desk.conn.execute(
        f"UPDATE user_integration SET refresh_holder = id, refresh_until = {DAY_AHEAD}"
    )
    ((version,),) = desk.rows("SELECT credentials_version FROM user_integration")
    params = {"holder": uuid4(), "lease": 60, "id": account, "version": version}
    assert desk.conn.execute(CLAIM_REFRESH, params).fetchone() == (account,)


# Ages
# --------------------------------------------------------------------------------------------------

KEPT = {
    "control_change": "INSERT INTO control_change DEFAULT VALUES",
    "limit_block": "INSERT INTO limit_block VALUES ('k', now(), NULL)",
    "throughput": "INSERT INTO throughput (minute) VALUES (now())",
    "oauth_flow": """
        INSERT INTO oauth_flow (state_digest, integration_domain, user_id, config, verifier,
            expires_at) VALUES ('x', 'shop', 'ada', '{}', '', now())
        """,
    "process": """
        INSERT INTO process (id, kind, host, pid, queues)
        VALUES (gen_random_uuid(), 'worker', 'host', 1, '{}')
        """,
    "session": """
        WITH token AS (INSERT INTO api_token (id, name, digest)
            VALUES (gen_random_uuid(), 'it', 'x') RETURNING id)
        INSERT INTO session (digest, token_id, expires_at) SELECT 'x', id, now() FROM token
        """,
    "idempotency_key": """
        WITH token AS (INSERT INTO api_token (id, name, digest)
            VALUES (gen_random_uuid(), 'it', 'y') RETURNING id)
        INSERT INTO idempotency_key (token_id, key, request_digest) SELECT id, 'k', 'x' FROM token
        """,
    "blob": TOUCH % ("'key'", "1"),
}
"""A row of each table whose rows are deleted by their age."""


@pytest.fixture
def maintenance(settings, database, queues) -> Maintenance:
    return Maintenance(uuid4(), settings, database, queues, Registry())


@pytest.fixture
def prune(maintenance: Maintenance, desk) -> Callable[[], set[str]]:
    """Return a function that runs all pruning jobs and returns the tables that keep their row."""

    def run() -> set[str]:
        for job in maintenance._jobs:
            if job.seconds == 60.0:
                job.run(desk.conn)
        return {table for table in KEPT if desk.rows(f"SELECT 1 FROM {table}")}

    return run


def age_everything(desk, days: int) -> None:
    for name in RULES:
        table, _, column = name.partition(".")
        if table != "monotonic_sample":
            desk.conn.execute(
                f'UPDATE {table} SET "{column}" = "{column}" - %s * interval \'1 day\'', (days,)
            )


@pytest.mark.parametrize("samples", [None, YOUNG], ids=["no samples", "young samples"])
def test_nothing_is_deleted_because_the_clock_stepped_ahead(
    samples: str | None, prune: Callable[[], set[str]], desk
) -> None:
    desk.save(desk.outcome(desk.root(desk.account())))
    desk.conn.execute("UPDATE sync_run SET finished_at = now()")
    for statement in KEPT.values():
        desk.conn.execute(statement)
    if samples:
        desk.conn.execute(samples)
    age_everything(desk, 35)
    assert prune() == set(KEPT)
    assert desk.rows("SELECT pruned FROM sync_run") == [(False,)]
    desk.conn.execute("DELETE FROM monotonic_sample")
    desk.conn.execute(OLD)
    # An unreferenced blob is marked first, and stays for another day.
    assert prune() == {"blob"}
    desk.conn.execute("UPDATE blob SET unreferenced_at = now() - interval '35 days'")
    assert prune() == set()
    assert desk.rows("SELECT pruned FROM sync_run") == [], "the run is deleted after its tasks"


def test_an_age_is_judged_by_the_monotonic_clock(conn) -> None:
    """The clock of the database steps a day ahead after an hour, and back after another one."""

    def sampled(watched: int, at: int) -> None:
        conn.execute(
            "INSERT INTO monotonic_sample (watched, at) VALUES (%s, to_timestamp(%s))",
            (watched, at),
        )

    def old_enough(seconds: float) -> float | None:
        found = monotonic.old_enough(conn, seconds)
        return None if found is None else found.timestamp()

    day = 86_400
    assert old_enough(0) is None
    for minutes in range(0, 61, 5):
        sampled(minutes * 60, minutes * 60)
    assert old_enough(3600) is None
    assert old_enough(1800) == 3600 - 1800 - monotonic.SAMPLE_SECONDS
    for minutes in range(65, 121, 5):
        sampled(minutes * 60, day + minutes * 60)
    assert old_enough(1800) == day + 7200 - 1800 - monotonic.SAMPLE_SECONDS
    assert old_enough(3600) == 3300
    assert old_enough(6000) == 900
    for minutes in range(125, 181, 5):
        sampled(minutes * 60, minutes * 60)
    assert old_enough(3600) == 7500
    assert old_enough(7200) == 3300


def test_samples_add_up_over_leaders_and_old_ones_are_deleted(
    maintenance: Maintenance, desk, settings, monkeypatch
) -> None:
    watch = maintenance._watch_clock
    watch(desk.conn)
    maintenance._watched_at -= 300.0
    watch(desk.conn)
    maintenance.after_gap()
    watch(desk.conn)
    watched = [round(seconds) for (seconds,) in desk.rows("SELECT watched FROM monotonic_sample")]
    assert watched == [0, 300, 300]
    desk.conn.execute(OLD)
    watch(desk.conn)
    ((first, last),) = desk.rows("SELECT min(watched), max(watched) FROM monotonic_sample")
    assert first < last - settings.retention_days * 86_400


def test_samples_cover_the_longest_age(maintenance: Maintenance, desk) -> None:
    """Without such samples, rows of this age would never be deleted."""
    longest = max(seconds for _, seconds in pruning.PRUNED)
    desk.conn.execute(
        "INSERT INTO monotonic_sample (watched, at)"
        " SELECT 86400.0 * day, now() - (600 - day) * interval '1 day'"
        " FROM generate_series(0, 600) day"
    )
    maintenance._watch_clock(desk.conn)
    assert longest < 600 * 86_400
    assert monotonic.old_enough(desk.conn, longest) is not None


def test_nothing_is_given_up_because_the_clock_stepped_ahead(desk) -> None:
    week = 7 * 86_400.0
    dispatch = replace(desk.root(desk.account()), failing_seconds=2 * week)
    young = replace(dispatch, failing_seconds=5.0)

    def seconds() -> list[float]:
        both = monotonic.trusted(desk.conn, [dispatch, young], week)
        return [one.failing_seconds for one in both]

    assert seconds()[0] < week
    desk.conn.execute(YOUNG)
    assert seconds()[0] < week
    assert seconds()[1] == 5.0
    desk.conn.execute("DELETE FROM monotonic_sample")
    desk.conn.execute(OLD)
    assert seconds() == [2 * week, 5.0]


def test_each_age_is_pruned_by_its_rule() -> None:
    """Every `Age` with a number is in the table of pruning, or in the collection of blobs."""
    pruned = {statement.split()[2] for statement, _ in pruning.PRUNED}
    ages = {
        name.partition(".")[0]
        for name, rule in RULES.items()
        if isinstance(rule, Age) and rule.seconds is not None
    }
    assert ages - {"blob"} <= pruned
