"""A provider that does not answer: nothing is parked, and nothing is lost.

Pauses between deferrals last minutes and hours. The test of a brown-out skips them: it makes
deferred tasks due.
"""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from integration_polling_ftp import Ftp
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.gmail import FakeGmail
from support.gmail.server import Answer, error
from support.gmail_fleet import DOWNLOADS, connected, expected
from support.waiting import until

DUE = "UPDATE sync_task SET available_at = now() WHERE state = 'deferred' AND retried_as IS NULL"
DEFERRED = "SELECT count(*) FROM sync_task WHERE state = 'deferred' AND retried_as IS NULL"
FAILED_PROBES = "SELECT coalesce(max(failed_probes), 0) FROM breaker"
COUNTED = "SELECT id, state, attempts FROM sync_task WHERE attempts > 0 OR state = 'deferred'"
PARKED = "SELECT type, reason FROM sync_task WHERE state = 'parked'"
SOURCES = """
SELECT external_id, hash FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'source' AND deleted_at IS NULL
"""


def continue_until_nothing_is_deferred(fleet: Fleet, rounds: int) -> int:
    """Make deferred tasks due until none is left. Return the number of rounds."""
    for number in range(rounds):
        oracle.wait_for_quiet(fleet, 90)
        if not fleet.deployment.value(DEFERRED):
            return number
        fleet.deployment.rows(DUE)
        fleet.until(lambda: not fleet.deployment.value(
            f"{DEFERRED} AND available_at <= now()"), "due tasks are continued", 30)  # fmt: skip
    raise AssertionError(f"tasks are still deferred after {rounds} rounds")


def assert_nothing_is_counted(deployment: Deployment) -> None:
    """Assert that the run waits, that no attempt counts, and that no task is set aside."""
    assert not deployment.rows(
        "SELECT id FROM sync_run WHERE state NOT IN ('running', 'succeeded')"
    )
    assert deployment.value(oracle.OPEN) > 0
    assert not deployment.rows(COUNTED)
    assert not deployment.rows(PARKED)


def assert_complete(deployment: Deployment, account: UUID, gmail: FakeGmail) -> None:
    """Assert that every message is kept, and that no task is parked."""
    assert dict(deployment.rows(SOURCES, account)) == expected(gmail)
    assert not deployment.rows(PARKED)
    assert not deployment.rows(oracle.REWRITTEN, account)


def test_an_outage_during_a_first_sync_parks_and_loses_nothing(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    gmail.page_size = 50
    gmail.mailbox.fill(200)
    away = threading.Event()

    def failing(kind: str, path: str) -> Answer | None:
        return error(503, "backendError", "The service is away.") if away.is_set() else None

    gmail.failing = failing
    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    gmail_fleet.until(lambda: deployment.value(DOWNLOADS) >= 30, "30 messages are fetched", 60)
    away.set()
    gmail_fleet.until(lambda: deployment.value(FAILED_PROBES) >= 2, "two probes failed", 60)
    assert_nothing_is_counted(deployment)
    away.clear()
    oracle.wait_for_quiet(gmail_fleet, 90)
    assert deployment.value(DEFERRED) == 0
    assert_complete(deployment, account, gmail)


def test_a_brown_out_in_which_a_third_of_the_calls_fail_loses_nothing(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    gmail.page_size = 50
    gmail.mailbox.fill(150)
    dice = random.Random(7)

    def failing(kind: str, path: str) -> Answer | None:
        unlucky = kind != "profile" and dice.random() < 0.3
        return error(503, "backendError", "The service is busy.") if unlucky else None

    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    gmail.failing = failing
    sync(deployment, account)
    assert continue_until_nothing_is_deferred(gmail_fleet, 20) > 0
    assert_complete(deployment, account, gmail)


class FtpServer:
    """A real FTP server with anonymous access to a folder, on one port, also after a restart."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self._command = [
            sys.executable, "-W", "ignore", "-m", "pyftpdlib", "-i", "127.0.0.1",
            "-p", str(self.port), "-d", str(folder),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, "the FTP server answers", 20)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(3) == b"220"
        except OSError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[FtpServer]:
    folder = tmp_path / "served"
    for number in range(120):
        file = folder / f"folder-{number % 6}" / f"file-{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"file {number}\n" * 50)
    server = FtpServer(folder)
    server.start()
    yield server
    server.kill()


def test_an_ftp_server_that_is_away_parks_and_loses_nothing(
    ftp: FtpServer, make_fleet: Callable[..., Fleet], deployment: Deployment, tmp_path: Path
) -> None:
    fleet = make_fleet()
    fleet.workers()
    fleet.ready()
    account = connect(
        deployment, Ftp, {"host": "127.0.0.1", "port": ftp.port}, Ftp.credentials_model()
    )
    saved = "SELECT count(*) FROM user_integration_content WHERE kind = 'file'"
    sync(deployment, account)
    fleet.until(lambda: deployment.value(saved) >= 20, "20 files are saved", 60)
    ftp.kill()
    fleet.until(lambda: deployment.value(FAILED_PROBES) >= 2, "two probes failed", 60)
    assert_nothing_is_counted(deployment)
    ftp.start()
    oracle.wait_for_quiet(fleet, 90)
    assert deployment.value(DEFERRED) == 0
    kept = deployment.rows(
        "SELECT external_id, hash FROM user_integration_content"
        " WHERE user_integration_id = %s AND kind = 'file' AND deleted_at IS NULL", account,
    )  # fmt: skip
    served = tmp_path / "served"
    expected = {
        f"/{path.relative_to(served)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in served.rglob("*.txt")
    }
    assert dict(kept) == expected
    assert not deployment.rows(PARKED)
