"""Nobody can stop another: one user with slow tasks leaves threads to the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from integration_polling_hello_world import HelloWorld
from integration_polling_hostile import Hostile
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import HOSTILE, Fleet

SLOW_MS = 300_000
"""The milliseconds of a slow task: longer than every wait of these tests."""

RUNNING = """
SELECT count(*) FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE a.user_id = 'greedy' AND t.state = 'queued'
"""
DONE = """
SELECT count(*) FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE a.user_id = 'greedy' AND t.state = 'done' AND t.type <> 'start'
"""
STATE = "SELECT state FROM sync_run WHERE id = %s"


def _occupy(deployment: Deployment) -> None:
    """Start more slow tasks of one user than there are threads, on two domains."""
    for number in range(6):
        config = {"name": f"slow-{number}", "pages": 1, "items": 1, "delay_ms": SLOW_MS}
        sync(deployment, connect(deployment, HelloWorld, config, user="greedy"))
    config = {"deeds": [], "neighbours": 20, "neighbour_ms": SLOW_MS}
    sync(deployment, connect(deployment, Hostile, config, user="greedy"))


@pytest.mark.parametrize(
    ("processes", "threads", "most"), [(2, 4, 7), pytest.param(4, 1, 3, marks=pytest.mark.long)]
)
def test_slow_tasks_of_one_user_leave_a_thread_to_others(
    processes: int,
    threads: int,
    most: int,
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
) -> None:
    """All but the last tenth of the threads work for the user alone, on both domains together."""
    fleet = make_fleet(**HOSTILE)
    fleet.workers(processes=processes, threads=threads)
    fleet.ready()
    _occupy(deployment)
    fleet.until(lambda: deployment.rows(RUNNING) == [(most,)], "one user holds the others", 60)
    for integration in (HelloWorld, Hostile):
        for number in range(3):
            config = {"name": f"quick-{number}", "pages": 1} if integration is HelloWorld else {}
            run = sync(
                deployment, connect(deployment, integration, config, user=f"modest-{number}")
            )
            fleet.until(
                lambda run=run: deployment.rows(STATE, run) == [("succeeded",)],
                "another user's sync ends while the slow tasks run",
                60,
            )
    assert deployment.rows(DONE) == [(0,)]
