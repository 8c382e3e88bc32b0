"""The rows of a message, its labels and its attachments."""

from __future__ import annotations

from datetime import UTC, datetime

from support.gmail import FakeGmail, mail
from syncing import Costs, connect, large_mail, synced

from core import Task


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


def test_a_large_attachment_is_downloaded_once(gmail: FakeGmail, costs: Costs) -> None:
    raw, data = large_mail(9 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    harness = connect(gmail)
    synced(harness)
    assert harness.content[f"{id}/2"].content == data
    assert harness.content[f"{id}/1"].content == b"small"
    assert harness.content[f"{id}/raw"].content == raw
    assert costs() == {"profile": 1, "labels": 1, "messages": 1, "message": 1}


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


def test_another_attachment_policy_reads_kept_messages_again(
    gmail: FakeGmail, costs: Costs
) -> None:
    id = gmail.mailbox.add(mail(attachments=[("a.png", "image/png", b"1")]))
    harness = connect(gmail)
    synced(harness)
    costs()
    everything, nothing = {id, f"{id}/raw", f"{id}/1"}, {id, f"{id}/raw"}
    for policy, rows in (("none", nothing), ("metadata", everything), ("all", everything)):
        harness.config.attachments = policy  # type: ignore[attr-defined]
        harness.reread()
        assert {key for key in harness.content if not key.startswith("label/")} == rows
        assert policy != "metadata" or harness.content[f"{id}/1"].content is None
    assert harness.content[f"{id}/1"].content == b"1"
    synced(harness)
    assert costs() == {"history": 1}


def test_another_size_limit_reads_kept_messages_again(gmail: FakeGmail, costs: Costs) -> None:
    raw, data = large_mail(2 * 1024 * 1024)
    id = gmail.mailbox.add(raw)
    harness = connect(gmail, max_attachment_mb=1)
    synced(harness)
    costs()
    harness.config.max_attachment_mb = 25  # type: ignore[attr-defined]
    harness.reread()
    assert harness.content[f"{id}/2"].content == data
    synced(harness)
    assert costs() == {"history": 1}
    assert harness.content[f"{id}/2"].content == data


def test_a_reread_keeps_what_only_gmail_knows(gmail: FakeGmail) -> None:
    """Labels, the thread and the snippet are not in the source."""
    id = gmail.mailbox.add(mail("A < B &amp; C", attachments=[("a.png", "image/png", b"1")]))
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.label(id, add=[gmail.mailbox.create_label("Work")])
    synced(harness)
    before = harness.content
    result = harness.reread()
    assert (result.saved, result.deleted, harness.content) == (0, 0, before)


def test_an_open_task_of_an_earlier_version_ends(gmail: FakeGmail, costs: Costs) -> None:
    harness = connect(gmail)
    payload = {"message": "m", "attachment": {"part_id": "2", "size": 9}, "internal_date": "1"}
    costs()
    with harness:
        instance = harness.integration(harness.config, harness.credentials)
        result = instance.run_task(Task("download_attachment", payload), harness.context())
    assert (list(result.output), list(result.tasks), costs()) == ([], [], {})
