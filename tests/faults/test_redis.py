"""Redis loses messages, or delivers them again and again."""

from __future__ import annotations

from collections.abc import Callable

from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.oracle import LARGE
from support.redelivery import Redelivery

from core.messages import encode


def test_flushed_again_and_again(make_fleet: Callable[..., Fleet], deployment: Deployment) -> None:
    """What was lost is sent again as it was: no lease has to run out for that, and nobody is suspected."""
    fleet = make_fleet(POLLING_LEASE_SECONDS="60")
    fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, LARGE)
    sync(deployment, account)
    for done in (200, 700, 1200):
        oracle.wait_for_progress(fleet, done)
        deployment.queues.client.flushall()
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, LARGE)
    assert deployment.value("SELECT max(dispatch_no) FROM sync_task") == 1
    assert "Redis has lost" in fleet.says()


def test_every_message_again_at_once_and_late(fleet: Fleet, deployment: Deployment) -> None:
    fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, LARGE)
    with Redelivery(deployment.queues, "hello-world") as redelivery:
        sync(deployment, account)
        oracle.wait_for_progress(fleet, 1000)
        redelivery.again()
        oracle.wait_for_quiet(fleet, 60)
    assert len(redelivery.seen) > oracle.hello_tasks(LARGE) / 2
    redelivery.again()
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, LARGE)
    assert deployment.value("SELECT max(dispatch_no) FROM sync_task") == 1


def test_messages_that_nobody_can_read(fleet: Fleet, deployment: Deployment) -> None:
    """Other versions and other programs may put anything there; the ledger's own messages go on."""
    fleet.workers()
    fleet.ready()
    account = connect(deployment, HelloWorld, {"pages": 50, "delay_ms": 20})
    sync(deployment, account)
    known = encode("hello-world", "%s", "m", ["%s"]).encode()
    junk = [b"\xff\xfe", b"{}", b"null", known % (b"no_such_actor", b""), known % (b"run_task", b"")]
    deployment.queues.send("hello-world", {f"junk-{number}": body for number, body in enumerate(junk)})
    oracle.wait_for_quiet(fleet)
    oracle.assert_synced(fleet, account, {"pages": 50, "delay_ms": 20})
