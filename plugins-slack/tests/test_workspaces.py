"""Workspaces that change between the steps of a sync, and answers that refuse."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.server import BOT, USER
from fake_slack.workspace import Channel
from integration_polling_slack import Slack
from integration_polling_slack.timestamps import LATEST

from core import CredentialsInvalid
from core.testing import Faults, Harness, SyncResult

DAY = 86_400


def ago(days: float, number: int = 1) -> str:
    """Return the timestamp of a message of that age."""
    return f"{int(time.time() - days * DAY)}.{number:06d}"


def texts(harness: Harness) -> set[str]:
    return {item.text for item in harness.content.values() if item.kind == "message"}


def there(fake: Fake) -> set[str]:
    return {message["text"] for _, message in fake.workspace.visible()}


def rows(harness: Harness) -> dict[str | None, Any]:
    """Return the reason why each channel cannot be read, by the channel's name."""
    found = [item for item in harness.content.values() if item.kind == "channel"]
    return {item.name: item.metadata["unreadable"] for item in found}


def two_channels(fake: Fake) -> tuple[Channel, Channel]:
    """Add two channels with a message each."""
    first, second = (fake.workspace.add_channel(name) for name in "ab")
    fake.workspace.post(first, "in a")
    fake.workspace.post(second, "in b")
    return first, second


def between(fake: Fake, method: str, act: Any) -> None:
    """Act once, before the next response of a method."""

    def before(called: str, arguments: dict[str, str]) -> None:
        if called == method:
            fake.before = None
            act()

    fake.before = before


# What is gone is gone
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [1, 40])
@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("trigger", ["schedule", "manual", "resync"])
def test_a_broadcast_deleted_before_its_thread_is_read_is_gone(
    fake: Fake, connect: Any, sync: Any, age: float, others: int, trigger: str
) -> None:
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root", ts=ago(age))
    for number in range(others):
        fake.workspace.post(channel, f"reply {number}", thread=root)
    late = fake.workspace.post(channel, "oops", thread=root, broadcast=True)
    between(fake, "conversations.replies", lambda: fake.workspace.delete(channel, late))
    harness = connect()
    sync(harness)
    sync(harness, trigger)
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("since", [None, "2024-01-01"])
@pytest.mark.parametrize("others", [0, 2])
def test_a_broadcast_on_an_old_thread_is_gone_after_the_next_lookback(
    fake: Fake, connect: Any, sync: Any, since: str | None, others: int
) -> None:
    """The thread is too old for the lookback, or even for the copy."""
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root", ts="1600000000.000100")
    fake.workspace.post(channel, "today")
    for number in range(others):
        fake.workspace.post(channel, f"reply {number}", thread=root)
    late = fake.workspace.post(channel, "oops", thread=root, broadcast=True)
    harness = connect(since=since)
    sync(harness)
    assert "oops" in texts(harness)
    fake.workspace.delete(channel, late)
    sync(harness)
    assert texts(harness) == there(fake) - ({"root"} if since else set())
    fake.calls.clear()
    sync(harness)
    assert not fake.called("conversations.replies")


def test_a_broadcast_whose_thread_is_gone_is_gone(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root", ts="1600000000.000100")
    fake.workspace.post(channel, "today")
    late = fake.workspace.post(channel, "oops", thread=root, broadcast=True)
    harness = connect(since="2024-01-01")
    sync(harness)
    fake.workspace.delete(channel, root)
    fake.workspace.delete(channel, late)
    sync(harness)
    assert texts(harness) == {"today"}


def test_a_broadcast_that_only_moved_out_of_the_page_stays(
    fake: Fake, connect: Any, sync: Any
) -> None:
    fake.page_cap = 5
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root")
    for number in range(30):
        fake.workspace.post(channel, f"before {number}", thread=root, broadcast=number % 3 == 0)
        fake.workspace.post(channel, f"message {number}")
    harness = connect()
    for trigger in ("manual", "schedule", "manual"):
        sync(harness, trigger)
        assert texts(harness) == there(fake)
        assert not harness.deleted


def test_a_cleared_channel_is_empty(fake: Fake, connect: Any, sync: Any) -> None:
    first, _ = two_channels(fake)
    for number in range(8):
        fake.workspace.post(first, f"message {number}")
    harness = connect()
    sync(harness)
    for ts in list(first.top):
        fake.workspace.delete(first, ts)
    sync(harness)
    assert texts(harness) == {"in b"}


# Refusals
# --------------------------------------------------------------------------------------------------

OF_A_CHANNEL = [
    "channel_is_limited_access", "no_permission", "access_denied", "is_inactive",
    "restricted_action", "ekm_access_denied", "not_in_channel", "channel_not_found", "is_archived",
    "method_not_supported_for_channel_type", "user_is_restricted", "external_channel_migrating",
    "not_visible",
]  # fmt: skip


@pytest.mark.parametrize("method", ["conversations.history", "conversations.replies"])
@pytest.mark.parametrize("code", OF_A_CHANNEL)
def test_a_refused_channel_says_so_and_comes_back(
    fake: Fake, connect: Any, sync: Any, code: str, method: str
) -> None:
    first, _ = two_channels(fake)
    fake.workspace.post(first, "reply", thread=first.top[0])
    harness = connect()
    fake.fail(method, code, times=99, when=lambda one: one["channel"] == first.id)
    sync(harness)
    assert rows(harness) == {"#a": code, "#b": None}
    assert "in b" in texts(harness)
    fake.faults.clear()
    sync(harness, "schedule")
    assert rows(harness) == {"#a": None, "#b": None}
    assert texts(harness) == there(fake)


OF_THE_ACCOUNT = [
    "account_inactive", "token_revoked", "invalid_auth", "not_authed", "org_login_required",
    "two_factor_setup_required", "team_access_not_granted", "user_removed_from_team",
    "accesslimited", "enterprise_is_restricted",
]  # fmt: skip


@pytest.mark.parametrize(
    "method",
    [
        "auth.test", "users.list", "usergroups.list", "users.conversations",
        "conversations.history", "conversations.replies",
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", OF_THE_ACCOUNT)
def test_a_refusal_of_the_account_stops_it_with_a_reason(
    fake: Fake, connect: Any, sync: Any, code: str, method: str
) -> None:
    first, _ = two_channels(fake)
    harness = connect()
    sync(harness)
    fake.workspace.post(first, "reply", thread=first.top[0])
    fake.fail(method, code, times=99)
    result: SyncResult = harness.sync()
    assert isinstance(result.error, CredentialsInvalid)
    assert result.error.reason == f"{method}: {code}"
    assert result.error.remedy
    assert not result.parked
    fake.faults.clear()
    sync(harness)
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("code", ["access_denied", "no_permission", "ekm_access_denied"])
def test_a_refused_test_of_the_token_stops_the_account(fake: Fake, connect: Any, code: str) -> None:
    two_channels(fake)
    fake.fail("auth.test", code, times=9)
    assert isinstance(connect().sync().error, CredentialsInvalid)


@pytest.mark.parametrize("method", ["files.info", "users.info"])
def test_a_refusal_of_one_item_concerns_this_item_only(
    fake: Fake, connect: Any, sync: Any, method: str
) -> None:
    first, _ = two_channels(fake)
    shared = {"id": "F9", "file_access": "check_file_info"}
    fake.workspace.post(first, "for <@U0EXT>", files=[shared])
    fake.fail(method, "team_access_not_granted", times=99)
    fake.workspace.files["F9"] = ({"id": "F9", "name": "x"}, b"")
    harness = connect()
    sync(harness)
    assert "for @U0EXT" in {text.split("\n")[0] for text in texts(harness)}


KINDS = {
    "public": ("public_channel", "channels:read"),
    "private": ("private_channel", "groups:read"),
    "im": ("im", "im:read"),
    "mpim": ("mpim", "mpim:read"),
}
SCOPES = ["users:read", "usergroups:read", "files:read"] + [
    f"{kind}:{right}"
    for kind in ("channels", "groups", "im", "mpim")
    for right in ("read", "history")
]


def granted(*without: str) -> str:
    return ",".join(scope for scope in SCOPES if scope not in without)


def every_kind(fake: Fake) -> dict[str, Channel]:
    """Add a channel of every kind, and post in each."""
    found = {}
    for kind, (type, _) in KINDS.items():
        name = {"im": "", "mpim": "mpdm-ann--björn-1"}.get(kind, f"a-{kind}")
        found[kind] = fake.workspace.add_channel(name, type=type, user="U2")
        fake.workspace.post(found[kind], f"in {kind}")
    return found


@pytest.mark.parametrize("token", [BOT, USER])
@pytest.mark.parametrize("lost", list(KINDS))
def test_a_lost_scope_concerns_only_its_kind_of_channels(
    fake: Fake, connect: Any, sync: Any, lost: str, token: str
) -> None:
    found = every_kind(fake)
    fake.scopes = granted()
    harness = connect(token, types=list(KINDS))
    sync(harness)
    before = rows(harness)
    fake.scopes = granted(KINDS[lost][1])
    for kind, channel in found.items():
        fake.workspace.post(channel, f"new in {kind}")
    for trigger in ("schedule", "manual"):
        result = sync(harness, trigger)
        assert texts(harness) == there(fake) - {f"new in {lost}"}
        reasons = {item.id: item.metadata["unreadable"] for item in harness.content.values()
                   if item.kind == "channel"}  # fmt: skip
        assert reasons == {
            channel.id: "missing_scope" if kind == lost else None for kind, channel in found.items()
        }
        assert any(KINDS[lost][1] in reason for reason in result.skipped_items)
    assert not {id for id in harness.deleted if not id.endswith(":members")}
    fake.scopes = granted()
    result = sync(harness, "schedule")
    assert texts(harness) == there(fake)
    assert rows(harness) == before
    assert not result.skipped_items


def test_a_scope_that_was_lost_at_first_is_shown(fake: Fake, connect: Any, sync: Any) -> None:
    every_kind(fake)
    fake.scopes = granted("groups:read")
    result = sync(harness := connect())
    assert texts(harness) == {"in public"}
    assert list(result.skipped_items) == ["the token lacks the scope groups:read"]


def test_an_account_that_lost_all_its_scopes_is_not_green(fake: Fake, connect: Any) -> None:
    every_kind(fake)
    fake.scopes = "users:read"
    result: SyncResult = connect().sync()
    assert result.state != "succeeded"
    assert "missing_scope" in str(result.parked[0].error)


def test_a_lost_scope_to_join_leaves_the_joined_channels(
    fake: Fake, connect: Any, sync: Any
) -> None:
    _, second = two_channels(fake)
    second.is_member = False
    fake.scopes = granted()
    result = sync(harness := connect(join_public=True))
    assert texts(harness) == {"in a"}
    assert rows(harness) == {"#a": None, "#b": "not_in_channel"}
    assert any("conversations.join: missing_scope" in one for one in result.skipped_items)


# Files and people of others
# --------------------------------------------------------------------------------------------------


def test_people_of_other_organizations_have_names(fake: Fake, connect: Any, sync: Any) -> None:
    fake.workspace.add_user("U0EXT", "Carla", is_stranger=True)
    channel = fake.workspace.add_channel("shared")
    fake.workspace.post(channel, "hello", user="U0EXT")
    fake.workspace.post(channel, "ask <@U0EXT>")
    sync(harness := connect())
    found = {(item.name, item.text) for item in harness.content.values() if item.kind == "message"}
    assert found == {("#shared @Carla", "hello"), ("#shared @Ann", "ask @Carla")}


def test_a_canvas_is_kept_as_html(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    fake.workspace.upload(
        channel, b"<h1>Plan</h1>", "Plan", mode="quip", mimetype="text/html", filetype="quip"
    )
    sync(harness := connect(files="all"))
    [file] = [item for item in harness.content.values() if item.kind == "file"]
    assert file.text == "<h1>Plan</h1>"


def test_a_file_to_be_checked_without_the_scope_says_so(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "x", files=[{"id": "F3", "file_access": "check_file_info"}])
    fake.scopes = granted("files:read")
    sync(harness := connect())
    [file] = [item for item in harness.content.values() if item.kind == "file"]
    assert file.metadata["skipped"] == "the token lacks the scope files:read"


def test_a_file_without_access_says_so(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    shown = {"id": "F6", "mode": "hosted", "file_access": "access_denied"}
    fake.workspace.post(channel, "x", files=[shown])
    sync(harness := connect(files="all"))
    [file] = [item for item in harness.content.values() if item.kind == "file"]
    assert file.metadata["skipped"] == "access denied"


# Lists of channels
# --------------------------------------------------------------------------------------------------


def test_a_bot_lists_its_own_channels_in_each_run(fake: Fake, connect: Any, sync: Any) -> None:
    first, second = two_channels(fake)
    second.is_member = False
    sync(harness := connect())
    for trigger in ("schedule", "manual"):
        fake.calls.clear()
        fake.workspace.post(first, f"new, {trigger}")
        sync(harness, trigger)
        assert not fake.called("conversations.list")
        assert len(fake.called("users.conversations")) == 1
        assert rows(harness) == {"#a": None, "#b": "not_in_channel"}
    assert texts(harness) == there(fake) - {"in b"}
    second.is_member = True
    sync(harness, "schedule")
    assert texts(harness) == there(fake)
    assert rows(harness) == {"#a": None, "#b": None}


def test_all_channels_are_listed_once_a_day_and_when_needed(
    fake: Fake, connect: Any, sync: Any
) -> None:
    first, second = two_channels(fake)
    harness = connect()

    def listed(trigger: str = "schedule") -> int:
        fake.calls.clear()
        sync(harness, trigger)
        return len(fake.called("conversations.list"))

    assert [listed(), listed(), listed("resync"), listed()] == [1, 0, 1, 0]
    second.is_member = False
    assert [listed(), listed()] == [1, 0], "the bot was removed from a channel"
    assert rows(harness) == {"#a": None, "#b": "not_in_channel"}
    harness.state["followed"]["listed_at"] = "2020-01-01T00:00:00Z"
    assert [listed(), listed()] == [1, 0]
    second.is_member = True
    del fake.workspace.channels[first.id]
    assert [listed(), listed()] == [1, 0]
    assert rows(harness) == {"#a": "channel_not_found", "#b": None}
    assert texts(harness) == {"in a", "in b"}


def test_a_person_lists_all_channels_in_each_run(fake: Fake, connect: Any, sync: Any) -> None:
    _, second = two_channels(fake)
    second.is_member = False
    harness = connect(USER)
    for _ in range(2):
        sync(harness, "schedule")
    assert len(fake.called("conversations.list")) == 2
    assert not fake.called("users.conversations")
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("code", ["unknown_method", "missing_scope", "no_permission"])
def test_all_channels_are_listed_if_the_bots_own_cannot_be(
    fake: Fake, connect: Any, sync: Any, code: str
) -> None:
    first, _ = two_channels(fake)
    sync(harness := connect())
    fake.fail("users.conversations", code, times=99)
    fake.workspace.post(first, "new")
    sync(harness, "schedule")
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("trigger", ["schedule", "manual"])
def test_a_bot_in_313_of_5_000_channels_needs_400_tasks_a_run(
    fake: Fake, connect: Any, sync: Any, trigger: str
) -> None:
    for number in range(5_000):
        channel = fake.workspace.add_channel(f"channel-{number}", is_member=number % 16 == 0)
        fake.workspace.post(channel, f"message {number}")
    assert sum(one.is_member for one in fake.workspace.channels.values()) == 313
    harness = connect()
    for _ in range(4):
        before = len(harness.tasks)
        sync(harness, trigger)
        assert len(harness.tasks) - before <= 400
    assert len(rows(harness)) == 5_000
    assert len(texts(harness)) == 313


@pytest.mark.parametrize("method", ["conversations.list", "users.conversations"])
def test_a_list_that_fails_is_asked_for_in_smaller_pages(
    fake: Fake, connect: Any, sync: Any, method: str
) -> None:
    two_channels(fake)
    harness = connect()
    if method == "users.conversations":
        sync(harness)
        fake.calls.clear()
    fake.fail(method, status=500, when=lambda one: int(one["limit"]) > 200, times=9)
    sync(harness)
    assert [call.arguments["limit"] for call in fake.called(method)] == ["999", "200"]


# Threads
# --------------------------------------------------------------------------------------------------


def long_thread(fake: Fake, replies: int) -> tuple[Channel, str]:
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root")
    for number in range(replies):
        fake.workspace.post(channel, f"reply {number}", thread=root)
    return channel, root


@pytest.mark.parametrize("more", [1, 5])
def test_a_long_thread_is_asked_for_its_new_replies(
    fake: Fake, connect: Any, sync: Any, more: int
) -> None:
    channel, root = long_thread(fake, 3_000)
    sync(harness := connect())
    assert len(fake.called("conversations.replies")) == 4
    for number in range(more):
        fake.workspace.post(channel, f"new {number}", thread=root)
    fake.calls.clear()
    sync(harness)
    assert len(fake.called("conversations.replies")) == 1
    assert texts(harness) == there(fake)
    fake.calls.clear()
    sync(harness)
    assert not fake.called("conversations.replies")
    sync(harness, "resync")
    assert len(fake.called("conversations.replies")) == 4
    assert texts(harness) == there(fake)


def test_a_long_thread_that_lost_a_reply_is_read_completely(
    fake: Fake, connect: Any, sync: Any
) -> None:
    fake.page_cap = 400
    channel, root = long_thread(fake, 1_200)
    sync(harness := connect())
    for number in range(3):
        fake.workspace.post(channel, f"new {number}", thread=root)
    fake.workspace.delete(channel, channel.threads[root][7])
    for number in range(3):
        fake.workspace.delete(channel, channel.threads[root][number])
    fake.workspace.post(channel, "the last", thread=root)
    fake.workspace.post(channel, "the very last", thread=root)
    sync(harness)
    assert texts(harness) == there(fake)


def test_a_long_thread_of_new_replies_is_read_in_pages(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 500
    channel, root = long_thread(fake, 1_000)
    sync(harness := connect())
    for number in range(1_300):
        fake.workspace.post(channel, f"new {number}", thread=root)
    fake.calls.clear()
    sync(harness)
    assert len(fake.called("conversations.replies")) == 3
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("method", ["conversations.history", "conversations.replies"])
def test_messages_are_asked_for_in_large_pages_and_in_smaller_ones_after_errors(
    fake: Fake, connect: Any, sync: Any, method: str
) -> None:
    long_thread(fake, 3)
    fake.fail(method, status=500, when=lambda one: int(one["limit"]) > 50, times=9)
    sync(harness := connect())
    assert [call.arguments["limit"] for call in fake.called(method)] == ["999", "200", "50"]
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("error", ["internal_error", "never_heard_of"])
@pytest.mark.parametrize("age", [1, 40])
def test_an_outage_of_replies_loses_no_thread(
    fake: Fake, connect: Any, error: str, age: float
) -> None:
    """The threads are in the state. The run's tasks may be parked, and are forgotten here."""
    channel = fake.workspace.add_channel("general")
    for number in range(30):
        root = fake.workspace.post(channel, f"root {number}", ts=ago(age, number))
        fake.workspace.post(channel, f"reply {number}", thread=root)
    fake.page_cap = 7
    fake.fail("conversations.replies", error, times=10_000)
    harness: Harness = connect()
    for _ in range(2):
        assert harness.sync().state == "partial"
        harness._ledger._deferred.clear()
    fake.faults.clear()
    harness.sync()
    harness.sync()
    assert texts(harness) == there(fake)
    assert not [name for name in harness.state if name.startswith("threads/")]
    fake.calls.clear()
    assert harness.sync().state == "succeeded"
    assert not fake.called("conversations.replies")


def test_a_thread_that_cannot_be_read_is_not_asked_for_for_ever(fake: Fake, connect: Any) -> None:
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root", ts=ago(40))
    fake.workspace.post(channel, "reply", thread=root)
    fake.fail("conversations.replies", "never_heard_of", times=10_000)
    harness: Harness = connect()
    assert [len(harness.sync().parked) for _ in range(6)] == [1, 1, 1, 1, 0, 0]


# The reconciliation
# --------------------------------------------------------------------------------------------------


def old_channel(fake: Fake, messages: int = 30, name: str = "old") -> Channel:
    """Add a channel of messages that are 40 days old, and one of today."""
    channel = fake.workspace.add_channel(name)
    for number in range(messages):
        fake.workspace.post(channel, f"{name} {number}", ts=ago(40 - number / 1_000, number))
    fake.workspace.post(channel, f"{name} today")
    return channel


@pytest.mark.parametrize("trigger", ["schedule", "manual"])
def test_a_late_reply_on_an_old_thread_is_found(
    fake: Fake, connect: Any, sync: Any, trigger: str
) -> None:
    channel = old_channel(fake)
    fake.workspace.post(channel, "first", thread=channel.top[3])
    sync(harness := connect(), trigger)
    fake.workspace.post(channel, "late", thread=channel.top[3])
    fake.workspace.post(channel, "late, too", thread=channel.top[5])
    sync(harness, trigger)
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("trigger", ["schedule", "manual"])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_old_deletions_and_edits_are_found(
    fake: Fake, connect: Any, sync: Any, trigger: str, count: int
) -> None:
    channel = old_channel(fake)
    old_channel(fake, name="other")
    sync(harness := connect(), trigger)
    for ts in channel.top[:count]:
        fake.workspace.delete(channel, ts)
    fake.workspace.edit(channel, channel.top[3], "said better")
    sync(harness, trigger)
    assert texts(harness) == there(fake)


def test_what_a_retention_policy_deletes_goes(fake: Fake, connect: Any, sync: Any) -> None:
    """Each day the oldest messages vanish, with their threads and their broadcasts."""
    channel = old_channel(fake, 100)
    for number in range(0, 100, 10):
        root = channel.top[number]
        fake.workspace.post(channel, f"reply {number}", thread=root, ts=ago(39, number))
        fake.workspace.post(channel, f"b {number}", thread=root, broadcast=True, ts=ago(38, number))
    sync(harness := connect())
    for _ in range(5):
        for ts in list(channel.top[:15]):
            for reply in list(channel.threads.get(ts, [])):
                fake.workspace.delete(channel, reply)
            if ts in channel.messages:
                fake.workspace.delete(channel, ts)
        sync(harness, "schedule")
        sync(harness, "schedule")
        assert texts(harness) == there(fake)
    assert not harness.held


def test_edited_replies_and_reactions_to_them_are_found_later(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = old_channel(fake)
    old, new = (fake.workspace.post(channel, "reply", thread=channel.top[at]) for at in (2, -1))
    sync(harness := connect(), "schedule")
    fake.workspace.edit(channel, old, "edited")
    fake.workspace.edit(channel, new, "edited, too")
    fake.workspace.react(channel, new, "tada")
    fake.calls.clear()
    sync(harness, "schedule")
    assert not fake.called("conversations.replies"), "unchanged threads are not read in each run"
    harness.now += timedelta(hours=2)
    sync(harness, "schedule")
    assert texts(harness) == there(fake)
    assert harness.content[f"{channel.id}:{new}"].metadata["reactions"]


def test_the_reconciliation_uses_a_share_of_the_budget(fake: Fake, connect: Any, sync: Any) -> None:
    """It makes 2.5 of 50 calls a minute, and resumes where it stopped."""
    fake.page_cap = 10
    channel = old_channel(fake, 1_000)
    second = old_channel(fake, 200, "second")
    for number in range(0, 1_000, 3):
        fake.workspace.post(channel, f"reply {number}", thread=channel.top[number])
    sync(harness := connect(), "schedule")
    for _ in range(3):
        sync(harness, "schedule")
    for found in (channel, second):
        for ts in found.top[::20]:
            fake.workspace.delete(found, ts)
    counts = list[tuple[int, int]]()
    for _ in range(20):
        harness.now += timedelta(minutes=15)
        fake.calls.clear()
        sync(harness, "schedule")
        deep = [
            call for call in fake.called("conversations.history")
            if float(call.arguments.get("latest", "inf")) < float(ago(14.5))
        ]  # fmt: skip
        counts.append((len(deep), len(fake.called("conversations.replies"))))
    for calls in zip(*counts, strict=True):
        assert max(calls) <= 100, "at most what two minutes allow, even after a pause"
        assert sum(calls) <= 20 * 15 * 2.5 + 100
    assert sum(deep for deep, _ in counts) > 240, "two passes of 120 pages"
    assert texts(harness) == there(fake)


def test_a_channel_that_cannot_be_reconciled_is_passed_over(
    fake: Fake, connect: Any, sync: Any
) -> None:
    first, second = old_channel(fake, name="a"), old_channel(fake, name="b")
    sync(harness := connect())
    for found in (first, second):
        fake.workspace.post(found, f"late in {found.name}", thread=found.top[2])
    fake.fail(
        "conversations.history", "never_heard_of", times=99,
        when=lambda one: one["channel"] == first.id and one.get("latest", LATEST) != LATEST,
    )  # fmt: skip
    for _ in range(3):
        sync(harness, "schedule")
    assert "late in b" in texts(harness)
    fake.faults.clear()
    sync(harness)
    assert texts(harness) == there(fake)


def test_a_reconciliation_changes_nothing_that_is_the_same(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = old_channel(fake)
    fake.workspace.post(channel, "reply", thread=channel.top[3])
    sync(harness := connect())
    for _ in range(3):
        harness.now += timedelta(hours=5)
        result = sync(harness, "schedule")
        assert (result.outputs_saved, result.outputs_deleted, result.held) == (0, 0, [])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_killed_reconciliation_loses_nothing(fake: Fake, sync: Any, seed: int) -> None:
    fake.page_cap = 5
    channel = old_channel(fake)
    harness = Harness(Slack, {}, {"token": BOT}, faults=Faults.storm(seed))
    for _ in range(3):
        fake.workspace.post(channel, "late", thread=channel.top[3])
        fake.workspace.delete(channel, channel.top[0])
        sync(harness)
        sync(harness)
        assert texts(harness) == there(fake)
