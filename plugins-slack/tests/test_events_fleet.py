"""Events of Slack with real workers and a real server: each becomes a row between two polls."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fake_slack import Fake
from fake_slack.events import SIGNING_SECRET, callback, posted, reacted, signed
from fake_slack.server import BOT
from fake_slack.socket_mode import APP_TOKEN, SocketMode
from fake_slack.workspace import Channel
from integration_polling_slack import Credentials, Slack
from support import oracle
from support.accounts import connect, set_due, tick
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.serving import polling_serve

TEXT = """
SELECT content_text FROM user_integration_content
WHERE user_integration_id = %s AND external_id = %s AND deleted_at IS NULL
"""
REACTIONS = "SELECT metadata->'reactions' FROM user_integration_content WHERE external_id = %s"
KNOWN = "SELECT count(*) FROM listener_account WHERE domain = 'slack' AND address = %s"
RUNS = "SELECT trigger, count(*) FROM sync_run WHERE lane = 'live' GROUP BY 1"
HOLDER = """
SELECT p.pid FROM listener l JOIN process p ON p.id = l.holder
WHERE l.domain = 'slack' AND l.connected_at IS NOT NULL
"""
IS_DOWN = "SELECT error FROM listener WHERE domain = 'slack' AND connected_at IS NULL"
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
    """Return the text of a message; None if it is not kept."""
    return next((one for (one,) in deployment.rows(TEXT, account, f"{channel.id}:{ts}")), None)


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
    with (
        polling_serve(deployment, tmp_path, **given) as served,
        httpx2.Client(base_url=served.url, timeout=10, trust_env=False) as client,
    ):

        def request(payload: Any, **options: Any) -> httpx2.Response:
            body, headers = signed(payload, **options)
            return client.post("/v1/hints/slack", content=body, headers=headers)

        challenge = request({"type": "url_verification", "challenge": "abc"})
        assert (challenge.status_code, challenge.text) == (200, "abc")
        ts = fake.workspace.post(general, "news")
        event = callback(posted(general, ts))
        assert request(event, secret="wrong secret").status_code == 401
        assert deployment.value(QUIET), "a forged request made a hint"
        assert request(event).status_code == 200
        for account in accounts:
            fleet.until(
                lambda account=account: text(deployment, account, general, ts) == "news",
                "the message is kept",
                HEARD_SECONDS,
            )
        fleet.until(lambda: deployment.value(QUIET), "the run has ended", HEARD_SECONDS)
        before = dict(deployment.rows(RUNS))
        assert request(event).status_code == 200
        assert deployment.value(QUIET), "a repeated event made a hint"
        assert dict(deployment.rows(RUNS)) == before
        fake.workspace.react(general, ts, "tada")
        assert request(callback(reacted(general, ts))).status_code == 200
        fleet.until(
            lambda: "tada" in json.dumps(deployment.value(REACTIONS, f"{general.id}:{ts}")),
            "the reaction is kept",
            HEARD_SECONDS,
        )


@pytest.fixture
def listening(
    fake: Fake,
    general: Channel,
    socket_mode: SocketMode,
    deployment: Deployment,
    make_fleet: MakeFleet,
) -> tuple[Fleet, UUID]:
    """Two containers of workers, of which one listens, and an account with a complete copy."""
    fleet = make_fleet(SLACK_API_URL=fake.api_url, SLACK_APP_TOKEN=APP_TOKEN)
    for _ in range(2):
        fleet.workers(processes=1, threads=4)
    fleet.ready(60)
    account = connected(deployment)
    set_due(deployment, account)
    fleet.until(lambda: deployment.rows(HOLDER), "a process listens", 60)
    until_known(fleet, deployment, 1)
    return fleet, account


def until_kept(
    fleet: Fleet, deployment: Deployment, account: UUID, channel: Channel, ts: str
) -> None:
    fleet.until(
        lambda: text(deployment, account, channel, ts) is not None,
        "the message is kept",
        HEARD_SECONDS,
        replace=True,
    )


@pytest.mark.acceptance
@pytest.mark.timeout(300)
def test_no_kill_of_the_listeners_process_loses_a_message(
    fake: Fake,
    general: Channel,
    socket_mode: SocketMode,
    deployment: Deployment,
    listening: tuple[Fleet, UUID],
) -> None:
    fleet, account = listening
    polls = dict(deployment.rows(RUNS)).get("schedule", 0)
    ts = fake.workspace.post(general, "news")
    socket_mode.until(acknowledged=socket_mode.send(callback(posted(general, ts))))
    until_kept(fleet, deployment, account, general, ts)
    [(pid,)] = deployment.rows(HOLDER)
    send(signal.SIGKILL, pid)
    socket_mode.until(connections=0)
    missed = fake.workspace.post(general, "without an event")
    socket_mode.until(connections=1, seconds=60)
    until_kept(fleet, deployment, account, general, missed)
    ts = fake.workspace.post(general, "later news")
    socket_mode.until(acknowledged=socket_mode.send(callback(posted(general, ts))))
    until_kept(fleet, deployment, account, general, ts)
    assert dict(deployment.rows(RUNS)).get("schedule", 0) == polls, "no poll found the messages"


@pytest.mark.acceptance
@pytest.mark.timeout(300)
def test_without_its_connection_an_account_is_polled_and_says_so(
    fake: Fake,
    general: Channel,
    socket_mode: SocketMode,
    deployment: Deployment,
    listening: tuple[Fleet, UUID],
) -> None:
    fleet, account = listening
    socket_mode.refuses = 503
    socket_mode.open[0].close()
    [(error,)] = fleet.until(
        lambda: [row for row in deployment.rows(IS_DOWN) if row[0] and "503" in row[0]],
        "the account's listener is down",
        HEARD_SECONDS,
    )
    assert "Slack refused the connection" in error
    ts = fake.workspace.post(general, "news")
    set_due(deployment, account)
    tick(deployment)
    until_kept(fleet, deployment, account, general, ts)
    socket_mode.refuses = 0
    missed = fake.workspace.post(general, "more news")
    socket_mode.until(connections=1, seconds=90)
    until_kept(fleet, deployment, account, general, missed)
