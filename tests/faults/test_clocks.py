"""Wrong clocks and daylight saving time.

The database's clock decides whether a task is due, leased or blocked, and who leads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from integration_polling_hello_world import HelloWorld
from integration_polling_hostile import Hostile
from support import fleet as fleets
from support import oracle
from support.accounts import connect
from support.deployment import Deployment
from support.fleet import Fleet

CLOCK = str(Path(fleets.__file__).parent / "clock")
WRONG = (
    "SELECT extract(epoch FROM clock - seen_at)::int FROM process WHERE kind = 'worker' ORDER BY 1"
)
TICKED = "SELECT last_tick_at FROM engine_state WHERE last_tick_at IS NOT NULL"

TREE = {
    "pages": 8,
    "items": 8,
    "fanout_depth": 1,
    "fail_rate": {"rate_limited": 0.01, "transient": 0.02},
}
"""A tree in which some tasks are snoozed for a second, and some wait for their backoff."""


def ahead(seconds: float, zone: str = "UTC") -> dict[str, str]:
    """Return the environment of a process whose clock is `seconds` ahead."""
    paths = [CLOCK, fleets.HOSTILE["PYTHONPATH"], os.environ.get("PYTHONPATH", "")]
    return fleets.HOSTILE | {
        "PYTHONPATH": os.pathsep.join(paths),
        "CLOCK_AHEAD_SECONDS": str(seconds),
        "TZ": zone,
    }


def test_workers_whose_clocks_are_ten_minutes_wrong_sync_everything_once(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The scheduler is further behind than either worker, so that its ticks look old to both."""
    fleet = make_fleet()
    fleet.workers(processes=1, **ahead(600))
    fleet.workers(processes=1, **ahead(-600))
    fleet.ready()
    wrong = [seconds for (seconds,) in deployment.rows(WRONG)]
    assert [round(seconds, -1) for seconds in wrong] == [-600, 600]
    tree, frugal = (
        connect(deployment, HelloWorld, TREE),
        connect(deployment, Hostile, {"deeds": ["ask_for_budget"]}),
    )
    fleet.scheduler(POLLING_CRON_SCHEDULE="* * * * *", **ahead(-1200))
    fleet.until(lambda: deployment.value(RUNS) == 2, "a tick makes the runs", 70)
    assert deployment.rows(TICKED)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, tree, TREE)
    oracle.assert_runs(fleet, frugal, ["succeeded"])
    oracle.assert_nobody_convicted(deployment)


RUNS = "SELECT count(*) FROM sync_run"

CHANGES = {
    "spring": datetime(2027, 3, 28, 1, tzinfo=UTC),
    "autumn": datetime(2026, 10, 25, 1, tzinfo=UTC),
}
"""The change of European clocks, twice a year at one o'clock UTC."""

FIRST_TICK = {"spring": "2027-03-28 03:00:00+02:00", "autumn": "2026-10-25 02:00:00+01:00"}


@pytest.mark.parametrize("when", [pytest.param("spring", marks=pytest.mark.long), "autumn"])
def test_daylight_saving_time_changes_nothing(
    when: str, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The processes live through the change in one time zone; the database has another."""
    before = CHANGES[when] - timedelta(seconds=12)
    environment = ahead(before.timestamp() - time.time(), "Europe/Berlin")
    name = deployment.database_url.split("?")[0].rsplit("/", 1)[1]
    deployment.rows(f"ALTER DATABASE \"{name}\" SET timezone = 'America/New_York'")
    fleet = make_fleet(POLLING_CRON_SCHEDULE="* * * * *", **environment)
    fleet.scheduler()
    fleet.workers(processes=1)
    account = connect(deployment, HelloWorld, TREE)
    fleet.until(
        lambda: ticks_at(fleet, FIRST_TICK[when]), "the scheduler sends a tick at the change", 90
    )
    # The account was due once. There is one run, no matter which tick found the account.
    fleet.until(lambda: deployment.value(RUNS) == 1, "the account has a run", 90)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_content(deployment, account, oracle.expected(TREE))
    oracle.assert_nobody_convicted(deployment)
    assert "has not ticked" not in fleet.says(), "the leader thought that the scheduler was silent"


def ticks_at(fleet: Fleet, moment: str) -> bool:
    """Return True if the scheduler has sent a tick at this moment."""
    said = fleet.says()
    return f"at {moment}" in said or f"at {moment.replace(' ', 'T')}" in said
