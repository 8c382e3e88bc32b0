"""Histories: complete, without gaps and duplicates, under changes and faults."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.workspace import Channel, key
from integration_polling_slack import Slack
from integration_polling_slack.timestamps import LATEST

from core import PermanentError
from core.testing import Faults, Harness


def kept(harness: Harness) -> set[str]:
    return {item.id for item in harness.content.values() if item.kind == "message"}


def there(fake: Fake) -> set[str]:
    return {id for id, _ in fake.workspace.visible()}


def posted(fake: Fake, count: int, name: str = "general") -> Channel:
    channel = fake.workspace.add_channel(name)
    for number in range(count):
        fake.workspace.post(channel, f"message {number}")
    return channel


def test_three_pages_have_no_gap_and_no_duplicate(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    posted(fake, 30)
    harness = connect()
    result = sync(harness)
    assert kept(harness) == there(fake)
    assert len(fake.called("conversations.history")) == 3
    messages = [item for item in harness.content.values() if item.kind == "message"]
    # The channel's row changes when the backfill begins, and when it ends.
    assert result.outputs_saved == 30 + len(harness.content) - len(messages) + 2


@pytest.mark.parametrize("short", [0, 3])
def test_all_messages_of_a_large_channel_are_kept(
    fake: Fake, connect: Any, sync: Any, short: int
) -> None:
    """A page may be shorter than requested without being the last one."""
    fake.short_by = short
    posted(fake, 2_300)
    harness = connect()
    sync(harness)
    assert kept(harness) == there(fake)


def test_a_message_posted_during_the_backfill_is_kept_once(
    fake: Fake, connect: Any, sync: Any
) -> None:
    fake.page_cap = 10
    channel = posted(fake, 55)
    fake.before = lambda method, _: (
        fake.workspace.post(channel, "meanwhile") if method == "conversations.history" else None
    )
    harness = connect()
    sync(harness)
    fake.before = None
    walk = fake.called("conversations.history")
    assert len(walk) == 6, "new messages must not add pages to the walk"
    sync(harness)
    assert kept(harness) == there(fake)


def test_the_upper_bound_stays_the_same_during_a_walk(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    channel = posted(fake, 45)
    fake.before = lambda method, _: (
        fake.workspace.post(channel, "meanwhile") if method == "conversations.history" else None
    )
    sync(connect())
    first, *others = fake.called("conversations.history")
    assert "latest" not in first.arguments
    assert len({call.arguments["latest"] for call in others}) == 1


def test_the_cursor_moves_after_the_last_page_of_new_messages(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """The lower bound stays at the last run's newest message until all new pages are kept."""
    fake.page_cap = 10
    channel = posted(fake, 5)
    harness = connect()
    sync(harness, "schedule")
    newest = harness.state[f"channel/{channel.id}"]["newest_ts"]
    for number in range(35):
        fake.workspace.post(channel, f"later {number}")
    fake.fail(
        "conversations.history",
        "internal_error",
        times=3,
        when=lambda arguments: "cursor" in arguments,
    )
    assert harness.sync("schedule").state == "partial"
    assert harness.state[f"channel/{channel.id}"]["newest_ts"] == newest
    sync(harness, "schedule")
    assert kept(harness) == there(fake)
    oldest = {call.arguments["oldest"] for call in fake.called("conversations.history")[1:]}
    # The deferred page is continued in the second sync. The bound moves after it, and not before.
    moved = harness.state[f"channel/{channel.id}"]["newest_ts"]
    assert newest in oldest
    assert oldest <= {newest, moved}


def test_older_history_is_fetched_in_the_background(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    posted(fake, 100)
    harness = connect()
    result = sync(harness)
    assert [run.lane for run in result.runs] == ["live", "backfill"]
    background = [task for task in harness.tasks if task.background]
    assert len(background) == 9


def test_a_failed_backfill_resumes_at_its_page(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    channel = posted(fake, 100)
    harness = connect()
    fake.fail(
        "conversations.history",
        "fatal_error",
        times=3,
        when=lambda arguments: _page(channel, arguments) == 5,
    )
    assert harness.sync("schedule").state == "partial"
    fake.calls.clear()
    sync(harness, "schedule")
    assert kept(harness) == there(fake)
    assert len(fake.called("conversations.history")) < 8, "the backfill restarted"


def _page(channel: Channel, arguments: dict[str, str]) -> int:
    """Return the number of the page of ten messages that a call's cursor names."""
    if "cursor" not in arguments:
        return 0
    ts = base64.b64decode(arguments["cursor"]).decode().split("|")[2]
    return (len(channel.top) - sum(key(one) < key(ts) for one in channel.top)) // 10


@pytest.mark.parametrize("lane", ["first", "live", "lookback"])
def test_a_walk_continues_without_its_rejected_cursor(
    fake: Fake, connect: Any, sync: Any, lane: str
) -> None:
    """The walk continues below the oldest message seen: without gap, duplicate or restart."""
    fake.page_cap = 10
    channel = posted(fake, 5 if lane == "live" else 60)
    harness = connect()
    if lane != "first":
        sync(harness)
    if lane == "live":
        for number in range(60):
            fake.workspace.post(channel, f"later {number}")
    expired: list[str] = []

    def expire(method: str, arguments: dict[str, str]) -> None:
        """Invalidate all cursors during the walk."""
        if (
            method == "conversations.history"
            and arguments.get("cursor")
            and len(expired) < 2
            and arguments["cursor"] not in expired
        ):
            expired.append(arguments["cursor"])
            fake.cursor_epoch += 1

    fake.before = expire
    fake.calls.clear()
    sync(harness)
    assert len(expired) == 2
    assert kept(harness) == there(fake)
    assert not harness.deleted
    calls = [call for call in fake.called("conversations.history") if not call.error]
    assert len(calls) <= 15, "the walk restarted from the newest message"


def test_a_cursor_that_never_works_loses_nothing(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    posted(fake, 60)
    fake.fail(
        "conversations.history",
        "invalid_cursor",
        times=1000,
        when=lambda arguments: "cursor" in arguments,
    )
    harness = connect()
    sync(harness)
    assert kept(harness) == there(fake), "each restart reads one page"
    assert len(fake.called("conversations.history")) < 20


def test_a_walk_that_repeats_its_pages_is_parked(fake: Fake, connect: Any) -> None:
    """A cursor that leads to the same page must neither loop nor end the walk silently."""
    page = {
        "messages": [{"ts": "1700000000.000100", "text": "x"}],
        "response_metadata": {"next_cursor": "same"},
    }
    body = json.dumps({"ok": True, **page}).encode()
    fake.workspace.add_channel("general")
    fake.fail("conversations.history", body=body, times=1000)
    result = connect().sync()
    assert result.state == "partial"
    assert isinstance(result.parked[0].error, PermanentError)
    assert "repeats its pages" in str(result.parked[0].error)
    assert len(fake.called("conversations.history")) < 10


def test_timestamps_are_kept_exactly(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    for ts in ("1700000000.000010", "1700000000.000100", "1700000000.100000", "1700000000.000000"):
        fake.workspace.post(channel, f"at {ts}", ts=ts)
    harness = connect()
    sync(harness)
    assert kept(harness) == {f"{channel.id}:{ts}" for ts in channel.messages}
    item = harness.content[f"{channel.id}:1700000000.000010"]
    assert item.metadata["ts"] == "1700000000.000010"
    assert item.timestamp is not None
    assert item.timestamp.isoformat() == "2023-11-14T22:13:20.000010+00:00"
    assert harness.state[f"channel/{channel.id}"]["newest_ts"] == "1700000000.100000"


def test_same_timestamps_in_two_channels_are_two_messages(
    fake: Fake, connect: Any, sync: Any
) -> None:
    for name in ("one", "two"):
        fake.workspace.post(fake.workspace.add_channel(name), name, ts="1700000000.000010")
    harness = connect()
    sync(harness)
    assert {item.text for item in harness.content.values() if item.kind == "message"} == {
        "one",
        "two",
    }


def test_the_second_sync_costs_one_call_a_channel(fake: Fake, connect: Any, sync: Any) -> None:
    for name in ("one", "two", "three"):
        posted(fake, 300, name)
    harness = connect()
    sync(harness, "schedule")
    fake.calls.clear()
    sync(harness, "schedule")
    assert len(fake.called("conversations.history")) == 3
    assert not fake.called("conversations.replies")
    fake.calls.clear()
    sync(harness, "manual")  # with the lookback, which has the new messages too
    assert len(fake.called("conversations.history")) == 3


def test_an_archived_channel_is_read_once(fake: Fake, connect: Any, sync: Any) -> None:
    channel = posted(fake, 10)
    harness = connect()
    sync(harness)
    fake.workspace.post(channel, "the last word")
    fake.workspace.archive(channel)
    sync(harness)
    assert kept(harness) == there(fake)
    fake.calls.clear()
    sync(harness)
    assert not fake.called("conversations.history")
    fake.workspace.archive(channel, False)
    fake.workspace.post(channel, "back again")
    fake.workspace.archive(channel)
    sync(harness)
    assert kept(harness) == there(fake)


def test_since_bounds_the_history(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    stamps = ["1704067199.999999", "1704067200.000000", "1704067201.000000"]
    for ts in stamps:
        fake.workspace.post(channel, ts, ts=ts)
    harness = connect(since="2024-01-01")
    sync(harness)
    assert kept(harness) == {f"{channel.id}:{ts}" for ts in stamps[1:]}


def test_a_resync_marks_only_missing_messages_deleted(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    channel = fake.workspace.add_channel("general")
    stamps = [fake.workspace.post(channel, "old", ts=f"1600000{n:03}.000000") for n in range(60)]
    harness = connect()
    sync(harness)
    for ts in stamps[5:10]:
        fake.workspace.delete(channel, ts)
    for partition in [name for name in harness.state if name.startswith("channel/")]:
        del harness.state[partition]
    result = sync(harness, "resync")
    assert kept(harness) == there(fake)
    assert result.outputs_deleted == 5


def test_messages_hidden_by_the_free_plan_are_not_marked_deleted(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    stamps = [fake.workspace.post(channel, "old", ts=f"1600000{n:03}.000000") for n in range(60)]
    harness = connect()
    sync(harness)
    fake.is_limited = True
    channel.top = channel.top[20:]
    del harness.state[f"channel/{channel.id}"]
    sync(harness, "resync")
    assert not harness.deleted
    assert kept(harness) == {f"{channel.id}:{ts}" for ts in stamps}


def test_an_invalid_state_causes_a_resync_of_one_channel(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = posted(fake, 10)
    harness = connect()
    sync(harness)
    harness.state[f"channel/{channel.id}"] = {"newest_ts": 1.5}
    sync(harness)
    assert kept(harness) == there(fake)
    assert not harness.deleted


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_under_faults_and_changes(fake: Fake, sync: Any, seed: int) -> None:
    """Workers die, messages are delivered twice, and pages overlap while people post messages.

    Nothing is lost.
    """
    fake.page_cap = 10
    channels = [posted(fake, 60, name) for name in ("one", "two")]

    def talk(method: str, arguments: dict[str, str]) -> None:
        if method == "conversations.history":
            for channel in channels:
                fake.workspace.post(channel, "meanwhile")

    fake.before = talk
    harness = Harness(Slack, {}, {"token": "xoxb-fake-token-1"}, faults=Faults.storm(seed))
    sync(harness)
    fake.before = None
    sync(harness)
    assert kept(harness) == there(fake)


def test_new_messages_are_fetched_before_older_pages_of_the_lookback(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """Both use one limit."""
    fake.page_cap = 10
    for name in ("one", "two"):
        posted(fake, 30, name)
    harness = connect()
    sync(harness)
    fake.calls.clear()
    sync(harness)
    latest = [call.arguments["latest"] for call in fake.called("conversations.history")]
    assert [one == LATEST for one in latest] == [True] * 2 + [False] * 4


def test_a_repeated_backfill_task_changes_nothing(fake: Fake, connect: Any, sync: Any) -> None:
    """A copy of the backfill's task, continued or delivered again, changes nothing."""
    fake.page_cap = 10
    channel = posted(fake, 60)
    harness = connect()
    sync(harness)
    [earlier] = [task for task in harness.tasks if task.background][:1]
    fake.calls.clear()
    with harness:
        slack = Slack(harness.config, harness.credentials)
        result = slack.run_task(earlier, harness.context(earlier.type))
    assert not [*result.output, *result.tasks, *result.state, *result.listed]
    assert not fake.calls
    assert len(channel.top) == 60


def test_has_more_without_a_cursor_continues_below_the_oldest_message(
    fake: Fake, connect: Any, sync: Any
) -> None:
    """The API had no cursors at first: the next page starts below the oldest message."""
    fake.page_cap = 10
    posted(fake, 55)
    answered = fake.answer

    def without(
        method: str, arguments: dict[str, str], authorization: str
    ) -> tuple[int, bytes, dict[str, str]]:
        status, body, headers = answered(method, arguments, authorization)
        data = json.loads(body)
        if method == "conversations.history":
            data.pop("response_metadata", None)
        return status, json.dumps(data).encode(), headers

    fake.answer = without  # type: ignore[method-assign]
    harness = connect()
    sync(harness)
    assert kept(harness) == there(fake)
    assert len(fake.called("conversations.history")) == 6


def test_endless_empty_pages_are_parked(fake: Fake, connect: Any) -> None:
    fake.workspace.add_channel("general")
    fake.fail(
        "conversations.history", body=b'{"ok": true, "messages": [], "has_more": true}', times=100
    )
    assert connect().sync().state == "partial"


def test_an_empty_page_does_not_end_a_walk(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    channel = posted(fake, 40)
    cursors: list[str] = []
    answered = fake.answer

    def with_gaps(
        method: str, arguments: dict[str, str], authorization: str
    ) -> tuple[int, bytes, dict[str, str]]:
        if method == "conversations.history" and (cursor := arguments.get("cursor", "")):
            if not cursor.endswith("!"):
                cursors.append(cursor)
                return (
                    200,
                    json.dumps(
                        {
                            "ok": True,
                            "messages": [],
                            "response_metadata": {"next_cursor": cursor + "!"},
                        }
                    ).encode(),
                    {},
                )
            arguments["cursor"] = cursor[:-1]
        return answered(method, arguments, authorization)

    fake.answer = with_gaps  # type: ignore[method-assign]
    harness = connect()
    sync(harness)
    assert cursors
    assert kept(harness) == {f"{channel.id}:{ts}" for ts in channel.top}


def test_a_channel_hidden_by_the_free_plan_is_not_marked_deleted(
    fake: Fake, connect: Any, sync: Any
) -> None:
    channel = posted(fake, 5)
    harness = connect()
    sync(harness)
    before = kept(harness)
    fake.is_limited, channel.top = True, []
    assert not sync(harness).held
    del harness.state[f"channel/{channel.id}"]
    assert not sync(harness, "resync").held
    assert kept(harness) == before


def test_a_channel_shows_how_far_back_its_copy_is(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    channel = fake.workspace.add_channel("general")
    for number in range(25):
        fake.workspace.post(channel, f"message {number}")
    fake.fail(
        "conversations.history", "never_heard_of", times=99,
        when=lambda one: one.get("latest", LATEST) != LATEST,
    )  # fmt: skip
    harness = connect()
    for _ in range(2):
        assert harness.sync().state == "partial"
    shown = harness.content[channel.id].metadata["copied_back_to"]
    kept = [item for item in harness.content.values() if item.kind == "message"]
    assert shown == min(item.timestamp for item in kept).isoformat()
    fake.faults.clear()
    sync(harness, "schedule")
    assert harness.content[channel.id].metadata["copied_back_to"] is None
