"""The search of a person's token names the channels and threads that have changed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.server import BOT, USER
from fake_slack.workspace import Channel
from integration_polling_slack.searching import _matches
from integration_polling_slack.timestamps import LATEST

from core.testing import Harness

SCOPES = "users:read,usergroups:read,channels:read,channels:history,groups:read,groups:history"
OLD = "1500000000.000100"


@pytest.fixture
def channels(fake: Fake) -> list[Channel]:
    """More channels than a run asks for. All messages are old."""
    fake.scopes = f"{SCOPES},search:read"
    made = [fake.workspace.add_channel(f"channel-{number:03}") for number in range(300)]
    for channel in made:
        fake.workspace.post(channel, "old", ts=OLD)
    return made


@pytest.fixture
def harness(fake: Fake, channels: list[Channel], connect: Any, sync: Any) -> Harness:
    account: Harness = connect(USER)
    sync(account)
    for _ in range(4):
        sync(account, "schedule")
        account.now += timedelta(minutes=1)
    fake.calls.clear()
    return account


def texts(harness: Harness) -> set[str]:
    return {item.text for item in harness.content.values() if item.kind == "message"}


def now(harness: Harness, number: int = 1) -> str:
    return f"{harness.now.timestamp():.0f}.{number:06d}"


def not_planned(harness: Harness, channels: list[Channel]) -> list[Channel]:
    """Return the channels of the last plan, which the next plan leaves out."""
    return [one for one in channels if one.id in harness.state["looks"]["last"]]


def test_a_new_message_is_found_in_the_next_run(
    fake: Fake, channels: list[Channel], harness: Harness, sync: Any
) -> None:
    found = not_planned(harness, channels)[:5]
    for number, channel in enumerate(found):
        fake.workspace.post(channel, f"news {number}", ts=now(harness, number))
    sync(harness, "schedule")
    assert {f"news {number}" for number in range(5)} <= texts(harness)
    asked = [call.arguments["channel"] for call in fake.called("conversations.history")]
    assert all(asked.count(channel.id) == 1 for channel in found)
    fake.calls.clear()
    harness.now += timedelta(minutes=1)
    sync(harness, "schedule")
    assert len(fake.called("search.messages")) == 1
    planned = set(harness.state["looks"]["last"])
    live = [
        call.arguments for call in fake.called("conversations.history")
        if call.arguments.get("latest") == LATEST and float(call.arguments["oldest"]) > float(OLD)
    ]  # fmt: skip
    assert {one["channel"] for one in live} <= planned, "a match was handled twice"


def test_a_late_reply_to_an_old_thread_is_found(
    fake: Fake, channels: list[Channel], harness: Harness, sync: Any
) -> None:
    fake.workspace.post(channels[7], "late", ts=now(harness), thread=OLD)
    sync(harness, "schedule")
    assert "late" in texts(harness)
    assert len(fake.called("conversations.replies")) == 1


def test_a_message_that_was_late_in_the_index_is_found(
    fake: Fake, channels: list[Channel], harness: Harness, sync: Any
) -> None:
    first, second = not_planned(harness, channels)[:2]
    late = fake.workspace.post(first, "late in the index", ts=now(harness, 1))
    fake.unindexed.add(late)
    fake.workspace.post(second, "indexed", ts=now(harness, 2))
    sync(harness, "schedule")
    assert "indexed" in texts(harness)
    assert "late in the index" not in texts(harness)
    fake.unindexed.clear()
    sync(harness, "schedule")
    assert "late in the index" in texts(harness)


def test_many_matches_are_read_in_pages(
    fake: Fake, channels: list[Channel], harness: Harness, sync: Any
) -> None:
    for number in range(250):
        fake.workspace.post(channels[number % 3], f"news {number}", ts=now(harness, number))
    sync(harness, "schedule")
    assert len(fake.called("search.messages")) == 3
    assert {f"news {number}" for number in range(250)} <= texts(harness)


@pytest.mark.parametrize(("token", "scopes"), [(BOT, f"{SCOPES},search:read"), (USER, SCOPES)])
def test_without_the_scope_nobody_searches(
    fake: Fake, connect: Any, sync: Any, token: str, scopes: str
) -> None:
    fake.workspace.add_channel("general")
    fake.scopes = scopes
    harness = connect(token)
    for _ in range(2):
        sync(harness, "schedule")
    assert not fake.called("search.messages")


def test_channels_that_are_not_followed_are_not_asked(
    fake: Fake, channels: list[Channel], connect: Any, sync: Any
) -> None:
    harness = connect(USER, channels=["channel-001"])
    for _ in range(2):
        sync(harness, "schedule")
    fake.calls.clear()
    fake.workspace.post(channels[5], "elsewhere", ts=now(harness))
    fake.workspace.post(channels[1], "here", ts=now(harness))
    sync(harness, "schedule")
    asked = {call.arguments["channel"] for call in fake.called("conversations.history")}
    assert asked == {channels[1].id}
    assert "here" in texts(harness)


@pytest.mark.parametrize("error", ["missing_scope", "enterprise_is_restricted_x", "internal_error"])
def test_a_search_that_fails_leaves_the_polls(
    fake: Fake, channels: list[Channel], harness: Harness, sync: Any, error: str
) -> None:
    fake.fail("search.messages", error, times=99)
    for number, channel in enumerate(channels[::10]):
        fake.workspace.post(channel, f"news {number}", ts=f"{time.time():.0f}.{number:06d}")
    for _ in range(8):
        harness.sync("schedule")
        harness.now += timedelta(minutes=5)
    assert {f"news {number}" for number in range(30)} <= texts(harness)


@pytest.mark.parametrize(
    "data",
    [
        {}, {"messages": None}, {"messages": {"matches": {}}}, {"messages": {"matches": [None, 3]}},
        {"messages": {"matches": [{"channel": "C1", "ts": "1.000000"}]}},
        {"messages": {"matches": [{"channel": {"id": "../"}, "ts": "1.000000"}]}},
        {"messages": {"matches": [{"channel": {"id": "C1"}, "ts": "now"}]}},
    ],
)  # fmt: skip
def test_malformed_matches_are_left_out(data: Any) -> None:
    assert list(_matches(data)) == []


@pytest.mark.parametrize("link", [None, 7, "http://[", "https://x/?thread_ts=y", "?thread_ts=2.0"])
def test_a_link_names_the_thread_of_a_reply_only(link: Any) -> None:
    match = {"channel": {"id": "C1"}, "ts": "2.0", "permalink": link}
    assert list(_matches({"messages": {"matches": [match]}})) == [("C1", "2.0", "")]
