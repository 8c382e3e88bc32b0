"""Header fields of real mail: encoded twice, in unknown charsets, or with invalid bytes.

`email.policy.default` raises IndexError on some of them
(https://github.com/python/cpython/issues/151857). So every function here starts with the raw text
that `compat32` keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.header import decode_header
from email.message import Message
from email.policy import compat32
from email.utils import getaddresses, parsedate_to_datetime

from integration_polling_gmail.charsets import clean, decoded

MAX_STRUCTURED_HEADER_CHARS = 4_096
"""The maximum length of a structured header: the library parses it in quadratic time."""

MAX_VALUE_CHARS = 32_768
MAX_ADDRESSES_CHARS = 16_384
MAX_NAME_CHARS = 255
MAX_KEPT_CHARS = 32 * 1024
"""The maximum length of all headers that are kept as metadata."""

_TYPE = re.compile(r"[^\s/;,\"]{1,127}/[^\s/;,\"]{1,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_SPACE = re.compile(r"\s+")
_PLAIN_NAME = re.compile(r"[!-9;-~]{1,200}")


def fields(headers: Message) -> Iterator[tuple[str, str]]:
    """Yield all fields with their raw text."""
    for name, value in headers.raw_items():
        yield name, str(value)


def raw(headers: Message, name: str) -> str | None:
    """Return the raw text of the first field with this name."""
    name = name.lower()
    return next((value for other, value in fields(headers) if other.lower() == name), None)


def text(headers: Message, name: str) -> str | None:
    """Return a field as readable text in one line."""
    value = raw(headers, name)
    return None if value is None else readable(value)


def readable(value: str) -> str:
    """Decode the encoded words (RFC 2047) of raw text, in one line.

    The result has only characters that JSON and PostgreSQL can store.
    """
    plain = _unescaped(value[:MAX_VALUE_CHARS])
    try:
        parts = decode_header(plain) if "=?" in plain else [(plain, None)]
    except Exception:  # noqa: BLE001  invalid base64 and more, each with another exception
        parts = [(plain, None)]
    words = "".join(
        part if isinstance(part, str) else decoded(part, charset) for part, charset in parts
    )
    return _SPACE.sub(" ", _CONTROL.sub(" ", words)).strip()


def _unescaped(value: str) -> str:
    """Decode the non-ASCII bytes of raw text, which the library keeps as surrogates."""
    try:
        return decoded(value.encode("utf-8", "surrogateescape"), None)
    except UnicodeEncodeError:
        return clean(value)


def kept(headers: Message) -> dict[str, list[str]]:
    """Return the fields by lower-case name, up to a total length; the source has the rest."""
    found: dict[str, list[str]] = {}
    room = MAX_KEPT_CHARS
    for name, value in fields(headers):
        if not _PLAIN_NAME.fullmatch(name):
            continue
        words = readable(value)
        room -= len(name) + len(words) + 8
        if room < 0:
            break
        found.setdefault(name.lower(), []).append(words)
    return found


def addresses(headers: Message, name: str) -> list[dict[str, str]]:
    """Return the people in a field, at most 1,000. An unreadable address is kept as a name."""
    whole = ", ".join(value for other, value in fields(headers) if other.lower() == name)
    joined = [_SPACE.sub(" ", whole[:MAX_ADDRESSES_CHARS])] if whole else []
    try:
        pairs = getaddresses(joined, strict=False)
    except TypeError:  # Python before 3.11.10 has no `strict`
        pairs = _lenient(joined)
    except Exception:  # noqa: BLE001  RecursionError on nested comments, and more
        pairs = []
    found = [
        {"name": readable(person), "address": readable(address)}
        for person, address in pairs
        if person or address
    ]
    if not found:
        found = [{"name": words, "address": ""} for value in joined if (words := readable(value))]
    return found[:1_000]


def _lenient(values: list[str]) -> list[tuple[str, str]]:
    try:
        return getaddresses(values)
    except Exception:  # noqa: BLE001  as above
        return []


def date(headers: Message) -> str | None:
    """Return the sender's date in ISO 8601, or None if it is invalid."""
    try:
        found = parsedate_to_datetime((raw(headers, "date") or "")[:200])
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
    # TypeError, ValueError, IndexError or OverflowError, all undocumented.
    except Exception:  # noqa: BLE001
        return None


def content_type(headers: Message) -> str:
    """Return the media type in lower case.

    A missing or invalid one is `text/plain`, as RFC 2045, section 5.2, requires.
    """
    value = raw(headers, "Content-Type")
    if value is None:
        return headers.get_default_type()
    found = _TYPE.match(value[:MAX_STRUCTURED_HEADER_CHARS].strip())
    return found[0].lower().encode("ascii", "replace").decode() if found else "text/plain"


def disposition(headers: Message) -> str:
    """Return `attachment`, `inline`, or an empty text."""
    return (
        (raw(headers, "Content-Disposition") or "")[:MAX_STRUCTURED_HEADER_CHARS]
        .partition(";")[0]
        .strip()
        .lower()[:100]
    )


def parameter(headers: Message, field: str, name: str) -> str | None:
    """Return a parameter of a field, joined from its pieces by RFC 2231."""
    value = raw(headers, field)
    if value is None:
        return None
    alone = Message(compat32)
    alone[field] = _unescaped(value[:MAX_STRUCTURED_HEADER_CHARS])
    try:
        found = alone.get_param(name, header=field)
    # ValueError and IndexError on parameters with wrong numbers.
    except Exception:  # noqa: BLE001
        return None
    if isinstance(found, tuple):
        charset, _, encoded = found
        return decoded(encoded.encode("latin-1", "replace"), charset)
    return None if found is None else str(found)


def filename(headers: Message) -> str | None:
    """Return the sender's file name in one line, without folders."""
    name = parameter(headers, "Content-Disposition", "filename") or parameter(
        headers, "Content-Type", "name"
    )
    if name is None:
        return None
    last = re.split(r"[/\\]", readable(name))[-1].strip()
    return last[:MAX_NAME_CHARS] or None


def content_id(headers: Message) -> str | None:
    """Return the id by which the HTML of the message refers to the part."""
    found = (text(headers, "Content-ID") or "").strip("<> ")
    return found[:MAX_NAME_CHARS] or None


def instant(milliseconds: object) -> datetime | None:
    """Return the time of Gmail's `internalDate`: when Google accepted the mail."""
    try:
        return datetime.fromtimestamp(int(str(milliseconds)) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
