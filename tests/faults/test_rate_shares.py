"""Shares of a rate limit, in a real fleet. They are counted in calls, never by time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from uuid import UUID

import pytest
from support.accounts import connect, sync
from support.budget_model import worst_window
from support.deployment import Deployment
from support.fleet import Fleet
from support.grouped import CLIENT, Grouped
from support.metered import calls
from support.oracle import LATE_SECONDS


@pytest.fixture
def grouped_fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet(POLLING_PLUGINS="support.grouped")


def moments(deployment: Deployment) -> list[tuple[float, UUID, str]]:
    """Return the time, the account and the lane of each call, in their order."""
    return sorted(
        (at, UUID(name.partition("/")[0]), name.partition("/")[2])
        for name, times in calls(deployment.home).items()
        for at in times
    )


def test_three_users_share_one_client_while_one_has_a_large_backfill(
    grouped_fleet: Fleet, deployment: Deployment
) -> None:
    """Each user has a third of the calls in which all three wait, and no window is exceeded."""
    ann = connect(deployment, Grouped, {"backfill": 10_000}, user="ann", group="client")
    others = [
        connect(deployment, Grouped, {"live": 200}, user=user, group="client")
        for user in ("bob", "cid")
    ]
    grouped_fleet.workers(processes=2, threads=4)
    sync(deployment, ann)
    grouped_fleet.until(lambda: len(moments(deployment)) > 90, "the backfill runs alone", 60)
    for account in others:
        sync(deployment, account)

    def done(account: UUID) -> int:
        return sum(one == account for _, one, _ in moments(deployment))

    grouped_fleet.until(
        lambda: min(map(done, others)) >= 200, "the live runs have made all calls", 120
    )
    found = moments(deployment)
    # From one period after all three wait, to the last call of the first user that ends.
    start = max(next(at for at, one, _ in found if one == account) for account in others)
    end = min(max(at for at, one, _ in found if one == account) for account in others)
    shared = Counter(one for at, one, _ in found if start + CLIENT.per <= at <= end)
    assert len(shared) == 3
    assert min(shared.values()) >= 0.85 * max(shared.values()), shared
    window = CLIENT.per - LATE_SECONDS
    assert worst_window([(at, 1) for at, _, _ in found], window) <= CLIENT.units


def test_backfill_has_a_quarter_of_an_accounts_calls_while_live_tasks_wait(
    grouped_fleet: Fleet, deployment: Deployment
) -> None:
    account = connect(deployment, Grouped, {"live": 240, "backfill": 10_000}, group="client")
    grouped_fleet.workers(processes=2, threads=4)
    sync(deployment, account)

    def live() -> int:
        return sum(lane == "live" for _, _, lane in moments(deployment))

    grouped_fleet.until(lambda: live() >= 240, "the live run has made all calls", 120)
    found = moments(deployment)
    first, last = (pick(at for at, _, lane in found if lane == "live") for pick in (min, max))
    both = Counter(lane for at, _, lane in found if first + CLIENT.per <= at <= last)
    assert 0.2 <= both["backfill"] / both.total() <= 0.35, both
