"""Traps of Slack's API that public bug reports describe: nothing is lost, doubled or deleted."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.server import BOT
from fake_slack.workspace import Channel, key

from core.testing import Harness

DAY = 86_400


def ago(days: float, number: int = 1) -> str:
    """Return the timestamp of a message of that age."""
    return f"{int(time.time() - days * DAY)}.{number:06d}"


def texts(harness: Harness) -> list[str]:
    """Return the texts of all messages, without the titles of their files."""
    found = [item.text or "" for item in harness.content.values() if item.kind == "message"]
    return sorted(text.partition("\n")[0] for text in found)


def there(fake: Fake) -> list[str]:
    return sorted(message["text"] for _, message in fake.workspace.visible())


def files(harness: Harness) -> set[str | None]:
    return {item.name for item in harness.content.values() if item.kind == "file"}


def posted(fake: Fake, count: int, days: float = 3) -> Channel:
    """Add a channel with messages, evenly spread over the last days."""
    channel = fake.workspace.add_channel("general")
    for number in range(count):
        fake.workspace.post(channel, f"m{number}", ts=ago(days * (1 - number / count), number))
    return channel


# A page with only a lower bound has the messages next to it, and not the newest ones.
#
# Sources: slackhq/slack-api-docs#4, ltworf/localslackirc#218, n8n-io/n8n PR 21822, and the example
# with `oldest` and `limit=1` at https://docs.slack.dev/messaging/retrieving-messages
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", ["schedule", "manual", "resync"])
@pytest.mark.parametrize("since", [None, "2024-01-01"])
def test_a_page_next_to_its_lower_bound_deletes_nothing(
    fake: Fake, connect: Any, sync: Any, trigger: str, since: str | None
) -> None:
    fake.page_cap = 10
    posted(fake, 60)
    sync(harness := connect(since=since))
    for _ in range(2):
        result = sync(harness, trigger)
        assert (result.outputs_deleted, result.held) == (0, [])
        assert texts(harness) == there(fake)


@pytest.mark.parametrize("trigger", ["schedule", "manual"])
def test_more_new_messages_than_a_page_has_arrive_in_one_run(
    fake: Fake, connect: Any, sync: Any, trigger: str
) -> None:
    fake.page_cap = 10
    channel = posted(fake, 5)
    sync(harness := connect())
    for number in range(35):
        fake.workspace.post(channel, f"later {number}", ts=ago(0.1, number))
    sync(harness, trigger)
    assert texts(harness) == there(fake)


def test_messages_of_one_second_are_kept_across_pages(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 2
    channel = fake.workspace.add_channel("general")
    second = int(time.time()) - DAY
    for number in range(7):
        fake.workspace.post(channel, f"m{number}", ts=f"{second}.{number + 1:06d}")
    sync(harness := connect())
    sync(harness)
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("days", [2, 40])
def test_messages_that_an_import_dates_back_are_kept(
    fake: Fake, connect: Any, sync: Any, days: float
) -> None:
    """An import of another workspace adds messages with their old timestamps."""
    channel = posted(fake, 5, days=60)
    sync(harness := connect())
    fake.workspace.post(channel, "imported", ts=ago(days, 77))
    sync(harness)
    assert texts(harness) == there(fake)


# Threads
# --------------------------------------------------------------------------------------------------


def without(fake: Fake, channel: Channel, root: str, hidden: set[str], times: int) -> None:
    """Let Slack answer without these replies."""
    shown = [root, *(ts for ts in channel.threads[root] if ts not in hidden)]
    answer = {"ok": True, "messages": [channel.shown(ts) for ts in shown], "has_more": False}
    fake.fail("conversations.replies", body=json.dumps(answer).encode(), times=times)


@pytest.mark.parametrize("hidden", [{0}, {2}, {1}, {0, 1, 2}])
@pytest.mark.parametrize("days", [1, 40])
def test_a_reply_that_slack_shows_late_is_kept(
    fake: Fake, connect: Any, sync: Any, hidden: set[int], days: float
) -> None:
    """The history counts a reply that `conversations.replies` does not have yet."""
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root", ts=ago(days))
    replies = [
        fake.workspace.post(channel, f"r{number}", thread=root, ts=ago(days - 0.1, number))
        for number in range(3)
    ]
    without(fake, channel, root, {replies[number] for number in hidden}, times=1)
    sync(harness := connect())
    assert len(texts(harness)) == 4 - len(hidden)
    fake.faults.clear()
    sync(harness)
    assert texts(harness) == there(fake)


def test_a_reply_that_slack_never_shows_is_asked_for_once_more(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root", ts=ago(1))
    hidden = fake.workspace.post(channel, "hidden", thread=root, ts=ago(0.5))
    without(fake, channel, root, {hidden}, times=99)
    sync(harness := connect(lookback_hours=10_000), "schedule")
    for _ in range(4):
        assert harness.hint(f"{channel.id}:{root}").state == "succeeded"
    assert len(fake.called("conversations.replies")) == 2


def test_a_placeholder_without_replies_asks_for_none(fake: Fake, connect: Any, sync: Any) -> None:
    """Source: slack-edge/slack-edge PR 10, with `latest_reply` 0000000000.000000."""
    channel = fake.workspace.add_channel("general")
    ts = ago(1)
    fake.workspace.post(
        channel, "This message was deleted.", ts=ts, subtype="tombstone", user="USLACKBOT",
        hidden=True, thread_ts=ts, reply_count=0, reply_users=[], latest_reply="0000000000.000000",
    )  # fmt: skip
    sync(harness := connect())
    sync(harness)
    assert texts(harness) == ["This message was deleted."]
    assert not fake.called("conversations.replies")


# Files
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_reply", [False, True])
@pytest.mark.parametrize("left", [0, 1])
def test_a_file_that_a_message_no_longer_has_is_gone(
    fake: Fake, connect: Any, sync: Any, is_reply: bool, left: int
) -> None:
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "root", ts=ago(1))
    both = [{"id": f"F{n}", "name": f"f{n}.txt", "mode": "hosted"} for n in range(2)]
    thread = {"thread": root} if is_reply else {}
    ts = fake.workspace.post(channel, "two files", files=both, ts=ago(0.5), **thread)
    fake.workspace.post(channel, "other", ts=ago(0.4), thread=root)
    sync(harness := connect())
    assert files(harness) == {"f0.txt", "f1.txt"}
    channel.messages[ts] |= {"files": both[:left], "edited": {"user": "U1", "ts": ago(0.1)}}
    part = f"{channel.id}:{root}:{ts}" if is_reply else f"{channel.id}:{ts}"
    assert harness.hint(part).state == "succeeded"
    assert files(harness) == {f"f{n}.txt" for n in range(left)}
    assert texts(harness) == there(fake)


def test_the_file_of_a_deleted_message_with_replies_is_gone(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    file = {"id": "F1", "name": "secret.txt", "mode": "hosted"}
    root = fake.workspace.post(channel, "root", ts=ago(1), files=[file])
    fake.workspace.post(channel, "reply", thread=root, ts=ago(0.5))
    sync(harness := connect())
    assert files(harness) == {"secret.txt"}
    fake.workspace.delete(channel, root)
    sync(harness)
    assert files(harness) == set()
    assert texts(harness) == ["This message was deleted.", "reply"]


def test_the_file_of_a_removed_preview_is_gone(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    share = {"is_share": True, "text": "see", "files": [{"id": "F1", "name": "plan.pdf"}]}
    ts = fake.workspace.post(channel, "fyi", ts=ago(1), attachments=[share])
    sync(harness := connect())
    assert files(harness) == {"plan.pdf"}
    del channel.messages[ts]["attachments"]
    sync(harness)
    assert (files(harness), texts(harness)) == (set(), ["fyi"])


def test_the_file_of_a_message_behind_a_withdrawn_key_stays(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """The message may come back, and its file with it."""
    channel = fake.workspace.add_channel("general")
    file = {"id": "F1", "name": "plan.pdf", "mode": "hosted"}
    ts = fake.workspace.post(channel, "plan", ts=ago(1), files=[file])
    sync(harness := connect())
    before = dict(channel.messages[ts])
    channel.messages[ts] = {
        "type": "message", "subtype": "ekm_access_denied", "ts": ts, "user": "UREVOKEDU",
        "text": "Your admins have suspended everyone's access to this content.",
    }  # fmt: skip
    sync(harness)
    assert files(harness) == {"plan.pdf"}
    channel.messages[ts] = before
    sync(harness)
    assert (files(harness), texts(harness)) == ({"plan.pdf"}, ["plan"])


def test_a_file_that_is_not_ready_yet_is_fetched_again(
    fake: Fake, connect: Any, sync: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source: 42wim/matterbridge#655: Slack answers with its login page for a moment."""
    channel = fake.workspace.add_channel("general")
    fake.workspace.upload(channel, b"new", "new.txt", mimetype="text/plain")
    fake.scopes = "channels:read,channels:history,groups:read,groups:history,users:read,files:read"
    fake.file_mode, answered = "login", fake.file

    def ready_later(*arguments: Any) -> Any:
        answer = answered(*arguments)
        fake.file_mode = "direct"
        return answer

    monkeypatch.setattr(fake, "file", ready_later)
    sync(harness := connect(files="all"))
    [item] = [one for one in harness.content.values() if one.kind == "file"]
    assert (item.text, "skipped" in item.metadata) == ("new", False)
    assert len(fake.called("file")) == 2


def test_a_file_whose_address_comes_later_is_fetched(fake: Fake, connect: Any, sync: Any) -> None:
    """Source: NousResearch/hermes-agent PR 45407: a message precedes the upload of its file."""
    channel = fake.workspace.add_channel("general")
    id = fake.workspace.upload(channel, b"new", "new.txt", mimetype="text/plain")
    message = channel.messages[channel.top[0]]
    complete = message["files"]
    message["files"] = [{"id": id, "name": "new.txt", "mode": "hosted", "size": 3}]
    sync(harness := connect(files="all"))
    message["files"] = complete
    sync(harness)
    [item] = [one for one in harness.content.values() if one.kind == "file"]
    assert (item.text, "skipped" in item.metadata) == ("new", False)


# Names
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [{"error": "ratelimited"}, {"status": 429, "body": b""}, {"status": 503, "body": b"<html>"}],
)
@pytest.mark.parametrize("is_reply", [False, True])
def test_a_name_that_could_not_be_looked_up_arrives_later(
    fake: Fake, connect: Any, sync: Any, failure: dict[str, Any], is_reply: bool
) -> None:
    channel = fake.workspace.add_channel("general")
    fake.workspace.add_user("U0EXT", "Carla", is_stranger=True)
    root = fake.workspace.post(channel, "root", ts=ago(1))
    thread = {"thread": root} if is_reply else {}
    fake.workspace.post(channel, "ask <@U0EXT>", ts=ago(0.5), **thread)
    fake.fail("users.info", times=1, **failure)
    sync(harness := connect())
    assert texts(harness) == ["ask @U0EXT", "root"]
    sync(harness)
    assert texts(harness) == ["ask @Carla", "root"]
    assert sync(harness).outputs_saved == 0


def test_a_name_that_the_token_may_not_look_up_costs_nothing_later(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "ask <@U0EXT>", ts=ago(0.5))
    fake.fail("users.info", "missing_scope", times=99)
    sync(harness := connect())
    result = sync(harness)
    assert (result.outputs_saved, texts(harness)) == (0, ["ask @U0EXT"])
    assert len(fake.called("users.info")) == 1


def test_more_strangers_than_one_page_looks_up_get_names(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    for number in range(130):
        fake.workspace.add_user(f"U0EXT{number:03}", f"Eve {number:03}", is_stranger=True)
        fake.workspace.post(channel, f"ask <@U0EXT{number:03}>", ts=ago(0.5, number))
    sync(harness := connect())
    sync(harness)
    assert texts(harness) == [f"ask @Eve {number:03}" for number in range(130)]


def test_reactions_in_another_order_change_nothing(fake: Fake, connect: Any, sync: Any) -> None:
    """Source: docs.slack.dev/reference/methods/reactions.get: some people may be left out."""
    channel = fake.workspace.add_channel("general")
    ts = fake.workspace.post(channel, "hooray", ts=ago(0.5))
    channel.messages[ts]["reactions"] = [{"name": "tada", "count": 2, "users": ["U1", "U2"]}]
    sync(harness := connect())
    channel.messages[ts]["reactions"][0]["users"].reverse()
    assert sync(harness).outputs_saved == 0


# Refusals in the middle of a walk
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["token_revoked", "account_inactive", "channel_not_found"])
@pytest.mark.parametrize("page", [1, 3])
def test_a_refusal_in_the_middle_of_a_walk_loses_nothing(
    fake: Fake, connect: Any, sync: Any, code: str, page: int
) -> None:
    fake.page_cap = 10
    posted(fake, 60)
    harness = connect()
    pages = 0

    def refuse(method: str, arguments: dict[str, str]) -> None:
        nonlocal pages
        if method == "conversations.history":
            pages += 1
            if pages == page:
                fake.fail("conversations.history", code)

    fake.before = refuse
    harness.sync()
    fake.before = None
    assert not harness.deleted
    harness.reconnect({"token": BOT})
    for _ in range(2):
        result = sync(harness)
        assert (result.outputs_deleted, result.held) == (0, [])
    assert texts(harness) == there(fake)


@pytest.mark.parametrize("method", ["conversations.history", "users.list", "conversations.list"])
@pytest.mark.parametrize("body", [b"", b"<html>slow down</html>", b'{"ok": false}'])
def test_a_rate_limit_without_its_header_is_waited_for(
    fake: Fake, connect: Any, sync: Any, method: str, body: bytes
) -> None:
    posted(fake, 5)
    fake.fail(method, status=429, body=body)
    sync(harness := connect())
    assert texts(harness) == there(fake)


def test_an_archived_channel_that_ejects_the_bot_keeps_its_messages(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """Source: elastic/connectors#1972."""
    channel = posted(fake, 5)
    sync(harness := connect())
    before = texts(harness)
    fake.workspace.archive(channel)
    channel.is_member = False
    for trigger in ("schedule", "manual", "resync"):
        result = sync(harness, trigger)
        assert (result.outputs_deleted, result.held) == (0, [])
    assert texts(harness) == before
    assert harness.content[channel.id].metadata["unreadable"] == "not_in_channel"
    assert harness.content[channel.id].metadata["is_archived"] is True


def test_a_channel_that_a_list_leaves_out_once_keeps_its_messages(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """Pages of the list shift while channels are created."""
    channel = posted(fake, 5)
    sync(harness := connect())
    del fake.workspace.channels[channel.id]
    for _ in range(2):
        harness.sync()
    fake.workspace.channels[channel.id] = channel
    fake.workspace.post(channel, "later")
    sync(harness)
    assert texts(harness) == there(fake)
    assert harness.content[channel.id].metadata["unreadable"] is None


def test_a_channel_on_two_pages_of_the_list_is_read_once(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = posted(fake, 5)
    pages = [
        {"channels": [channel.described()], "response_metadata": {"next_cursor": "next"}},
        {"channels": [channel.described()], "response_metadata": {"next_cursor": ""}},
    ]
    for page in pages:
        fake.fail("conversations.list", body=json.dumps({"ok": True, **page}).encode())
    sync(harness := connect())
    assert texts(harness) == there(fake)
    assert len(fake.called("conversations.history")) == 1


def test_the_order_of_a_page_does_not_matter(fake: Fake, connect: Any, sync: Any) -> None:
    """Source: n8n-io/n8n PR 21822: Slack returns messages in any order."""
    channel = posted(fake, 9)
    shown = sorted((channel.shown(ts) for ts in channel.top), key=lambda one: key(one["ts"]))
    answer = {"ok": True, "messages": shown, "has_more": False}
    fake.fail("conversations.history", body=json.dumps(answer).encode(), times=99)
    sync(harness := connect())
    for _ in range(2):
        result = sync(harness)
        assert (result.outputs_saved, result.outputs_deleted, result.held) == (0, 0, [])
    assert texts(harness) == there(fake)
