"""A provider that does not answer: its tasks wait, nothing is parked, and nothing is lost.

Pauses between probes grow to 15 minutes, and those of deferred tasks to hours. The tests of long
outages skip them: they make probes and deferred tasks due.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from integration_polling_ftp import Ftp
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, set_due, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet
from support.gmail import FakeGmail
from support.gmail.server import Answer, error
from support.gmail_fleet import DOWNLOADS, connected, expected
from support.ports import free_port
from support.waiting import until

OLD = time.time() - 30 * 24 * 3600
"""The time of the files: the plugin fetches them without a second look."""
DUE = "UPDATE sync_task SET available_at = now() WHERE state = 'deferred' AND retried_as IS NULL"
DEFERRED = "SELECT count(*) FROM sync_task WHERE state = 'deferred' AND retried_as IS NULL"
DEFERRED_AND_DUE = f"{DEFERRED} AND available_at <= now()"
PARKED = "SELECT type, reason FROM sync_task WHERE state = 'parked'"
COUNTED = "SELECT coalesce(max(attempts), 0), coalesce(max(deferrals), 0) FROM sync_task"
FAILING = "SELECT count(*) FROM sync_task WHERE attempts > 0 OR deferrals > 0"
OPEN_BREAKERS = "SELECT count(*) FROM breaker WHERE limit_name = '' AND opened_at IS NOT NULL"
FAILED_PROBES = "SELECT coalesce(max(failed_probes), 0) FROM breaker WHERE limit_name = ''"
ALL_FAILED_PROBES = "SELECT coalesce(sum(failed_probes), 0) FROM breaker"
SKIP_PAUSE = "UPDATE breaker SET probe_at = now() WHERE opened_at IS NOT NULL"
PAUSE = "SELECT extract(epoch FROM max(probe_at) - now())::float FROM breaker"
ROWS = "SELECT (SELECT count(*) FROM sync_task), (SELECT count(*) FROM sync_run)"
SOURCES = """
SELECT external_id, hash FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'source' AND deleted_at IS NULL
"""
FILES = """
SELECT external_id, hash FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'file' AND deleted_at IS NULL
"""
AWAY = error(503, "The service is currently unavailable.", "backendError")


def continue_until_nothing_is_deferred(fleet: Fleet, rounds: int) -> int:
    """Make deferred tasks due until none is left. Return the number of rounds."""
    for number in range(rounds):
        oracle.wait_for_quiet(fleet, 90)
        if not fleet.deployment.value(DEFERRED):
            return number
        make_all_due(fleet)
    raise AssertionError(f"tasks are still deferred after {rounds} rounds")


def assert_complete(deployment: Deployment, account: UUID, gmail: FakeGmail) -> None:
    """Assert that every message is kept once, and that no task is parked."""
    assert dict(deployment.rows(SOURCES, account)) == expected(gmail)
    assert not deployment.rows(PARKED)
    assert not deployment.rows(oracle.REWRITTEN, account)


class Switch:
    """Makes Gmail's fake fail every call while it is away, and always for poisoned messages."""

    def __init__(self, gmail: FakeGmail) -> None:
        self.poisoned: set[str] = set()
        self.is_away = False
        self._gmail = gmail
        gmail.failing = self._failing

    def _failing(self, kind: str, path: str) -> Answer | None:
        return AWAY if self.is_away or path.rpartition("/")[2] in self.poisoned else None

    def refused(self) -> Counter[str]:
        """Return the number of calls that failed, by kind."""
        return Counter(call.kind for call in list(self._gmail.calls) if call.status == 503)


def skip_pauses(deployment: Deployment) -> None:
    """Make the probes of all breakers due."""
    deployment.rows(SKIP_PAUSE)
    deployment.queues.wake()


def make_all_due(fleet: Fleet, *accounts: UUID) -> None:
    """Make the accounts' polls and all deferred tasks due, and wait until the leader saw them."""
    deployment = fleet.deployment
    set_due(deployment, *accounts)
    tick(deployment)
    deployment.rows(DUE)
    fleet.until(lambda: not deployment.value(DEFERRED_AND_DUE), "due tasks are continued", 30)


def probe_all(fleet: Fleet, accounts: int) -> None:
    """Skip the pauses of breakers, and wait until this number of probes has failed."""
    deployment = fleet.deployment
    before = deployment.value(ALL_FAILED_PROBES)
    skip_pauses(deployment)
    failed = f"{accounts} probes have failed"
    fleet.until(lambda: deployment.value(ALL_FAILED_PROBES) >= before + accounts, failed, 60)


# Gmail


def outage_of_gmail(fleet: Fleet, gmail: FakeGmail, seconds: float) -> None:
    """Take Gmail away in the middle of a first sync, and let it return."""
    deployment, switch = fleet.deployment, Switch(gmail)
    gmail.page_size, gmail.latency = 50, 0.02
    gmail.mailbox.fill(300)
    fleet.workers()
    fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    fleet.until(lambda: deployment.value(DOWNLOADS) >= 30, "30 messages are fetched", 60)
    switch.is_away, began = True, time.monotonic()
    fleet.until(lambda: deployment.value(FAILED_PROBES) >= 1, "a probe has failed", 30)
    fleet.until(lambda: deployment.rows(COUNTED) == [(0, 0)], "no attempt is counted", 10)
    running, rows = deployment.value(oracle.OPEN), deployment.rows(ROWS)
    fleet.until(lambda: time.monotonic() >= began + seconds, "the outage is over", seconds + 5)
    assert deployment.rows(COUNTED) == [(0, 0)], "an attempt was counted, or a task deferred"
    assert (deployment.value(oracle.OPEN), deployment.rows(ROWS)) == (running, rows)
    refused, probes = switch.refused(), deployment.value(FAILED_PROBES)
    switch.is_away = False
    print(f"{refused.total()} calls in {seconds:.0f} s, {probes} failed probes: {dict(refused)}")
    assert refused["profile"] <= probes + 1
    assert refused.total() - refused["profile"] <= 3 * 8, "more than the calls in flight"
    oracle.wait_for_quiet(fleet, 90)
    assert_complete(deployment, account, gmail)
    assert {state for (state,) in deployment.rows("SELECT state FROM sync_run")} == {"succeeded"}
    assert deployment.value("SELECT count(*) FROM breaker") == 0


@pytest.mark.timeout(200)
def test_an_outage_during_a_first_sync_counts_no_attempt(
    gmail: FakeGmail, gmail_fleet: Fleet
) -> None:
    """The run waits, and continues without anyone acting."""
    outage_of_gmail(gmail_fleet, gmail, 5)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_forty_seconds_without_gmail_count_no_attempt(gmail: FakeGmail, gmail_fleet: Fleet) -> None:
    outage_of_gmail(gmail_fleet, gmail, 40)


@pytest.mark.timeout(200)
def test_a_night_without_gmail_copies_and_parks_nothing(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    """Polls and a deferred task come due all night, and each pause ends with one probe."""
    switch = Switch(gmail)
    switch.poisoned = set(gmail.mailbox.fill(8)[:1])
    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    oracle.wait_for_quiet(gmail_fleet, 60)
    assert deployment.value(DEFERRED) == 1
    gmail.mailbox.fill(100)
    gmail.latency = 0.05
    set_due(deployment, account)
    tick(deployment)
    gmail_fleet.until(lambda: deployment.value(DOWNLOADS) >= 20, "new mail is fetched", 60)
    switch.is_away = True
    gmail_fleet.until(lambda: deployment.value(FAILED_PROBES) >= 1, "a probe has failed", 30)
    gmail_fleet.until(lambda: not deployment.value(
        "SELECT count(*) FROM sync_task WHERE state = 'queued'"), "no task is in flight", 20
    )  # fmt: skip
    rows, before = deployment.rows(ROWS), switch.refused()
    for number in range(12):
        if number % 3 == 0:
            make_all_due(gmail_fleet, account)
        probe_all(gmail_fleet, 1)
        assert deployment.value(oracle.OPEN) == 1
        assert deployment.rows(ROWS) == rows, "tasks were copied, or a run was added"
    assert 440 < deployment.value(PAUSE) <= 900
    assert switch.refused() - before == {"profile": 12}, "a task was tried during the outage"
    assert not deployment.rows(PARKED)
    switch.is_away, switch.poisoned = False, set()
    skip_pauses(deployment)
    continue_until_nothing_is_deferred(gmail_fleet, 3)
    assert_complete(deployment, account, gmail)


@pytest.mark.timeout(200)
def test_a_brown_out_in_which_a_third_of_the_calls_fail_loses_nothing(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    gmail.page_size = 50
    gmail.mailbox.fill(60)
    dice = random.Random(7)

    def failing(kind: str, path: str) -> Answer | None:
        unlucky = kind != "profile" and dice.random() < 0.3
        return AWAY if unlucky else None

    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    gmail.failing = failing
    sync(deployment, account)
    continue_until_nothing_is_deferred(gmail_fleet, 20)
    assert_complete(deployment, account, gmail)


@pytest.mark.timeout(200)
def test_three_poison_messages_keep_no_new_mail_away(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    """The three tasks are tried with every poll, and fail every time."""
    switch = Switch(gmail)
    switch.poisoned = set(gmail.mailbox.fill(20)[5:8])
    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    oracle.wait_for_quiet(gmail_fleet, 90)
    assert deployment.value(DEFERRED) == 3
    for _ in range(2):
        [new] = gmail.mailbox.fill(1)
        make_all_due(gmail_fleet, account)
        kept = f"SELECT count(*) FROM ({SOURCES}) s WHERE external_id = '{new}/raw'"
        gmail_fleet.until(lambda kept=kept: deployment.value(kept, account), "new mail is kept", 20)
        oracle.wait_for_quiet(gmail_fleet, 60)
        assert deployment.value(DEFERRED) == 3, "other tasks are owed, too"
        assert not deployment.rows(PARKED)
        missing = expected(gmail).keys() - dict(deployment.rows(SOURCES, account)).keys()
        assert missing == {f"{id}/raw" for id in switch.poisoned}
    switch.poisoned = set()
    continue_until_nothing_is_deferred(gmail_fleet, 3)
    assert_complete(deployment, account, gmail)


# FTP


class FtpServer:
    """A real FTP server with anonymous access to a folder, on one port, also after a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
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
    for number in range(3_000):
        file = folder / f"folder-{number % 30}" / f"file-{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"file {number}\n" * 50)
        os.utime(file, (OLD, OLD))
    server = FtpServer(folder)
    server.start()
    yield server
    server.kill()


def connected_ftp(deployment: Deployment, port: int, **config: float | str) -> UUID:
    config = {"host": "127.0.0.1", "port": port} | config
    return connect(deployment, Ftp, config, Ftp.credentials_model())


def served(folder: Path) -> dict[str, str]:
    """Return the hash of each file that the server has, by path."""
    return {
        f"/{path.relative_to(folder)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.txt")
    }


def outage_of_ftp(fleet: Fleet, ftp: FtpServer, folder: Path, seconds: float) -> None:
    """Kill an FTP server in the middle of a first sync, and start it again.

    The run has few tasks, because each fetches many files. They fail, and are deferred before the
    account has enough failures in a row for a breaker.
    """
    deployment = fleet.deployment
    fleet.workers()
    fleet.ready()
    account = connected_ftp(deployment, ftp.port)
    sync(deployment, account)
    fleet.until(lambda: len(deployment.rows(FILES, account)) >= 20, "20 files are saved", 60)
    ftp.kill()
    began = time.monotonic()
    fleet.until(lambda: deployment.value(FAILING) >= 1, "a task has failed", 30)
    fleet.until(lambda: time.monotonic() >= began + seconds, "the outage is over", seconds + 5)
    assert not deployment.rows(PARKED)
    ftp.start()
    continue_until_nothing_is_deferred(fleet, 5)
    assert dict(deployment.rows(FILES, account)) == served(folder)
    assert not deployment.rows(PARKED)
    assert not deployment.rows(oracle.REWRITTEN, account)


@pytest.mark.timeout(200)
def test_an_ftp_server_that_is_away_loses_nothing(
    ftp: FtpServer, make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    outage_of_ftp(make_fleet(), ftp, tmp_path / "served", 3)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_forty_five_seconds_without_an_ftp_server(
    ftp: FtpServer, make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    outage_of_ftp(make_fleet(), ftp, tmp_path / "served", 45)


ENDED = """
SELECT extract(epoch FROM max(finished_at) - min(started_at))::float FROM sync_run
WHERE user_integration_id = %s AND state = 'succeeded'
"""


def seconds_of_a_sync(fleet: Fleet, account: UUID, most: float = 60) -> float:
    """Sync an account, and return the seconds of its run, which must succeed."""
    sync(fleet.deployment, account)
    ended = fleet.until(lambda: fleet.deployment.value(ENDED, account), "the sync is over", most)
    return float(ended)


def until_all_are_held_back(fleet: Fleet, accounts: Sequence[UUID]) -> None:
    """Poll accounts that fail until the breaker of each one is open.

    A run of an account with one task fails three times, so the second run opens the breaker.
    """
    deployment = fleet.deployment
    asked = 0.0

    def held_back() -> bool:
        nonlocal asked
        if time.monotonic() > asked + 2:
            asked = time.monotonic()
            set_due(deployment, *accounts)
            deployment.rows(DUE)
            tick(deployment)
        return bool(deployment.value(OPEN_BREAKERS) == len(accounts))

    fleet.until(held_back, "all breakers are open", 60)


@pytest.mark.long
@pytest.mark.timeout(200)
def test_a_night_without_a_provider_of_forty_accounts(
    ftp: FtpServer, make_fleet: Callable[..., Fleet], deployment: Deployment, tmp_path: Path
) -> None:
    """The accounts of another provider continue at their usual speed."""
    ftp.kill()
    fleet = make_fleet()
    fleet.workers()
    fleet.ready()
    config = {"pages": 5, "items": 10, "fanout_depth": 1, "delay_ms": 20}
    usual = seconds_of_a_sync(fleet, connect(deployment, HelloWorld, config | {"name": "before"}))
    accounts = [
        connected_ftp(deployment, ftp.port, root=f"/folder-{number % 6}") for number in range(42)
    ]
    until_all_are_held_back(fleet, accounts)
    rows = deployment.value("SELECT count(*) FROM sync_task WHERE integration_domain = 'ftp'")
    for _ in range(3):
        make_all_due(fleet, *accounts)
        probe_all(fleet, len(accounts))
    grown = deployment.value("SELECT count(*) FROM sync_task WHERE integration_domain = 'ftp'")
    assert grown == rows, "tasks were copied during the outage"
    skip_pauses(deployment)
    other = connect(deployment, HelloWorld, config | {"name": "during"})
    seconds = seconds_of_a_sync(fleet, other)
    print(f"{seconds:.1f} s during the outage, usually {usual:.1f} s")
    assert seconds < 3 * usual + 3
    assert not deployment.rows(PARKED)
    ftp.start()
    skip_pauses(deployment)
    continue_until_nothing_is_deferred(fleet, 4)
    files = served(tmp_path / "served")
    for number, account in enumerate(accounts):
        wanted = {path: hash for path, hash in files.items() if f"/folder-{number % 6}/" in path}
        assert dict(deployment.rows(FILES, account)) == wanted
    assert not deployment.rows(PARKED)


@pytest.fixture
def bad_ports() -> Iterator[list[int]]:
    """Ports that refuse connections, that never answer, and that answer 421."""
    stopping = threading.Event()
    with (
        socket.create_server(("127.0.0.1", 0)) as refusing,
        socket.create_server(("127.0.0.1", 0), backlog=128) as silent,
        socket.create_server(("127.0.0.1", 0), backlog=128) as busy,
    ):
        ports = [each.getsockname()[1] for each in (refusing, silent, busy)]
        refusing.close()
        busy.settimeout(0.1)

        def answer() -> None:
            while not stopping.is_set():
                try:
                    with busy.accept()[0] as connection:
                        connection.sendall(b"421 Service not available.\r\n")
                except OSError:
                    continue

        thread = threading.Thread(target=answer)
        thread.start()
        yield ports
        stopping.set()
        thread.join()


@pytest.mark.long
@pytest.mark.timeout(200)
def test_a_bad_host_changes_nothing_for_other_accounts_of_the_provider(
    ftp: FtpServer, bad_ports: list[int], make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet()
    deployment = fleet.deployment
    fleet.workers()
    fleet.ready()
    usual = seconds_of_a_sync(fleet, connected_ftp(deployment, ftp.port))
    bad = [connected_ftp(deployment, port, timeout_seconds=3) for port in bad_ports]
    until_all_are_held_back(fleet, bad)
    for _ in range(3):
        probe_all(fleet, len(bad))
    for attempt in ("held back", "tried"):
        good = connected_ftp(deployment, ftp.port)
        if attempt == "tried":
            make_all_due(fleet, *bad)
            skip_pauses(deployment)
        seconds = seconds_of_a_sync(fleet, good)
        print(f"{seconds:.1f} s while bad hosts are {attempt}, usually {usual:.1f} s")
        assert seconds < 3 * usual + 3
        assert dict(deployment.rows(FILES, good)) == served(tmp_path / "served")
    breakers = {
        account for (account,) in deployment.rows("SELECT user_integration_id FROM breaker")
    }
    assert breakers == set(bad)
    assert not deployment.rows(PARKED)
