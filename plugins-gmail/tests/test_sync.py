"""Syncs of a mailbox that changes: what is kept, what it costs, what is deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from integration_polling_gmail import Gmail
from support.gmail import FakeGmail, mail
from support.gmail.mailbox import FIRST_HISTORY_ID
from support.gmail.server import BAD_PAGE, NOT_FOUND, error

from core import ConfigurationError, RunInfo, TaskResult, TransientError
from core.testing import Faults, Harness, SyncResult
from core.testing.context import HarnessContext

Costs = Callable[[], dict[str, int]]


def connect(gmail: FakeGmail, **config: Any) -> Harness:
    return Harness(Gmail, config, gmail.credentials())


def synced(harness: Harness, trigger: str = "schedule", **options: Any) -> SyncResult:
    result = harness.sync(trigger, **options)
    assert result.state == "succeeded", [result.error, *result.parked]
    return result


def messages(harness: Harness) -> dict[str, Any]:
    return {id: item for id, item in harness.content.items() if item.kind == "message"}


@pytest.fixture
def costs(gmail: FakeGmail) -> Costs:
    """What was asked since the last time."""

    def since() -> dict[str, int]:
        found = dict(gmail.count())
        gmail.calls.clear()
        return found

    return since


# What is kept


def test_a_message_is_a_row_with_its_source_and_its_attachments(gmail: FakeGmail) -> None:
    data = bytes(range(256)) * 10
    raw = mail(
        "Grüße", "The text.", html="<p>The <b>HTML</b>", attachments=[("photo.png", "image/png", data)],
        Cc="Zoë <zoe@example.net>, other@example.net", Reply_To="reply@example.org", List_Id="<list.example.org>",
    )  # fmt: skip
    id = gmail.mailbox.add(raw, ["INBOX", "UNREAD"])
    harness = connect(gmail)
    synced(harness)
    item = harness.content[id]
    assert (item.kind, item.name, item.text, item.parent) == ("message", "Grüße", "The text.", None)
    assert item.timestamp == datetime.fromtimestamp(gmail.mailbox.messages[id].internal_date / 1000, UTC)
    found = item.metadata
    assert found["from"] == [{"name": "Sender", "address": "sender@example.org"}]
    assert found["cc"] == [{"name": "Zoë", "address": "zoe@example.net"}, {"name": "", "address": "other@example.net"}]
    assert found["reply_to"] == [{"name": "", "address": "reply@example.org"}]
    assert (found["date"], found["labels"]) == ("2026-01-02T03:04:05+01:00", ["INBOX", "UNREAD"])
    assert (found["thread_id"], found["size"], found["snippet"]) == (id, len(raw), f"It's {id}")
    assert found["headers"]["list-id"] == ["<list.example.org>"]  # type: ignore[index,call-overload]
    source = harness.content[f"{id}/raw"]
    assert (source.kind, source.parent, source.content, source.content_type) == ("source", id, raw, "message/rfc822")
    attachment = harness.content[f"{id}/1"]
    assert (attachment.kind, attachment.parent, attachment.name) == ("attachment", id, "photo.png")
    assert (attachment.content, attachment.content_type) == (data, "image/png")
    assert found["attachments"] == [
        {"part_id": "1", "filename": "photo.png", "content_type": "image/png", "size": len(data), "inline": False}
    ]


def test_everything_of_a_message_costs_one_call(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.add(mail(attachments=[("a", "image/png", b"1"), ("b", "image/png", b"2")]))
    synced(connect(gmail))
    assert costs() == {"profile": 1, "labels": 1, "messages": 1, "message": 1}


def test_labels_have_names(gmail: FakeGmail, costs: Costs) -> None:
    work = gmail.mailbox.create_label("Work")
    id = gmail.mailbox.add(mail(), [work])
    harness = connect(gmail)
    synced(harness)
    assert harness.content[f"label/{work}"].name == "Work"
    later = gmail.mailbox.create_label("Later")
    gmail.mailbox.label(id, add=[later])
    costs()
    synced(harness)
    assert costs() == {"history": 1, "labels": 1}
    assert harness.content[f"label/{later}"].name == "Later"


# The first sync


def test_the_profile_is_asked_before_the_first_list(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    synced(connect(gmail))
    kinds = [call.kind for call in gmail.calls]
    assert kinds.index("profile") < kinds.index("messages")


def test_the_first_sync_runs_in_the_background(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    assert [run.lane for run in synced(harness).runs] == ["live", "backfill"]


def test_all_pages_are_listed_whatever_their_order(gmail: FakeGmail) -> None:
    gmail.page_size = 7
    ids = gmail.mailbox.fill(60)
    harness = connect(gmail)
    synced(harness)
    assert set(messages(harness)) == set(ids)
    assert gmail.count() == {"profile": 1, "labels": 1, "messages": 9, "message": 60}


def test_new_mail_is_fetched_before_old_mail(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(40)
    synced(connect(gmail))
    fetched = [call.path.split("/")[1] for call in gmail.calls if call.kind == "message"]
    places = [ids.index(id) for id in fetched]
    assert all(abs(place - wanted) <= 3 for place, wanted in zip(places, reversed(range(40)), strict=True))


def test_mail_that_arrives_while_the_first_sync_runs_appears_once(gmail: FakeGmail) -> None:
    gmail.page_size = 5
    gmail.mailbox.fill(20)
    arrived: list[str] = []

    def arrive(kind: str, path: str) -> None:
        if kind == "messages" and len(arrived) < 3:
            arrived.append(gmail.mailbox.add(mail("While it runs")))

    gmail.before = arrive
    harness = connect(gmail)
    synced(harness)
    synced(harness)
    assert len(messages(harness)) == 23
    assert set(arrived) <= set(messages(harness))
    assert gmail.count()["message"] == 23, "one of them was fetched twice"


def test_a_page_token_that_gmail_has_forgotten_begins_the_listing_again(gmail: FakeGmail) -> None:
    gmail.page_size = 5
    ids = gmail.mailbox.fill(20)
    listed: list[str] = []
    gmail.failing = lambda kind, path: (
        BAD_PAGE if kind == "messages" and (listed.append(path) or len(listed) == 3) else None  # type: ignore[func-returns-value]
    )
    harness = connect(gmail)
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_a_listing_that_turns_in_a_circle_ends(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    ids = [{"id": id} for id in gmail.mailbox.messages]
    gmail.failing = lambda kind, path: (200, {"messages": ids, "nextPageToken": "x"}) if kind == "messages" else None
    harness = connect(gmail)
    result = harness.sync()
    assert result.state == "partial"
    assert isinstance(result.parked[0].error, TransientError)


# The history


def test_nothing_new_costs_one_history_call(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(10)
    harness = connect(gmail)
    synced(harness)
    costs()
    result = synced(harness)
    assert costs() == {"history": 1}
    assert (result.outputs_saved, result.outputs_deleted) == (0, 0)


def test_new_mail_costs_one_more_call(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(10)
    harness = connect(gmail)
    synced(harness)
    costs()
    id = gmail.mailbox.add(mail("New"))
    synced(harness)
    assert costs() == {"history": 1, "message": 1}
    assert harness.content[id].name == "New"


@pytest.mark.parametrize("bare", [False, True], ids=["with labels", "as the reference promises"])
def test_changed_labels_are_updated_without_a_download(gmail: FakeGmail, costs: Costs, bare: bool) -> None:
    gmail.bare_history = bare
    ids = gmail.mailbox.fill(4)
    harness = connect(gmail)
    synced(harness)
    before = harness.content[ids[0]]
    gmail.mailbox.label(ids[0], remove=["UNREAD"], add=["STARRED"])
    gmail.mailbox.label(ids[0], remove=["STARRED"], add=["IMPORTANT"])
    costs()
    synced(harness)
    assert costs() == {"history": 1}
    after = harness.content[ids[0]]
    assert after.metadata["labels"] == ["IMPORTANT", "INBOX"]
    assert (after.content, after.name, after.timestamp) == (before.content, before.name, before.timestamp)
    assert {**after.metadata, "labels": 0} == {**before.metadata, "labels": 0}
    gmail.mailbox.label(ids[0], add=["UNREAD"])
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["IMPORTANT", "INBOX", "UNREAD"]


def test_deleted_mail_is_a_tombstone_with_all_that_belongs_to_it(gmail: FakeGmail, costs: Costs) -> None:
    ids = [gmail.mailbox.add(mail(attachments=[("a", "image/png", b"1")])) for _ in range(3)]
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.delete(ids[1])
    costs()
    synced(harness)
    assert costs() == {"history": 1}
    assert harness.deleted == {ids[1], f"{ids[1]}/raw", f"{ids[1]}/1"}


@pytest.mark.parametrize("bare", [False, True], ids=["with labels", "as the reference promises"])
def test_trash_and_what_is_taken_out_of_it(gmail: FakeGmail, bare: bool) -> None:
    gmail.bare_history = bare
    ids = gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.trash(ids[0])
    synced(harness)
    assert set(messages(harness)) == set(ids[1:])
    gmail.mailbox.label(ids[0], remove=["TRASH"], add=["INBOX"])
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_spam_is_not_fetched(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(3)
    gmail.mailbox.add(mail("Spam"), ["SPAM"])
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.add(mail("More spam"), ["SPAM"])
    costs()
    synced(harness)
    assert costs() == {"history": 1}
    assert len(messages(harness)) == 3


def test_spam_and_trash_if_they_are_wanted(gmail: FakeGmail) -> None:
    ids = [gmail.mailbox.add(mail(), labels) for labels in (["INBOX"], ["SPAM"], ["TRASH"])]
    harness = connect(gmail, include_spam_trash=True)
    synced(harness)
    gmail.mailbox.trash(ids[0])
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_a_page_without_history_goes_on(gmail: FakeGmail) -> None:
    gmail.empty_pages, gmail.page_size = True, 3
    gmail.mailbox.fill(2)
    harness = connect(gmail)
    synced(harness)
    ids = gmail.mailbox.fill(10)
    synced(harness)
    assert set(ids) <= set(messages(harness))
    pages = [call for call in gmail.calls if call.kind == "history"]
    assert len(pages) > 4
    assert len({call.params["startHistoryId"][0] for call in pages}) == 1, "the start moved between pages"


def test_a_history_id_of_twenty_digits_survives(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(2)
    harness = connect(gmail)
    synced(harness)
    for _ in range(3):
        gmail.mailbox.add(mail())
        synced(harness)
        assert harness.state["history"]["id"] == str(gmail.mailbox.history_id)  # type: ignore[index,call-overload]
    assert gmail.mailbox.history_id > FIRST_HISTORY_ID > 2**63


def test_a_message_that_has_gone_before_it_is_fetched_is_a_tombstone(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(5)

    def vanish(kind: str, path: str) -> None:
        if kind == "message" and ids[2] in gmail.mailbox.messages:
            gmail.mailbox.delete(ids[2])

    gmail.before = vanish
    harness = connect(gmail)
    synced(harness)
    assert set(messages(harness)) == set(ids) - {ids[2]}
    synced(harness)


def test_a_label_that_changes_between_the_download_and_its_saving_is_seen(gmail: FakeGmail) -> None:
    """The history cannot be applied to what is not kept yet: it is asked for again, later than the slow one."""
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    id = gmail.mailbox.add(mail())
    gmail.mailbox.label(id, remove=["UNREAD"])
    gmail.mailbox.records = gmail.mailbox.records[:-2] + gmail.mailbox.records[-1:]
    synced(harness)
    assert harness.content[id].metadata["labels"] == ["INBOX"]


def test_trash_alone_if_it_is_the_label_that_is_wanted(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(3)
    gmail.mailbox.trash(ids[0])
    harness = connect(gmail, labels=["TRASH"])
    synced(harness)
    gmail.mailbox.trash(ids[1])
    gmail.mailbox.label(ids[0], remove=["TRASH"])
    synced(harness)
    assert set(messages(harness)) == {ids[1]}


# An expired history


def test_an_expired_history_is_a_resync_without_duplicates(gmail: FakeGmail, costs: Costs) -> None:
    ids = gmail.mailbox.fill(10)
    harness = connect(gmail)
    synced(harness)
    kept = harness.content
    gmail.mailbox.delete(ids[0])
    gmail.mailbox.label(ids[1], remove=["UNREAD"])
    new = gmail.mailbox.add(mail("In the gap"))
    gmail.mailbox.forget_history()
    costs()
    result = synced(harness)
    assert [run.trigger for run in result.runs][0:2] == ["schedule", "resync"]
    assert set(messages(harness)) == {*ids[1:], new}, "what was deleted in the gap is not found"
    assert harness.content[ids[1]].metadata["labels"] == ["INBOX"], "a label that changed in the gap"
    assert harness.content[ids[2]] == kept[ids[2]]
    # The new message is two rows; the changed labels are one. No source is fetched again.
    assert (result.outputs_saved, result.outputs_deleted) == (3, 2)
    raw = [call for call in gmail.calls if call.params.get("format") == ["raw"]]
    assert [call.path for call in raw] == [f"messages/{new}"]
    costs()
    synced(harness)
    assert costs() == {"history": 1}


def test_labels_after_a_resync_are_right_though_those_kept_are_old(gmail: FakeGmail) -> None:
    """Between the end of the old history and the listing anything may have happened: nothing is built upon the old labels."""
    ids = gmail.mailbox.fill(5)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.label(ids[0], add=["STARRED"])
    gmail.mailbox.forget_history()
    changed: list[str] = []

    def change(kind: str, path: str) -> None:
        if kind == "messages" and not changed:
            changed.append(path)
            gmail.mailbox.label(ids[0], remove=["UNREAD"])

    gmail.before = change
    synced(harness)
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "STARRED"]
    gmail.mailbox.label(ids[1], remove=["INBOX"])
    synced(harness)
    assert harness.content[ids[1]].metadata["labels"] == ["UNREAD"]


def test_a_later_listing_stays_in_the_live_run(gmail: FakeGmail) -> None:
    """A backfill may have begun long before it: what that has kept itself, no listing of its own would find deleted."""
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    generation = harness.state["history"]["generation"]  # type: ignore[index,call-overload]
    first = len(harness.tasks)
    synced(harness, "resync")
    listings = [task for task in harness.tasks if task.type == "get_email_list"]
    assert [task.background for task in listings] == [True, False]
    assert all(task.background for task in harness.tasks[first:] if task.type in ("download_email", "update_labels"))
    assert harness.state["history"]["generation"] != generation, "nothing has happened, yet it is another listing"  # type: ignore[index,call-overload]


def test_a_listing_that_did_not_come_to_its_end_begins_anew(gmail: FakeGmail, costs: Costs) -> None:
    ids, gmail.page_size = gmail.mailbox.fill(10), 4
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.delete(ids[0])
    gmail.mailbox.forget_history()
    pages: list[str] = []
    gmail.failing = lambda kind, path: (
        error(503, "Down", "backendError") if kind == "messages" and (pages.append(path) or len(pages) > 1) else None  # type: ignore[func-returns-value]
    )
    assert harness.sync().state == "partial"
    gmail.failing = lambda kind, path: None
    synced(harness)
    assert set(messages(harness)) == set(ids[1:]), "what was deleted in the gap is not found"
    costs()
    synced(harness)
    assert costs() == {"history": 1}


def test_a_state_that_is_no_state_is_a_resync(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    harness.state["history"] = {"id": 1.7e19}
    assert "resync" in [run.trigger for run in synced(harness).runs]


def test_most_of_a_mailbox_that_vanishes_waits_for_a_person(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(10)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.delete(*ids[:8])
    gmail.mailbox.forget_history()
    result = synced(harness)
    assert result.held
    assert set(messages(harness)) == set(ids)


# The config


def test_a_query_decides_what_is_kept(gmail: FakeGmail, costs: Costs) -> None:
    wanted = gmail.mailbox.add(mail("Invoice 1"))
    gmail.mailbox.fill(5)
    harness = connect(gmail, query="subject:invoice")
    synced(harness)
    assert set(messages(harness)) == {wanted}
    costs()
    synced(harness)
    assert costs() == {"history": 1}, "nothing has happened, so nothing is searched"
    also = gmail.mailbox.add(mail("Invoice 2"))
    gmail.mailbox.add(mail("Something else"))
    result = synced(harness)
    assert costs() == {"history": 1, "messages": 1, "message": 1}, "5 units for a search, 20 for the message"
    assert set(messages(harness)) == {wanted, also}
    assert {run.lane for run in result.runs} == {"live"}, "new mail waits for no backfill"


def test_what_a_query_no_longer_finds_is_deleted(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(5)
    harness = connect(gmail, query="is:unread")
    synced(harness)
    gmail.mailbox.label(ids[0], remove=["UNREAD"])
    synced(harness)
    assert set(messages(harness)) == set(ids[1:])
    gmail.mailbox.label(ids[0], add=["UNREAD"])
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_a_query_about_ages_is_asked_at_each_poll(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(2)
    harness = connect(gmail, query="newer_than:7d")
    synced(harness)
    costs()
    synced(harness)
    assert costs() == {"history": 1, "messages": 1}


def test_labels_by_name_or_id_any_of_them(gmail: FakeGmail, costs: Costs) -> None:
    work, home = gmail.mailbox.create_label("Work"), gmail.mailbox.create_label("Home")
    at_work, at_home = gmail.mailbox.add(mail(), [work]), gmail.mailbox.add(mail(), [home, "INBOX"])
    other = gmail.mailbox.add(mail(), ["INBOX"])
    harness = connect(gmail, labels=["work", home])
    synced(harness)
    assert set(messages(harness)) == {at_work, at_home}
    gmail.mailbox.add(mail(), ["INBOX"])
    costs()
    synced(harness)
    assert costs() == {"history": 1}, "mail with other labels is not fetched"
    gmail.mailbox.label(other, add=[work])
    gmail.mailbox.label(at_work, remove=[work])
    synced(harness)
    assert set(messages(harness)) == {at_home, other}


def test_a_label_that_there_is_not(gmail: FakeGmail) -> None:
    with pytest.raises(ConfigurationError, match="no label 'Nowhere'"):
        connect(gmail, labels=["Nowhere"]).check()


def test_mail_since_a_day(gmail: FakeGmail) -> None:
    day = datetime(2026, 1, 5, tzinfo=UTC)
    first = int(day.timestamp() * 1000)
    gmail.mailbox.add(mail("Too old"), date=first - 1)
    at, after = gmail.mailbox.add(mail(), date=first), gmail.mailbox.add(mail(), date=first + 86_400_000)
    harness = connect(gmail, since="2026-01-05")
    synced(harness)
    assert set(messages(harness)) == {at, after}
    gmail.mailbox.add(mail("Imported, and too old"), date=first - 5000)
    synced(harness)
    assert set(messages(harness)) == {at, after}


def test_since_a_day_before_all_mail(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(2)
    harness = connect(gmail, since="1969-01-01")
    synced(harness)
    assert set(messages(harness)) == set(ids)
    assert not [call for call in gmail.calls if "after:-" in str(call.params)]


# Attachments


def large_mail(size: int, name: str = "large.bin") -> tuple[bytes, bytes]:
    data = hashlib.sha256(name.encode()).digest() * (size // 32)
    return mail(attachments=[("small.txt", "text/plain", b"small"), (name, "application/octet-stream", data)]), data


def test_large_attachments_get_a_task_of_their_own(gmail: FakeGmail, costs: Costs) -> None:
    raw, data = large_mail(9 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    harness = connect(gmail)
    synced(harness)
    assert harness.content[f"{id}/2"].content == data
    assert harness.content[f"{id}/1"].content == b"small"
    assert harness.content[f"{id}/raw"].content == raw
    assert costs() == {"profile": 1, "labels": 1, "messages": 1, "message": 2, "attachment": 1}
    [task] = [task for task in harness.tasks if task.type == "download_attachment"]
    assert "ANGjdJ" not in str(task.payload), "an attachment id of Gmail is good for a moment only"


def test_attachments_over_the_cap_are_kept_without_content(gmail: FakeGmail) -> None:
    raw, data = large_mail(2 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    harness = connect(gmail, max_attachment_mb=1)
    synced(harness)
    item = harness.content[f"{id}/2"]
    assert (item.content, item.metadata["size"], item.metadata["has_content"]) == (None, len(data), False)


def test_attachments_as_metadata_or_not_at_all(gmail: FakeGmail) -> None:
    id = gmail.mailbox.add(mail(attachments=[("a.png", "image/png", b"1")]))
    harness = connect(gmail, attachments="metadata")
    synced(harness)
    assert (harness.content[f"{id}/1"].content, harness.content[f"{id}/1"].name) == (None, "a.png")
    harness = connect(gmail, attachments="none")
    synced(harness)
    assert set(harness.content) - {id, f"{id}/raw"} == {key for key in harness.content if key.startswith("label/")}
    assert len(harness.content[id].metadata["attachments"]) == 1  # type: ignore[arg-type]


def test_another_policy_fetches_again(gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch) -> None:
    id = gmail.mailbox.add(mail(attachments=[("a.png", "image/png", b"1")]))
    harness = connect(gmail)
    synced(harness)
    for policy, rows in (("none", {id, f"{id}/raw"}), ("all", {id, f"{id}/raw", f"{id}/1"})):
        harness.config.attachments = policy  # type: ignore[attr-defined]
        synced(harness, "resync")
        assert {key for key in harness.content if not key.startswith("label/")} == rows
    assert harness.content[f"{id}/1"].content == b"1"


def test_a_large_attachment_that_has_gone_is_a_tombstone(gmail: FakeGmail) -> None:
    raw, _ = large_mail(9 * 1024 * 1024)
    id = gmail.mailbox.add(raw)

    def vanish(kind: str, path: str) -> None:
        if kind == "attachment":
            gmail.mailbox.delete(id)

    gmail.before = vanish
    harness = connect(gmail)
    synced(harness)
    assert f"{id}/2" not in harness.content
    synced(harness)
    assert id not in harness.content


def test_an_attachment_id_that_gmail_has_forgotten_is_asked_for_again(gmail: FakeGmail) -> None:
    raw, data = large_mail(9 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    gmail.fail(NOT_FOUND, "attachment")
    harness = connect(gmail)
    synced(harness)
    assert harness.content[f"{id}/2"].content == data


def test_killed_between_pages_nothing_is_lost(gmail: FakeGmail) -> None:
    """Every task dies twice before its result is kept: pages of the listing as well as of the history."""
    gmail.page_size = 3
    gmail.mailbox.fill(20)
    harness = Harness(Gmail, {}, gmail.credentials(), faults=Faults(1, kill=1.0))
    synced(harness)
    assert set(messages(harness)) == set(gmail.mailbox.messages)
    gmail.mailbox.fill(10)
    gmail.mailbox.delete(next(iter(gmail.mailbox.messages)))
    synced(harness)
    assert set(messages(harness)) == set(gmail.mailbox.messages)
    assert gmail.count()["history"] > 9


def test_labels_that_a_resync_could_not_ask_for_are_not_built_upon(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.label(ids[0], add=["STARRED"])
    gmail.mailbox.forget_history()
    gmail.fail(error(400, "No", "invalidArgument"), "message", times=3)
    assert harness.sync().state == "partial"
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "UNREAD"]
    gmail.mailbox.label(ids[0], remove=["UNREAD"])
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "STARRED"]


# Tasks that come too late


def late(harness: Harness, lane: Literal["live", "backfill"] = "live") -> tuple[Gmail, HarnessContext]:
    """An instance, and the context of a task of an earlier run that is carried on."""
    context = harness.context()
    context.run = RunInfo("an earlier run", "retry", lane)
    return Gmail(harness.config, harness.credentials), context  # type: ignore[arg-type]


def is_nothing(result: TaskResult) -> bool:
    return not (list(result.output) or list(result.tasks) or result.state or result.listed)


def test_a_page_of_a_history_that_others_have_read_on_from(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    costs()
    instance, context = late(harness)
    assert is_nothing(instance.get_history(context, since=str(FIRST_HISTORY_ID), page="an old token"))
    assert costs() == {}
    instance.close()


def test_a_page_of_a_listing_after_which_a_newer_one_has_begun(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    costs()
    instance, context = late(harness, "backfill")
    assert is_nothing(instance.get_email_list(context, generation="1", page="an old token"))
    assert costs() == {}
    instance.close()


def test_a_message_that_a_live_run_has_fetched_already(gmail: FakeGmail, costs: Costs) -> None:
    id = gmail.mailbox.add(mail())
    harness = connect(gmail)
    synced(harness)
    costs()
    instance, context = late(harness, "backfill")
    generation = harness.state["history"]["generation"]  # type: ignore[index,call-overload]
    assert is_nothing(instance.download_email(context, id, str(generation)))
    assert costs() == {}
    new = gmail.mailbox.add(mail())
    assert not is_nothing(instance.download_email(context, new, str(generation)))
    instance.close()


def test_a_message_of_a_search_that_is_asked_no_more(gmail: FakeGmail, costs: Costs) -> None:
    id = gmail.mailbox.add(mail("Letter"))
    gmail.mailbox.add(mail("Invoice"))
    harness = connect(gmail, query="subject:invoice")
    synced(harness)
    costs()
    instance, context = late(harness, "backfill")
    assert is_nothing(instance.download_email(context, id, "of an older search"))
    del harness.state["history"]
    assert is_nothing(instance.download_email(context, id, "of an older search"))
    assert costs() == {}
    instance.close()


def test_pages_of_a_history_that_a_later_run_carries_on_are_left_to_its_own(gmail: FakeGmail, costs: Costs) -> None:
    """It begins at the first page again; the second one, applied before it, would leave the labels of the first."""
    id, gmail.page_size = gmail.mailbox.fill(1)[0], 1
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.label(id, add=["STARRED"])
    gmail.mailbox.label(id, remove=["STARRED"])
    instance, context = late(harness)
    [first] = instance.start(context).tasks
    [second] = (each for each in instance.run_task(first, context).tasks if each.type == "get_history")
    context.run = RunInfo("a later run", "schedule", "live")
    costs()
    assert is_nothing(instance.run_task(second, context))
    assert is_nothing(instance.run_task(first, context))
    assert costs() == {}
    instance.close()


def test_the_beginning_of_a_listing_that_a_later_run_carries_on_is_left_to_its_own(
    gmail: FakeGmail, costs: Costs
) -> None:
    instance, context = late(connect(gmail))
    [begin] = instance.start(context).tasks
    context.run = RunInfo("a later run", "schedule", "live")
    assert is_nothing(instance.run_task(begin, context))
    assert costs() == {}
    instance.close()


def test_trash_that_the_history_tells_of_before_the_message_is_kept(gmail: FakeGmail) -> None:
    """A download that saw it in the inbox may be on its way, and must not bring it in."""
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    id = gmail.mailbox.add(mail())
    instance, context = late(harness)
    [first] = instance.start(context).tasks
    slow = context
    assert not is_nothing(instance.download_email(slow, id, str(harness.state["history"]["generation"])))  # type: ignore[index,call-overload]
    gmail.mailbox.trash(id)
    gmail.mailbox.records = gmail.mailbox.records[-2:]
    assert [(row.id, row.code) for row in instance.run_task(first, context).output] == [(id, 410)]
    instance.close()


def test_a_large_attachment_of_a_message_that_is_deleted_meanwhile(gmail: FakeGmail, costs: Costs) -> None:
    """It waits for hours behind the messages, and must not come back alone."""
    raw, _ = large_mail(9 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    harness = connect(gmail)
    synced(harness)
    [task] = [task for task in harness.tasks if task.type == "download_attachment"]
    instance, context = late(harness, "backfill")
    trashed: list[str] = []

    def trash(kind: str, path: str) -> None:
        if kind == "attachment" and not trashed:
            trashed.append(path)
            gmail.mailbox.trash(id)
            synced(harness)

    gmail.before = trash
    assert is_nothing(instance.run_task(task, context))
    assert trashed
    costs()
    assert is_nothing(instance.run_task(task, context))
    assert costs() == {}
    instance.close()


def test_a_large_attachment_that_the_config_wants_no_more(gmail: FakeGmail, costs: Costs) -> None:
    raw, _ = large_mail(9 * 1024 * 1024)
    gmail.mailbox.add(raw)
    harness = connect(gmail)
    synced(harness)
    [task] = [task for task in harness.tasks if task.type == "download_attachment"]
    harness.config.attachments = "metadata"  # type: ignore[attr-defined]
    costs()
    instance, context = late(harness, "backfill")
    assert is_nothing(instance.run_task(task, context))
    assert costs() == {}
    instance.close()
