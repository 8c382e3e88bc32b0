"""The history: new mail, labels and deletions, and their cost."""

from __future__ import annotations

import pytest
from support.gmail import FakeGmail, mail
from support.gmail.mailbox import FIRST_HISTORY_ID
from syncing import Costs, connect, messages, synced


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
    assert costs() == {"history": 1, "labels": 1, "message": 1}
    assert harness.content[id].name == "New"


@pytest.mark.parametrize("bare", [False, True], ids=["with labels", "as the reference promises"])
def test_changed_labels_are_updated_without_a_download(
    gmail: FakeGmail, costs: Costs, bare: bool
) -> None:
    gmail.bare_history = bare
    ids = gmail.mailbox.fill(4)
    harness = connect(gmail)
    synced(harness)
    before = harness.content[ids[0]]
    gmail.mailbox.label(ids[0], remove=["UNREAD"], add=["STARRED"])
    gmail.mailbox.label(ids[0], remove=["STARRED"], add=["IMPORTANT"])
    costs()
    synced(harness)
    assert costs() == {"history": 1, "labels": 1}
    after = harness.content[ids[0]]
    assert after.metadata["labels"] == ["IMPORTANT", "INBOX"]
    assert (after.content, after.name, after.timestamp) == (
        before.content,
        before.name,
        before.timestamp,
    )
    assert {**after.metadata, "labels": 0} == {**before.metadata, "labels": 0}
    gmail.mailbox.label(ids[0], add=["UNREAD"])
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["IMPORTANT", "INBOX", "UNREAD"]


def test_deleted_mail_is_marked_deleted_with_its_source_and_attachments(
    gmail: FakeGmail, costs: Costs
) -> None:
    ids = [gmail.mailbox.add(mail(attachments=[("a", "image/png", b"1")])) for _ in range(3)]
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.delete(ids[1])
    costs()
    synced(harness)
    assert costs() == {"history": 1, "labels": 1}
    assert harness.deleted == {ids[1], f"{ids[1]}/raw", f"{ids[1]}/1"}


@pytest.mark.parametrize("bare", [False, True], ids=["with labels", "as the reference promises"])
def test_mail_in_the_trash_is_marked_deleted_until_it_leaves_it(
    gmail: FakeGmail, bare: bool
) -> None:
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
    assert costs() == {"history": 1, "labels": 1}
    assert len(messages(harness)) == 3


def test_spam_and_trash_are_kept_if_the_config_includes_them(gmail: FakeGmail) -> None:
    ids = [gmail.mailbox.add(mail(), labels) for labels in (["INBOX"], ["SPAM"], ["TRASH"])]
    harness = connect(gmail, include_spam_trash=True)
    synced(harness)
    gmail.mailbox.trash(ids[0])
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_an_empty_page_of_history_is_not_the_last_one(gmail: FakeGmail) -> None:
    gmail.empty_pages, gmail.page_size = True, 3
    gmail.mailbox.fill(2)
    harness = connect(gmail)
    synced(harness)
    ids = gmail.mailbox.fill(10)
    synced(harness)
    assert set(ids) <= set(messages(harness))
    pages = [call for call in gmail.calls if call.kind == "history"]
    assert len(pages) > 4
    assert len({call.params["startHistoryId"][0] for call in pages}) == 1, (
        "the start moved between pages"
    )


def test_a_history_id_of_twenty_digits_survives(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(2)
    harness = connect(gmail)
    synced(harness)
    for _ in range(3):
        gmail.mailbox.add(mail())
        synced(harness)
        assert harness.state["history"]["id"] == str(gmail.mailbox.history_id)
    assert gmail.mailbox.history_id > FIRST_HISTORY_ID > 2**63


def test_a_message_deleted_before_its_download_is_marked_deleted(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(5)

    def vanish(kind: str, path: str) -> None:
        if kind == "message" and ids[2] in gmail.mailbox.messages:
            gmail.mailbox.delete(ids[2])

    gmail.before = vanish
    harness = connect(gmail)
    synced(harness)
    assert set(messages(harness)) == set(ids) - {ids[2]}
    synced(harness)


def test_a_label_that_changes_between_download_and_commit_is_kept(gmail: FakeGmail) -> None:
    """Changes of labels cannot be applied to a message that is not kept yet.

    A task with a later dispatch requests its labels again.
    """
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    id = gmail.mailbox.add(mail())
    gmail.mailbox.label(id, remove=["UNREAD"])
    gmail.mailbox.records = gmail.mailbox.records[:-2] + gmail.mailbox.records[-1:]
    synced(harness)
    assert harness.content[id].metadata["labels"] == ["INBOX"]


def test_only_the_trash_is_kept_if_it_is_the_configured_label(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(3)
    gmail.mailbox.trash(ids[0])
    harness = connect(gmail, labels=["TRASH"])
    synced(harness)
    gmail.mailbox.trash(ids[1])
    gmail.mailbox.label(ids[0], remove=["TRASH"])
    synced(harness)
    assert set(messages(harness)) == {ids[1]}
