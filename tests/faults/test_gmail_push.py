"""Events of Gmail with real processes: new mail arrives between two polls, and none is lost."""

from __future__ import annotations

import json
import signal
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from support import oracle
from support.accounts import set_due, tick
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.gmail import FakeGmail, mail
from support.gmail_fleet import LIMITS, connected

KEPT = """
SELECT external_id FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'message' AND deleted_at IS NULL
"""
KEPT_AT = """
SELECT created_at FROM user_integration_content
WHERE user_integration_id = %s AND external_id = %s AND deleted_at IS NULL
"""
IDENTITY = "UPDATE user_integration SET identity = %s WHERE id = %s"
POLLS = "SELECT count(*) FROM sync_run WHERE trigger = 'schedule' AND lane = 'live'"
QUIET = "SELECT NOT EXISTS (SELECT FROM hint WHERE parts <> '{}' OR run_id IS NOT NULL)"
HOLDER = """
SELECT p.pid FROM listener l JOIN process p ON p.id = l.holder
WHERE l.domain = 'gmail' AND l.connected_at IS NOT NULL
"""
KNOWN = "SELECT count(*) FROM listener_account WHERE domain = 'gmail' AND address = %s"
IS_DOWN = "SELECT error FROM listener WHERE domain = 'gmail' AND connected_at IS NULL"
HEARD_SECONDS = 30.0


@pytest.fixture
def listening(
    gmail: FakeGmail, deployment: Deployment, make_fleet: Callable[..., Fleet]
) -> tuple[Fleet, UUID]:
    """Two containers of workers, of which one listens, and an account with a complete copy."""
    gmail.mailbox.fill(5)
    gmail.pubsub.ack_seconds = 1.0
    limits = json.dumps({"gmail": LIMITS})
    fleet = make_fleet(**gmail.environment, **gmail.push_environment, POLLING_LIMITS=limits)
    for _ in range(2):
        fleet.workers(processes=1, threads=4)
    fleet.ready(60)
    account = connected(deployment, gmail)
    deployment.rows(IDENTITY, gmail.mailbox.address, account)
    set_due(deployment, account)
    tick(deployment)
    fleet.until(lambda: deployment.rows(HOLDER), "a process listens", 60)
    fleet.until(lambda: deployment.value(KNOWN, gmail.mailbox.address) == 1, "it is known", 60)
    until_kept(fleet, gmail, account)
    fleet.until(lambda: deployment.value(QUIET), "the first hints are done", 90)
    oracle.wait_for_quiet(fleet, 60)
    return fleet, account


def until_kept(fleet: Fleet, gmail: FakeGmail, account: UUID) -> None:
    """Wait until all messages of the mailbox are kept."""
    wanted = gmail.mailbox.messages
    fleet.until(
        lambda: {id for (id,) in fleet.deployment.rows(KEPT, account)} == set(wanted),
        "every message is kept",
        HEARD_SECONDS,
        replace=True,
    )


def holder(fleet: Fleet) -> int:
    """Wait until a live process listens, and return its id."""

    def found() -> set[int]:
        return {pid for (pid,) in fleet.deployment.rows(HOLDER)} & set(fleet.worker_pids())

    return fleet.until(found, "a process listens", 90, replace=True).pop()


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.long)])
def test_no_kill_of_the_listeners_process_loses_mail(
    gmail: FakeGmail, deployment: Deployment, listening: tuple[Fleet, UUID], kills: int
) -> None:
    fleet, account = listening
    polls = deployment.value(POLLS)
    gmail.mailbox.add(mail("News"))
    until_kept(fleet, gmail, account)
    for _ in range(kills):
        pid = holder(fleet)
        gmail.mailbox.add(mail("At the kill"))
        send(signal.SIGKILL, pid)
        gmail.mailbox.add(mail("After the kill"))
        until_kept(fleet, gmail, account)
    assert deployment.value(POLLS) == polls, "no poll found the mail"


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize("drops", [pytest.param(False, marks=pytest.mark.long), True])
def test_mail_that_arrives_while_push_is_cut_off_is_not_lost(
    gmail: FakeGmail, deployment: Deployment, listening: tuple[Fleet, UUID], drops: bool
) -> None:
    """Pub/Sub refuses for as long as three polls take. It keeps the events, or Gmail drops them."""
    fleet, account = listening
    gmail.pubsub.refuses, gmail.pubsub.drops = 503, drops
    fleet.until(
        lambda: any("503" in str(error) for (error,) in deployment.rows(IS_DOWN)),
        "the listener is down",
        HEARD_SECONDS,
    )
    for _ in range(3):
        gmail.mailbox.add(mail("Without an event"))
        set_due(deployment, account)
        tick(deployment)
        until_kept(fleet, gmail, account)
    gmail.mailbox.add(mail("Just before the end"))
    gmail.pubsub.refuses, gmail.pubsub.drops = 0, False
    until_kept(fleet, gmail, account)
    fleet.until(lambda: deployment.rows(HOLDER), "a process listens", 90)
    gmail.mailbox.add(mail("Later"))
    until_kept(fleet, gmail, account)


@pytest.mark.acceptance
@pytest.mark.long
@pytest.mark.timeout(900)
def test_new_mail_becomes_a_row_within_seconds(
    gmail: FakeGmail, deployment: Deployment, listening: tuple[Fleet, UUID], capsys: Any
) -> None:
    """200 mails, one to four seconds apart. The test prints the times and asserts none."""
    fleet, account = listening
    polls, waiting, times = deployment.value(POLLS), threading.Event(), list[float]()
    for number in range(200):
        began = time.time()
        id = gmail.mailbox.add(mail(f"Number {number}"))
        [(kept_at,)] = fleet.until(
            lambda id=id: deployment.rows(KEPT_AT, account, id), "the mail is kept", 60
        )
        times.append(kept_at.timestamp() - began)
        waiting.wait(1 + number % 4)
    assert deployment.value(POLLS) == polls, "no poll found the mail"
    cuts = statistics.quantiles(times, n=100)
    with capsys.disabled():
        print(
            f"\nfrom the mail to its row: median {cuts[49]:.2f} s, p95 {cuts[94]:.2f} s, longest"
            f" {max(times):.2f} s"
        )
