"""Names, listings and replies, without a server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from integration_polling_ftp import Config, names
from integration_polling_ftp.errors import meaning
from integration_polling_ftp.listing import (
    Entry,
    parse_facts,
    parse_line,
    read_facts,
    timestamp,
)

from core import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    PermanentError,
    RateLimited,
    TransientError,
    Unavailable,
)

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@given(st.binary())
def test_every_stored_name_converts_back_to_its_bytes(raw: bytes) -> None:
    text = names.to_text(raw.decode("latin-1"))
    text.encode()
    assert names.to_wire(text).encode("latin-1") == raw


@given(st.text(alphabet="%0123456789ABCDEFé\udcff"))
def test_a_name_that_looks_like_an_escape_converts_back_too(name: str) -> None:
    raw = name.encode("utf-8", "surrogateescape").decode("latin-1")
    assert names.to_wire(names.to_text(raw)) == raw


@given(st.binary(), st.binary())
def test_two_names_are_stored_as_two_names(one: bytes, other: bytes) -> None:
    texts = [names.to_text(raw.decode("latin-1")) for raw in (one, other)]
    assert (texts[0] == texts[1]) == (one == other)


@given(st.binary(), st.sampled_from(["cp932", "gbk", "cp1251", "euc-jp", "big5", "koi8-r"]))
def test_names_in_other_charsets_convert_back_to_their_bytes(raw: bytes, encoding: str) -> None:
    text = names.to_text(raw.decode("latin-1"), encoding)
    text.encode()
    assert names.to_wire(text, encoding).encode("latin-1") == raw


def test_names_in_other_charsets_are_stored_as_text() -> None:
    for text, encoding in [("ソ表.txt", "cp932"), ("文件", "gbk"), ("файл", "cp1251")]:
        line = b"type=file; " + text.encode(encoding)
        (entry,) = read_facts([line], encoding=encoding)
        assert isinstance(entry, Entry)
        assert entry.text == text
    assert names.to_text("a\x81", "cp932") == "a%81"


@pytest.mark.parametrize("charset", ["no-such", "utf-16", "rot13", "base64", "cp037", "a\0b"])
def test_a_charset_must_exist_and_contain_ascii(charset: str) -> None:
    assert Config(host="h", encoding="GBK").encoding == "gbk"
    with pytest.raises(ValueError, match="charset"):
        Config(host="h", encoding=charset)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\rb", "a\nb", "a\0b"])
def test_unsafe_names_are_recognized(name: str) -> None:
    assert not names.is_safe(name)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (
            "-rw-r--r--   1 u  g      1024 Jan 10 09:05 a  b",
            Entry("a  b", "file", 1024, "202601100905"),
        ),
        ("-rw-r--r--   1 u  g      1024 Dec 31 09:05 x", Entry("x", "file", 1024, "202512310905")),
        ("-rw-r--r--   1 u  g      1024 Jan 16 09:05 x", Entry("x", "file", 1024, "202601160905")),
        ("-rw-r--r--   1 u  g      1024 Jan 17 09:05 x", Entry("x", "file", 1024, "202501170905")),
        ("-rw-r--r--+  1 u         7 Feb  3  2019  x", Entry(" x", "file", 7, "20190203")),
        (
            "drwxr-sr-t   9 u  g      4096 Jan  1 00:00 d",
            Entry("d", "directory", 4096, "202601010000"),
        ),
        (
            "lrwxrwxrwx   1 u  g         3 Jan  1 00:00 l -> ../a",
            Entry("l", "link", 3, "202601010000"),
        ),
        (
            "02-09-05  05:19PM       <DIR>          web root",
            Entry("web root", "directory", None, "200502091719"),
        ),
        ("02-09-2005  12:01AM             1,2", None),
        ("02-09-2005  12:01AM             12 f", Entry("f", "file", 12, "200502090001")),
        ("02-09-97  17:19             12  f", Entry(" f", "file", 12, "199702091719")),
        ("crw-rw-rw- 1 root root 1, 3 Jan  1 00:00 null", Entry("", "other")),
        ("something else", None),
    ],
)
def test_a_line_of_list_becomes_an_entry(line: str, entry: Entry | None) -> None:
    assert parse_line(line, NOW) == entry


def test_a_time_just_after_new_year_belongs_to_the_new_year() -> None:
    entry = parse_line(
        "-rw-r--r-- 1 u g 1 Jan  1 00:05 x", datetime(2025, 12, 31, 23, 0, tzinfo=UTC)
    )
    assert entry is not None
    assert entry.modified == "202601010005"


def test_a_line_of_mlsd_becomes_an_entry() -> None:
    line = "Type=file;Size=25;Modify=20260102030405.123;Unique=1g2; a b;c=d"
    assert parse_facts(line) == Entry("a b;c=d", "file", 25, "20260102030405.123", "1g2")
    assert parse_facts("type=OS.unix=slink:/x;size=1; l") == Entry("l", "link", 1)
    assert parse_facts("type=cdir; /") == Entry("/", "other")
    assert parse_facts("type=file;size=1;") is None
    assert parse_facts("size=1; name") is None


def test_a_timestamp_is_in_utc_and_none_if_invalid() -> None:
    assert timestamp("20260102030405.1") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert timestamp("20260102") == datetime(2026, 1, 2, tzinfo=UTC)
    assert timestamp("20261399") is None
    assert timestamp("") is None


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("421 Timeout.", Unavailable),
        ("421 There are too many connections from your internet address.", RateLimited),
        ("530 Sorry, the maximum number of clients (5) are already connected.", RateLimited),
        ("425 Cannot open data connection.", TransientError),
        ("426 Failure writing network stream.", TransientError),
        ("450 Busy.", TransientError),
        ("451 Error.", TransientError),
        ("530 Login incorrect.", CredentialsInvalid),
        ("530 Non-anonymous sessions must use encryption.", ConfigurationError),
        ("550 No such file.", PermanentError),
        ("553 Not allowed.", PermanentError),
    ],
)
def test_a_reply_becomes_its_exception(reply: str, error: type[IntegrationError]) -> None:
    assert isinstance(meaning(reply), error)
