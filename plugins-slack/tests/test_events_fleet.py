"""Events of Slack with real workers and a real server: each becomes a row between two polls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fake_slack import Fake
from fake_slack.events import SIGNING_SECRET, callback, posted, reacted, signed
from fake_slack.server import BOT
from fake_slack.workspace import Channel
from integration_polling_slack import Credentials, Slack
from support import oracle
from support.accounts import connect, set_due
from support.deployment import Deployment
from support.fleet import Fleet
from support.serving import polling_serve

TEXT = """
SELECT content_text FROM user_integration_content
WHERE user_integration_id = %s AND external_id = %s AND deleted_at IS NULL
"""
REACTIONS = "SELECT metadata->'reactions' FROM user_integration_content WHERE external_id = %s"
KNOWN = "SELECT count(*) FROM listener_account WHERE domain = 'slack' AND address = %s"
RUNS = "SELECT trigger, count(*) FROM sync_run WHERE lane = 'live' GROUP BY 1"
QUIET = "SELECT NOT EXISTS (SELECT FROM hint WHERE parts <> '{}' OR run_id IS NOT NULL)"
HEARD_SECONDS = 30.0

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def general(fake: Fake) -> Channel:
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "before")
    return channel


def connected(deployment: Deployment, user: str = "tester") -> UUID:
    """Connect an account of the bot in the workspace T1."""
    credentials = Credentials.model_validate({"token": BOT})
    account = connect(deployment, Slack, {}, credentials, user)
    identity = "UPDATE user_integration SET identity = 'T1:UBOT' WHERE id = %s"
    deployment.rows(identity, account)
    return account


def until_known(fleet: Fleet, deployment: Deployment, accounts: int) -> None:
    """Wait until the addresses of the accounts are known, and nothing is left to do."""
    fleet.until(lambda: deployment.value(KNOWN, "T1") == accounts, "the addresses are known", 60)
    fleet.until(lambda: deployment.value(QUIET), "the first hints are done", 90)
    oracle.wait_for_quiet(fleet, 60)


def text(deployment: Deployment, account: UUID, channel: Channel, ts: str) -> Any:
    return deployment.value(TEXT, account, f"{channel.id}:{ts}")


@pytest.mark.acceptance
@pytest.mark.timeout(300)
def test_signed_requests_become_rows_of_each_account_of_the_workspace(
    fake: Fake,
    general: Channel,
    deployment: Deployment,
    make_fleet: MakeFleet,
    tmp_path: Path,
) -> None:
    given = {"SLACK_API_URL": fake.api_url, "SLACK_SIGNING_SECRET": SIGNING_SECRET}
    fleet = make_fleet(**given)
    fleet.workers(processes=1, threads=4)
    fleet.ready(60)
    accounts = [connected(deployment), connected(deployment, "another")]
    set_due(deployment, *accounts)
    until_known(fleet, deployment, 2)
    with polling_serve(deployment, tmp_path, **given) as served:
        client = httpx2.Client(base_url=served.url, timeout=10, trust_env=False)

        def send(payload: Any, **options: Any) -> httpx2.Response:
            body, headers = signed(payload, **options)
            return client.post("/v1/hints/slack", content=body, headers=headers)

        challenge = send({"type": "url_verification", "challenge": "abc"})
        assert (challenge.status_code, challenge.text) == (200, "abc")
        ts = fake.workspace.post(general, "news")
        event = callback(posted(general, ts))
        assert send(event, secret="wrong secret").status_code == 401
        assert deployment.value(QUIET), "a forged request made a hint"
        assert send(event).status_code == 200
        for account in accounts:
            fleet.until(
                lambda account=account: text(deployment, account, general, ts) == "news",
                "the message is kept",
                HEARD_SECONDS,
            )
        fleet.until(lambda: deployment.value(QUIET), "the run has ended", HEARD_SECONDS)
        before = dict(deployment.rows(RUNS))
        assert send(event).status_code == 200
        assert deployment.value(QUIET), "a repeated event made a hint"
        assert dict(deployment.rows(RUNS)) == before
        fake.workspace.react(general, ts, "tada")
        assert send(callback(reacted(general, ts))).status_code == 200
        fleet.until(
            lambda: "tada" in json.dumps(deployment.value(REACTIONS, f"{general.id}:{ts}")),
            "the reaction is kept",
            HEARD_SECONDS,
        )
