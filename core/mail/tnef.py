"""The files and the text within TNEF, Outlook's `winmail.dat` (MS-OXTNEF).

Only the attributes that a person misses are read. Lengths are checked before anything is copied.
"""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass, field

from core.mail.budget import Budget
from core.mail.charsets import Hints, decode
from core.mail.rtf import RtfText, decompress, text_of_rtf

SIGNATURE = b"\x78\x9f\x3e\x22"
MAX_ATTRIBUTES = 10_000
MAX_FILES = 500
MAX_DEPTH = 3
"""The maximum nesting of messages within TNEF."""

MAX_BODY_BYTES = 4 * 1024 * 1024
"""The maximum size of a body in UTF-16 that is decoded; the reader cuts texts before that."""

MAX_NESTED_BYTES = 2 * 1024 * 1024
"""The maximum size of a message within TNEF that is opened; a larger one stays a file."""

_BODY, _TITLE, _DATA, _RENDER = 0x800C, 0x8010, 0x800F, 0x9002
_MAPI, _ATTACHMENT, _CODEPAGE = 0x9003, 0x9005, 0x9007
_TEXT, _RTF, _HTML = 0x1000, 0x1009, 0x1013
_SHORT_NAME, _OBJECT, _LONG_NAME, _MIME_TYPE = 0x3001, 0x3701, 0x3707, 0x370E
_READ = frozenset({_TEXT, _RTF, _HTML, _SHORT_NAME, _OBJECT, _LONG_NAME, _MIME_TYPE})
_NARROW, _WIDE = 30, 31
_VARIABLE = (13, _NARROW, _WIDE, 258)
"""The kinds of properties with a length: objects, texts of 8 and 16 bits, binaries."""

_FIXED = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 10: 4, 11: 4, 20: 8, 64: 8, 72: 16}


@dataclass(slots=True)
class TnefFile:
    """A file within TNEF."""

    name: str = ""
    content_type: str = "application/octet-stream"
    data: bytes = b""


@dataclass(slots=True)
class Tnef:
    """The parts of a TNEF stream."""

    text: bytes = b""
    html: bytes = b""
    charset: str = "windows-1252"
    files: list[TnefFile] = field(default_factory=list)
    rtf: RtfText | None = None
    messages: list[Tnef] = field(default_factory=list)


def read_tnef(data: bytes, budget: Budget, depth: int = 0) -> Tnef | None:
    """Return the parts; None if the bytes are not TNEF, or nothing in them can be read.

    Args:
      data: The bytes.
      budget: The budget of the mail. Without steps, what follows is not read.
      depth: The number of messages around this one. Default: 0.
    """
    if not data.startswith(SIGNATURE):
        return None
    found, position = Tnef(), 6
    for _ in range(MAX_ATTRIBUTES):
        if position + 9 > len(data) or not budget.take(1):
            break
        _, attribute, size = struct.unpack_from("<BII", data, position)
        position += 9
        value = data[position : position + size]
        if len(value) < size:
            break
        position += size + 2
        _attribute(found, attribute & 0xFFFF, value, budget, depth)
    found.files = [each for each in found.files if each.data or each.name]
    is_empty = not (found.files or found.text or found.html or found.rtf or found.messages)
    return None if is_empty else found


def _attribute(found: Tnef, attribute: int, value: bytes, budget: Budget, depth: int) -> None:
    if attribute == _CODEPAGE and len(value) >= 4:
        found.charset = f"cp{struct.unpack_from('<I', value)[0]}"
    elif attribute == _BODY:
        found.text = value.rstrip(b"\0")
    elif attribute == _RENDER and len(found.files) < MAX_FILES:
        found.files.append(TnefFile())
    elif attribute == _MAPI:
        for tag, (kind, data) in _properties(value, budget).items():
            if tag == _HTML:
                found.html = _body(kind, data)
            elif tag == _TEXT and not found.text:
                found.text = _body(kind, data).rstrip(b"\0")
            elif tag == _RTF and found.rtf is None and (rtf := decompress(data, budget)):
                found.rtf = text_of_rtf(rtf, budget)
    elif found.files:
        _of_file(found, found.files[-1], attribute, value, budget, depth)


def _of_file(
    found: Tnef, file: TnefFile, attribute: int, value: bytes, budget: Budget, depth: int
) -> None:
    if attribute == _TITLE and not file.name:
        file.name = decode(value.rstrip(b"\0"), found.charset, hints=Hints(budget=budget)).text
    elif attribute == _DATA:
        file.data = value
    elif attribute == _ATTACHMENT:
        properties = _properties(value, budget)
        for tag in (_SHORT_NAME, _LONG_NAME):
            if tag in properties and (tag == _LONG_NAME or not file.name):
                file.name = _words(*properties[tag], found.charset, budget) or file.name
        if _MIME_TYPE in properties:
            kind = _words(*properties[_MIME_TYPE], found.charset, budget).lower()[:200]
            file.content_type = kind if kind and kind.isascii() else file.content_type
        _contents(found, file, properties.get(_OBJECT, (0, b""))[1], budget, depth)


def _contents(found: Tnef, file: TnefFile, data: bytes, budget: Budget, depth: int) -> None:
    """Take the bytes of a file, or a message within: the id of an interface, and TNEF."""
    is_small = len(data) <= MAX_NESTED_BYTES and depth < MAX_DEPTH
    is_message = data[16:20] == SIGNATURE and is_small
    message = read_tnef(data[16:], budget, depth + 1) if is_message else None
    if message is not None:
        found.messages.append(message)
        file.name, file.data = "", b""
    elif not file.data:
        file.data = data


def _properties(value: bytes, budget: Budget) -> dict[int, tuple[int, bytes]]:
    """Return kind and bytes of the MAPI properties that are read; of several values, the last."""
    found: dict[int, tuple[int, bytes]] = {}
    try:
        (count,), position = struct.unpack_from("<I", value), 4
        for _ in range(count):
            if not budget.take(1):
                break
            kind, tag = struct.unpack_from("<HH", value, position)
            position += 4
            if tag >= 0x8000:
                position = _named(value, position)
            multiple, kind = kind & 0x1000, kind & 0xFFF
            values = 1
            if multiple or kind in _VARIABLE:
                (values,) = struct.unpack_from("<I", value, position)
                position += 4
            if kind not in _VARIABLE:
                position += _FIXED[kind] * values
                continue
            for _ in range(values):
                if not budget.take(1):
                    break
                (size,) = struct.unpack_from("<I", value, position)
                if tag in _READ:
                    found[tag] = kind, value[position + 4 : position + 4 + size]
                position += 4 + size + -size % 4
    except (struct.error, KeyError):
        pass
    return found


def _body(kind: int, data: bytes) -> bytes:
    """Return a body as bytes. Text of 8 bits stays in the charset of the stream."""
    if kind == _WIDE:
        text = data[:MAX_BODY_BYTES].decode("utf-16-le", "replace")
        return codecs.BOM_UTF8 + text.encode("utf-8", "replace")
    return data


def _words(kind: int, data: bytes, charset: str, budget: Budget) -> str:
    """Return a text without the zero at its end."""
    if kind == _WIDE:
        return data.decode("utf-16-le", "replace").rstrip("\0")
    if kind == _NARROW:
        return decode(data, charset, hints=Hints(budget=budget)).text.rstrip("\0")
    return data.decode("utf-8", "replace").rstrip("\0")


def _named(value: bytes, position: int) -> int:
    (kind,) = struct.unpack_from("<I", value, position + 16)
    (size,) = struct.unpack_from("<I", value, position + 20)
    return position + 24 if kind == 0 else position + 24 + size + -size % 4
