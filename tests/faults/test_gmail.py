"""A mailbox, synced by real processes that are killed.

Every message is kept once, and the next sync costs one call.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from integration_polling_gmail import Config, Gmail
from support import oracle
from support.accounts import sync
from support.deciding import STRICT, decide_on_every_surface
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.gmail import FakeGmail, mail
from support.gmail.server import Rule
from support.gmail_fleet import DOWNLOADS, connected, expected

from core.accounts import store
from core.ledger.scheduling import request_run
from core.limits.keys import to_json

KEPT = """
SELECT external_id, kind, hash FROM user_integration_content
WHERE user_integration_id = %s AND kind <> 'label' AND deleted_at IS NULL
"""
HASTEN = """
UPDATE sync_task SET available_at = now()
WHERE state = 'ready' AND available_at > now() + interval '60 seconds' RETURNING id
"""
OPEN = "SELECT count(*) FROM sync_task WHERE state IN ('ready', 'queued')"
LIVE = "SELECT count(*) FROM sync_run WHERE lane = 'live' AND state = 'running'"
LANES = "SELECT lane, state FROM sync_run WHERE user_integration_id = %s"


def assert_complete(deployment: Deployment, account: UUID, gmail: FakeGmail) -> None:
    """Assert that every message and its source are kept, and nothing else."""
    rows = deployment.rows(KEPT, account)
    assert {id: hash for id, kind, hash in rows if kind == "source"} == expected(gmail)
    assert {id for id, kind, _ in rows if kind == "message"} == set(gmail.mailbox.messages)
    assert not (rewritten := deployment.rows(oracle.REWRITTEN, account)), (
        f"written twice: {rewritten}"
    )


def wait_for_quiet(fleet: Fleet, seconds: float) -> None:
    """Wait until no work is open, and shorten the pause before a second request."""

    def is_done() -> bool:
        fleet.deployment.rows(HASTEN)
        return not fleet.deployment.value(OPEN)

    fleet.until(is_done, "no task is open", seconds, replace=True)
    oracle.wait_for_quiet(fleet, seconds)


def kill_at(fleet: Fleet, *downloads: int) -> None:
    """Kill a worker process each time this number of messages has been downloaded."""
    for wanted in downloads:
        found = f"{wanted} messages are fetched"
        fleet.until(
            lambda wanted=wanted: fleet.deployment.value(DOWNLOADS) >= wanted,
            found,
            60,
            replace=True,
        )
        send(signal.SIGKILL, *fleet.worker_pids()[:1])


def calls_of_another_sync(fleet: Fleet, gmail: FakeGmail, account: UUID) -> Counter[str]:
    """Sync once more and return the number of calls by kind."""
    gmail.calls.clear()
    sync(fleet.deployment, account)
    wait_for_quiet(fleet, 60)
    return gmail.count()


def test_a_mailbox_survives_killed_workers(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    """Mail arrives and disappears while the first sync runs and its workers die.

    Each message that remains is kept once.
    """
    gmail.page_size, gmail.latency = 50, 0.02
    ids = gmail.mailbox.fill(300)
    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    kill_at(gmail_fleet, 60)
    gmail.mailbox.delete(ids[-1], ids[0])
    new = gmail.mailbox.add(mail("While it runs", attachments=[("a.png", "image/png", b"1")]))
    gmail.mailbox.label(ids[1], remove=["UNREAD"])
    sync(deployment, account)
    kill_at(gmail_fleet, 150)
    wait_for_quiet(gmail_fleet, 90)
    assert calls_of_another_sync(gmail_fleet, gmail, account).keys() <= {
        "history",
        "labels",
        "message",
    }
    rows = {id: hash for id, kind, hash in deployment.rows(KEPT, account) if kind == "source"}
    assert rows == expected(gmail)
    assert (
        deployment.value(
            "SELECT count(*) FROM user_integration_content WHERE external_id = %s", f"{new}/1"
        )
        == 1
    )
    labels = "SELECT metadata->'labels' FROM user_integration_content WHERE external_id = %s"
    assert deployment.value(labels, ids[1]) == ["INBOX"]
    assert calls_of_another_sync(gmail_fleet, gmail, account) == {"history": 1}
    # A suspect that is killed again rightly has another crash. Two kills park no task.
    assert not deployment.rows("SELECT id, reason FROM sync_task WHERE state = 'parked'")
    assert gmail.peak <= 8 + 4, (
        "more than the limit, plus a killed process's calls that no caller waits for"
    )


def test_a_misrouted_proxy_loses_no_mail(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    """For a moment, all requests for messages end at another server, which answers 404.

    The history has expired, so that the labels of all messages are requested.
    """
    ids = gmail.mailbox.fill(100)
    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    wait_for_quiet(gmail_fleet, 60)
    gmail.mailbox.delete(ids[0])
    gmail.mailbox.forget_history()
    gmail.rules = [Rule({"path": "/messages/", "status": 404, "text": "", "times": 40})]
    sync(deployment, account)
    wait_for_quiet(gmail_fleet, 90)
    rows = deployment.rows(KEPT, account)
    assert {id for id, kind, _ in rows if kind == "message"} == set(ids[1:])
    assert not deployment.rows("SELECT id, reason FROM sync_task WHERE state = 'parked'")


def test_a_search_that_is_given_while_the_first_sync_runs(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    """The content that the open backfill has already kept disappears.

    The content that it had not fetched, or was fetching at that moment, is never kept.
    """
    gmail.mailbox.fill(60)
    wanted = {gmail.mailbox.add(mail("Invoice")) for _ in range(60)}
    others = set(gmail.mailbox.messages) - wanted
    begun: list[str] = []
    held: list[str] = []
    go_on = threading.Event()

    def hold(kind: str, path: str) -> None:
        if kind != "message":
            return
        begun.append(path)
        if len(begun) > 80 and not go_on.is_set():
            held.append(path)
            go_on.wait(60)

    gmail.before = hold
    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    gmail_fleet.until(lambda: len(held) > 0, "80 messages are fetched", 60)
    gmail_fleet.until(lambda: deployment.value(LIVE) == 0, "the live run is over", 60)
    # A download between its last check of the cursor and its commit at this moment would be kept
    # until the next resync.
    fetched = "every fetched message is saved, or its call is blocked"
    gmail_fleet.until(lambda: deployment.value(DOWNLOADS) + len(held) >= len(begun), fetched, 60)
    with deployment.connection() as connection:
        config = Config(query="subject:invoice").model_dump(mode="json")
        limits = json.dumps(to_json(Gmail.manifest.limits))
        names = {
            "id": account,
            "config": json.dumps(config),
            "limits": limits,
            "resync": True,
            "reread": False,
            "public_hosts_only": False,
            "instead_of": None,
        }
        connection.execute(store.SET_CONFIG, names)
        request_run(connection, account)
    deployment.queues.wake()
    go_on.set()
    wait_for_quiet(gmail_fleet, 60)
    kept = {id for id, kind, _ in deployment.rows(KEPT, account) if kind == "message"}
    assert (wanted - kept, kept & others) == (set(), set())


def test_concurrent_workers_refresh_an_expired_token_once(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    """Every worker finds the token expired at the same time.

    Google revokes a refresh token after its first use.
    """
    gmail.tokens.rotate, gmail.tokens.delay, gmail.latency = True, 0.5, 0.02
    gmail.mailbox.fill(100)
    gmail_fleet.workers()
    gmail_fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    gmail_fleet.until(lambda: deployment.value(DOWNLOADS) >= 20, "20 messages are fetched", 60)
    gmail.tokens.expire_access_tokens()
    wait_for_quiet(gmail_fleet, 60)
    assert_complete(deployment, account, gmail)
    assert gmail.tokens.refreshes == 1
    said = gmail_fleet.says() + str(
        deployment.rows("SELECT errors, reason, payload FROM sync_task")
    )
    said += str(deployment.rows("SELECT * FROM sync_state")) + str(
        deployment.rows("SELECT metadata FROM user_integration_content")
    )
    assert "ya29." not in said, "a log, an error or the state contains a token"
    assert "1//refresh" not in said


def test_two_processes_stay_within_the_quota_of_a_user(
    gmail: FakeGmail, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Two processes share one budget.

    The fake refuses calls beyond the quota, as Gmail does. The test asserts that it never had to.
    """
    units = {"gmail": {"quota": {"units": 1_200}}}
    gmail.units_per_minute = 1_200
    fleet = make_fleet(**gmail.environment, POLLING_LIMITS=json.dumps(units))
    gmail.mailbox.fill(20)
    fleet.workers()
    fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    wait_for_quiet(fleet, 90)
    assert_complete(deployment, account, gmail)
    assert {call.status for call in gmail.calls} == {200}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_sync_stays_within_googles_own_quota(
    gmail: FakeGmail, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Gmail's default of 6,000 units a minute, 50 ms a call and 600 messages.

    The fake refuses every call beyond the quota.
    """
    gmail.units_per_minute, gmail.latency = 6_000, 0.05
    fleet = make_fleet(**gmail.environment)
    gmail.mailbox.fill(600)
    fleet.workers()
    fleet.ready()
    account = connected(deployment, gmail)
    sync(deployment, account)
    wait_for_quiet(fleet, 400)
    assert_complete(deployment, account, gmail)
    assert {call.status for call in gmail.calls} == {200}
    began, ended = gmail.calls[0].at, gmail.calls[-1].at
    units = sum(call.units for call in gmail.calls)
    print(f"{units:,} units in {ended - began:.0f} s: {units * 60 / (ended - began):,.0f} a minute")


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_twenty_thousand_messages_survive_a_kill_every_five_seconds(
    gmail: FakeGmail, gmail_fleet: Fleet, deployment: Deployment
) -> None:
    """Three programs stand for three machines.

    Dramatiq ends all processes of a program when one of its workers dies.
    """
    gmail.latency = 0.05
    gmail.mailbox.fill(20_000)
    for _ in range(3):
        gmail_fleet.workers(processes=1)
    gmail_fleet.ready(60)
    account = connected(deployment, gmail)
    began = time.monotonic()
    sync(deployment, account)
    killer = Killer(gmail_fleet, began)
    gmail_fleet.until(
        lambda: killer.step() or not deployment.value(oracle.OPEN),
        "the mailbox is synced",
        2_400,
        replace=True,
    )
    seconds = time.monotonic() - began
    calls, units = gmail.count(), sum(call.units for call in gmail.calls)
    print(
        f"20,000 messages in {seconds:.0f} s, {killer.kills} kills, {units:,} units, {dict(calls)},"
        f" {gmail.peak} concurrently"
    )
    wait_for_quiet(gmail_fleet, 60)
    assert_complete(deployment, account, gmail)
    assert sorted(deployment.rows(LANES, account)) == [
        ("backfill", "succeeded"),
        ("live", "succeeded"),
    ]
    assert calls_of_another_sync(gmail_fleet, gmail, account) == {"history": 1}


class Killer:
    """Kills a worker process every five seconds, a different one each time."""

    def __init__(self, fleet: Fleet, began: float) -> None:
        self.kills = 0
        self._fleet, self._due = fleet, began + 5

    def step(self) -> None:
        if time.monotonic() > self._due and (pids := self._fleet.worker_pids()):
            send(signal.SIGKILL, pids[self.kills % len(pids)])
            self.kills, self._due = self.kills + 1, time.monotonic() + 5


@pytest.mark.timeout(400)
def test_a_person_decides_on_held_deletions(
    make_fleet: Callable[..., Fleet], deployment: Deployment, gmail: FakeGmail, tmp_path: Path
) -> None:
    for number in range(8):
        gmail.mailbox.add(mail(f"Invoice {number}"))
    fleet = make_fleet(**gmail.environment, **STRICT)
    fleet.workers(processes=1)
    fleet.ready(100)
    decide_on_every_surface(fleet, tmp_path, connected(deployment, gmail), "message")
