"""The use of users by day: recorded by workers, shown by API, metrics and commands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core import TaskOutput
from core.accounts.vault import new_key
from core.environment import Environment
from core.ledger import pruning, quotas
from core.ledger.outcomes import Outcome
from core.ledger.use import Use, add_use
from core.metrics.use import UseCounters
from core.service import use
from core.service.accounts.erase import erase_user
from core.settings import Settings
from core.states import Quota, TaskState
from core.transport.queues import Queues
from core.worker.process import WorkerProcess

SOME = Use(polls=1, tasks=3, thread_seconds=2.5, bytes_in=100, bytes_kept=40)


def test_numbers_of_processes_add_up_by_user_and_day(conn) -> None:
    add_use(conn, {"ann": SOME, "bob": Use(tasks=1)})
    add_use(conn, {"ann": Use(tasks=1, thread_seconds=0.5)})
    add_use(conn, {})
    conn.execute("UPDATE user_day SET day = day - 1 WHERE user_id = 'bob'")
    add_use(conn, {"bob": Use(tasks=7)})
    (ann, bob) = use.of_users(conn).rows
    assert (ann["user_id"], ann["polls"], ann["tasks"], ann["thread_seconds"]) == ("ann", 1, 4, 3.0)
    assert (ann["bytes_in"], ann["bytes_kept"], bob["tasks"]) == (100, 40, 7)
    assert [row["tasks"] for row in use.of_users(conn, days=2, user="bob").rows] == [8]
    assert [row["tasks"] for row in use.by_day(conn, "bob")] == [7, 1]
    assert [row["user_id"] for row in use.of_users(conn, limit=1).rows] == ["ann"]


def test_a_worker_counts_tasks_and_bytes_of_committed_results(desk) -> None:
    account = desk.account(user_id="ann")
    root = desk.root(account)
    counted = UseCounters()
    outputs = [TaskOutput("a", "x" * 10), TaskOutput("b", "y" * 5)]
    for number in range(2):
        counted.saved([desk.save(desk.outcome(root, output=outputs))])
        desk.add(desk.run(account), str(number))
        (root,) = desk.claim()
    retried = Outcome(root, state=TaskState.READY)
    counted.saved([desk.save(retried)])
    counted.ran("ann", 1.5)
    counted.ran("", 9.0)
    # The second result changed nothing, and the third task runs again.
    assert counted.take() == {"ann": Use(1, 2, 1.5, 30, 15)}
    assert counted.take() == {}


def test_a_heartbeat_writes_the_use_and_keeps_what_it_could_not_write(
    database_url: str, conn, tmp_path: Path
) -> None:
    settings = Settings(_env_file=None, database_url=None, redis_url=None, home=tmp_path)
    environment = Environment(database_url, "redis://nobody", (new_key(),), embedded=False)
    registry: Any = SimpleNamespace(integrations={})
    nobody = Queues("redis://127.0.0.1:1", "polling")
    worker = WorkerProcess(settings, environment, nobody, registry)
    worker._assign(threads=1, serves=[])
    worker.inflight.on_end("ann", 2.0)
    conn.execute("ALTER TABLE user_day RENAME TO elsewhere")
    worker._heartbeat()
    conn.execute("ALTER TABLE elsewhere RENAME TO user_day")
    worker.inflight.on_end("ann", 1.0)
    worker._heartbeat()
    worker._heartbeat()
    assert [row["thread_seconds"] for row in use.of_users(conn).rows] == [3.0]
    worker.database.close()


def test_the_use_of_an_erased_user_and_of_old_days_is_deleted(api, conn) -> None:
    add_use(conn, {"ann": SOME, "bob": SOME})
    erase_user(api.backend, "ann")
    assert [row["user_id"] for row in use.of_users(conn).rows] == ["bob"]
    conn.execute("UPDATE user_day SET day = day - 399")
    pruning.prune(conn)
    assert len(use.by_day(conn, "bob", days=use.MAX_DAYS)) == 1
    conn.execute("UPDATE user_day SET day = day - 2")
    pruning.prune(conn)
    assert conn.execute("SELECT count(*) FROM user_day").fetchone() == (0,)


def test_the_api_shows_a_user_its_own_use_and_an_operator_that_of_all(api, conn) -> None:
    add_use(conn, {"ann": SOME, "bob": Use(thread_seconds=9.0)})
    shown = api.admin.get("/v1/users").json()["items"]
    assert [row["user_id"] for row in shown] == ["bob", "ann"]
    ann = api.user("ann")
    assert [row["user_id"] for row in ann.get("/v1/users").json()["items"]] == ["ann"]
    (day,) = ann.get("/v1/users/ann/use").json()["items"]
    assert (day["tasks"], day["bytes_kept"]) == (3, 40)
    refused = ann.get("/v1/users/bob/use")
    assert (refused.status_code, refused.json()["code"]) == (403, "token-of-another-user")
    assert api.admin.get("/v1/users/none/use").json()["items"] == []


def test_metrics_name_the_largest_users_and_sum_up_the_others(
    api, conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.rest.metrics.CACHE_SECONDS", 0)
    used = {f"user-{number}": Use(tasks=1, thread_seconds=number) for number in range(40)}
    add_use(conn, used)
    families = text_string_to_metric_families(api.admin.get("/metrics").text)
    (seconds,) = (each for each in families if each.name == "polling_user_thread_seconds_today")
    values = {sample.labels["user"]: sample.value for sample in seconds.samples}
    assert len(values) == use.NAMED_USERS + 1
    assert values["user-39"] == 39.0
    assert values[""] == sum(range(20))


def test_the_dashboard_shows_operators_all_users_and_a_user_its_own_use(
    dashboard, desk, conn
) -> None:
    add_use(conn, {"ann": SOME, "b<b>": Use(thread_seconds=9.0)})
    desk.account(user_id="ann")
    quotas.set_quotas(conn, "ann", {Quota.ACCOUNTS: 1, Quota.RUNS: 0})
    operator, ann = dashboard.sign_in(), dashboard.sign_in("ann")
    every = operator.get("/users").text
    assert 'href="/users?user=ann&amp;days=30"' in every
    assert "b&lt;b&gt;" in every
    assert every.count("reached") == 2
    for page in (ann.get("/users").text, operator.get("/users?user=ann&days=7").text):
        assert "1 of 1" in page
        assert "0 of 0" in page
        assert "All runs of this day have begun" in page
        assert "2.5 s" in page
        assert "b&lt;b&gt;" not in page
    assert ann.get("/users?user=bob").status_code == 403
    assert "No use in these days" in operator.get("/users?user=nobody").text
