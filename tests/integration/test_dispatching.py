"""Dispatching: from ready to queued, by the leader only, each task once, in order."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from uuid import UUID, uuid4

import pytest

from core.ledger import dispatching, leadership, processes
from core.ledger.dispatching import RING_START, TaskPortion
from core.ledger.outcomes import Dispatch

DISPATCH = Dispatch(
    epoch=1, task_id=2, dispatch_no=3, dispatch_seq=4, run_id="r", account_id="a",
    account_version=5, domain="d", lane="l", trigger="g", type="t", payload={"p": 1},
    token=10, attempts=6, crashes=7, snoozes=8, suspect=True,
)  # fmt: skip


@pytest.mark.parametrize("shuffled", range(5))
def test_rows_become_dispatches_in_any_order_of_columns(conn, shuffled: int) -> None:
    columns = [f"x.{name}" for name in (*asdict(DISPATCH), "other")]
    random.Random(shuffled).shuffle(columns)
    types = (
        "epoch int, task_id int, dispatch_no int, dispatch_seq int, run_id text, account_id text,"
        ' token bigint, "user" text,'
        " account_version int, domain text, lane text, trigger text, type text, payload jsonb,"
        " attempts int, crashes int, snoozes int, suspect bool, deferrals int,"
        " failing_seconds float, probe bool, other int"
    )  # fmt: skip
    row = json.dumps(asdict(DISPATCH) | {"other": 9})
    cursor = conn.cursor(row_factory=dispatching.DISPATCH_ROW)
    found = cursor.execute(
        f"SELECT {', '.join(columns)} FROM json_to_record(%s) AS x({types})", (row,)
    )
    assert found.fetchall() == [DISPATCH]


def test_a_row_that_lacks_a_column_is_refused(conn) -> None:
    with pytest.raises(ValueError, match="dispatch_no"):
        conn.cursor(row_factory=dispatching.DISPATCH_ROW).execute("SELECT 1 AS epoch, 2 AS task_id")


def test_only_the_leader_claims(desk) -> None:
    desk.run(desk.account())
    leadership.lead(desk.conn, uuid4())
    assert desk.claim() == []
    assert list(desk.tasks().values()) == ["ready"]


def test_a_leader_whose_time_has_expired_claims_nothing(desk) -> None:
    account = desk.account()
    desk.run(account)
    leadership.lead(desk.conn, desk.me)
    desk.conn.execute("UPDATE engine_state SET leader_until = now() - interval '1 s'")
    assert (
        dispatching.claim(desk.conn, desk.me, "shop", [TaskPortion(str(account), "live", 5)], 60)
        == []
    )


def test_a_claim_counts_the_dispatch_and_sets_a_lease(desk) -> None:
    (first,) = (desk.root(desk.account()),)
    assert (first.dispatch_no, first.type, first.trigger, first.lane, first.payload) == (
        1,
        "start",
        "manual",
        "live",
        {},
    )
    state, lease, seq = desk.rows(
        "SELECT state, extract(epoch FROM lease_until - now()), dispatch_seq FROM sync_task"
    )[0]
    assert state == "queued"
    assert 55 < lease <= 60.5
    assert seq == first.dispatch_seq == leadership.last_sequence(desk.conn)
    assert first.epoch == leadership.status(desk.conn).epoch


def test_concurrent_claims_share_the_tasks(desk, connect, together) -> None:
    account = desk.account()
    desk.add(desk.run(account), *map(str, range(199)))
    leadership.lead(desk.conn, desk.me)
    portion = TaskPortion(str(account), "live", 60)
    conns = [connect() for _ in range(4)]
    claims = together(
        *(
            lambda conn=conn: dispatching.claim(conn, desk.me, "shop", [portion], 60)
            for conn in conns
        )
    )
    ids = [dispatch.task_id for claim in claims for dispatch in claim]
    assert len(ids) == len(set(ids))
    assert desk.value(
        "SELECT count(*) FROM sync_task WHERE state = 'queued' AND dispatch_no = 1"
    ) == len(ids)
    seqs = [dispatch.dispatch_seq for claim in claims for dispatch in claim]
    assert len(seqs) == len(set(seqs))


def test_a_claim_skips_locked_rows_without_waiting(desk, connect) -> None:
    account = desk.account()
    held, *free = desk.add(desk.run(account), "a", "b", "c")
    holder = connect()
    with holder.transaction():
        holder.execute("SELECT FROM sync_task WHERE id = %s FOR UPDATE", (held,))
        desk.conn.execute("SET statement_timeout = '5s'")
        assert {dispatch.task_id for dispatch in desk.claim()} >= set(free)
    assert desk.tasks()[held] == "ready"


def test_higher_priority_goes_first_and_equal_ones_in_their_order(desk) -> None:
    account = desk.account()
    run = desk.run(account)
    low = desk.add(run, "l1", "l2", priority=-5)
    high = desk.add(run, "h1", "h2", priority=5)
    root = min(desk.tasks())
    portion = TaskPortion(str(account), "live", 2)
    order = [dispatch.task_id for _ in range(3) for dispatch in desk.claim(portion)]
    assert order == [*high, root, *low]


def test_a_portion_claims_only_its_lane_and_types(desk) -> None:
    account = desk.account()
    run = desk.run(account)
    desk.add(run, "s1", "s2", "s3")
    desk.add(run, "p1", "p2", "p3", type="page")
    name = str(account)
    assert desk.claim(TaskPortion(name, "backfill", 10)) == []
    capped = desk.claim(TaskPortion(name, "live", 4, ["step"], 1, ["start"]))
    assert sorted(dispatch.type for dispatch in capped) == ["page", "page", "page", "step"]
    assert desk.claim(TaskPortion(name, "live", 4, ["step"], 0, ["start"])) == []
    assert {dispatch.type for dispatch in desk.claim()} == {"start", "step"}


def test_a_snoozed_task_waits_for_its_time(desk) -> None:
    desk.run(desk.account())
    desk.conn.execute("UPDATE sync_task SET available_at = now() + interval '1 h'")
    assert desk.claim() == []
    assert dispatching.look(desk.conn, "shop", 10).accounts == []
    desk.conn.execute("UPDATE sync_task SET available_at = now()")
    (waiting,) = dispatching.look(desk.conn, "shop", 10).accounts
    assert (waiting.live, waiting.backfill) == (True, False)


def test_every_account_gets_its_turn_in_the_ring(desk) -> None:
    accounts = [str(desk.account(f"a{number}")) for number in range(10)]
    for account in accounts:
        desk.run(account)
    seen, after = [], RING_START
    for _ in range(5):
        look = dispatching.look(desk.conn, "shop", 4, after=after)
        found = look.accounts
        assert len(found) == len({one.account for one in found}) == 4
        seen += [one.account for one in found]
        after = look.end
    assert all(seen.count(account) == 2 for account in accounts)
    assert len(dispatching.look(desk.conn, "shop", 100, after=after).accounts) == 10


def test_accounts_that_may_not_run_do_not_delay_others(desk) -> None:
    accounts = sorted(desk.account(f"a{number}") for number in range(301))
    for account in accounts:
        desk.run(account)
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'error' WHERE id <> %s", (accounts[-1],)
    )
    for after in (RING_START, accounts[0], accounts[-1]):
        look = dispatching.look(desk.conn, "shop", 10, after=after)
        assert [one.account for one in look.accounts] == [str(accounts[-1])]


def test_a_claim_reads_few_rows_however_many_are_ready(desk) -> None:
    account = str(desk.account())
    desk.run(account)
    desk.conn.execute(
        "INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type,"
        " payload, dedup_key, parent_id) SELECT r.id, user_integration_id, integration_domain,"
        " lane, 'step', '{}', convert_to(n::text, 'UTF8'), 1 FROM sync_run r, generate_series(1,"
        " 50000) n"
    )
    desk.conn.execute("ANALYZE sync_task")
    leadership.lead(desk.conn, desk.me)
    for portion in (
        TaskPortion(account, "live", 20),
        TaskPortion(account, "live", 20, ["step"], 20, ["page"]),
    ):
        names = {
            "leader": desk.me,
            "domain": "shop",
            "portions": json.dumps([asdict(portion)]),
            "lease": 60,
            "bits": 0,
        }
        with desk.conn.transaction(force_rollback=True):
            explain = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
            (plan,) = desk.conn.execute(explain + dispatching.CLAIM_TASKS, names).fetchone()
        scans = [
            node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "sync_task"
        ]
        read = [
            (node.get("Node Type"), node["Actual Loops"] * node["Actual Rows"] + removed(node))
            for node in scans
        ]
        assert "Seq Scan" not in {kind for kind, _ in read}
        # The high cost comes from searching for the other types when there are none. The dispatcher
        # never sends such a portion.
        assert not portion.capped_types or sum(rows for _, rows in read) < 60_000
        assert portion.capped_types or sum(rows for _, rows in read) < 200, read


def nodes(plan: dict) -> list[dict]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes(below))]


def removed(node: dict) -> float:
    return node["Actual Loops"] * node.get("Rows Removed by Filter", 0)


def test_a_message_sent_again_is_the_same_dispatch(desk) -> None:
    account = desk.account()
    sent = desk.root(account)
    assert dispatching.queued(desk.conn, "shop") == {sent.id: (sent.task_id, 1)}
    assert dispatching.as_sent(desk.conn, [(sent.task_id, 1)]) == [sent]
    assert dispatching.as_sent(desk.conn, [(sent.task_id, 2)]) == []
    desk.finish(sent)
    assert dispatching.as_sent(desk.conn, [(sent.task_id, 1)]) == []


def test_domains_with_work_and_tasks_in_flight_are_listed(desk) -> None:
    account = desk.account(group="g", limits=[{"name": "c", "tasks": 3, "by": "group"}])
    assert dispatching.domains_with_work(desk.conn, ["other", "shop"]) == []
    desk.run(account)
    assert dispatching.domains_with_work(desk.conn, ["other", "shop"]) == ["shop"]
    desk.claim()
    (flight,) = dispatching.in_flight(desk.conn, "shop")
    assert (flight.account, flight.group, flight.type, flight.count) == (
        str(account),
        "g",
        "start",
        1,
    )


# Who leads
# --------------------------------------------------------------------------------------------------


def test_one_candidate_leads_until_the_database_clock_passes_its_time(
    desk, connect, together
) -> None:
    names = [uuid4() for _ in range(6)]
    conns = [connect() for _ in names]
    won = together(
        *(
            lambda conn=conn, me=me: leadership.lead(conn, me)
            for conn, me in zip(conns, names, strict=True)
        )
    )
    assert sum(won) == 1
    leader = names[won.index(True)]
    other = names[won.index(False)]
    assert leadership.lead(desk.conn, leader)
    assert not leadership.lead(desk.conn, other)
    desk.conn.execute("UPDATE engine_state SET leader_until = clock_timestamp() - interval '1 ms'")
    assert leadership.lead(desk.conn, other)
    assert not leadership.lead(desk.conn, leader)


def test_a_leader_that_resigns_makes_room_immediately(desk) -> None:
    first, second = uuid4(), uuid4()
    leadership.lead(desk.conn, first)
    leadership.resign(desk.conn, second)
    assert not leadership.lead(desk.conn, second)
    leadership.resign(desk.conn, first)
    assert leadership.vacant(desk.conn)
    assert leadership.lead(desk.conn, second)


def test_leadership_is_vacant_only_after_the_given_time(desk) -> None:
    leadership.lead(desk.conn, uuid4())
    assert not leadership.vacant(desk.conn)
    desk.conn.execute("UPDATE engine_state SET leader_until = clock_timestamp() - interval '5 s'")
    assert not leadership.vacant(desk.conn, 20)
    assert leadership.vacant(desk.conn, 4)


def test_budgets_start_once_in_a_databases_life(desk) -> None:
    assert [leadership.start_budgets(desk.conn) for _ in range(3)] == [True, False, False]


# Looks: users that hold no place come first, at a bounded cost
# --------------------------------------------------------------------------------------------------


MANY_RUNS = """
WITH made AS (
    INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config,
        sync_status, next_sync_at)
    SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, %s, 'shop', 'm' || n,
        'm' || n, '{}', 'active', now() + interval '1 h'
    FROM generate_series(1, %s) n RETURNING id
), runs AS (
    INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, start_seq)
    SELECT gen_random_uuid(), id, 'shop', 'live', 'schedule', 0 FROM made
    RETURNING id, user_integration_id
)
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, available_at)
SELECT id, user_integration_id, 'shop', 'live', 'start', '{}', '', now() + %s * interval '1 h'
FROM runs
"""
MANY = 3_000


def pages(conn, statement: str, params: dict) -> int:
    (plan,) = conn.execute(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, params
    ).fetchone()
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


def look_params(**params: object) -> dict:
    start = {"after": RING_START, "fresh_after": RING_START, "latest": 0, "busy": [], "full": []}
    return {"domain": "shop", "most": 64, "slice": dispatching.MAX_PASSED} | start | params


def test_a_look_costs_the_same_however_many_accounts_it_passes_over(desk) -> None:
    """Most of them have tasks for later only. The ring is seen completely in a few looks."""
    desk.conn.execute(MANY_RUNS, ("greedy", MANY, 1))
    desk.run(desk.account("last"))
    desk.conn.execute("ANALYZE")
    assert pages(desk.conn, dispatching.WAITING, look_params()) < 15 * dispatching.MAX_PASSED
    found, after, looks = [], RING_START, 0
    while not found or looks < 10:
        look = dispatching.look(desk.conn, "shop", 64, after=after)
        found, after, looks = found + look.accounts, look.end, looks + 1
    assert {one.user for one in found} == {"u"}
    assert dispatching.any_available(desk.conn, "shop")
    desk.conn.execute("UPDATE sync_task SET state = 'done' WHERE available_at <= now()")
    assert not dispatching.any_available(desk.conn, "shop")


def test_a_user_that_holds_no_place_is_found_among_many_accounts(desk) -> None:
    desk.conn.execute(MANY_RUNS, ("greedy", MANY, -1))
    account = desk.account("last")
    desk.run(account)
    desk.conn.execute("ANALYZE")
    look = dispatching.look(desk.conn, "shop", 4, busy=["greedy"], latest=16)
    assert [one.user for one in look.accounts] == ["u", *["greedy"] * 3]
    # Without the latest tasks, the ring finds it in as many looks as it has slices.
    fresh, seen = RING_START, set()
    for _ in range(-(-MANY // dispatching.MAX_PASSED) + 1):
        look = dispatching.look(desk.conn, "shop", 4, fresh_after=fresh, busy=["greedy"])
        fresh, seen = look.fresh_end, seen | {one.user for one in look.accounts[:1]}
    assert "u" in seen


def test_a_look_passes_over_the_accounts_of_full_users(desk) -> None:
    desk.conn.execute(MANY_RUNS, ("greedy", 10, -1))
    account = desk.account("other")
    desk.run(account)
    look = dispatching.look(desk.conn, "shop", 4, busy=["greedy", "u"], full=["greedy"])
    assert [one.account for one in look.accounts] == [str(account)]
    assert look.is_complete


def test_a_group_is_the_live_processes_that_serve_the_same_queues(desk) -> None:
    for number, queues in enumerate([["a", "b"], ["a", "b"], ["b"], ["a", "b"]], 1):
        process = processes.Process(UUID(int=number), "worker", "h", number, queues, 4)
        processes.heartbeat(desk.conn, process, None)
    desk.conn.execute("UPDATE process SET draining = true WHERE pid = 4")
    assert processes.group(desk.conn, UUID(int=1)) == (8, 6, 0)
    assert processes.group(desk.conn, UUID(int=2)) == (8, 6, 3)
    assert processes.group(desk.conn, UUID(int=3)) == (4, 3, 0)
    assert processes.neighbours(desk.conn) == {"a": {"a", "b"}, "b": {"a", "b"}}


def test_tasks_in_flight_are_aged_or_hung_by_the_time_of_their_dispatch(desk) -> None:
    account = desk.account()
    desk.add(desk.run(account), *"abcd")
    first = max(one.dispatch_seq for one in desk.claim(TaskPortion(str(account), "live", 2)))
    second = max(one.dispatch_seq for one in desk.claim(TaskPortion(str(account), "live", 2)))
    flying = dispatching.in_flight(desk.conn, "shop", second, {"step": first}, first)
    counts = {each.type: (each.count, each.hung, each.aged, each.old) for each in flying}
    assert counts == {"start": (1, 0, 1, 1), "step": (3, 1, 2, 0)}
