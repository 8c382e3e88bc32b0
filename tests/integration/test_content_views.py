"""The views of content: documented columns, current items only, and no error by odd metadata."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core import TaskOutput

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference" / "views.md").read_text("utf-8")
QUERIES = (ROOT / "docs" / "how-to" / "query-content.md").read_text("utf-8")
STATEMENTS = [
    statement.strip()
    for block in re.findall(r"^```sql\n(.*?)^```", QUERIES, re.MULTILINE | re.DOTALL)
    for statement in re.sub(r"--.*", "", block).split(";")
    if statement.strip()
]
VIEWS = re.findall(r"^\*\*`(content_\w+)`\*\*", REFERENCE, re.MULTILINE)
KIND = re.compile(r'\bkind="([a-z]+)"')
TRIED_OUT = {"greeting"}
"""Kinds of the plugin for trying things out, without a view of their own."""

MARCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN = {"name": "Ann", "address": "ann@example.com"}
BOB = {"name": "Bob", "address": "bob@example.com"}
MAIL: dict[str, Any] = {
    "from": [BOB], "to": [ANN], "cc": [], "bcc": [{"name": "", "address": "eve@example.com"}],
    "thread_id": "thread-1", "labels": ["INBOX", "Label_7"], "new_text": "Yes.",
}  # fmt: skip
CHAT = {"user": "U1", "channel": "C1", "permalink": "https://chat.example/1", "ts": "1.0"}
LARGE = b"\0" * (1024 * 1024 + 1)

ITEMS = [
    TaskOutput(
        "m1", "Yes.\n> Do you?", kind="message", name="Question", timestamp=MARCH, metadata=MAIL
    ),
    TaskOutput("m1/source", b"From: bob", kind="source", parent="m1"),
    TaskOutput("m1/1", LARGE, kind="attachment", parent="m1", name="a.pdf", metadata={}),
    TaskOutput("label/Label_7", kind="label", name="Offers", metadata={"type": "user"}),
    TaskOutput("C1:1.0", "Hello", kind="message", parent="C1", timestamp=MARCH, metadata=CHAT),
    TaskOutput("C1", kind="channel", name="general", metadata={"type": "public", "topic": "all"}),
    TaskOutput("members/C1", kind="members", metadata={"channel": "C1", "members": ["U1", "U2"]}),
    TaskOutput("U1", kind="user", name="Carol", metadata={"tz": "UTC", "is_bot": True}),
    TaskOutput("/reports", kind="directory", name="reports"),
    TaskOutput("/reports/a.txt", "same", kind="file", parent="/reports", name="a.txt"),
    TaskOutput("/reports/b.txt", "same", kind="file", parent="/reports", name="b.txt"),
]


def columns(rows: str) -> set[str]:
    """Return the names in the first cells of a table of the reference."""
    return set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", rows, re.MULTILINE))))


@pytest.fixture
def account(desk) -> UUID:
    account = desk.account("kept", user_id="ann")
    desk.keep(account, *ITEMS)
    return account


def row(desk: Any, view: str, external_id: str) -> dict[str, Any]:
    ((found,),) = desk.rows(f"SELECT to_jsonb(v) FROM {view} v WHERE external_id = %s", external_id)
    return found


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_the_documented_columns(conn, view: str) -> None:
    shared, bytes_ = REFERENCE.split("## Columns of all views")[1].split("\nViews with bytes")
    section = re.split(r"\n(?=\*\*`)", REFERENCE.split(f"**`{view}`**", 1)[1])[0]
    documented = columns(shared) | columns(section)
    if "columns\nof bytes" in section or "columns of bytes" in section:
        documented |= columns(bytes_.split("## Views")[0])
    found = conn.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s", (view,)
    )
    assert {name for (name,) in found} == documented


def test_each_view_is_documented(conn) -> None:
    found = conn.execute(
        "SELECT table_name FROM information_schema.views WHERE table_schema = 'public'"
    )
    assert sorted(name for (name,) in found) == sorted(VIEWS)


def test_each_kind_of_a_plugin_has_a_view() -> None:
    kinds = {
        kind
        for path in ROOT.glob("plugins-*/src/**/*.py")
        for kind in KIND.findall(path.read_text("utf-8"))
    }
    assert {f"content_{kind}" for kind in kinds - TRIED_OUT} == {*VIEWS} - {"content_item"}


def test_a_mail_has_its_people_and_the_names_of_its_labels(desk, account) -> None:
    mail = row(desk, "content_message", "m1")
    assert (mail["user_id"], mail["account_name"], mail["name"]) == ("ann", "kept", "Question")
    assert (mail["sender_name"], mail["sender_address"]) == ("Bob", "bob@example.com")
    assert mail["recipient_addresses"] == ["ann@example.com", "eve@example.com"]
    assert (mail["thread_id"], mail["label_names"]) == ("thread-1", ["INBOX", "Offers"])
    assert (mail["text"], mail["new_text"]) == ("Yes.\n> Do you?", "Yes.")
    assert (mail["channel_id"], mail["sender_id"]) == (None, None)


def test_a_message_of_a_chat_has_its_author_and_its_channel(desk, account) -> None:
    message = row(desk, "content_message", "C1:1.0")
    assert (message["sender_id"], message["sender_name"]) == ("U1", "Carol")
    assert (message["channel_id"], message["channel_name"]) == ("C1", "general")
    assert (message["new_text"], message["thread_id"]) == ("Hello", None)
    assert (message["label_names"], message["recipient_addresses"]) == ([], [])


def test_each_kind_has_its_fields(desk, account) -> None:
    attachment = row(desk, "content_attachment", "m1/1")
    assert (attachment["is_inline"], attachment["is_kept"]) == (False, True)
    assert (attachment["size"], attachment["parent"]) == (len(LARGE), "m1")
    assert row(desk, "content_members", "members/C1")["member_ids"] == ["U1", "U2"]
    assert row(desk, "content_user", "U1")["is_bot"] is True
    assert row(desk, "content_channel", "C1")["topic"] == "all"
    assert row(desk, "content_label", "label/Label_7")["type"] == "user"
    assert row(desk, "content_file", "/reports/a.txt")["text"] == "same"
    assert row(desk, "content_source", "m1/source")["hash"]
    assert desk.value("SELECT count(*) FROM content_item") == len(ITEMS)


def test_a_view_has_no_deleted_item_and_nothing_of_an_account_that_is_erased(desk, account) -> None:
    other = desk.account("other", user_id="ann")
    desk.keep(other, TaskOutput("m1", "x", kind="message"), TaskOutput("m2", "y", kind="message"))
    desk.conn.execute(
        "UPDATE user_integration_content SET gone_at_source = now() WHERE external_id = 'm2'"
    )
    desk.keep(account, TaskOutput.gone("m1"), TaskOutput.gone("U1"))
    left = "SELECT external_id FROM content_message ORDER BY 1"
    assert desk.rows(left) == [("C1:1.0",), ("m1",), ("m2",)]
    assert row(desk, "content_message", "m2")["gone_at_source"] is not None
    message = row(desk, "content_message", "C1:1.0")
    assert (message["sender_name"], message["channel_name"]) == (None, "general")
    for table in ("content_source", "content_attachment"):
        assert desk.rows(f"SELECT external_id FROM {table}") == [], "below a deleted item"
    desk.conn.execute("UPDATE user_integration SET sync_status = 'erasing' WHERE id = %s", (other,))
    assert desk.rows(left) == [("C1:1.0",)]
    assert desk.rows("SELECT 1 FROM content_item WHERE user_integration_id = %s", other) == []


@pytest.mark.parametrize("value", [None, True, 7, "x", [], [1, "x", None, [[]]], {"a": 1}])
def test_no_value_in_the_metadata_breaks_a_view(desk, value: Any) -> None:
    account = desk.account("odd")
    names = ("from", "to", "cc", "bcc", "user", "channel", "labels", "thread_id", "inline", "type")
    names += ("members", "is_bot", "deleted", "is_archived", "skipped", "new_text", "permalink")
    kinds = [view.removeprefix("content_") for view in VIEWS]
    desk.keep(
        account,
        *(TaskOutput(kind, kind=kind, metadata=dict.fromkeys(names, value)) for kind in kinds),
    )
    for kind in kinds:
        assert row(desk, f"content_{kind}", kind)["external_id"] == kind


def test_each_query_of_the_how_to_finds_rows(desk, account) -> None:
    desk.account("never synced", user_id="ann")
    assert len(STATEMENTS) > 12
    for statement in STATEMENTS:
        assert desk.rows(statement.replace("'…'", f"'{account}'")), statement
