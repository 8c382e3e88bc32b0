"""A run that waits for threads says so, and `/readyz` reports tasks that wait for too long."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from core.accounts import store
from core.ledger import leadership, processes
from core.ledger.dispatching import TaskPortion
from core.service.accounts import blockers
from core.service.runs import progress


@pytest.fixture
def fleet(desk) -> None:
    """One live worker process with four threads, of which one is reserved, and a leader."""
    processes.heartbeat(desk.conn, processes.Process(uuid4(), "worker", "h", 1, ["shop"], 4), None)
    leadership.lead(desk.conn, desk.me)


def waits_for(backend, desk, account: UUID, run: UUID) -> list[str]:
    now = progress.progress(desk.conn, run)
    found = blockers.blockers(backend, desk.conn, store.load(desk.conn, account), now)
    return [blocker.reason for blocker in found]


@pytest.mark.parametrize(
    ("owner", "tasks", "reasons"),
    [
        ("u", 3, ["all 4 threads of shop are busy with account busy: 3 tasks ahead"]),
        ("u", 2, []),
        (
            "other",
            4,
            ["all 4 threads of shop are busy with accounts of other users: 4 tasks ahead"],
        ),
        ("other", 3, []),
    ],
)
def test_a_run_without_a_thread_says_who_holds_them(
    backend, desk, fleet, owner: str, tasks: int, reasons: list[str]
) -> None:
    busy, account = desk.account("busy", user_id=owner), desk.account("waits")
    desk.add(desk.run(busy), *"abcd")
    assert len(desk.claim(TaskPortion(str(busy), "live", tasks))) == tasks
    assert waits_for(backend, desk, account, desk.run(account)) == reasons


def test_a_run_that_holds_a_thread_waits_for_nothing(backend, desk, fleet) -> None:
    account = desk.account()
    run = desk.run(account)
    desk.add(run, *"abcd")
    desk.claim(TaskPortion(str(account), "live", 3))
    assert waits_for(backend, desk, account, run) == []


def test_readiness_and_overview_report_a_queue_that_stands_still(
    desk, fleet, api, dashboard
) -> None:
    def queue() -> str:
        return api.client(None).get("/readyz").json()["checks"]["queue"]

    assert queue() == "ok"
    leadership.record_stuck(desk.conn, desk.me, ["shop"])
    assert queue() == "warn"
    assert api.client(None).get("/readyz").json()["status"] == "degraded"
    assert "queue" in dashboard.sign_in().get("/").text
    leadership.record_stuck(desk.conn, uuid4(), [])
    assert queue() == "warn", "only the leader decides"
    leadership.record_stuck(desk.conn, desk.me, [])
    assert queue() == "ok"
