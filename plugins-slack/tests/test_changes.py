"""Changes of kept messages: edits, deletions, threads, and replies also sent to the channel."""

from __future__ import annotations

from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.workspace import Channel
from integration_polling_slack import Slack
from integration_polling_slack.timestamps import LATEST

from core.testing import Harness


@pytest.fixture
def channel(fake: Fake) -> Channel:
    channel = fake.workspace.add_channel("general")
    for number in range(10):
        fake.workspace.post(channel, f"message {number}")
    return channel


def kept(harness: Harness) -> set[str]:
    return {item.id for item in harness.content.values() if item.kind == "message"}


def there(fake: Fake) -> set[str]:
    return {id for id, _ in fake.workspace.visible()}


def test_an_edit_updates_the_message(fake: Fake, channel: Channel, connect: Any, sync: Any) -> None:
    harness = connect()
    sync(harness)
    ts = channel.top[3]
    fake.workspace.edit(channel, ts, "said better")
    result = sync(harness)
    item = harness.content[f"{channel.id}:{ts}"]
    assert item.text == "said better"
    assert item.metadata["edited"]["user"] == "U1"
    assert result.outputs_saved == 1


def test_a_reaction_updates_the_message(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    harness = connect()
    sync(harness)
    fake.workspace.react(channel, channel.top[3], "tada")
    sync(harness)
    metadata = harness.content[f"{channel.id}:{channel.top[3]}"].metadata
    assert metadata["reactions"] == [{"name": "tada", "count": 1, "users": ["U2"]}]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_deleted_message_is_marked_deleted(
    fake: Fake, channel: Channel, connect: Any, sync: Any, count: int
) -> None:
    """All messages of a quiet channel may be deleted: a few are not held by the delete guard."""
    harness = connect()
    sync(harness)
    gone = channel.top[:count]
    for ts in gone:
        fake.workspace.delete(channel, ts)
    result = sync(harness)
    assert harness.deleted == {f"{channel.id}:{ts}" for ts in gone}
    assert (result.outputs_deleted, result.held) == (count, [])


def test_deleted_messages_of_a_busy_channel_are_marked_deleted(
    fake: Fake, connect: Any, sync: Any
) -> None:
    fake.page_cap = 20
    channel = fake.workspace.add_channel("busy")
    for number in range(90):
        fake.workspace.post(channel, f"message {number}")
    harness = connect()
    sync(harness)
    for ts in (gone := channel.top[10:30]):
        fake.workspace.delete(channel, ts)
    sync(harness)
    assert harness.deleted == {f"{channel.id}:{ts}" for ts in gone}


def test_a_mass_deletion_is_held(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("busy")
    for number in range(50):
        fake.workspace.post(channel, f"message {number}")
    harness = connect()
    sync(harness)
    for ts in channel.top[:40]:
        fake.workspace.delete(channel, ts)
    assert sync(harness).held
    assert not harness.deleted
    harness.accept_deletions()
    assert sync(harness, "schedule").outputs_deleted == 40


@pytest.mark.parametrize("trigger", ["schedule", "resync"])
def test_a_mass_deletion_before_the_lookback_is_held_and_confirmed(
    fake: Fake, connect: Any, sync: Any, trigger: str
) -> None:
    channel = fake.workspace.add_channel("old")
    for number in range(50):
        fake.workspace.post(channel, f"message {number}", ts=f"16000000{number:02}.000100")
    harness = connect()
    sync(harness)
    for ts in channel.top[:40]:
        fake.workspace.delete(channel, ts)
    assert sync(harness, trigger).held
    harness.accept_deletions()
    assert sync(harness, "schedule").outputs_deleted == 40
    assert kept(harness) == there(fake)


def test_all_replies_of_a_thread_are_held_and_confirmed(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    root, replies = channel.top[2], list[str]()
    for number in range(40):
        replies.append(fake.workspace.post(channel, f"reply {number}", thread=root))
    harness = connect()
    sync(harness)
    for ts in replies:
        fake.workspace.delete(channel, ts)
    assert sync(harness).held
    fake.calls.clear()
    sync(harness)
    assert not fake.called("conversations.replies")
    harness.accept_deletions()
    assert sync(harness, "schedule").outputs_deleted == 40
    assert kept(harness) == there(fake)


def test_all_replies_of_a_thread_are_kept(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.page_cap = 10
    ts = channel.top[2]
    for number in range(35):
        fake.workspace.post(channel, f"reply {number}", thread=ts)
    harness = connect()
    sync(harness)
    assert kept(harness) == there(fake)
    replies = [item for item in harness.content.values() if item.parent == f"{channel.id}:{ts}"]
    assert len(replies) == 35
    assert replies[0].metadata["thread_ts"] == ts


def test_a_late_reply_inside_the_lookback_is_found(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    harness = connect()
    sync(harness)
    fake.calls.clear()
    reply = fake.workspace.post(channel, "late", thread=channel.top[0])
    sync(harness)
    assert harness.content[f"{channel.id}:{reply}"].text == "late"
    assert len(fake.called("conversations.replies")) == 1
    fake.calls.clear()
    sync(harness)
    assert not fake.called("conversations.replies"), "an unchanged thread was fetched again"


def test_scheduled_runs_look_back_at_the_configured_interval(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    harness = connect(lookback_hours=2)
    sync(harness, "schedule")
    reply = fake.workspace.post(channel, "late", thread=channel.top[0])
    sync(harness, "schedule")
    assert f"{channel.id}:{reply}" not in harness.content
    partition = harness.state[f"channel/{channel.id}"]
    partition["lookback_done_at"] = "2020-01-01T00:00:00Z"
    sync(harness, "schedule")
    assert f"{channel.id}:{reply}" in harness.content
    assert partition != harness.state[f"channel/{channel.id}"]


def test_a_thread_that_failed_is_fetched_in_the_next_run(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    """The thread's version is kept with the last of its replies, not before."""
    harness = connect()
    sync(harness)
    reply = fake.workspace.post(channel, "late", thread=channel.top[0])
    fake.fail("conversations.replies", "fatal_error", times=3)
    assert harness.sync().state == "partial"
    sync(harness)
    assert f"{channel.id}:{reply}" in harness.content


def test_edits_and_deletions_of_replies_are_kept(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    ts = channel.top[2]
    replies = [fake.workspace.post(channel, f"reply {number}", thread=ts) for number in range(3)]
    harness = connect()
    sync(harness)
    fake.workspace.delete(channel, replies[1])
    fake.workspace.edit(channel, replies[0], "better")
    sync(harness)
    assert harness.deleted == {f"{channel.id}:{replies[1]}"}
    assert harness.content[f"{channel.id}:{replies[0]}"].text == "better"
    for reply in (replies[0], replies[2]):
        fake.workspace.delete(channel, reply)
    sync(harness)
    assert kept(harness) == there(fake)


def test_a_deleted_root_keeps_its_thread(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    """Slack leaves a placeholder with the replies; the message's text is gone."""
    ts = channel.top[2]
    reply = fake.workspace.post(channel, "reply", thread=ts)
    harness = connect()
    sync(harness)
    fake.workspace.delete(channel, ts)
    sync(harness)
    root = harness.content[f"{channel.id}:{ts}"]
    assert (root.text, root.metadata["subtype"]) == ("This message was deleted.", "tombstone")
    assert f"{channel.id}:{reply}" in harness.content
    fake.workspace.delete(channel, reply)
    sync(harness)
    assert kept(harness) == there(fake)
    assert f"{channel.id}:{ts}" in harness.deleted


def test_a_reply_sent_to_the_channel_is_kept_once(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    ts = channel.top[2]
    before = fake.workspace.post(channel, "before", thread=ts, broadcast=True)
    harness = connect()
    sync(harness)
    after = fake.workspace.post(channel, "after", thread=ts, broadcast=True)
    sync(harness, "schedule")  # without a lookback
    for reply in (before, after):
        [item] = [item for item in harness.content.values() if item.id.endswith(reply)]
        assert (item.parent, item.metadata["subtype"]) == (f"{channel.id}:{ts}", "thread_broadcast")
    result = sync(harness)
    assert (result.outputs_saved, result.outputs_deleted) == (0, 0)
    fake.calls.clear()
    sync(harness)
    assert not fake.called("conversations.replies")


def test_a_reply_sent_to_the_channel_from_an_old_thread_is_kept(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "long ago", ts="1600000000.000100")
    fake.workspace.post(channel, "now", thread=root)
    late = fake.workspace.post(channel, "all should know", thread=root, broadcast=True)
    harness = connect(since="2024-01-01")
    sync(harness)
    assert kept(harness) == there(fake) - {f"{channel.id}:{root}"}
    assert harness.content[f"{channel.id}:{late}"].text == "all should know"


def test_a_thread_that_vanishes_before_it_is_read_is_skipped(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    ts = channel.top[2]
    fake.workspace.post(channel, "reply", thread=ts)

    def vanish(method: str, arguments: dict[str, str]) -> None:
        if method == "conversations.replies" and ts in channel.messages:
            channel.threads.pop(ts)
            fake.workspace.delete(channel, ts)

    fake.before = vanish
    harness = connect()
    result = sync(harness)
    assert result.skipped == ["conversations.replies: thread_not_found"]
    sync(harness)
    assert f"{channel.id}:{ts}" in harness.deleted


def test_nothing_posted_during_a_lookback_is_deleted(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.page_cap = 4
    harness = connect()
    sync(harness)
    fake.before = lambda method, _: (
        fake.workspace.post(channel, "meanwhile") if method == "conversations.history" else None
    )
    sync(harness)
    sync(harness)
    assert not harness.deleted


def test_an_edit_does_not_fetch_the_thread_again(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    ts = channel.top[2]
    fake.workspace.post(channel, "reply", thread=ts)
    harness = connect()
    sync(harness)
    fake.workspace.edit(channel, ts, "said better")
    fake.calls.clear()
    for _ in range(2):
        sync(harness)
    assert harness.content[f"{channel.id}:{ts}"].text == "said better"
    assert not fake.called("conversations.replies")


def test_threads_of_a_channel_the_bot_left_are_fetched_later(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """The age of the threads does not matter, although the lookback does not reach them."""
    fake.page_cap = 5
    channel = fake.workspace.add_channel("general")
    roots = [
        fake.workspace.post(channel, "old", ts=f"1600000{number:03}.000100") for number in range(20)
    ]
    for root in roots[:12]:
        fake.workspace.post(
            channel, "old reply", thread=root, ts=f"{int(root[:10]) + 7_000}.000200"
        )

    def leave(method: str, arguments: dict[str, str]) -> None:
        if method == "conversations.replies" and len(fake.called(method)) == 4:
            channel.is_member = False

    fake.before = leave
    harness = connect()
    sync(harness)
    fake.before = None
    assert kept(harness) < there(fake)
    assert harness.content[channel.id].metadata["unreadable"] == "not_in_channel"
    sync(harness, "schedule")
    channel.is_member = True
    sync(harness, "schedule")
    assert kept(harness) == there(fake)
    assert harness.content[channel.id].metadata["unreadable"] is None
    fake.calls.clear()
    sync(harness, "schedule")
    assert not fake.called("conversations.replies")
    newest = [one.arguments.get("latest") for one in fake.called("conversations.history")]
    assert newest.count(LATEST) == 1


@pytest.mark.parametrize("late", [[32], [32, 30], [30, 32]])
def test_a_late_thread_of_a_channel_the_bot_left_costs_only_its_pages(
    fake: Fake, connect: Any, sync: Any, late: list[int]
) -> None:
    """The backfill does not read the history below the thread again."""
    fake.page_cap = 5
    channel = fake.workspace.add_channel("general")
    for number in range(60):
        fake.workspace.post(channel, f"message {number}")
    harness = connect()
    sync(harness)
    for number in late:
        fake.workspace.post(channel, "late", thread=channel.top[number])

    def leave(method: str, arguments: dict[str, str]) -> None:
        channel.is_member = channel.is_member and method != "conversations.replies"

    fake.before = leave
    sync(harness)
    fake.before = None
    channel.is_member = True
    fake.calls.clear()
    sync(harness, "schedule")
    assert kept(harness) == there(fake)
    assert len(fake.called("conversations.history")) == 1 + 1, "new messages, and one page back"
    assert not harness.deleted


def test_unreadable_threads_do_not_repeat_the_backfill_forever(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    for root in channel.top:
        fake.workspace.post(channel, "reply", thread=root)
    fake.fail("conversations.replies", "not_in_channel", times=10_000)
    harness = connect()
    for _ in range(6):
        sync(harness, "schedule")
    fake.calls.clear()
    sync(harness, "schedule")
    assert len(fake.called("conversations.history")) == 1
    assert not fake.called("conversations.replies")
    assert harness.content[channel.id].metadata["unreadable"] is None


def test_a_reply_sent_to_the_channel_is_kept_if_its_thread_is_unreadable(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    """The free plan hides the first message of the thread; the channel still shows the reply."""
    root = fake.workspace.post(channel, "hidden", ts="1600000000.000100")
    late = fake.workspace.post(channel, "all should know", thread=root, broadcast=True)
    channel.top.remove(root)
    fake.fail("conversations.replies", "thread_not_found", times=1000)
    harness = connect()
    for _ in range(2):
        sync(harness)
        assert harness.content[f"{channel.id}:{late}"].text == "all should know"
        assert harness.content[f"{channel.id}:{late}"].parent == f"{channel.id}:{root}"


def test_a_reply_kept_by_a_concurrent_task_is_not_deleted(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    """Two tasks fetch one thread. The slower one has the older response, and commits last.

    It learns from the fingerprints what the other task has kept.
    """
    root = channel.top[2]
    fake.workspace.post(channel, "first", thread=root)
    harness = connect()
    sync(harness)
    first = Slack(harness.config, harness.credentials)
    thread = first.get_thread.task(channel=channel.id, ts=root)
    answered, late = fake.answer, list[str]()

    def overtaken(
        method: str, arguments: dict[str, str], authorization: str
    ) -> tuple[int, bytes, dict[str, str]]:
        answer = answered(method, arguments, authorization)
        if not late:
            late.append(fake.workspace.post(channel, "late", thread=root))
            sync(harness)
        return answer

    fake.answer = overtaken  # type: ignore[method-assign]
    with harness:
        result = first.run_task(thread, harness.context(thread.type))
    assert f"{channel.id}:{late[0]}" in harness.content
    assert not [one for one in result.output if one.code == 410]


@pytest.mark.parametrize("replies", [1, 12])
def test_a_reply_that_exists_only_during_a_fetch_is_marked_deleted(
    fake: Fake, channel: Channel, connect: Any, sync: Any, replies: int
) -> None:
    """The reply exists only while the thread is fetched.

    Before and after that, the thread has the same version.
    """
    fake.page_cap = 10
    root, late = channel.top[2], list[str]()
    for number in range(replies):
        fake.workspace.post(channel, f"reply {number}", thread=root)

    def meanwhile(method: str, arguments: dict[str, str]) -> None:
        if method == "conversations.replies" and not late:
            late.append(fake.workspace.post(channel, "late", thread=root))

    fake.before = meanwhile
    harness = connect()
    sync(harness)
    assert harness.content[f"{channel.id}:{late[0]}"].text == "late"
    fake.workspace.delete(channel, late[0])
    sync(harness)
    harness.accept_deletions()
    sync(harness, "schedule")
    assert kept(harness) == there(fake)
    fake.calls.clear()
    sync(harness)
    assert not fake.called("conversations.replies")


def test_a_broadcast_deleted_before_the_backfill_reaches_its_thread_is_marked_deleted(
    fake: Fake, connect: Any, sync: Any
) -> None:
    fake.page_cap = 5
    channel = fake.workspace.add_channel("general")
    root = fake.workspace.post(channel, "the first")
    for number in range(20):
        fake.workspace.post(channel, f"message {number}")
    late = fake.workspace.post(channel, "all should know", thread=root, broadcast=True)
    harness, replies = connect(), list[int]()

    def retract(method: str, arguments: dict[str, str]) -> None:
        if method == "conversations.history" and len(replies) < len(
            fake.called("conversations.replies")
        ):
            replies.append(1)
            fake.workspace.delete(channel, late)

    fake.before = retract
    harness = connect()
    sync(harness)
    fake.before = None
    assert replies == [1]
    sync(harness)
    assert kept(harness) == there(fake)
