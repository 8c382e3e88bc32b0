"""Texts as words of the search index, queries, snippets, and the texts of documents."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import InvalidInput
from core.search import extraction, languages, snippets
from core.search.documents import MAX_TEXT_CHARS, IndexedItem, document
from core.search.extraction import ReaderFailed, ReaderStopped, Unreadable
from core.search.query import parse
from core.search.words import folded, words

Day = tuple[int, int, int] | None


def forms(text: str) -> list[str]:
    return [" ".join((word.folded, *word.others)) for word in words(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("Straße", ["strasse"]),
        ("Łódź Ærø", ["lodz", "aero"]),
        (
            "Q3_QuarterlyReport-final.docx",
            ["q q3", "3", "quarterly quarterlyreport", "report", "final", "docx"],
        ),
        ("4be71c0a9d2f83e6b5c01f7a92d48e3310cc5b7f", ["4be71c0a9d2f83e6b5c01f7a92d48e3310cc5b7f"]),
        ("max_retry_count", ["max", "retry", "count"]),
        ("会议纪要", ["会议", "议纪", "纪要"]),
        ("ｻｰﾊﾞ", ["サー", "ーバ"]),
        ("会", ["会"]),
        ("さーばー へ", ["サー", "ーバ", "ヘ"]),
        ("サーバーへ", ["サー", "ーバ", "バヘ"]),
        ("👍🏽", ["👍 thumbs_up thumbs up thumbsup +1 1"]),
        ("बैठक में", ["बैठक", "में"]),
        ("الاجتماعُ", ["الاجتماع"]),
        ("\ufb01nal\uff12", ["final final2", "2"]),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zerowidth"]),
        ("e\u0301te\u0301", ["ete"]),
        ("!!! ??? ---", []),
    ],
)  # fmt: skip
def test_a_text_has_these_words(text: str, found: list[str]) -> None:
    assert forms(text) == found


def test_words_are_found_at_their_places() -> None:
    text = "Die Größe: XMLParser 会议纪要 🚀"
    assert [text[word.start : word.end] for word in words(text)] == [
        "Die", "Größe", "XML", "Parser", "会议", "议纪", "纪要", "🚀"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("der Vertrag ist nicht mit dem Brief da", "german"),
        ("le contrat est dans la boîte pour vous", "french"),
        ("the contract is in the box for you", "english"),
        ("el contrato está en la caja para no perder", "spanish"),
    ],
)
def test_a_language_is_known_by_its_frequent_words(text: str, language: str) -> None:
    assert languages.detected(text.split())[0] == language


def test_a_short_text_has_the_stems_of_several_languages() -> None:
    assert languages.detected(["Mietvertrag"]) == languages.UNKNOWN


def no_ids(*_: str) -> tuple[str, ...]:
    return ()


@pytest.mark.parametrize(
    ("query", "parsed"),
    [
        ('"cold chain"', "( ( ( 'cold' <-> 'chain' ) | 'cold_chain' ) )"),
        ("RE-2026-0417", "( ( 're' <-> '2026' <-> '0417' ) )"),
        ("发票", "( '发票' )"),
        ("会", "( ( '会' | '会':* ) )"),
        ("+49", "( '49' )"),
        ("!!! -- ((", ""),
        ("or", ""),
        ("has:file", "( '@has:file' )"),
        ("in:#Harbour", "( ( '@in:harbour' | '@in:#harbour' ) )"),
        ("from:Lager.example", "( '@from:lager.example' )"),
        ('-"a b"', "( !( ( 'a' <-> 'b' ) | 'a_b' ) )"),
        ("subject:ab", "( 'ab':A )"),
        ('a or "b" | c', "( 'a' | 'b' | 'c' )"),
    ],
)
def test_a_query_is_parsed(query: str, parsed: str) -> None:
    assert parse(query, no_ids).text == parsed


@pytest.mark.parametrize(
    ("query", "since", "until"),
    [
        ("after:2026-03-01 before:2026-04-01", (2026, 3, 1), (2026, 4, 1)),
        ("since:2026", (2026, 1, 1), None),
        ("until:2026-02", None, (2026, 2, 1)),
        ("after:2025 after:2026-2-3", (2026, 2, 3), None),
        ("after:2026/03/01, until:2026.4", (2026, 3, 1), (2026, 4, 1)),
        ("after:20260301 before:01.04.2026", (2026, 3, 1), (2026, 4, 1)),
        ('(after:"2026-03-01" before:2026-04-01T02:00+02:00)', (2026, 3, 1), (2026, 4, 1)),
    ],
)
def test_dates_restrict_a_query(query: str, since: Day, until: Day) -> None:
    parsed = parse(query, no_ids)
    wanted = [datetime(*day, tzinfo=UTC) if day else None for day in (since, until)]
    assert [parsed.since, parsed.until] == wanted
    assert parsed.text == ""


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("before:yesterday", "search-date-invalid"),
        ("after:2026-02-30", "search-date-invalid"),
        ("after:0001-01-01T00:00+14:00", "search-date-invalid"),
        ("before:)", "search-date-invalid"),
        ("-before:2026", "search-date-excluded"),
        ("has:wings", "search-has-unknown"),
        ("a b c d " * 17, "search-too-long"),
        ("-has:file " * 65, "search-too-long"),
        ("from:a " * 65, "search-too-long"),
        ('from:"' + "a " * 65, "search-too-long"),
        ("+1 " * 50_000, "search-too-long"),
    ],
)
def test_a_query_that_cannot_be_understood_says_why(query: str, code: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse(query, no_ids)
    assert raised.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        "👨\u200d",
        "1 ",
        "1.000",
        "+(",
        "サーバー",
        "a\u0301",
        "(1) ",
        "aB1",
        "🚀",
        "\u0301",
        "A1",
        "²1",
        "a-",
        "a.b",
        "AB12 ",
        "aB",
    ],
)
def test_a_long_text_takes_time_in_proportion(text: str) -> None:
    """Square time would be some minutes."""
    began = time.process_time()
    document(IndexedItem("a", "file", text=text * (MAX_TEXT_CHARS // len(text))))
    with contextlib.suppress(InvalidInput):
        parse(text * (MAX_TEXT_CHARS // len(text)), no_ids)
    assert time.process_time() - began < 20.0


def test_characters_that_postgresql_lacks_are_left_out() -> None:
    assert parse("in:a\0 from:b\ud800", no_ids).text == parse("in:a from:b", no_ids).text


def test_a_document_has_positions_and_operators() -> None:
    people = {"from": [{"name": "Ann Bee", "address": "ann@mail.lager.example"}], "cc": "nobody"}
    text = document(
        IndexedItem("a-b", "message", "Offer", "it's fine", people=people, thread="t'1")
    )
    for lexeme in (
        "'offer':1A", "'ann':", "'it':", "'@from:ann'", "'@from:lager.example'", "'@ab'",
        "'@from:ann@mail.lager.example'", "'@thread:t''1'", "'@kind:message'",
    ):  # fmt: skip
        assert lexeme in text, lexeme
    assert len(document(IndexedItem("a", "file", text="x " * 10**6))) < 10 * MAX_TEXT_CHARS


@pytest.mark.parametrize(
    ("text", "shown", "found"),
    [
        ("A crane stands here.", ["crane"], "A crane stands here."),
        ("x " * 200 + "Die Größe zählt" + " y" * 200, ["grosse"], "Die Größe zählt"),
        ("nothing of it", ["crane"], "nothing of it"),
    ],
)
def test_a_snippet_shows_the_words(text: str, shown: list[str], found: str) -> None:
    part = snippets.snippet(text, shown)
    assert part is not None
    assert found in part
    assert len(part) < 300


def test_an_empty_text_has_no_snippet() -> None:
    assert snippets.snippet("  \n", ["a"]) is None


def test_the_words_of_a_query_are_marked() -> None:
    parts = list(snippets.marked("A Crané, cranes", ["crane"]))
    assert [text for text, is_word in parts if is_word] == ["Crané", "cranes"]
    assert "".join(text for text, _ in parts) == "A Crané, cranes"


def archive(**parts: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, text in parts.items():
            path = name.replace("__", "/").replace("_xml", ".xml").replace("META_INF", "META-INF")
            file.writestr(path, text)
    return data.getvalue()


def encrypted(archive: bytes) -> bytes:
    """Return an archive whose entries are marked as encrypted."""
    return re.sub(rb"(PK\x01\x02.{4})\x00", b"\\1\x01", archive, flags=re.DOTALL)


def read(data: bytes, is_stopping: Callable[[], bool] = lambda: False) -> str:
    format = extraction.format_of(data[: extraction.HEAD_BYTES], "x", None)
    assert format is not None
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return extraction.in_child(file, format, is_stopping)


DOCX = archive(
    word__document_xml="<w:d xmlns:w='w'><w:p><w:r><w:t>One</w:t></w:r><w:r><w:t>-two</w:t></w:r>"
    "</w:p><w:p><w:t>three</w:t></w:p></w:d>",
    word__footer1_xml="<w:f xmlns:w='w'><w:p><w:t>foot</w:t></w:p></w:f>",
)
XLSX = archive(
    xl__workbook_xml='<workbook><sheets><sheet name="May" sheetId="1"/></sheets></workbook>',
    xl__sharedStrings_xml="<sst><si><t>order</t></si>"
    "<si><r><t>is</t></r><r><t>land</t></r></si></sst>",
    xl__worksheets__sheet1_xml="<s><row><c t='s'><v>1</v></c><c><v>48213</v></c>"
    "<c t='inlineStr'><is><t>inline</t></is></c><c t='s'><v>99</v></c></row></s>",
)  # fmt: skip
ODT = archive(
    mimetype="application/vnd.oasis.opendocument.text",
    content_xml="<o xmlns:t='t'><t:h>Head</t:h><t:p>a<t:s/>b</t:p></o>",
)
RTF = rb"""{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 Kaufvertr\'e4ge\par no. \u1041?}"""
PPTX = archive(
    ppt__presentation_xml="<p/>",
    ppt__slides__slide10_xml="<a:x xmlns:a='a'><a:p><a:t>last</a:t></a:p></a:x>",
    ppt__slides__slide2_xml="<a:x xmlns:a='a'><a:p><a:t>first</a:t></a:p></a:x>",
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (DOCX, "One-two\nthree\n\nfoot\n"),
        (XLSX, "May\nisland\t48213\tinline\t\t\n"),
        (PPTX, "first\n\nlast\n"),
        (ODT, "Head\na\tb\n"),
    ],
    ids=["docx", "xlsx", "pptx", "odt"],
)  # fmt: skip
def test_office_files_give_their_text(data: bytes, text: str) -> None:
    assert extraction.format_of(data[:100], "x", None) == "archive"
    assert read(data) == text


BOMB = archive(
    word__document_xml="<!DOCTYPE d [<!ENTITY a0 '"
    + "x" * 1000
    + "'>"
    + "".join(f"<!ENTITY a{n} '" + f"&a{n - 1};" * 50 + "'>" for n in range(1, 9))
    + "]><w:d xmlns:w='w'><w:p><w:t>&a8;</w:t></w:p></w:d>",
)


ENCRYPTED_ODT = archive(
    mimetype="application/vnd.oasis.opendocument.text", content_xml="?",
    META_INF__manifest_xml="<m:encryption-data/>",
)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04 cut", "damaged"),
        (b"%PDF-1.7 cut", "damaged"),
        (archive(readme="x"), "an archive without a document"),
        (archive(word__document_xml="<w:d xmlns:w='w'/>"), "no text"),
        (ENCRYPTED_ODT, "encrypted"),
        (encrypted(DOCX), "encrypted"),
    ],
)
def test_a_damaged_file_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as raised:
        read(data)
    assert not isinstance(raised.value, ReaderFailed)


def test_entities_that_expand_without_end_are_bounded() -> None:
    with contextlib.suppress(Unreadable):
        assert len(read(BOMB)) <= extraction.MAX_EXTRACTED_CHARS


def test_a_part_that_unpacks_to_more_than_the_memory_is_not_read() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", b"<a>" * 49_000_000)
    assert len(data.getvalue()) < 1 << 20
    with pytest.raises(Unreadable):
        read(data.getvalue())


def test_a_document_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "MAX_SECONDS", 0)
    with pytest.raises(ReaderFailed, match="more than 0 s"):
        read(DOCX)


def test_a_process_that_stops_waits_for_no_document() -> None:
    with pytest.raises(ReaderStopped):
        read(archive(word__document_xml="<d>" + "<a/>" * 20_000_000), is_stopping=lambda: True)


@pytest.mark.parametrize(
    "act",
    [
        "socket.create_connection(('127.0.0.1', 1))",
        "socket.getaddrinfo('host.example', 80)",
        "subprocess.run(['true'])",
        "os.system('true')",
        "os.fork()",
        "open('written', 'w').write('x' * 100_000)",
        "bytearray(2 << 30)",
    ],
)
def test_the_reader_of_documents_is_confined(tmp_path: Path, act: str) -> None:
    program = f"""
import os, socket, subprocess
from core.search import extraction
extraction._confine()
try:
    {act}
except (PermissionError, MemoryError, OSError) as error:
    print(type(error).__name__, getattr(error, "errno", ""), error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path,
        timeout=60,
    )  # fmt: skip
    assert re.match(r"PermissionError|MemoryError|OSError 27 ", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("data", "name", "format"),
    [
        (b"plain words", "a.txt", "text"),
        ("ÄÖ".encode("latin-1"), "a", "text"),
        ("wide".encode("utf-16"), "a.txt", "text"),
        (b"<!DOCTYPE html><p>x", "a", "html"),
        (b"<p>x", "a.html", "html"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a.png", None),
        (b"", "a", None),
        (b"From: a\n\nb", "a.eml", "mail"),
        (b"\n%PDF-1.4", "a", "pdf"),
        (b"{\\rtf1 a}", "a.doc", "rtf"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "a.doc", "ole"),
    ],
)
def test_a_format_is_known_by_its_first_bytes(data: bytes, name: str, format: str) -> None:
    assert extraction.format_of(data, name, None) == format


def test_rtf_gives_its_text() -> None:
    assert read(RTF) == "Kaufverträge\nno. Б"


def test_plain_text_is_decoded() -> None:
    latin = "Zugfestigkeit äußere Schicht, geprüft für die Größe".encode("latin-1")
    assert "äußere" in extraction.in_process(latin, "text")
    with pytest.raises(Unreadable, match="before 2007"):
        extraction.in_process(b"", "ole")
    assert "hidden" not in extraction.in_process(b"<p>seen<script>hidden</script>", "html")


def test_folding_keeps_marks_that_make_letters() -> None:
    assert [folded(text) for text in ("が", "й", "Å", "İ")] == ["が", "и", "a", "i"]
