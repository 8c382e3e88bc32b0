"""The rows of a message, its labels and its attachments."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.gmail import FakeGmail, mail
from support.gmail.server import NOT_FOUND
from syncing import Costs, connect, large_mail, synced


def test_a_message_is_a_row_with_its_source_and_its_attachments(gmail: FakeGmail) -> None:
    data = bytes(range(256)) * 10
    raw = mail(
        "Grüße", "The text.", html="<p>The <b>HTML</b>",
        attachments=[("photo.png", "image/png", data)],
        Cc="Zoë <zoe@example.net>, other@example.net", Reply_To="reply@example.org",
        List_Id="<list.example.org>",
    )  # fmt: skip
    id = gmail.mailbox.add(raw, ["INBOX", "UNREAD"])
    harness = connect(gmail)
    synced(harness)
    item = harness.content[id]
    assert (item.kind, item.name, item.text, item.parent) == ("message", "Grüße", "The text.", None)
    assert item.timestamp == datetime.fromtimestamp(
        gmail.mailbox.messages[id].internal_date / 1000, UTC
    )
    found = item.metadata
    assert found["from"] == [{"name": "Sender", "address": "sender@example.org"}]
    assert found["cc"] == [
        {"name": "Zoë", "address": "zoe@example.net"},
        {"name": "", "address": "other@example.net"},
    ]
    assert found["reply_to"] == [{"name": "", "address": "reply@example.org"}]
    assert (found["date"], found["labels"]) == ("2026-01-02T03:04:05+01:00", ["INBOX", "UNREAD"])
    assert (found["thread_id"], found["size"], found["snippet"]) == (id, len(raw), f"It's {id}")
    assert found["headers"]["list-id"] == ["<list.example.org>"]
    source = harness.content[f"{id}/raw"]
    assert (source.kind, source.parent, source.content, source.content_type) == (
        "source",
        id,
        raw,
        "message/rfc822",
    )
    attachment = harness.content[f"{id}/1"]
    assert (attachment.kind, attachment.parent, attachment.name) == ("attachment", id, "photo.png")
    assert (attachment.content, attachment.content_type) == (data, "image/png")
    assert found["attachments"] == [
        {
            "part_id": "1",
            "filename": "photo.png",
            "content_type": "image/png",
            "size": len(data),
            "inline": False,
        }
    ]


def test_a_complete_message_costs_one_call(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.add(mail(attachments=[("a", "image/png", b"1"), ("b", "image/png", b"2")]))
    synced(connect(gmail))
    assert costs() == {"profile": 1, "labels": 1, "messages": 1, "message": 1}


def test_labels_are_kept_with_their_names(gmail: FakeGmail, costs: Costs) -> None:
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
    assert "ANGjdJ" not in str(task.payload), "Gmail's attachment ids are short-lived"


def test_attachments_over_the_cap_are_kept_without_content(gmail: FakeGmail) -> None:
    raw, data = large_mail(2 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    harness = connect(gmail, max_attachment_mb=1)
    synced(harness)
    item = harness.content[f"{id}/2"]
    assert (item.content, item.metadata["size"], item.metadata["has_content"]) == (
        None,
        len(data),
        False,
    )


def test_attachments_can_be_metadata_only_or_left_out(gmail: FakeGmail) -> None:
    id = gmail.mailbox.add(mail(attachments=[("a.png", "image/png", b"1")]))
    harness = connect(gmail, attachments="metadata")
    synced(harness)
    assert (harness.content[f"{id}/1"].content, harness.content[f"{id}/1"].name) == (None, "a.png")
    harness = connect(gmail, attachments="none")
    synced(harness)
    assert set(harness.content) - {id, f"{id}/raw"} == {
        key for key in harness.content if key.startswith("label/")
    }
    assert len(harness.content[id].metadata["attachments"]) == 1  # type: ignore[arg-type]


def test_another_attachment_policy_fetches_messages_again(
    gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = gmail.mailbox.add(mail(attachments=[("a.png", "image/png", b"1")]))
    harness = connect(gmail)
    synced(harness)
    for policy, rows in (("none", {id, f"{id}/raw"}), ("all", {id, f"{id}/raw", f"{id}/1"})):
        harness.config.attachments = policy  # type: ignore[attr-defined]
        synced(harness, "resync")
        assert {key for key in harness.content if not key.startswith("label/")} == rows
    assert harness.content[f"{id}/1"].content == b"1"


def test_a_large_attachment_deleted_before_its_download_is_not_kept(gmail: FakeGmail) -> None:
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


def test_an_expired_attachment_id_is_requested_again(gmail: FakeGmail) -> None:
    raw, data = large_mail(9 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    gmail.fail(NOT_FOUND, "attachment")
    harness = connect(gmail)
    synced(harness)
    assert harness.content[f"{id}/2"].content == data
