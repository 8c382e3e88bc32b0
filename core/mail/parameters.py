"""Media types, dispositions and their parameters (RFC 2045, 2183, 2231), as mail has them."""

from __future__ import annotations

import re

from core.mail.budget import STEPS_OF_PARAMETER
from core.mail.charsets import Hints, decode
from core.mail.encoded_words import decode_words, one_line
from core.mail.fields import Fields, Segment

MAX_FIELD_BYTES = 64 * 1024
MAX_PARAMETERS = 1_000
MIN_PARAMETERS = 20
"""The number of parameters that are read though the budget of the mail is used up."""

MAX_NAME_CHARS = 255

_TYPE = re.compile(r"\s*\"?\s*([^\s/;,\"()]{1,127})\s*/\s*([^\s/;,\"()]{1,127})")
_MEANT = {"plain/text": "text/plain", "html/text": "text/html", "text/txt": "text/plain",
    "text/text": "text/plain", "text/htm": "text/html"}  # fmt: skip
_BARE_TYPE = re.compile(r"\s*\"?(text|html|plain|multipart)\"?\s*(?:;|\Z)", re.IGNORECASE)
_BARE_FILE = re.compile(r"\s*[\w-]{2,40}\s*;.*\bname\s*\*?(?:0\*?)?\s*=", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(
    rb"(?<![A-Za-z0-9_-])[0-9_-]*+([A-Za-z][A-Za-z0-9_-]{0,60}+)"
    rb"(?:\*(\d{1,4}))?(\*)?[ \t]*+=[ \t]*+"
)
"""A name begins where its letters begin, so that a long run of letters is read once."""

_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_NEXT = re.compile(rb"(?<![ \t,])[ \t,]++[A-Za-z][A-Za-z0-9-]*(?:\*\d+)?\*?[ \t]*=(?![?=])")
_COMMENT = re.compile(rb"(?:(?<![ \t])[ \t]++)?\([^()]*\)")
_LAST_COMMENT = re.compile(rb"(?<=\.[A-Za-z0-9]{3})[ \t]+\([^()]*\)\Z")
_EXTENDED = re.compile(rb"([A-Za-z0-9_.:+-]{0,40})'([A-Za-z0-9-]{0,20})'(.*)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_DRIVE = re.compile(rb"[A-Za-z]:\\|\\\\")
_PATH = re.compile(r"(?:[A-Za-z]:[\\/]|\\\\|/|~/|(?:\.\.?[/\\])+)")
_GARBLED = re.compile(r"[\ufffd]|\?{2,}")
_BREAKS = re.compile(rb"[\r\n]+")


def media_type(fields: Fields, default: str = "text/plain") -> str:
    """Return the media type in lower case.

    A multipart with a boundary leads if there are several fields. An invalid one is `text/plain`,
    as RFC 2045, section 5.2, requires.

    Args:
      fields: The fields of a part.
      default: The type if there is no field. Default: `text/plain`.
    """
    return _type(chosen_type(fields)) if fields.all("content-type") else default


def chosen_type(fields: Fields) -> bytes:
    """Return the value of the Content-Type field that counts."""
    found = [value[:MAX_FIELD_BYTES] for value in fields.all("content-type") if value.strip()]
    for value in found:
        if _type(value).startswith("multipart/") and b"boundary" in value.lower():
            return value
    return next((value for value in found if b"/" in value), found[0] if found else b"")


def _type(value: bytes) -> str:
    text = value[:2_000].decode("latin-1").replace("\r", " ").replace("\n", " ")
    text = re.sub(r"^(?:\s*\([^()]*\))+", "", text)
    if found := _TYPE.match(text):
        name = f"{found[1]}/{found[2]}".lower().encode("ascii", "replace").decode()
        return _MEANT.get(name, name)
    if bare := _BARE_TYPE.match(text):
        return "text/html" if bare[1].lower() == "html" else "text/plain"
    if _BARE_FILE.match(text):
        return "application/octet-stream"
    return "text/plain"


def disposition(fields: Fields) -> str:
    """Return `attachment`, `inline`, or an empty text."""
    found = re.match(r"[\s\"]*([A-Za-z-]{1,40})(?!\s*=)", fields.plain("content-disposition")[:200])
    return found[1].lower() if found else ""


def parameter(fields: Fields, value: bytes, name: str) -> str | None:
    """Return a parameter of a field's raw value; the extended form leads.

    Pieces are joined in the order of their numbers before they are decoded, because senders cut
    within characters.

    Args:
      fields: The fields of the part.
      value: The raw value of one of them.
      name: The parameter's name in lower case.
    """
    hints = fields.hints
    segments = [segment for other, segment in _segments(fields, value) if other == name]
    if not segments:
        return None
    continued = sorted(
        {each.number: each for each in reversed(segments) if each.number >= 0}.values(),
        key=lambda each: each.number,
    )
    whole = [each for each in segments if each.number < 0]
    extended = [each for each in whole if each.is_extended]
    for group in (extended[:1], continued, whole[:1]):
        text = _joined(group, hints) if group else None
        if text and not _GARBLED.search(text):
            return text
    return _joined(extended[:1] or continued or whole[:1], hints)


def _segments(fields: Fields, value: bytes) -> list[tuple[str, Segment]]:
    if value in fields.segments:
        return fields.segments[value]
    text = _in_one_line(value[:MAX_FIELD_BYTES])
    found = fields.segments[value] = []
    budget, position = fields.hints.budget, 0
    most = min(MAX_PARAMETERS, max(budget.steps // STEPS_OF_PARAMETER, MIN_PARAMETERS))
    while len(found) < most and (name := _NAME.search(text, position)) is not None:
        data, position = _value(text, name.end())
        number = int(name[2]) if name[2] else -1
        segment = Segment(number, name[3] is not None, data)
        found.append((name[1].decode("latin-1").lower(), segment))
    budget.steps -= len(found) * STEPS_OF_PARAMETER
    return found


def _in_one_line(value: bytes) -> bytes:
    first, *others = _BREAKS.split(value)
    if others:
        last = others.pop().lstrip(b" \t")
        lines = [first.rstrip(b" \t"), *(line.strip(b" \t") for line in others), last]
        first = b" ".join(lines)
    return first.replace(b"\t", b" ")


def _value(text: bytes, start: int) -> tuple[bytes, int]:
    """Return the value that starts here, and the position behind it."""
    if quoted := _QUOTED.match(text, start):
        inner = quoted[1]
        if not _DRIVE.match(inner) or b"\\\\" in inner[2:]:
            inner = re.sub(rb"\\(.)", rb"\1", inner, flags=re.DOTALL)
        # `filename="a" b.pdf` and the like: what follows the quotes belongs to no parameter.
        return inner, quoted.end()
    end = text.find(b";", start)
    end = len(text) if end < 0 else end
    data = text[start:end]
    if following := _NEXT.search(data):
        data, end = data[: following.start()], start + following.start()
    data = data.strip().lstrip(b'"').rstrip(b'"')
    if data.endswith(b")"):
        data = _LAST_COMMENT.sub(b"", data)
    return data.strip(), end


def _joined(segments: list[Segment], hints: Hints) -> str:
    first = segments[0]
    raw = first.value
    label: str | None = None
    is_encoded = any(each.is_extended for each in segments)
    found = _EXTENDED.fullmatch(raw)
    if found and (is_encoded or (_PERCENT.search(raw) and (found[1] or first.number >= 0))):
        label, raw, is_encoded = found[1].decode("latin-1"), found[3], True
    decoded = [
        _unquoted(data) if each.is_extended or (is_encoded and each is first) else data
        for each, data in zip(segments, [raw, *(each.value for each in segments[1:])], strict=True)
    ]
    data = b"".join(decoded)
    if b"=?" in data:
        return one_line(decode_words(data, hints))
    if not is_encoded and (unquoted := _url(data)) is not None:
        return one_line(unquoted)
    return one_line(decode(data, label, hints=hints).text)


def _url(data: bytes) -> str | None:
    """Return a name that a browser encoded as in a URL; None if it is not such a name."""
    if not re.search(rb"%[89A-Fa-f][0-9A-Fa-f]%[89AaBb][0-9A-Fa-f]", data):
        return None
    try:
        return _unquoted(data).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _unquoted(data: bytes) -> bytes:
    return _PERCENT.sub(lambda found: bytes((int(found[1], 16),)), data)


def charset(fields: Fields) -> str | None:
    """Return the declared charset of a part."""
    found = parameter(fields, chosen_type(fields), "charset")
    return found[:100] if found else None


def boundary(fields: Fields) -> bytes:
    """Return the boundary of a multipart; empty if it has none."""
    for name, segment in _segments(fields, chosen_type(fields)):
        if name == "boundary" and segment.number < 0 and not segment.is_extended:
            value = segment.value
            bare = chosen_type(fields)
            if b'"' + value not in bare:
                value = _COMMENT.sub(b"", value)
            return value.rstrip()
    found = parameter(fields, chosen_type(fields), "boundary") or ""
    return found.rstrip().encode("utf-8", "replace")


def filename(fields: Fields) -> str | None:
    """Return the sender's file name in one line.

    `filename*` leads, then `filename`, then the name in Content-Type if the others are garbled.
    Slashes are part of a name; the folders of a path are not.
    """
    value, kind = b";" + (fields.raw("content-disposition") or b""), chosen_type(fields)
    disposed = parameter(fields, value, "filename") or parameter(fields, value, "name")
    typed = parameter(fields, kind, "name") or parameter(fields, kind, "filename")
    name = disposed or typed
    if disposed and typed and _GARBLED.search(disposed) and not _GARBLED.search(typed):
        name = typed
    return safe_name(name) if name else None


def safe_name(name: str) -> str | None:
    """Return a file name in one line without the folders of a path; None if nothing is left."""
    name = one_line(name)
    if name.count('"') == 1 or (name[:1] == '"' == name[-1:]):
        name = name.strip("\"'")
    if len(name) > 2 and name[0] == name[-1] == "'":
        name = name[1:-1]
    if _PATH.match(name):
        name = re.split(r"[/\\]", name)[-1].strip()
    if len(name) <= MAX_NAME_CHARS:
        return name or None
    stem, dot, ending = name.rpartition(".")
    if dot and len(ending) <= 10 and stem:
        return f"{stem[: MAX_NAME_CHARS - len(ending) - 1]}.{ending}"
    return name[:MAX_NAME_CHARS]


def content_id(fields: Fields) -> str | None:
    """Return the id by which the HTML of the message refers to the part."""
    found = (fields.text("content-id") or "").strip("<> ")
    return found[:MAX_NAME_CHARS] or None
