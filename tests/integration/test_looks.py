"""Looks and admission: no change is missed, and no task starts without a recent look."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from core.accounts import store
from core.db.pool import Conn, Database
from core.errors import NotFound, ServerUnavailable
from core.ledger import looks, processes, pruning
from core.results.signals import AccountStopped
from core.worker import admission as module
from core.worker.accounts import Accounts
from core.worker.admission import LOOK_SECONDS, Admission
from core.worker.context import Services
from core.worker.inflight import InflightTasks
from core.worker.runner import Runner

PAUSE_SHOP = "UPDATE integration SET paused_at = now(), paused_until = %s WHERE domain = 'shop'"


@pytest.fixture
def process(desk: Any, shop: Any) -> UUID:
    """Register a live worker, and return its id."""
    one = processes.Process(uuid4(), "worker", "host", 17, ["shop"], 8)
    processes.heartbeat(desk.conn, one, datetime.now(UTC))
    entry = {"domain": "shop", "name": "Shop", "version": "1", "tasks": [], "max_tasks": 9}
    processes.register(desk.conn, [entry])
    return one.id


@pytest.fixture
def worker(database: Database, database_url: str, process: UUID, shop: Any) -> Iterator[Any]:
    """Return the parts of a worker process that look; the test takes each step."""
    registry: Any = SimpleNamespace(get=lambda _: shop)
    vault: Any = SimpleNamespace(open=lambda *_: None)
    accounts, inflight = Accounts(database, vault, registry, {}), InflightTasks()
    accounts._open = lambda account: SimpleNamespace(account=account)  # type: ignore[assignment,return-value]
    admission = Admission(database_url, inflight, accounts)
    admission._process = process
    yield SimpleNamespace(admission=admission, inflight=inflight, accounts=accounts)
    admission._database.close()


@pytest.fixture
def task(desk: Any, worker: Any) -> Any:
    """Return the dispatch of an account, received by the worker."""
    dispatch = desk.root(desk.account())
    worker.inflight.receive(dispatch)
    return dispatch


def looked_at(conn: Conn) -> datetime | None:
    row = conn.execute("SELECT looked_at FROM process").fetchone()
    assert row is not None
    looked: datetime | None = row[0]
    return looked


def statuses(look: looks.Look) -> dict[str | None, str | None]:
    return {account: status for (_, account), status in look.changes.items()}


def test_a_change_that_commits_late_with_a_lower_number_is_not_missed(
    desk: Any, process: UUID, database_url: str
) -> None:
    """The first transaction begins first and commits last, after a look that saw the second."""
    first, second = desk.account("first"), desk.account("second")
    start = looks.look(desk.conn, process, None, None)
    with psycopg.connect(database_url) as late:
        late.execute(store.PAUSE, (first,))
        desk.conn.execute(store.PAUSE, (second,))
        between = looks.look(desk.conn, process, start.xmin, start.at)
        assert statuses(between) == {str(second): "paused"}
        late.commit()
    after = looks.look(desk.conn, process, between.xmin, between.at)
    assert statuses(after)[str(first)] == "paused"
    last = looks.look(desk.conn, process, after.xmin, after.at)
    assert looks.look(desk.conn, process, last.xmin, last.at).changes == {}


def test_a_look_tells_erased_accounts_and_paused_integrations(desk: Any, process: UUID) -> None:
    account = desk.account()
    start = looks.look(desk.conn, process, None, None)
    desk.conn.execute("DELETE FROM user_integration WHERE id = %s", (account,))
    desk.conn.execute(PAUSE_SHOP, (None,))
    look = looks.look(desk.conn, process, start.xmin, start.at)
    assert statuses(look) == {str(account): None, None: None}
    assert (look.paused, look.registered) == ({"shop"}, True)
    desk.conn.execute(PAUSE_SHOP, (datetime(2020, 1, 1, tzinfo=UTC),))
    assert looks.look(desk.conn, process, look.xmin, look.at).paused == set()
    assert not looks.look(desk.conn, uuid4(), look.xmin, look.at).registered


def test_after_a_rest_the_second_look_admits(desk: Any, worker: Any, task: Any) -> None:
    """A caller that saw the process at rest returned without waiting for the first look."""
    admission = worker.admission
    with pytest.raises(ServerUnavailable):
        admission.check(task)
    assert admission.step() == 0.0
    assert looked_at(desk.conn) == datetime.fromtimestamp(0, UTC)
    with pytest.raises(ServerUnavailable):
        admission.check(task)
    assert admission.step() == module.LOOK_SECONDS
    assert looked_at(desk.conn) > datetime.fromtimestamp(0, UTC)  # type: ignore[operator]
    admission.check(task)


def test_a_process_answers_the_leader_with_its_next_look(desk: Any, worker: Any, task: Any) -> None:
    while worker.admission.step() == 0.0:
        pass
    asked = processes.ask(desk.conn)
    assert asked is not None
    assert not processes.answered(desk.conn, asked)
    assert worker.admission.step() == 0.0
    assert worker.admission.step() == LOOK_SECONDS
    assert processes.answered(desk.conn, asked)
    assert processes.settle(desk.conn, asked) == {task.id}
    assert worker.admission.step() == LOOK_SECONDS
    assert worker.inflight.ids() == [task.id]


def test_a_process_that_answers_too_late_leaves_its_unstarted_tasks(
    desk: Any, worker: Any, task: Any
) -> None:
    """The leader has sent their messages again."""
    lost: list[Any] = []
    worker.admission.on_lost = lost.extend
    running, after = desk.root(desk.account("b")), desk.root(desk.account("c"))
    worker.inflight.receive(running)
    worker.inflight.start(running, 60)
    asked = processes.ask(desk.conn)
    assert asked is not None
    assert processes.settle(desk.conn, asked) == set()
    worker.inflight._tasks[task.lease].changed -= 20
    desk.conn.execute(
        "UPDATE process SET settled_at = settled_at + interval '-5 s',"
        " asked_at = asked_at + interval '-5 s'"
    )
    worker.inflight.receive(after)
    while worker.admission.step() == 0.0:
        pass
    assert lost == [task]


def test_a_process_without_work_rests(
    desk: Any, worker: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", -1.0)
    admission, inflight = worker.admission, worker.inflight
    admission._look(), admission._look()
    inflight.release([task], done=False)
    assert admission.step() is None
    assert (looked_at(desk.conn), admission.step()) == (None, None)
    inflight.receive(task)
    with pytest.raises(ServerUnavailable):
        admission.check(task)


@pytest.mark.parametrize("change", ["pause", "disconnect", "erase"])
def test_a_look_stops_the_tasks_of_an_account(
    change: str, desk: Any, worker: Any, task: Any
) -> None:
    other = desk.root(desk.account("other"))
    worker.inflight.receive(other)
    worker.admission.step(), worker.admission.step()
    worker.admission.check(task)
    account = task.account_id
    match change:
        case "pause":
            desk.conn.execute(store.PAUSE, (account,))
        case "disconnect":
            desk.conn.execute(store.DISCONNECT, (account,))
        case "erase":
            desk.conn.execute("DELETE FROM user_integration WHERE id = %s", (account,))
    worker.admission.check(task)
    assert worker.admission.step() == 0.0  # a second look records this one
    with pytest.raises(NotFound if change == "erase" else AccountStopped):
        worker.admission.check(task)
    worker.admission.check(other)
    assert worker.inflight.is_stopping(task)
    assert not worker.inflight.is_stopping(other)
    assert worker.admission.step() == module.LOOK_SECONDS
    if change == "pause":
        desk.conn.execute(store.RESUME, (account,))
        worker.admission.step()
        worker.admission.check(task)


def test_tasks_of_a_paused_integration_do_not_start_and_running_ones_end(
    desk: Any, worker: Any, task: Any
) -> None:
    worker.admission.step(), worker.admission.step()
    desk.conn.execute(PAUSE_SHOP, (None,))
    worker.admission.step()
    with pytest.raises(AccountStopped, match="the integration is paused"):
        worker.admission.check(task)
    assert not worker.inflight.is_stopping(task)


def test_a_look_that_is_too_old_admits_nothing(
    worker: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.admission.step(), worker.admission.step()
    worker.admission.check(task)
    began = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: began + module.STALE_SECONDS + 0.1)
    with pytest.raises(ServerUnavailable):
        worker.admission.check(task)


def test_after_a_failed_look_every_account_is_loaded_again(
    desk: Any, worker: Any, task: Any
) -> None:
    """A restored or promoted database may assign smaller transaction numbers."""
    worker.admission.step(), worker.admission.step()
    worker.admission.check(task)
    desk.conn.execute("ALTER TABLE user_integration DISABLE TRIGGER account_change")
    desk.conn.execute(store.PAUSE, (task.account_id,))
    worker.admission.step()
    worker.admission.check(task)  # without the trigger, nothing tells of the change
    worker.admission._failed = True
    worker.admission.step()
    with pytest.raises(AccountStopped):
        worker.admission.check(task)


def test_an_account_that_changes_while_it_is_loaded_is_loaded_again(
    desk: Any, worker: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = worker.accounts._open

    def change_during_load(account: Any) -> Any:
        monkeypatch.setattr(worker.accounts, "_open", opened)
        desk.conn.execute(store.PAUSE, (task.account_id,))
        worker.admission.step()
        return opened(account)

    worker.admission.step(), worker.admission.step()
    monkeypatch.setattr(worker.accounts, "_open", change_during_load)
    with pytest.raises(AccountStopped):
        worker.admission.check(task)


def test_a_caller_waits_until_a_process_has_applied_a_look(
    database: Database, desk: Any, worker: Any, task: Any
) -> None:
    assert looks.wait_until_seen(database, 0.0)  # the process rests
    worker.admission.step(), worker.admission.step()
    assert not looks.wait_until_seen(database, 0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(looks.wait_until_seen, database, 20.0)
        while not waiting.done():
            worker.admission.step()
        assert waiting.result()
    desk.conn.execute("UPDATE process SET seen_at = now() - interval '1 minute'")
    assert looks.wait_until_seen(database, 0.0)  # the process is dead


def test_an_account_stopped_during_initialize_has_no_call(
    desk: Any, database: Database, egress: Any, worker: Any, task: Any, shop: Any
) -> None:
    worker.admission.step(), worker.admission.step()
    called: list[str] = []

    class Slow:
        integration = SimpleNamespace(run_task=lambda *_: called.append("run_task"))

    class Pool:
        discard = staticmethod(lambda _: called.append("discard"))

        def take(self, loaded: Any) -> Slow:
            desk.conn.execute(store.PAUSE, (task.account_id,))
            worker.admission.step()
            return Slow()

    services = Services(
        database,
        worker.accounts,
        desk.blobs,
        None,
        lambda _: False,
        egress,
        worker.admission.check,  # type: ignore[arg-type]
    )
    runner = Runner(services, Pool(), SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(AccountStopped):
        runner.run(task)
    assert called == ["discard"]


@pytest.mark.parametrize("probe", [False, True])
def test_an_account_stopped_before_initialize_has_no_call(
    desk: Any, database: Database, egress: Any, worker: Any, task: Any, probe: bool
) -> None:
    """Between the middleware's check and the runner, a rate limit may take seconds."""
    worker.admission.step(), worker.admission.step()
    called: list[str] = []
    pool = SimpleNamespace(take=lambda _: called.append("initialize"))
    loaded = worker.accounts.get(task.account_id)
    services = Services(
        database,
        SimpleNamespace(get=lambda *_: loaded),  # type: ignore[arg-type]
        desk.blobs,
        None,  # type: ignore[arg-type]
        lambda _: False,
        egress,
        worker.admission.check,
    )
    runner = Runner(services, pool, SimpleNamespace())  # type: ignore[arg-type]
    desk.conn.execute(store.PAUSE, (task.account_id,))
    worker.admission.step()
    with pytest.raises(AccountStopped):
        runner.run(replace(task, probe=probe))
    assert called == []


def test_a_look_is_recorded_only_after_it_was_applied(desk: Any, process: UUID) -> None:
    first = looks.look(desk.conn, process, None, None)
    second = looks.look(desk.conn, process, first.xmin, first.at)
    assert looked_at(desk.conn) == first.at < second.at


def test_old_changes_are_pruned(desk: Any) -> None:
    for name, age in (("old", "61 minutes"), ("young", "59 minutes")):
        desk.conn.execute(store.PAUSE, (desk.account(name),))
        desk.conn.execute(
            "UPDATE control_change SET changed_at = now() - %s::interval"
            " WHERE user_integration_id = (SELECT id FROM user_integration WHERE name = %s)",
            (age, name),
        )
    pruning.prune(desk.conn)
    assert desk.value("SELECT count(*) FROM control_change") == 1
