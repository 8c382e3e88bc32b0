"""A method of Slack that does not answer: the others continue, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from fake_slack import Fake
from fake_slack.bulk import fill
from support import oracle
from support.accounts import set_due, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet
from test_fleet import MESSAGES, connected, settings

REPLIES = "conversations.replies"
OPEN_LIMIT = f"""
SELECT count(*) FROM breaker WHERE limit_name = '{REPLIES}' AND opened_at IS NOT NULL
"""
MINUTE_LATER = (
    "UPDATE breaker SET opened_at = opened_at - interval '61 s'",
    "UPDATE sync_run SET started_at = started_at - interval '61 s' WHERE state = 'running'",
)
SKIP_PAUSES = (
    "UPDATE breaker SET probe_at = now() WHERE opened_at IS NOT NULL",
    "UPDATE sync_task SET available_at = now() WHERE state = 'deferred' AND retried_as IS NULL",
)
OWED = """
SELECT count(*), count(*) FILTER (WHERE type <> 'get_thread') FROM sync_task
WHERE state IN ('deferred', 'parked') AND retried_as IS NULL
"""
PARKED = "SELECT type, reason FROM sync_task WHERE state = 'parked'"
LIVE = "SELECT count(*) FROM sync_run WHERE lane = 'live' AND state = 'running'"


@pytest.mark.acceptance
@pytest.mark.timeout(300)
def test_an_hour_without_replies_keeps_new_messages_coming(
    fake: Fake, deployment: Deployment, make_fleet: Callable[..., Fleet]
) -> None:
    """Each poll keeps the new messages, ends after its interval, and owes only threads."""
    fill(fake.workspace, channels=4, messages=80, threads=30)
    threads = [ts for each in fake.workspace.channels.values() for ts in each.threads]
    channel = fake.workspace.channels["C0001"]
    fake.fail(REPLIES, "internal_error", times=1_000_000)
    fleet = make_fleet(**settings(fake))
    fleet.workers()
    fleet.ready()
    account = connected(fake, deployment)
    deployment.rows("UPDATE user_integration SET poll_interval_minutes = 1")
    sync(deployment, account)
    fleet.until(lambda: deployment.value(OPEN_LIMIT), "the breaker of the method is open", 60)
    for poll in range(3):
        for statement in MINUTE_LATER:
            deployment.rows(statement)
        fleet.until(lambda: not deployment.value(LIVE), "the live run ends", 30)
        assert not deployment.rows(PARKED)
        owed, others = deployment.rows(OWED)[0]
        assert (owed, others) == (len(threads), 0)
        ts = fake.workspace.post(channel, f"during poll {poll}")
        set_due(deployment, account)
        tick(deployment)
        fleet.until(
            lambda ts=ts: f"{channel.id}:{ts}" in dict(deployment.rows(MESSAGES, account)),
            "the new message is kept",
            20,
        )
    calls = len(fake.called(REPLIES))
    fake.faults.clear()
    print(f"{calls} calls of {REPLIES} failed")
    skipped = 0.0

    def nothing_is_owed() -> bool:
        nonlocal skipped
        if time.monotonic() > skipped + 1:
            skipped = time.monotonic()
            for statement in SKIP_PAUSES:
                deployment.rows(statement)
            deployment.queues.wake()
        return bool(deployment.rows(OWED) == [(0, 0)] and not deployment.value(oracle.OPEN))

    fleet.until(nothing_is_owed, "nothing is owed", 60)
    wanted = {id for id, _ in fake.workspace.visible()}
    assert dict(deployment.rows(MESSAGES, account)).keys() == wanted
