"""Slots: places of a limit that processes hold until their instances are closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.deployment import Deployment
from support.waiting import until

from core.worker.slots import AccountSlots

KILL_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database()
"""

HOLD = """
import sys, time
from core.worker.slots import AccountSlots
slots = AccountSlots(sys.argv[1])
print(slots.take("limit", 2), slots.take("limit", 2), flush=True)
time.sleep(600)
"""


@pytest.fixture
def pair(deployment: Deployment) -> Iterator[tuple[AccountSlots, AccountSlots]]:
    """Two processes, as far as the database can tell."""
    slots = AccountSlots(deployment.database_url), AccountSlots(deployment.database_url)
    yield slots
    for each in slots:
        each.close()


def test_the_fleet_holds_no_more_slots_than_a_limit_has_places(
    pair: tuple[AccountSlots, AccountSlots],
) -> None:
    mine, others = pair
    first, second = mine.take("limit", 3), mine.take("limit", 3)
    third = others.take("limit", 3)
    assert first is not None
    assert len({first, second, third}) == 3
    assert mine.take("limit", 3) is None
    assert others.take("limit", 3) is None
    assert others.take("another", 1) is not None
    assert mine.count("limit", 3) == 3
    mine.release(first)
    assert others.take("limit", 3) == first


def test_a_lowered_limit_counts_the_slots_above_it(pair: tuple[AccountSlots, AccountSlots]) -> None:
    mine, others = pair
    taken = [mine.take("limit", 4) for _ in range(3)]
    assert taken[0] is not None
    mine.release(taken[0])
    assert others.take("limit", 4, 2) is None
    assert others.take("limit", 4, 3) is not None


def test_a_process_that_dies_releases_its_slots_at_that_moment(
    deployment: Deployment, pair: tuple[AccountSlots, AccountSlots]
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, deployment.database_url], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert b"None" not in holder.stdout.readline()
    assert pair[0].take("limit", 2) is None
    os.kill(holder.pid, signal.SIGSTOP)
    assert pair[0].take("limit", 2) is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    until(lambda: pair[0].take("limit", 2) is not None, "a slot is free", 5)


def test_slots_outlive_the_session_of_the_database(
    deployment: Deployment, pair: tuple[AccountSlots, AccountSlots], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.worker.slots.CHECK_SECONDS", 0.0)
    mine, others = pair
    slot = mine.take("limit", 1)
    deployment.rows(KILL_SESSIONS)
    mine.check()
    assert others.take("limit", 1) is None
    assert slot is not None
    mine.release(slot)
    assert others.take("limit", 1) == slot
