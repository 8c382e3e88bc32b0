"""A comparison finds the differences between Gmail and here, heals them, and shows both numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from integration_polling_gmail.comparison import COMPARE_EVERY, UNITS_PER_SECOND
from support.gmail import FakeGmail, mail
from support.gmail.server import UNITS, error
from syncing import Costs, connect, messages, synced

from core import COMPARISON
from core.testing import Harness


def due(harness: Harness) -> None:
    """Make the next comparison due."""
    state: Any = harness.state
    state["comparing"] = {"at": (datetime.now(UTC) - timedelta(hours=7)).isoformat()}


def compared(harness: Harness) -> tuple[int, int]:
    """Make a comparison due, sync, and return both numbers."""
    due(harness)
    synced(harness)
    found: Any = harness.state[COMPARISON]
    return found["at_source"], found["kept"]


def added_silently(gmail: FakeGmail) -> str:
    """Add a message that the history does not name."""
    id = gmail.mailbox.add(mail("Lost"))
    gmail.mailbox.records.pop()
    return id


def kept(gmail: FakeGmail, count: int, **config: Any) -> tuple[list[str], Harness]:
    ids = gmail.mailbox.fill(count)
    harness = connect(gmail, **config)
    synced(harness)
    return ids, harness


def test_equal_mailboxes_cost_a_listing_and_the_labels(gmail: FakeGmail, costs: Costs) -> None:
    gmail.page_size = 10
    _, harness = kept(gmail, 25)
    costs()
    assert compared(harness) == (25, 25)
    found = costs()
    assert found["messages"] == 3
    assert "message" not in found
    assert found["labels"] <= 12
    synced(harness)
    assert costs() == {"history": 1}, "the next one is due in six hours"


def test_a_comparison_takes_at_most_two_percent_of_the_quota(gmail: FakeGmail) -> None:
    gmail.page_size = 10
    _, harness = kept(gmail, 100)
    gmail.calls.clear()
    due(harness)
    before = harness.clock
    synced(harness)
    units = sum(UNITS[call.kind] for call in gmail.calls if call.kind == "messages")
    assert harness.clock - before >= (units - 5) / UNITS_PER_SECOND
    assert UNITS_PER_SECOND * 60 <= 0.02 * 6_000


def test_a_lost_message_and_a_missed_deletion_are_healed(gmail: FakeGmail) -> None:
    ids, harness = kept(gmail, 30)
    lost = added_silently(gmail)
    gmail.mailbox.messages.pop(ids[7])
    gmail.mailbox._order = None
    synced(harness)
    assert set(messages(harness)) == set(ids), "the history says nothing"
    assert compared(harness) == (30, 29)
    assert set(messages(harness)) == {*ids, lost} - {ids[7]}
    assert compared(harness) == (30, 30)


def test_a_message_that_was_wrongly_marked_deleted_comes_back(gmail: FakeGmail) -> None:
    ids, harness = kept(gmail, 5)
    gmail.mailbox.forget_history()
    gone = gmail.mailbox.messages.pop(ids[0])
    synced(harness)
    assert ids[0] not in messages(harness)
    gmail.mailbox.messages[ids[0]] = gone
    gmail.mailbox._order = None
    assert compared(harness) == (5, 4)
    assert ids[0] in messages(harness)


def test_a_message_that_stays_parked_is_requested_once(gmail: FakeGmail, costs: Costs) -> None:
    _, harness = kept(gmail, 4)
    lost = added_silently(gmail)
    gmail.failing = lambda kind, path: (
        error(400, "Precondition check failed.", "failedPrecondition") if lost in path else None
    )
    due(harness)
    assert len(harness.sync().parked) == 1
    costs()
    assert compared(harness) == (5, 4)
    assert "message" not in costs()


def test_labels_that_differ_are_found_by_their_counts(gmail: FakeGmail, costs: Costs) -> None:
    ids, harness = kept(gmail, 10)
    first, second = (gmail.mailbox.messages[id] for id in ids[:2])
    first.labels |= {"STARRED"}
    second.labels -= {"UNREAD"}
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "UNREAD"]
    costs()
    assert compared(harness) == (10, 10)
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "STARRED", "UNREAD"]
    assert harness.content[ids[1]].metadata["labels"] == ["INBOX"]
    assert costs()["message"] == 2, "only the messages that differ"


def test_a_difference_without_a_message_is_examined_once(gmail: FakeGmail, costs: Costs) -> None:
    """Gmail's counts include spam and trash."""
    gmail.mailbox.add(mail("Old"), ["STARRED", "TRASH"])
    _, harness = kept(gmail, 3)
    costs()
    compared(harness)
    assert costs()["messages"] > 1
    compared(harness)
    assert costs()["messages"] == 1


@pytest.mark.parametrize("config", [{"labels": ["INBOX", "UNREAD"]}, {"query": "is:unread"}])
def test_a_part_of_a_mailbox_is_compared(gmail: FakeGmail, config: dict[str, Any]) -> None:
    gmail.mailbox.add(mail("Sent"), ["SENT"])
    _, harness = kept(gmail, 6, **config)
    assert compared(harness) == (6, 6)


def test_many_missing_messages_wait_for_a_person(gmail: FakeGmail) -> None:
    ids, harness = kept(gmail, 40)
    for id in ids[:35]:
        del gmail.mailbox.messages[id]
    gmail.mailbox._order = None
    compared(harness)
    assert len(messages(harness)) == 40
    assert harness.held


def test_the_first_comparison_is_due_hours_after_the_first_listing(
    gmail: FakeGmail, costs: Costs
) -> None:
    _, harness = kept(gmail, 3)
    costs()
    synced(harness)
    assert costs() == {"history": 1}
    assert timedelta(hours=1) <= COMPARE_EVERY
