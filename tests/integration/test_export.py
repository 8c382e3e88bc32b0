"""Exports: every item once, with its text and bytes, in three formats that other programs read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path
from uuid import uuid4

import duckdb
import pytest

from core import TaskOutput
from core.service.accounts import erase as account_erase
from core.service.authorization import LOCAL_OPERATOR
from core.service.content import export as content_export
from core.service.content.export import Files, begin
from core.service.content.export_formats import Format, encoded
from core.service.pagination import encode_cursor

TEXTS = {
    "plain": "hello",
    "quoted": 'a "quote", a comma\r\nand a line\n',
    "words": "日本語 und Ümläute 🎉",
    "formula": "=1+1",
    "long": "x" * 300_000,
    "empty": "",
}


@pytest.fixture
def export(backend):
    """Return a function that exports; it returns the records and the next cursor."""

    def run(after=None, *, account=None, keep=None):
        with backend.database.connection() as conn:
            wanted = begin(conn, after=after, account=account)
        batches = content_export.batches(backend, LOCAL_OPERATOR, wanted, keep=keep)
        return [row for batch in batches for row in batch], wanted.until

    return run


def told(records):
    return [(row["change"], row["external_id"], row["content"]) for row in records]


def test_an_export_continues_where_the_last_one_ended(desk, backend, export) -> None:
    account = desk.account("a", user_id="ann")
    desk.keep(account, TaskOutput("1", "one"), TaskOutput("2", "two"))
    records, cursor = export()
    assert told(records) == [("created", "1", "one"), ("created", "2", "two")]
    assert {row["user_id"] for row in records} == {"ann"}
    assert export(cursor)[0] == []
    desk.keep(account, TaskOutput("1", "ONE"), TaskOutput.gone("2"))
    records, cursor = export(cursor)
    assert told(records) == [("updated", "1", "ONE"), ("deleted", "2", None)]
    account_erase.erase_account(backend, account)
    records, _ = export(cursor)
    assert [(row["change"], row["user_integration_id"], row["content"]) for row in records] == [
        ("erased", str(account), None)
    ]


def test_an_export_ends_while_others_keep_writing(desk, backend, export, monkeypatch) -> None:
    """The next export has the later changes, so both together have the latest state."""
    monkeypatch.setattr(content_export, "PAGE_ROWS", 10)
    account = desk.account("a")
    desk.keep(account, *(TaskOutput(f"{item}", "old") for item in range(50)))
    with backend.database.connection() as conn:
        wanted = begin(conn)
    state = {}
    for pages, batch in enumerate(content_export.batches(backend, LOCAL_OPERATOR, wanted), 1):
        assert pages <= 5, "the export follows the writers"
        state |= {row["external_id"]: row["content"] for row in batch}
        # One item that was read, one that was not, and a new one.
        desk.keep(
            account,
            *(TaskOutput(id, f"new {pages}") for id in ("0", f"{49 - pages}", f"added {pages}")),
        )
    assert "48" not in state, "an item that changed before it was read is left to the next export"
    records, _ = export(wanted.until)
    state |= {row["external_id"]: row["content"] for row in records}
    assert state == desk.content()


def test_one_account_is_exported_alone(desk, export) -> None:
    mine, other = desk.account("a"), desk.account("b")
    desk.keep(other, *(TaskOutput(f"{item}", "theirs") for item in range(30)))
    desk.keep(mine, TaskOutput("1", "mine"))
    desk.keep(other, TaskOutput("31", "theirs"))
    records, cursor = export(account=mine)
    assert told(records) == [("created", "1", "mine")]
    assert export(cursor, account=mine)[0] == []


@pytest.mark.parametrize("format", Format)
def test_duckdb_reads_each_format(desk, backend, tmp_path, format) -> None:
    account = desk.account("a", user_id="ann")
    desk.keep(
        account,
        *(
            TaskOutput(id, text, name=f"{id}, “ü”", metadata={"labels": [id, "x"]})
            for id, text in TEXTS.items()
        ),
    )
    with backend.database.connection() as conn:
        wanted = begin(conn)
    path = tmp_path / f"content.{format}"
    path.write_bytes(
        b"".join(encoded(format, content_export.batches(backend, LOCAL_OPERATOR, wanted)))
    )
    reader = {"csv": "read_csv('{}', max_line_size=1000000)", "jsonl": "read_json('{}')"}
    table = reader.get(format, "read_parquet('{}')").format(path)
    rows = duckdb.sql(
        f"SELECT external_id, coalesce(content, ''), name, metadata::JSON->>'$.labels[0]',"
        f" size, created_at::TIMESTAMPTZ > '2020-01-01'::TIMESTAMPTZ, user_id FROM {table}"
    ).fetchall()
    assert {row[0]: row[1:] for row in rows} == {
        id: (text, f"{id}, “ü”", id, len(text.encode()), True, "ann") for id, text in TEXTS.items()
    }


@pytest.mark.parametrize("format", Format)
def test_an_export_without_records_has_its_columns(desk, backend, format) -> None:
    data = b"".join(encoded(format, iter([])))
    if format is Format.CSV:
        assert next(csv.reader(io.StringIO(data.decode()))) == list(content_export.FIELDS)
    elif format is Format.JSONL:
        assert data == b""
    else:
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(io.BytesIO(data)).column_names == list(
            content_export.FIELDS
        )


def test_bytes_are_stored_beside_the_records(desk, backend, export, tmp_path) -> None:
    account = desk.account("a")
    small, large = b"\0small", b"\0large" * 400_000
    desk.keep(
        account,
        TaskOutput("../../evil", small, name="../../../etc/passwd"),
        TaskOutput("same", small),
        TaskOutput("large", large),
        TaskOutput("text", "t"),
        TaskOutput("label", None),
    )
    folder = tmp_path / "files"
    files = Files(backend, folder)
    records, _ = export(keep=files.keep)
    paths = {row["external_id"]: row["file"] for row in records}
    assert (paths["text"], paths["label"]) == (None, None)
    assert paths["../../evil"] == paths["same"]
    stored = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert stored == {paths["same"]: small, paths["large"]: large}
    assert all(path.endswith(hashlib.sha256(data).hexdigest()) for path, data in stored.items())
    assert files.missing == 0


def test_the_next_export_has_bytes_that_change_during_an_export(
    desk, backend, export, tmp_path
) -> None:
    account = desk.account("a")
    desk.keep(account, TaskOutput("1", b"\0old"))
    files = Files(backend, tmp_path / "files")

    def late(row):
        desk.keep(account, TaskOutput("1", b"\0new"))
        return files.keep(row)

    records, cursor = export(keep=late)
    assert records == []
    records, _ = export(cursor, keep=files.keep)
    path = tmp_path / "files" / records[0]["file"]
    assert path.read_bytes() == b"\0new"
    assert [each for each in (tmp_path / "files").rglob("*") if each.is_file()] == [path]


def test_a_missing_blob_costs_no_other_item(desk, backend, blobs, export, tmp_path) -> None:
    account = desk.account("a")
    desk.keep(account, TaskOutput("1", b"\0a" * 1_000_000), TaskOutput("2", b"\0b" * 1_000_000))
    [(key,)] = desk.rows("SELECT blob_key FROM user_integration_content WHERE external_id = '1'")
    blobs._delete(key)
    files = Files(backend, tmp_path / "files")
    records, _ = export(keep=files.keep)
    assert [bool(row["file"]) for row in records] == [False, True]
    assert files.missing == 1


def test_the_api_exports_what_a_token_may_see(api, desk) -> None:
    mine, other = desk.account("a", user_id="u"), desk.account("b", user_id="v")
    desk.keep(mine, TaskOutput("1", "mine"))
    desk.keep(other, TaskOutput("2", "theirs"))
    user = api.user("u")
    answer = user.get("/v1/export")
    assert answer.headers["content-type"] == "application/jsonl"
    assert [json.loads(line)["content"] for line in answer.text.splitlines()] == ["mine"]
    assert len(api.admin.get("/v1/export").text.splitlines()) == 2
    later = user.get("/v1/export", params={"after": answer.headers["Export-Cursor"]})
    assert (later.status_code, later.text) == (200, "")
    feed = user.get("/v1/changes", params={"after": answer.headers["Export-Cursor"]})
    assert feed.json()["changes"] == []
    assert user.get("/v1/export", params={"user_integration_id": str(other)}).status_code == 404
    assert user.get("/v1/export", params={"user_integration_id": str(uuid4())}).status_code == 404
    assert user.get("/v1/export", params={"after": "no cursor"}).status_code == 422
    assert user.get("/v1/export", params={"format": "xlsx"}).status_code == 422
    moved = encode_cursor(["another.1", 5, 0, 1])
    assert user.get("/v1/export", params={"after": moved}).json()["code"] == "cursor-outdated"
    parquet = user.get("/v1/export", params={"format": "parquet"})
    assert parquet.content[:4] == parquet.content[-4:] == b"PAR1"
    assert "content.parquet" in parquet.headers["content-disposition"]


def test_the_view_of_the_how_to_shows_the_current_state(desk, backend, tmp_path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "export.md"
    (view,) = re.findall(r"```duckdb\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    account, erased = desk.account("a"), desk.account("b")
    desk.keep(account, TaskOutput("1", "one"), TaskOutput("2", "two"), TaskOutput("3", "three"))
    desk.keep(erased, TaskOutput("1", "erased"))
    cursor = None
    for day in ("2026-03-01", "2026-03-02"):
        with backend.database.connection() as conn:
            wanted = begin(conn, after=cursor)
        cursor = wanted.until
        batches = content_export.batches(backend, LOCAL_OPERATOR, wanted)
        data = b"".join(encoded(Format.PARQUET, batches))
        (tmp_path / f"{day}.parquet").write_bytes(data)
        if day == "2026-03-01":
            desk.keep(account, TaskOutput("1", "ONE"), TaskOutput.gone("2"))
            account_erase.erase_account(backend, erased)
    with duckdb.connect() as connection:
        connection.execute(view.replace("'*.parquet'", f"'{tmp_path}/*.parquet'"))
        rows = connection.execute("SELECT external_id, content FROM content ORDER BY 1").fetchall()
    assert rows == [("1", "ONE"), ("3", "three")]
