"""Cases on the real engine: held deletions, an outage of an hour, and a connection in a browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from fake_slack import Fake
from fake_slack.server import BOT, CLIENT_ID, CLIENT_SECRET
from fake_slack.workspace import Channel
from integration_polling_slack import Credentials, Slack
from support import oracle
from support.accounts import connect, set_due, sync, tick
from support.deciding import Person
from support.deployment import Deployment
from support.fleet import Fleet
from support.serving import polling_serve
from test_fleet import MESSAGES, settings
from test_methods_away import OWED, REPLIES, SKIP_PAUSES

from core.ledger.scheduling import request_resync

DAY = 86_400
MakeFleet = Callable[..., Fleet]

LIVE = """
SELECT count(*) FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'message' AND deleted_at IS NULL
"""
PASS_MINUTES = (
    "UPDATE breaker SET opened_at = opened_at - interval '5 min',"
    " first_failed_at = first_failed_at - interval '5 min',"
    " probe_at = probe_at - interval '5 min' WHERE opened_at IS NOT NULL",
    "UPDATE sync_task SET available_at = available_at - interval '5 min'"
    " WHERE state IN ('ready', 'deferred') AND retried_as IS NULL",
    "UPDATE sync_run SET started_at = started_at - interval '5 min' WHERE state = 'running'",
)
RUNNING = "SELECT count(*) FROM sync_run WHERE lane = 'live' AND state = 'running'"


def connected(deployment: Deployment, **config: Any) -> UUID:
    return connect(deployment, Slack, config, Credentials.model_validate({"token": BOT}))


def aged(fake: Fake, channels: int, messages: int, step: float) -> list[Channel]:
    """Add channels with a message in each step of days, the newest one today."""
    made, now = list[Channel](), time.time()
    for number in range(channels):
        channel = fake.workspace.add_channel(f"channel-{number:02}")
        for at in range(messages):
            ts = f"{now - at * step * DAY - 60:.0f}.{number:06d}"
            fake.workspace.post(channel, f"message {at}", ts=ts)
        made.append(channel)
    return made


@pytest.mark.acceptance
@pytest.mark.timeout(300)
def test_the_held_deletions_of_a_resync_can_be_confirmed(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet, tmp_path: Path
) -> None:
    """20 channels with a message a day for 60 days. All that is older than 7 days vanishes."""
    made = aged(fake, 20, 60, 1.0)
    fleet = make_fleet(**settings(fake))
    fleet.workers()
    fleet.ready()
    account = connected(deployment)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 60)
    assert deployment.value(LIVE, account) == 1_200
    for channel in made:
        for ts in channel.top[:53]:
            fake.workspace.delete(channel, ts)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 60)
    with deployment.connection() as conn:
        request_resync(conn, account)
    deployment.queues.wake()
    oracle.wait_for_quiet(fleet, 60)
    left = deployment.value(LIVE, account)
    assert left > 140, "the guard has held nothing"
    with (
        polling_serve(deployment, tmp_path, **fleet.variables) as served,
        closing(Person(deployment, served, Random(0), fleet.variables)) as person,
    ):
        held = person.held(account)
        assert sum(map(len, held.values())) >= left - 140
        for id in held:
            assert person.decide(id, "accept", "cli" if id == min(held) else None)

        def are_gone() -> bool:
            tick(deployment)  # what was accepted during a run makes the next one due
            return bool(deployment.value(LIVE, account) == 140)

        fleet.until(are_gone, "the accepted ones go", 60)
        oracle.wait_for_quiet(fleet, 60)
        assert person.held(account) == {}


@pytest.mark.acceptance
@pytest.mark.timeout(400)
@pytest.mark.parametrize("age", [0.01, 1.0])
def test_an_hour_of_internal_errors_on_replies_loses_no_thread(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet, age: float
) -> None:
    """The first copy meets the outage: threads of the lookback, and of the backfill.

    The account is polled each five minutes, without a person. Tasks, runs and the breaker get older
    by this time instead of waiting for it.
    """
    fake.page_cap = 50
    made = aged(fake, 8, 150, age)
    for channel in made:
        for ts in channel.top[::5]:
            fake.workspace.post(channel, "reply", thread=ts)
    fake.fail(REPLIES, "internal_error", times=1_000_000)
    fleet = make_fleet(**settings(fake))
    fleet.workers()
    fleet.ready()
    account = connected(deployment)
    deployment.rows("UPDATE user_integration SET poll_interval_minutes = 5")

    def ended() -> bool:
        for statement in PASS_MINUTES:
            deployment.rows(statement)
        deployment.queues.wake()
        time.sleep(0.5)
        return not deployment.value(RUNNING)

    for _ in range(12):
        set_due(deployment, account)
        tick(deployment)
        fleet.until(lambda: deployment.value(RUNNING), "the poll begins", 30)
        fleet.until(ended, "the poll ends", 60)
    missing = len(dict(fake.workspace.visible())) - deployment.value(LIVE, account)
    assert missing == 8 * 30, "only the replies are missing"
    fake.faults.clear()

    def complete() -> bool:
        for statement in SKIP_PAUSES:
            deployment.rows(statement)
        deployment.queues.wake()
        time.sleep(0.5)
        return bool(deployment.rows(OWED) == [(0, 0)] and not deployment.value(oracle.OPEN))

    for _ in range(2):
        set_due(deployment, account)
        tick(deployment)
        fleet.until(complete, "nothing is owed", 90)
    wanted = {id for id, _ in fake.workspace.visible()}
    assert dict(deployment.rows(MESSAGES, account)).keys() == wanted


@pytest.mark.acceptance
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["bot", "person"])
def test_a_browser_asks_for_the_scopes_of_the_config(
    fake: Fake, deployment: Deployment, tmp_path: Path, kind: str
) -> None:
    given = {
        "SLACK_API_URL": fake.api_url, "SLACK_CLIENT_ID": CLIENT_ID,
        "SLACK_CLIENT_SECRET": CLIENT_SECRET, "POLLING_PUBLIC_URL": "https://polling.example.org",
    }  # fmt: skip
    config = {"types": ["public"], "connect_as": kind}
    with polling_serve(deployment, tmp_path, **given) as served, closing(served.client()) as api:
        request = {"user_id": "ann", "config": config}
        answer = api.post("/v1/oauth/slack/authorize", json=request)
    assert answer.status_code == 201, answer.text
    asked = parse_qs(urlsplit(answer.json()["url"]).query)
    wanted = {"channels:history", "channels:read", "usergroups:read", "users:read"}
    name, other = ("user_scope", "scope") if kind == "person" else ("scope", "user_scope")
    assert set(asked[name][0].split(",")) == wanted | (
        {"search:read"} if kind == "person" else set()
    )
    assert other not in asked
