"""The blob store is full, read-only or away: an outage like any other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.deployment import Deployment
from support.fleet import Fleet
from support.ordeal import in_a_run
from support.s3 import S3, Fault, s3_server

LARGE = {"pages": 40, "items": 2, "item_bytes": 1_100_000, "delay_ms": 20}
"""A tree whose 80 items go to the blob store."""

PARKED = "SELECT count(*) FROM sync_task WHERE state = 'parked'"
REFUSED = """
SELECT count(*) FROM sync_task WHERE snoozes > 0 OR attempts > 0 OR state = 'parked'
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@contextmanager
def folder_away(folder: Path) -> Iterator[None]:
    """Put a file in the place of the store's folder, so that even root cannot write."""
    away = folder.with_name("away")
    folder.rename(away)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


def wait_through(fleet: Fleet, deployment: Deployment, seconds: float) -> None:
    """Wait until tasks were snoozed, and for `seconds`; nothing may be parked."""
    began = time.monotonic()
    fleet.until(lambda: deployment.value(REFUSED) >= 1, "the store has refused a task", 30)
    assert deployment.value(PARKED) == 0
    fleet.until(lambda: time.monotonic() >= began + seconds, "the outage is over", seconds + 5)
    assert deployment.value(PARKED) == 0


@pytest.mark.timeout(200)
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_a_store_folder_that_is_away_makes_tasks_wait_and_counts_nothing(
    seconds: float, make_fleet: Callable[..., Fleet], deployment: Deployment, tmp_path: Path
) -> None:
    folder = tmp_path / "blobs"
    folder.mkdir()
    fleet = make_fleet(POLLING_BLOB_URL=str(folder))
    with in_a_run(fleet, deployment, LARGE, after=8, quiet=120), folder_away(folder):
        wait_through(fleet, deployment, seconds)


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        ("refused", 3),
        ("lost reply", 3),
        pytest.param("refused", 60, marks=pytest.mark.long),
        *(
            pytest.param(fault, 8, marks=pytest.mark.long)
            for fault in ("slow down", "expired", "full")
        ),
    ],
)
def test_a_bucket_that_refuses_makes_tasks_wait_and_counts_nothing(
    fault: Fault,
    seconds: float,
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
    s3: S3,
) -> None:
    fleet = make_fleet(POLLING_BLOB_URL=s3.url(), **s3.environment())
    with in_a_run(fleet, deployment, LARGE, after=8, quiet=120):
        s3.fault = fault
        try:
            wait_through(fleet, deployment, seconds)
        finally:
            s3.fault = None
