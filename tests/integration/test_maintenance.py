"""The leader's maintenance: no task stays lost after failures of Redis or the database."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from uuid import uuid4

import pytest
from support.waiting import until

from core import Rate, Task
from core.dispatcher import domain, loop
from core.dispatcher import maintenance as maintenance_module
from core.dispatcher.domain import Phase
from core.dispatcher.loop import Dispatcher
from core.dispatcher.maintenance import Maintenance
from core.environment import Environment
from core.ledger import leadership, looks, processes
from core.ledger.outcomes import Outcome
from core.limits.keys import account_key, limit_key, to_json
from core.plugins import Registry
from core.rest import metrics
from core.service.fleet import snapshot
from core.transport.messages import SAVE_QUEUE, dispatch_message


@pytest.fixture
def maintenance(settings, database, queues, desk) -> Maintenance:
    processes.register(
        desk.conn,
        [{"domain": "shop", "name": "Shop", "version": None, "tasks": {}, "max_tasks": 10**6}],
    )
    return Maintenance(uuid4(), settings, database, queues, Registry())


@pytest.fixture
def sent(desk, queues):
    """Return `make(count)`, which dispatches tasks and sends them to Redis."""

    def make(count: int = 3):
        root = desk.root(desk.account())
        desk.add(root.run_id, *map(str, range(count - 1)))
        dispatches = [root, *desk.claim()]
        queues.send(
            "shop",
            {one.id: dispatch_message(one) for one in dispatches},
            {"seq": dispatches[-1].dispatch_seq},
        )
        return dispatches

    return make


def test_flushed_messages_are_sent_again_unchanged(
    maintenance: Maintenance, desk, queues, sent, flush: Callable[[], None]
) -> None:
    dispatches = sent()
    flush()
    maintenance._resend(desk.conn)
    again = dict(queues.fetch("shop", 10))
    assert set(again) == {dispatch.id for dispatch in dispatches}
    assert {dispatch.dispatch_no for dispatch in dispatches} == {1}
    assert desk.rows("SELECT DISTINCT dispatch_no, state FROM sync_task") == [(1, "queued")]
    desk.finish(dispatches[0])
    assert desk.tasks()[dispatches[0].task_id] == "done"


@pytest.fixture
def worker(desk, maintenance: Maintenance):
    """Register a live worker that holds work, and return its id."""
    process = processes.Process(uuid4(), "worker", "host", 17, ["shop"], 8)
    processes.heartbeat(desk.conn, process, None)
    looks.look(desk.conn, process.id, None, None)
    return process.id


def test_lost_messages_of_tasks_that_a_worker_holds_are_not_sent_again(
    maintenance: Maintenance, desk, queues, sent, flush: Callable[[], None], worker
) -> None:
    """They count as in Redis again, until their tasks are saved."""
    running, *_ = sent()
    flush()
    maintenance._resend(desk.conn)
    maintenance._settle(desk.conn)
    assert queues.length("shop") == 0  # the leader waits for the answer
    asked = looks.look(desk.conn, worker, None, None).asked_at
    looks.look(desk.conn, worker, None, None, asked=asked, held=[running.id])
    maintenance._settle(desk.conn)
    assert running.id not in queues.waiting("shop")
    assert len(queues.waiting("shop")) == 2
    assert queues.length("shop") == 3
    maintenance._resend(desk.conn)
    assert not maintenance.asking


def test_a_worker_that_does_not_answer_is_not_waited_for(
    maintenance: Maintenance, desk, queues, sent, flush: Callable[[], None], worker
) -> None:
    sent()
    flush()
    maintenance._resend(desk.conn)
    maintenance._settle_at = time.monotonic()
    maintenance._settle(desk.conn)
    assert len(queues.waiting("shop")) == 3
    look = looks.look(desk.conn, worker, None, None)
    assert look.settled_at >= look.asked_at


def test_a_worker_at_rest_is_not_waited_for(
    maintenance: Maintenance, desk, queues, sent, flush: Callable[[], None], worker
) -> None:
    sent()
    looks.rest(desk.conn, worker)
    flush()
    maintenance._resend(desk.conn)
    maintenance._settle(desk.conn)
    assert len(queues.waiting("shop")) == 3


def test_a_message_lost_after_the_question_is_not_sent_before_the_next_one(
    maintenance: Maintenance, desk, queues, sent, flush: Callable[[], None], worker
) -> None:
    first = sent()[0]
    queues.ack({"shop": [first.id]})
    maintenance._resend(desk.conn)
    asked = looks.look(desk.conn, worker, None, None).asked_at
    looks.look(desk.conn, worker, None, None, asked=asked)
    flush()
    maintenance._settle(desk.conn)
    assert queues.waiting("shop") == [first.id]


def test_messages_in_flight_are_not_sent_twice(
    maintenance: Maintenance, desk, queues, sent
) -> None:
    sent()
    queues.fetch("shop", 2)
    maintenance._resend(desk.conn)
    assert len(queues.waiting("shop")) == 1
    queues.hand_over(queues.fetch("shop", 1)[0][0], "shop", SAVE_QUEUE, "result")
    maintenance._resend(desk.conn)
    assert queues.waiting("shop") == []


def test_messages_of_a_dispatcher_killed_before_the_send_are_sent(
    maintenance: Maintenance, desk, queues
) -> None:
    root = desk.root(desk.account())
    maintenance._resend(desk.conn)
    assert queues.waiting("shop") == [root.id]


def test_messages_of_tasks_that_are_no_longer_queued_are_dropped(
    maintenance: Maintenance, desk, queues, sent
) -> None:
    first, second, third = sent()
    desk.finish(first)
    queues.hand_over(second.id, "shop", SAVE_QUEUE, "result")
    desk.finish(second)
    maintenance._resend(desk.conn)
    assert queues.ids("shop", SAVE_QUEUE) == [{third.id}, set()]


def test_messages_that_wait_in_redis_keep_their_lease(
    maintenance: Maintenance, desk, queues, sent
) -> None:
    taken, *_ = sent()
    queues.fetch("shop", 1)
    desk.conn.execute("UPDATE sync_task SET lease_until = clock_timestamp() + interval '1 s'")
    maintenance._renew_waiting(desk.conn)
    short = desk.rows(
        "SELECT id FROM sync_task WHERE lease_until < clock_timestamp() + interval '30 s'"
    )
    assert short == [(taken.task_id,)]


def test_expired_leases_are_swept_and_their_messages_dropped(
    maintenance: Maintenance, desk, queues, sent
) -> None:
    sent()
    desk.conn.execute("UPDATE sync_task SET lease_until = clock_timestamp() - interval '1 s'")
    maintenance._gap_at = float("-inf")
    maintenance._expire_leases(desk.conn)
    assert set(desk.tasks().values()) == {"ready"}
    assert queues.length("shop") == 0


@pytest.mark.parametrize(
    ("longest", "silent", "state"),
    [
        (60.0, 0, "queued"),
        (60.0, 55, "queued"),
        (60.0, 61, "ready"),
        (600.0, 61, "queued"),
    ],
)
def test_a_new_leader_waits_for_the_longest_lease_before_it_sweeps(
    longest: float, silent: int, state: str, maintenance: Maintenance, desk, sent
) -> None:
    sent()
    desk.conn.execute("UPDATE sync_task SET lease_until = clock_timestamp() - interval '1 s'")
    maintenance.leases = processes.LeaseLengths(60.0, longest)
    maintenance.after_gap()
    maintenance._gap_at -= silent
    maintenance._expire_leases(desk.conn)
    assert set(desk.tasks().values()) == {state}


def test_without_redis_an_expired_lease_makes_no_suspect(
    maintenance: Maintenance, desk, sent, caplog
) -> None:
    """The leader could not renew the leases of tasks that wait in Redis, also right afterwards."""
    expired = "UPDATE sync_task SET lease_until = clock_timestamp() - interval '1 s'"
    maintenance._gap_at = float("-inf")
    for step in (maintenance.redis_is_away, maintenance.redis_is_back):
        sent(1)
        desk.conn.execute(expired + " WHERE state = 'queued'")
        step()
        maintenance._expire_leases(desk.conn)
        assert set(desk.rows("SELECT state, suspect FROM sync_task")) == {("ready", False)}
    desk.claim()
    desk.conn.execute(expired + " WHERE state = 'queued'")
    maintenance._redis_back_at = float("-inf")
    maintenance._expire_leases(desk.conn)
    assert ("ready", True) in desk.rows("SELECT state, suspect FROM sync_task")


def test_the_third_death_ends_the_run_and_notifies_observers(
    maintenance: Maintenance, desk, sent, monkeypatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Registry, "observe", lambda self, hook, **more: told.append(hook))
    sent(1)
    desk.conn.execute(
        """
        UPDATE sync_task SET lease_until = now() - interval '1 s', suspect = true,
            started_at = now(), crashes = 2
        """
    )
    maintenance._gap_at = float("-inf")
    maintenance._expire_leases(desk.conn)
    assert (desk.runs(), told) == (["failed"], ["task_parked", "run_finished"])


def test_complete_runs_that_are_still_open_are_ended(maintenance: Maintenance, desk) -> None:
    desk.save(desk.outcome(desk.root(desk.account())))
    maintenance._end_forgotten_runs(desk.conn)
    assert desk.runs() == ["succeeded"]


def test_metrics_count_runs_that_the_leader_ends(maintenance: Maintenance, desk, settings) -> None:
    desk.save(desk.outcome(desk.root(desk.account())))
    maintenance._end_forgotten_runs(desk.conn)
    crashed = desk.root(desk.account("another"))
    desk.conn.execute(
        """
        UPDATE sync_task SET lease_until = now() - interval '1 s', suspect = true,
            started_at = now(), crashes = 2 WHERE id = %s
        """,
        (crashed.task_id,),
    )
    maintenance._gap_at = float("-inf")
    maintenance._expire_leases(desk.conn)
    maintenance.register(desk.conn)
    text = metrics.render(snapshot.collect(desk.conn, settings))
    leader = f"{socket.gethostname()}:{os.getpid()}:dispatcher"
    for state in ("succeeded", "failed"):
        labels = f'domain="shop",lane="live",process="{leader}",state="{state}"'
        assert f"polling_runs_total{{{labels}}} 1.0" in text
    assert (
        f'polling_tasks_total{{domain="shop",error="other",process="{leader}",state="parked"}} 1.0'
        in text
    )
    maintenance.deregister(desk.conn)
    assert leader not in metrics.render(snapshot.collect(desk.conn, settings))


def test_a_restored_database_gets_a_new_epoch(maintenance: Maintenance, desk, queues, sent) -> None:
    root, *_ = sent()
    before = leadership.status(desk.conn).epoch
    maintenance.check_epoch(desk.conn)
    assert leadership.status(desk.conn).epoch == before
    desk.conn.execute("SELECT setval('dispatch_seq', 1)")
    maintenance.check_epoch(desk.conn)
    after = leadership.status(desk.conn).epoch
    assert after != before
    assert desk.save(desk.outcome(root)).applied == []
    maintenance.check_epoch(desk.conn)
    assert leadership.status(desk.conn).epoch == after


def test_another_version_in_the_catalog_means_a_deploy_in_progress(desk) -> None:
    mine = {
        "domain": "shop",
        "name": "Shop",
        "version": "1.0",
        "tasks": {"step": {"cost": {}}},
        "max_tasks": 10,
    }
    assert not processes.other_version(desk.conn, mine)
    processes.register(desk.conn, [mine])
    assert not processes.other_version(desk.conn, mine)
    for newer in (
        {"version": "1.1"},
        {"tasks": {"step": {"cost": {}}, "page": {"cost": {}}}},
        {"version": None},
    ):
        processes.register(desk.conn, [mine | newer])
        assert processes.other_version(desk.conn, mine)


@pytest.fixture
def scheduled(settings, database, queues):
    """Return `make(schedule)`, which creates the jobs of a leader with this schedule."""

    def make(schedule: str) -> Maintenance:
        changed = settings.model_copy(update={"cron_schedule": schedule})
        return Maintenance(uuid4(), changed, database, queues, Registry())

    return make


HOURLY = "0 * * * *"


def test_the_leader_claims_due_accounts_if_the_schedule_is_frequent(scheduled, desk) -> None:
    accounts = [desk.account(f"a{number}") for number in range(3)]
    scheduled(HOURLY).run_due(desk.conn)
    assert desk.runs() == []
    scheduled("*/5 * * * *").run_due(desk.conn)
    assert {id for (id,) in desk.rows("SELECT user_integration_id FROM sync_run")} == set(accounts)


def test_a_leader_without_redis_claims_due_accounts(scheduled, desk, monkeypatch) -> None:
    desk.account()
    maintenance = scheduled("* * * * *")
    monkeypatch.setattr(maintenance._queues, "wake", lambda: pytest.fail("Redis is away"))
    maintenance.redis_is_away()
    maintenance.run_due(desk.conn)
    assert desk.runs() == ["running"]


def test_a_claim_by_the_leader_leaves_time_for_other_work(scheduled, desk, monkeypatch) -> None:
    monkeypatch.setattr(maintenance_module, "CLAIM_SECONDS", 0.0)
    for number in range(3):
        desk.account(f"a{number}")
    leader = scheduled("* * * * *")
    leader._settings = leader._settings.model_copy(update={"batch_size": 1})
    for runs in (1, 2, 3):
        leader.run_due(desk.conn)
        assert len(desk.runs()) == runs


def test_the_leader_polls_when_the_scheduler_is_silent(scheduled, desk, caplog) -> None:
    desk.account()
    leader = scheduled(HOURLY)
    leader._check_ticks(desk.conn)
    assert desk.runs() == []
    leader._silent_since = time.monotonic() - 100_000
    desk.conn.execute("UPDATE engine_state SET last_tick_at = now()")
    leader._check_ticks(desk.conn)
    assert desk.runs() == []
    desk.conn.execute("UPDATE engine_state SET last_tick_at = now() - interval '4 h'")
    leader._check_ticks(desk.conn)
    assert desk.runs() == ["running"]
    assert "has not ticked" in caplog.text


def test_a_leader_that_claims_reports_a_silent_scheduler_once(scheduled, desk, caplog) -> None:
    leader = scheduled("* * * * *")
    leader._silent_since = time.monotonic() - 100_000
    desk.conn.execute("UPDATE engine_state SET last_tick_at = now() - interval '1 h'")
    for _ in range(2):
        leader._check_ticks(desk.conn)
    assert caplog.text.count("has not ticked") == 1
    assert desk.runs() == []


def test_each_maintenance_job_runs_when_it_is_due(maintenance: Maintenance, desk) -> None:
    done: list[int] = []
    for number, job in enumerate(maintenance._jobs):
        job.run = lambda conn, number=number: done.append(number)
        job.due = 0.0 if number % 2 else time.monotonic() + 1_000
    maintenance.run_due(desk.conn)
    maintenance.run_due(desk.conn)
    assert done == [number for number in range(len(maintenance._jobs)) if number % 2]


@pytest.fixture
def dispatcher(settings) -> Iterator[Dispatcher]:
    environment = Environment(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value(), (), False
    )
    made = Dispatcher(settings, environment, threading.Event())
    yield made
    made.close()


def serve(desk, *domains: str, cost: Mapping[str, int] = {}) -> None:
    """Register a worker with four threads that is alive and takes no message.

    `cost` is the cost of the tasks `page`.
    """
    tasks = {"step": {"cost": {}}, "page": {"cost": cost}}
    known = {"version": None, "tasks": tasks, "max_tasks": 10**6}
    processes.register(
        desk.conn, [{"domain": domain, "name": domain, **known} for domain in domains]
    )
    processes.heartbeat(desk.conn, processes.Process(uuid4(), "worker", "h", 1, domains, 4), None)


def test_the_dispatcher_moves_ready_tasks_to_redis_fairly(
    dispatcher: Dispatcher, desk, queues, database
) -> None:
    """One round of the loop: the accounts share a window for the threads that serve the domain."""
    serve(desk, "shop")
    huge, small = desk.root(desk.account("huge")), desk.root(desk.account("small"))
    desk.finish(huge, tasks=[Task("step", {"number": n}) for n in range(500)])
    desk.finish(small, tasks=[Task("step")])
    leadership.resign(desk.conn, desk.me)
    with database.connection() as conn:
        dispatcher._step(conn)
    queued = dict(
        desk.rows(
            """
            SELECT user_integration_id::text, count(*) FROM sync_task WHERE state = 'queued'
            GROUP BY 1
            """
        )
    )
    assert queued[small.account_id] == 1
    assert 1 <= queued[huge.account_id] <= 6
    assert queues.length("shop") == sum(queued.values())


def test_an_idle_domain_is_woken_while_another_is_busy(
    dispatcher: Dispatcher, desk, queues, database, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(desk, "shop", "busy")
    desk.add(desk.run(desk.account("huge", domain="busy")), *map(str, range(100)))
    with database.connection() as conn:
        dispatcher._step(conn)
        monkeypatch.setattr(
            loop, "POLL_SECONDS", float("inf")
        )  # the next poll must not find the work
        until(lambda: dispatcher._step(conn) or dispatcher._domains["shop"].phase is Phase.IDLE)
        assert dispatcher._domains["busy"].phase is Phase.SCANNING
        desk.run(desk.account(user_id="other"))  # the tasks of "huge" hold all places of its user
        queues.wake()
        until(lambda: dispatcher._step(conn) or queues.length("shop"))


def test_an_idle_leader_is_woken_before_its_next_refresh(
    dispatcher: Dispatcher, desk, queues, database, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sleeping until the next refresh would delay every third page of a listing by about 25 ms."""
    serve(desk, "shop")
    leadership.resign(desk.conn, desk.me)
    with database.connection() as conn:
        until(lambda: dispatcher._step(conn) or dispatcher._domains["shop"].phase is Phase.IDLE)
        monkeypatch.setattr(
            dispatcher._stop,
            "wait",
            lambda _: pytest.fail("the leader sleeps, and misses the wake-up"),
        )
        dispatcher._refresh_due = time.monotonic() + loop.MAX_PAUSE_SECONDS / 2
        desk.run(desk.account())
        queues.wake()
        dispatcher._wait(conn, 0)
    assert dispatcher._domains["shop"].phase is Phase.SCANNING


def test_a_wake_up_scans_only_domains_with_open_runs(
    dispatcher: Dispatcher, desk, queues, database, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan costs trips to both servers, and each page of a listing wakes the leader."""
    monkeypatch.setattr(loop, "POLL_SECONDS", float("inf"))
    serve(desk, "shop", "bank", "post")
    leadership.resign(desk.conn, desk.me)
    scanned: list[str] = []
    length = dispatcher._queues.length

    def phases() -> list[Phase]:
        return [domain.phase for _, domain in dispatcher._served()]

    with database.connection() as conn:
        until(lambda: dispatcher._step(conn) or {*phases()} == {Phase.IDLE})
        monkeypatch.setattr(
            dispatcher._queues, "length", lambda name: scanned.append(name) or length(name)
        )
        desk.run(desk.account())
        queues.wake()
        until(lambda: dispatcher._step(conn) or queues.length("shop"))
    assert set(scanned) == {"shop"}


def test_accounts_behind_blocked_ones_wait_only_for_a_few_rests(
    dispatcher: Dispatcher, desk, queues, database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_ACCOUNTS_PER_LOOK", 2)
    monkeypatch.setattr(domain, "MAX_PASSED_ACCOUNTS", 10)
    serve(desk, "shop")
    *held_back, behind = sorted(desk.account(f"a{number}") for number in range(40))
    for account in (*held_back, behind):
        desk.run(account)
    block = (
        "INSERT INTO limit_block (key, until, reason) VALUES (%s, now() + interval '1 h', 'spent')"
    )
    for account in held_back:
        desk.conn.execute(block, (account_key(str(account)),))
    with database.connection() as conn:
        dispatcher._lead(conn)
        for _ in range(4):
            dispatcher._refresh_workers(conn)  # as after each second of rest
            shop = dispatcher._domains["shop"]
            while shop.phase is Phase.SCANNING:
                dispatcher._dispatch_domain(conn, "shop", shop)
    assert desk.rows("SELECT user_integration_id FROM sync_task WHERE state = 'queued'") == [
        (behind,)
    ]


def test_an_account_without_units_does_not_take_each_turn_of_its_user(
    dispatcher: Dispatcher, desk, database, until
) -> None:
    """Each user has one place. The dispatcher knows only after a claim that it brings no task."""
    serve(desk, "shop", cost={"calls": 1})
    limit = Rate("calls", 2, 600.0, by="integration")
    accounts = sorted(
        (desk.account(f"{user} {number}", user_id=user, limits=to_json([limit])), user)
        for user in ("ann", "bob")
        for number in range(10)
    )
    free = next(account for account, user in reversed(accounts) if user == "ann")
    for account, _ in accounts:
        desk.finish(desk.root(account), tasks=[Task("step" if account == free else "page")])
    key = limit_key(limit, domain="shop", account_id=str(free), group=None)
    block = (
        "INSERT INTO limit_block (key, until, reason) VALUES (%s, now() + interval '1 h', 'spent')"
    )
    desk.conn.execute(block, (key,))
    leadership.resign(desk.conn, desk.me)
    queued = "SELECT user_integration_id FROM sync_task WHERE state = 'queued'"
    with database.connection() as conn:
        until(lambda: dispatcher._step(conn) or desk.rows(queued))
    assert desk.rows(queued) == [(free,)]


def test_new_workers_get_work_immediately(
    dispatcher: Dispatcher, desk, database, monkeypatch
) -> None:
    """The dispatcher does not wait for its next look at the workers."""
    monkeypatch.setattr(loop, "POLL_SECONDS", 1_000.0)
    leadership.resign(desk.conn, desk.me)
    with database.connection() as conn:
        dispatcher._queues.wake()
        dispatcher._step(conn)
        serve(desk, "shop")
        desk.run(desk.account("new"))
        dispatcher._queues.wake()

        def dispatched() -> bool:
            dispatcher._step(conn)
            return bool(desk.rows("SELECT FROM sync_task WHERE state = 'queued'"))

        until(dispatched, "the root task is dispatched")


def test_the_leader_continues_deferred_tasks_that_are_due(maintenance: Maintenance, desk) -> None:
    desk.finish(desk.root(desk.account()), tasks=[Task("step")])
    (dispatch,) = desk.claim()
    desk.save(Outcome(dispatch, state="deferred", delay=60, attempt=1, reason="down"))
    maintenance.after_gap()
    maintenance.run_due(desk.conn)
    assert desk.tasks()[dispatch.task_id] == "deferred"
    desk.conn.execute("UPDATE sync_task SET available_at = now() WHERE state = 'deferred'")
    until(
        lambda: maintenance.run_due(desk.conn) or "running" in desk.runs(),
        "a run is opened for the task",
    )
    assert [dispatch.type for dispatch in desk.claim()] == ["step"]


def test_a_leader_hands_over_to_a_candidate_that_can_send(desk) -> None:
    ours, theirs = (processes.Process(uuid4(), "dispatcher", "h", 1, [], 0) for _ in range(2))
    for process in (ours, theirs):
        processes.heartbeat(desk.conn, process, None)
    leadership.resign(desk.conn, desk.me)
    assert leadership.lead(desk.conn, ours.id, can_send=False)
    assert not leadership.hand_over(desk.conn, ours.id, 60)
    assert not leadership.lead(desk.conn, theirs.id, can_send=True)
    assert not leadership.hand_over(desk.conn, ours.id, 0)  # Redis may be away for both
    assert leadership.hand_over(desk.conn, ours.id, 60)
    assert leadership.status(desk.conn).leader == theirs.id
    assert not leadership.lead(desk.conn, ours.id, can_send=False)


def test_a_candidate_that_cannot_send_leaves_a_vacancy_to_one_that_can(desk) -> None:
    ours, theirs = (processes.Process(uuid4(), "dispatcher", "h", 1, [], 0) for _ in range(2))
    for process in (ours, theirs):
        processes.heartbeat(desk.conn, process, None)
    assert leadership.lead(desk.conn, theirs.id, can_send=True)
    leadership.resign(desk.conn, theirs.id)
    assert not leadership.lead(desk.conn, ours.id, can_send=False)
    desk.conn.execute("UPDATE process SET can_send_at = can_send_at - interval '6 s'")
    assert leadership.lead(desk.conn, ours.id, can_send=False)
