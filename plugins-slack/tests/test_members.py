"""The members of private channels: complete with a time, or absent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.server import BOT, USER
from fake_slack.workspace import Channel
from integration_polling_slack import Config

from core.testing import Harness


@pytest.fixture
def secret(fake: Fake) -> Channel:
    channel = fake.workspace.add_channel("secret", type="private_channel")
    fake.workspace.post(channel, "in secret")
    fake.workspace.post(fake.workspace.add_channel("general"), "in general")
    return channel


def members(harness: Harness) -> dict[str, Any]:
    """Return the members by channel."""
    rows = [item for item in harness.content.values() if item.kind == "members"]
    return {item.metadata["channel"]: item.metadata["members"] for item in rows}


def as_of(harness: Harness, channel: Channel) -> datetime:
    return datetime.fromisoformat(harness.state[f"members/{channel.id}"]["as_of"])


@pytest.mark.parametrize("token", [BOT, USER])
def test_the_members_of_private_channels_are_rows(
    fake: Fake, secret: Channel, connect: Any, sync: Any, token: str
) -> None:
    sync(harness := connect(token), "schedule")
    assert members(harness) == {secret.id: ["U1", "U2", "UBOT"]}
    before = as_of(harness, secret)
    secret.members.remove("U2")
    harness.now += timedelta(minutes=15)
    sync(harness, "schedule")
    assert members(harness) == {secret.id: ["U1", "UBOT"]}
    assert as_of(harness, secret) - before >= timedelta(minutes=15)
    assert harness.content[f"{secret.id}:members"].parent == secret.id
    harness.now += timedelta(minutes=15)
    assert sync(harness, "schedule").outputs_saved == 0
    assert as_of(harness, secret) - before >= timedelta(minutes=30)


def test_all_pages_of_members_are_one_list(
    fake: Fake, secret: Channel, connect: Any, sync: Any
) -> None:
    fake.page_cap = 10
    secret.members = [f"U9{number:03}" for number in range(95)]
    sync(harness := connect())
    assert members(harness) == {secret.id: secret.members}
    assert harness.charged["conversations.members"] == 9


@pytest.mark.parametrize(
    "code", ["missing_scope", "fetch_members_failed", "unknown_method", "channel_not_found"]
)
def test_members_that_cannot_be_listed_are_absent(
    fake: Fake, secret: Channel, connect: Any, sync: Any, code: str
) -> None:
    sync(harness := connect())
    fake.fail("conversations.members", code, times=99)
    sync(harness, "schedule")
    assert members(harness) == {}
    assert "in secret" in {item.text for item in harness.content.values()}
    fake.faults.clear()
    sync(harness, "schedule")
    assert members(harness) == {secret.id: ["U1", "U2", "UBOT"]}


def test_an_incomplete_list_of_members_is_not_kept(
    fake: Fake, secret: Channel, connect: Any
) -> None:
    fake.page_cap = 1
    fake.fail("conversations.members", status=500, times=99, when=lambda one: "cursor" in one)
    harness: Harness = connect()
    assert harness.sync().state == "partial"
    assert members(harness) == {}


def test_members_go_when_the_bot_leaves(
    fake: Fake, secret: Channel, connect: Any, sync: Any
) -> None:
    sync(harness := connect())
    secret.is_member = False
    sync(harness, "schedule")
    assert members(harness) == {}
    assert f"members/{secret.id}" not in harness.state
    assert harness.content[secret.id].metadata["unreadable"] == "channel_not_found"


def test_members_go_when_a_channel_becomes_public(
    fake: Fake, secret: Channel, connect: Any, sync: Any
) -> None:
    sync(harness := connect())
    secret.type = "public_channel"
    sync(harness, "schedule")
    assert members(harness) == {}
    assert "in secret" in {item.text for item in harness.content.values()}


@pytest.mark.parametrize("config", [{"exclude": ["secret"]}, {"types": ["public"]}])
@pytest.mark.parametrize("deselected", ["keep", "delete"])
def test_only_followed_channels_have_members(
    fake: Fake, secret: Channel, connect: Any, sync: Any, config: Any, deselected: str
) -> None:
    sync(harness := connect())
    harness.close()
    harness.config = harness._worker._config = Config(**config, deselected=deselected)
    sync(harness, "schedule")
    assert members(harness) == {}


def test_members_go_with_the_scope(fake: Fake, secret: Channel, connect: Any, sync: Any) -> None:
    sync(harness := connect())
    fake.scopes = "users:read,channels:read,channels:history,groups:history"
    for trigger in ("schedule", "manual"):
        sync(harness, trigger)
        assert members(harness) == {}


def test_a_resync_keeps_the_members(fake: Fake, secret: Channel, connect: Any, sync: Any) -> None:
    sync(harness := connect())
    for trigger in ("manual", "resync", "schedule"):
        sync(harness, trigger)
        assert members(harness) == {secret.id: ["U1", "U2", "UBOT"]}
