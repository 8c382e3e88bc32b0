"""Runs of hints ask only for the named parts, and keep the same content as polls."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.events import callback, changed, deleted, posted, reacted
from fake_slack.server import BOT, USER
from fake_slack.workspace import Channel
from integration_polling_slack import Config
from integration_polling_slack.events import hints

from core.testing import Harness, SyncResult

OLD = "1500000000.000100"
"""A message that is older than the lookback."""

OLD_REPLY = "1500000000.000200"


@pytest.fixture
def general(fake: Fake) -> Channel:
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "old", ts=OLD)
    fake.workspace.post(channel, "old reply", ts=OLD_REPLY, thread=OLD)
    fake.workspace.post(channel, "recent")
    fake.workspace.post(fake.workspace.add_channel("other"), "in other")
    return channel


@pytest.fixture
def harness(fake: Fake, general: Channel, connect: Any, sync: Any) -> Harness:
    account: Harness = connect()
    sync(account)
    account.now += timedelta(minutes=5)
    fake.calls.clear()
    return account


def receive(harness: Harness, *events: dict[str, Any]) -> SyncResult:
    """Run the account as these events do. The run must succeed and sweep nothing."""
    named = [hint.part for event in events for hint in hints(callback(event))]
    assert named, "the events make no hint"
    assert None not in named
    result = harness.hint(*[part for part in named if part is not None])
    assert result.state == "succeeded", [result.error, *result.parked]
    return result


def asked(fake: Fake) -> Counter[str]:
    """Return the calls since the last time, as method and channel."""
    found = Counter(
        f"{one.method} {one.arguments.get('channel', '')}".strip() for one in fake.calls
    )
    fake.calls.clear()
    return found


def texts(harness: Harness) -> dict[str, str | None]:
    return {item.id: item.text for item in harness.content.values() if item.kind == "message"}


def test_a_new_message_costs_one_call(fake: Fake, general: Channel, harness: Harness) -> None:
    ts = fake.workspace.post(general, "news from <@U2>")
    receive(harness, posted(general, ts))
    assert asked(fake) == {"conversations.history C0001": 1}
    assert texts(harness)[f"C0001:{ts}"] == "news from @Björn"
    assert receive(harness, posted(general, ts)).outputs_saved == 0
    assert harness.sync("schedule").state == "succeeded"
    assert len(texts(harness)) == 5


def test_several_channels_are_asked_and_no_others(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    other = fake.workspace.channels["C0002"]
    events = [
        posted(channel, fake.workspace.post(channel, f"news {number}"))
        for channel in (general, other)
        for number in range(3)
    ]
    receive(harness, *events)
    assert asked(fake) == {"conversations.history C0001": 1, "conversations.history C0002": 1}
    assert {"news 0", "news 1", "news 2"} <= set(texts(harness).values())


def test_a_late_reply_reads_the_new_replies_of_its_thread(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    ts = fake.workspace.post(general, "late", thread=OLD)
    receive(harness, posted(general, ts))
    assert asked(fake) == {"conversations.history C0001": 1, "conversations.replies C0001": 1}
    assert texts(harness)[f"C0001:{ts}"] == "late"
    assert harness.content[f"C0001:{ts}"].parent == f"C0001:{OLD}"


def test_a_broadcast_is_kept_once(fake: Fake, general: Channel, harness: Harness) -> None:
    ts = fake.workspace.post(general, "for all", thread=OLD, broadcast=True)
    receive(harness, posted(general, ts))
    assert texts(harness)[f"C0001:{ts}"] == "for all"
    assert harness.content[f"C0001:{ts}"].parent == f"C0001:{OLD}"


def test_an_edited_message_is_updated_however_old_it_is(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    fake.workspace.edit(general, OLD, "edited")
    receive(harness, changed(general, OLD))
    assert asked(fake) == {"conversations.history C0001": 1}
    assert texts(harness)[f"C0001:{OLD}"] == "edited"
    assert texts(harness)[f"C0001:{OLD_REPLY}"] == "old reply"


def test_an_edited_reply_is_updated(fake: Fake, general: Channel, harness: Harness) -> None:
    fake.workspace.edit(general, OLD_REPLY, "edited")
    receive(harness, changed(general, OLD_REPLY))
    assert asked(fake) == {"conversations.replies C0001": 1}
    assert texts(harness)[f"C0001:{OLD_REPLY}"] == "edited"


def test_reactions_are_kept(fake: Fake, general: Channel, harness: Harness) -> None:
    for ts in (OLD, OLD_REPLY):
        fake.workspace.react(general, ts, "tada")
        receive(harness, reacted(general, ts))
        assert harness.content[f"C0001:{ts}"].metadata["reactions"][0]["name"] == "tada"
    calls = asked(fake)
    assert calls == {"conversations.history C0001": 2, "conversations.replies C0001": 1}


@pytest.mark.parametrize("ts", [OLD_REPLY, "recent"])
def test_a_deleted_message_is_marked(
    fake: Fake, general: Channel, harness: Harness, ts: str
) -> None:
    ts = general.top[-1] if ts == "recent" else ts
    message = dict(general.messages[ts])
    kept = set(texts(harness))
    fake.workspace.delete(general, ts)
    receive(harness, deleted(general, message))
    assert harness.deleted == {f"C0001:{ts}"}
    assert set(texts(harness)) == kept - {f"C0001:{ts}"}
    assert "users.list" not in asked(fake)


def test_a_deleted_first_message_becomes_slacks_placeholder(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    message = dict(general.messages[OLD])
    fake.workspace.delete(general, OLD)
    receive(harness, deleted(general, message))
    assert texts(harness)[f"C0001:{OLD}"] == "This message was deleted."
    assert texts(harness)[f"C0001:{OLD_REPLY}"] == "old reply"
    assert not harness.deleted


def test_a_deletion_of_an_unknown_message_keeps_all(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    gone = {"type": "message", "ts": "1500000001.000100"}
    receive(harness, deleted(general, gone), deleted(general, {**gone, "thread_ts": OLD}))
    assert len(texts(harness)) == 4
    assert not harness.deleted


def test_a_message_that_slack_hides_is_not_deleted(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    """The free plan hides messages older than 90 days."""
    fake.is_limited = True
    message = dict(general.messages[OLD])
    general.top.remove(OLD)
    receive(harness, reacted(general, OLD), deleted(general, message))
    assert not harness.deleted


@pytest.mark.parametrize("ts", [OLD, OLD_REPLY])
def test_a_message_before_since_is_not_kept(
    fake: Fake, general: Channel, connect: Any, sync: Any, ts: str
) -> None:
    sync(harness := connect(since="2020-01-01"))
    before = texts(harness)
    fake.workspace.react(general, ts, "tada")
    receive(harness, reacted(general, ts))
    assert texts(harness) == before


def test_a_reply_whose_thread_is_not_kept_brings_its_thread(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    root = fake.workspace.post(general, "new thread")
    reply = fake.workspace.post(general, "its reply", thread=root)
    receive(harness, changed(general, reply))
    assert {"new thread", "its reply"} <= set(texts(harness).values())


def test_a_renamed_channel_has_its_new_name(fake: Fake, general: Channel, harness: Harness) -> None:
    general.name = "renamed"
    receive(harness, {"type": "channel_rename", "channel": {"id": "C0001", "name": "renamed"}})
    assert harness.content["C0001"].name == "#renamed"
    assert asked(fake) == {"conversations.info C0001": 1, "conversations.history C0001": 1}


def test_a_channel_that_the_bot_joins_is_copied(
    fake: Fake, general: Channel, harness: Harness, sync: Any
) -> None:
    joined = fake.workspace.add_channel("joined")
    ts = fake.workspace.post(joined, "in joined")
    receive(harness, {"type": "member_joined_channel", "channel": joined.id, "user": "UBOT"})
    assert texts(harness)[f"{joined.id}:{ts}"] == "in joined"
    assert harness.content[joined.id].name == "#joined"
    assert "C0001" not in str(asked(fake))
    ts = fake.workspace.post(joined, "later")
    receive(harness, posted(joined, ts))
    assert texts(harness)[f"{joined.id}:{ts}"] == "later"
    sync(harness, "schedule")
    assert harness.state["followed"]["ids"] == ["C0001", "C0002", joined.id]


def test_a_channel_that_the_bot_leaves_says_so(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    general.is_member = False
    receive(harness, {"type": "channel_left", "channel": "C0001"})
    assert harness.content["C0001"].metadata["unreadable"] == "not_in_channel"
    assert asked(fake) == {"conversations.info C0001": 1}
    assert len(texts(harness)) == 4


@pytest.fixture
def secret(fake: Fake, general: Channel) -> Channel:
    return fake.workspace.add_channel("secret", type="private_channel")


def test_members_change_within_one_run(
    fake: Fake, secret: Channel, harness: Harness, sync: Any
) -> None:
    row = f"{secret.id}:members"
    left = {"type": "member_left_channel", "channel": secret.id, "user": "U2"}
    assert harness.content[row].metadata["members"] == ["U1", "U2", "UBOT"]
    assert harness.follows(f"{secret.id}:members")
    assert not harness.follows("C0001:members")
    secret.members.remove("U2")
    receive(harness, left)
    assert harness.content[row].metadata["members"] == ["U1", "UBOT"]
    assert asked(fake) == {f"conversations.members {secret.id}": 1}
    secret.is_member = False
    receive(harness, {**left, "user": "UBOT"})
    assert row not in harness.content
    assert f"members/{secret.id}" not in harness.state
    assert harness.content[secret.id].metadata["unreadable"] == "channel_not_found"
    secret.is_member = True
    sync(harness, "schedule")
    assert harness.content[secret.id].metadata["unreadable"] is None


def test_members_of_public_channels_cost_no_call(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    receive(harness, {"type": "member_joined_channel", "channel": "C0001", "user": "U2"})
    assert not fake.calls


@pytest.mark.parametrize(
    "config", [{"exclude": ["other"]}, {"channels": ["general"]}, {"types": ["private"]}]
)
@pytest.mark.parametrize("token", [BOT, USER])
def test_a_channel_that_is_not_followed_is_not_asked(
    fake: Fake, general: Channel, connect: Any, sync: Any, config: Any, token: str
) -> None:
    sync(harness := connect(token, **config))
    fake.calls.clear()
    other = fake.workspace.channels["C0002"]
    ts = fake.workspace.post(other, "news")
    reply = fake.workspace.post(other, "reply", thread=ts)
    receive(harness, *[posted(other, one) for one in (ts, reply)], changed(other, ts))
    receive(harness, reacted(other, ts), deleted(other, dict(other.messages[reply])))
    assert not fake.calls
    for part in ("C0002", f"C0002:{ts}", f"C0002:{ts}:{reply}"):
        assert not harness.follows(part), "the engine stores a hint"
        assert harness.follows(part.replace("C0002", "C0001")) == ("private" not in str(config))
    assert harness.follows("C0002:settings")
    receive(harness, {"type": "channel_rename", "channel": {"id": "C0002", "name": "x"}})
    assert asked(fake) == {"conversations.info C0002": 1}
    assert "C0002" not in harness.content


def test_a_changed_file_is_kept_anew(fake: Fake, general: Channel, harness: Harness) -> None:
    id = fake.workspace.upload(general, b"bytes", title="first")
    ts = general.top[-1]
    receive(harness, {"type": "file_shared", "channel_id": "C0001", "file_id": id})
    assert harness.content[f"C0001:{ts}:{id}"].metadata["title"] == "first"
    file, _ = fake.workspace.files[id]
    file |= {"title": "second", "shares": {"public": {"C0001": [{"ts": ts}], "C9": [{"ts": ts}]}}}
    asked(fake)
    receive(harness, {"type": "file_change", "file_id": id})
    assert harness.content[f"C0001:{ts}:{id}"].metadata["title"] == "second"
    assert asked(fake) == {"files.info": 1, "conversations.history C0001": 1}
    del fake.workspace.files[id]
    receive(harness, {"type": "file_deleted", "file_id": id})


def test_files_that_are_not_kept_cost_no_call(
    fake: Fake, general: Channel, connect: Any, sync: Any
) -> None:
    sync(harness := connect(files="none"))
    fake.calls.clear()
    assert not harness.follows("F1:file")
    receive(harness, {"type": "file_change", "file_id": "F1"})
    assert not fake.calls


def test_a_channel_with_a_new_id_keeps_its_history(
    fake: Fake, general: Channel, harness: Harness, sync: Any
) -> None:
    workspace = fake.workspace
    general.id = "C9999"
    workspace.channels["C9999"] = workspace.channels.pop("C0001")
    assert harness.hint().state == "succeeded"
    ts = workspace.post(general, "after the move")
    receive(harness, posted(general, ts))
    assert texts(harness)[f"C0001:{ts}"] == "after the move"


def test_the_first_run_of_an_account_is_complete(
    fake: Fake, general: Channel, connect: Any
) -> None:
    harness: Harness = connect()
    assert harness.follows("C0009")
    ts = fake.workspace.post(general, "news")
    receive(harness, posted(general, ts))
    assert len(texts(harness)) == 5


@pytest.mark.parametrize("part", ["C0001:other-form", "::", "C0001:1.1:2.2:3.3"])
def test_an_unknown_part_stands_for_the_complete_account(
    fake: Fake, general: Channel, harness: Harness, part: str
) -> None:
    fake.workspace.post(general, "news")
    assert harness.hint(part).state == "succeeded"
    assert "news" in texts(harness).values()
    assert harness.follows(part)


def test_after_a_change_of_the_config_the_lists_come_first(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    harness.close()
    harness.config = harness._worker._config = Config(channels=["other"])
    assert harness.follows("C0009")
    receive(harness, posted(general, fake.workspace.post(general, "news")))
    assert "news" not in texts(harness).values()
    assert fake.called("conversations.list")


def test_an_unreadable_channel_says_why(fake: Fake, general: Channel, harness: Harness) -> None:
    general.error = "channel_is_limited_access"
    message = dict(general.messages[OLD_REPLY])
    for event in (posted(general, OLD), changed(general, OLD), deleted(general, message)):
        receive(harness, event)
    receive(harness, {"type": "channel_archive", "channel": "C0001"})
    assert harness.content["C0001"].metadata["unreadable"] == "channel_is_limited_access"
    assert len(texts(harness)) == 4


def test_missed_events_are_found_by_the_next_poll(
    fake: Fake, general: Channel, harness: Harness, sync: Any
) -> None:
    joined = fake.workspace.add_channel("joined")
    fake.workspace.post(joined, "in joined")
    receive(harness, posted(joined, fake.workspace.post(joined, "news")))
    assert not fake.calls, "the bot's join is unknown"
    sync(harness, "schedule")
    assert {"in joined", "news"} <= set(texts(harness).values())


def test_a_deleted_channel_is_a_reason_of_its_run(
    fake: Fake, general: Channel, harness: Harness
) -> None:
    del fake.workspace.channels[general.id]
    result = receive(harness, {"type": "channel_deleted", "channel": general.id})
    assert result.skipped_items == {"a channel was deleted, or the token no longer sees it": 1}
    assert harness.content[general.id].metadata["unreadable"] == "channel_not_found"


@pytest.mark.parametrize("token", [BOT, USER])
def test_events_shorten_polls(fake: Fake, connect: Any, sync: Any, token: str) -> None:
    """The run of an event waits for the end of a poll. A person gets no events of some channels."""
    made = [fake.workspace.add_channel(f"channel-{number:03}") for number in range(150)]
    sync(account := connect(token))
    account.now += timedelta(minutes=1)

    def looks() -> int:
        fake.calls.clear()
        sync(account, "schedule")
        account.now += timedelta(minutes=1)
        return len(fake.called("conversations.history"))

    assert looks() == 135
    ts = fake.workspace.post(made[0], "news")
    receive(account, posted(made[0], ts))
    asked = [looks() for _ in range(20)]
    if token == USER:
        assert min(asked) >= 135
        return
    assert max(asked) <= 15
    account.now += timedelta(minutes=30)
    assert looks() >= 135, "events may have stopped"


def test_a_repeated_run_for_the_complete_account_is_short(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """The engine repeats a run of hints that found nothing, and events wait for its end."""
    for number in range(150):
        fake.workspace.add_channel(f"channel-{number:03}")
    sync(account := connect())
    counts = list[int]()
    for _ in range(3):
        fake.calls.clear()
        assert account.hint().state == "succeeded"
        counts.append(len(fake.called("conversations.history")))
        account.now += timedelta(seconds=30)
    assert counts[0] == 135, "events may have been lost"
    assert max(counts[1:]) <= 25
    fake.calls.clear()
    sync(account, "schedule")
    assert len(fake.called("conversations.history")) <= 25, "the connection shows that events come"
    account.now += timedelta(minutes=10)
    fake.calls.clear()
    account.hint()
    assert len(fake.called("conversations.history")) >= 100
