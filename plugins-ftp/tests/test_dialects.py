"""Listings of real servers in many dialects, with their correct values."""

from __future__ import annotations

import codecs
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from integration_polling_ftp.listing import (
    MAX_LINE,
    Entry,
    Unreadable,
    parse_facts,
    parse_line,
    parse_listing,
    read_facts,
)
from integration_polling_ftp.listing.dates import _LATIN, _OTHER, month_of
from integration_polling_ftp.listing.lines import line_end

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
CASES = Path(__file__).parent / "cases"
UNIX = "-rw-r--r--   1 u g 531 Jan 10 03:26 "


def cases(name: str) -> list[Any]:
    return list(json.loads((CASES / f"{name}.json").read_text()))


def reported(kind: str) -> list[Any]:
    """Return lines that users of other clients have reported, without their sources."""
    return [row[:-1] for row in json.loads((CASES / "reported.json").read_text())[kind]]


@pytest.mark.parametrize(("line", "expected"), cases("list") + reported("list"))
def test_a_line_of_list_has_its_correct_values(line: str, expected: Any) -> None:
    entry = parse_line(line, NOW)
    if expected == "unreadable":
        assert entry is None
    elif expected is None:
        assert entry == Entry("", "other")
    else:
        assert entry is not None
        name, kind, size, modified = expected
        assert (entry.text, entry.kind, entry.size) == (name, kind, size)
        assert entry.modified.startswith(modified)
        assert bool(entry.modified) == bool(modified)


@pytest.mark.parametrize(("line", "expected"), cases("mlsd") + reported("mlsd"))
def test_a_line_of_mlsd_has_its_correct_values(line: str, expected: list[Any] | None) -> None:
    entry = parse_facts(line)
    assert (entry and [entry.text, entry.kind, entry.size]) == expected


def test_the_listing_decides_on_the_order_of_day_and_month() -> None:
    lines = [b"13-01-25  10:00AM  5 a", b"02-01-25  10:00AM  5 b"]
    assert [entry.modified for entry in parse_listing(lines, now=NOW).entries] == [
        "202501131000",
        "202501021000",
    ]
    assert parse_listing(lines[1:], now=NOW).entries[0].modified == "202502011000"


def test_the_winner_of_the_vote_reads_an_ambiguous_line() -> None:
    """As EPLF, the last line names a file `B;1 10 2-JUL-2003 10:30`."""
    lines = [
        b"A;1  10  2-JUL-2003 10:30",
        b"A;2  10  2-JUL-2003 10:30",
        b"+a,r,\tB;1 10 2-JUL-2003 10:30",
    ]
    listing = parse_listing(lines, now=NOW)
    assert [entry.name for entry in listing.entries] == ["A;1", "A;2", "+a,r,\tB;1"]


def test_a_name_of_two_lines_in_vms_is_one_entry() -> None:
    lines = [b"Directory DKA0:[X]", b"", b"LONG.TXT;1", b"   10  2-JUL-2003 10:30 [A,B] (RWED)"]
    listing = parse_listing([*lines, b"", b"Total of 1 file, 10 blocks."], now=NOW)
    assert listing.entries == [Entry("LONG.TXT;1", "file", None, "200307021030")]
    assert not listing.unreadable


def test_a_name_of_unix_may_end_like_one_of_vms() -> None:
    lines = [f"{UNIX}a;1", f"{UNIX}b", f"{UNIX}X.DIR;1", f"{UNIX}c"]
    assert [entry.name for entry in parse_listing(lines, now=NOW).entries] == [
        "a;1",
        "b",
        "X.DIR;1",
        "c",
    ]


def test_members_without_statistics_need_the_heading() -> None:
    heading = b" Name     VV.MM   Created       Changed      Size  Init   Mod   Id"
    assert parse_listing([heading, b" BARE"], now=NOW).entries == [Entry("BARE", "file")]
    assert parse_listing([b" BARE"], now=NOW).unreadable == [" BARE"]


def test_an_unreadable_line_is_reported() -> None:
    """A name with a line break makes such lines."""
    listing = parse_listing([b"total 4", f"{UNIX}a".encode(), b"b 12", b"x" * 9999], now=NOW)
    assert [entry.name for entry in listing.entries] == ["a"]
    assert listing.unreadable == ["b 12", "x" * 200]
    assert list(read_facts([b"type=file; a", b"", b"x"]))[1:] == [Unreadable("x")]


def test_names_keep_each_byte() -> None:
    """Blanks of latin-1 (NEL, NBSP) are bytes of names in other charsets."""
    for name in (b"\x85\xa0x\xa0 \x85", b" \t x\x1c", "\u3000\u2028".encode(), b"a\x0bb"):
        entries = parse_listing([UNIX.encode() + name], now=NOW).entries
        assert [entry.name.encode("latin-1") for entry in entries] == [name]
    marks = parse_facts("type=file; \x85\xa0x\x85")
    assert marks is not None
    assert marks.name == "\x85\xa0x\x85"


@given(
    st.binary(max_size=200), st.sampled_from([b"", UNIX.encode(), b"04-27-00  12:09PM  ", b"type="])
)
def test_each_line_is_an_entry_a_report_or_a_summary(end: bytes, start: bytes) -> None:
    listing = parse_listing([start + end], now=NOW)
    assert len(listing.entries) + len(listing.unreadable) <= 1 + end.count(b"\n")


@pytest.mark.parametrize(
    "text", ["1 ", "1 a ", "1 Jan ", "9", "a", "1-", " ", "1 \xe4 ", " -> ", "12 DIR ", ",1"]
)
@pytest.mark.parametrize("start", ["", "-rw-r--r-- ", "A;1 ", "X 3390 2003/05/21 ", "type=file;"])
def test_a_hostile_line_takes_little_time(start: str, text: str) -> None:
    line = (start + text * MAX_LINE)[:MAX_LINE]
    before = time.process_time()
    parse_line(line, NOW)
    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    ("words", "month"),
    [
        ("Mär mars март mrt maart maalis μαρ márc", 3),
        ("août aoû AUG ağu elo ago sie srp avg авг", 8),
        ("Mai maj мая may mei touko kvě maggio toukokuu", 5),
        ("déc. dic des dez Ara joulu gru pro дек", 12),
        ("juil. lug lip čec tem heinä jul июл", 7),
        ("juin giu cze haz kesä čen jún июн", 6),
        ("ינו يناير ม.ค. 一月 Oca янв січ led ene xan urt jaan", 1),
        ("מרץ مارس มี.ค. 三月 mrt сак bře márc kov", 3),
        ("אוק أكتوبر ต.ค. 十月 Eki жов кас říj paź spal", 10),
    ],
)
def test_months_of_many_languages_are_known(words: str, month: int) -> None:
    for word in words.split():
        assert month_of(word.encode().decode("latin-1")) == month, word


@pytest.mark.parametrize("charset", [*_LATIN, *_OTHER])
def test_each_charset_of_months_exists(charset: str) -> None:
    """A word that no charset reads tries all of them."""
    assert codecs.lookup(charset)
    assert month_of("\xff\xfe\x81") is None


def test_a_bare_line_feed_belongs_to_a_name_where_lines_end_with_crlf() -> None:
    assert line_end(b"a\r\nb\nc\r\n") == b"\r\n"
    assert line_end(b"a\nb\nc\r\n") == b"\n"
    lines = [f"total 4\n{UNIX}two\nlines", f"{UNIX}\nfirst", f"{UNIX}a\n{UNIX}b"]
    assert [entry.name for entry in parse_listing(lines, now=NOW).entries] == [
        "two\nlines",
        "\nfirst",
        f"a\n{UNIX}b",
    ]
    assert list(read_facts(["x\ntype=file; a\ntype=file; b"])) == [
        Unreadable("x"),
        Entry("a\ntype=file; b", "file"),
    ]
