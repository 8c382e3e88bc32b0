"""The files and the text within TNEF, Outlook's `winmail.dat` (MS-OXTNEF).

Only the attributes that a person misses are read. Lengths are checked before anything is copied.
"""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass, field

from core.mail.charsets import decode
from core.mail.rtf import RtfText, decompress, text_of_rtf

SIGNATURE = b"\x78\x9f\x3e\x22"
MAX_ATTRIBUTES = 10_000
MAX_FILES = 500
MAX_DEPTH = 3
"""The maximum nesting of messages within TNEF."""

MAX_NESTED_BYTES = 2 * 1024 * 1024
"""The maximum size of a message within TNEF that is opened; a larger one stays a file."""

_BODY, _TITLE, _DATA, _RENDER = 0x800C, 0x8010, 0x800F, 0x9002
_MAPI, _ATTACHMENT, _CODEPAGE = 0x9003, 0x9005, 0x9007
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


def read_tnef(data: bytes, depth: int = 0) -> Tnef | None:
    """Return the parts; None if the bytes are not TNEF, or nothing in them can be read.

    Args:
      data: The bytes.
      depth: The number of messages around this one. Default: 0.
    """
    if not data.startswith(SIGNATURE):
        return None
    found, position = Tnef(), 6
    for _ in range(MAX_ATTRIBUTES):
        if position + 9 > len(data):
            break
        _, attribute, size = struct.unpack_from("<BII", data, position)
        position += 9
        value = data[position : position + size]
        if len(value) < size:
            break
        position += size + 2
        _attribute(found, attribute & 0xFFFF, value, depth)
    found.files = [each for each in found.files if each.data or each.name]
    is_empty = not (found.files or found.text or found.html or found.rtf or found.messages)
    return None if is_empty else found


def _attribute(found: Tnef, attribute: int, value: bytes, depth: int) -> None:
    if attribute == _CODEPAGE and len(value) >= 4:
        found.charset = f"cp{struct.unpack_from('<I', value)[0]}"
    elif attribute == _BODY:
        found.text = value.rstrip(b"\0")
    elif attribute == _RENDER and len(found.files) < MAX_FILES:
        found.files.append(TnefFile())
    elif attribute == _MAPI:
        for tag, data in _properties(value, found.charset):
            if tag == 0x1013:
                found.html = data
            elif tag == 0x1000 and not found.text:
                found.text = data.rstrip(b"\0")
            elif tag == 0x1009 and found.rtf is None and (rtf := decompress(data)):
                found.rtf = text_of_rtf(rtf)
    elif found.files:
        _of_file(found, found.files[-1], attribute, value, depth)


def _of_file(found: Tnef, file: TnefFile, attribute: int, value: bytes, depth: int) -> None:
    if attribute == _TITLE and not file.name:
        file.name = decode(value.rstrip(b"\0"), found.charset).text
    elif attribute == _DATA:
        file.data = value
    elif attribute == _ATTACHMENT:
        for tag, data in _properties(value, found.charset):
            # An embedded message: the id of an interface, and TNEF.
            is_small = len(data) <= MAX_NESTED_BYTES and depth < MAX_DEPTH
            if tag == 0x3701 and data[16:20] == SIGNATURE and is_small:
                if (message := read_tnef(data[16:], depth + 1)) is not None:
                    found.messages.append(message)
                    file.name, file.data = "", b""
            elif tag in (0x3707, 0x3001) and (tag == 0x3707 or not file.name):
                file.name = data.decode("utf-8", "replace").rstrip("\0") or file.name
            elif tag == 0x370E and data.isascii():
                file.content_type = data.decode().rstrip("\0").lower()[:200] or file.content_type
            elif tag == 0x3701 and not file.data:
                file.data = data


def _properties(value: bytes, charset: str) -> list[tuple[int, bytes]]:
    """Return the texts and binaries among MAPI properties.

    Texts come as UTF-8, except a body of 8-bit text, which stays in the stream's charset.
    """
    found: list[tuple[int, bytes]] = []
    try:
        (count,), position = struct.unpack_from("<I", value), 4
        for _ in range(min(count, 1_000)):
            kind, tag = struct.unpack_from("<HH", value, position)
            position += 4
            if tag >= 0x8000:
                position = _named(value, position)
            multiple, kind = kind & 0x1000, kind & 0xFFF
            values = 1
            if multiple or kind in (13, 30, 31, 258):
                (values,) = struct.unpack_from("<I", value, position)
                position += 4
            for _ in range(min(values, 10_000)):
                if kind in (13, 30, 31, 258):
                    (size,) = struct.unpack_from("<I", value, position)
                    data = value[position + 4 : position + 4 + size]
                    position += 4 + size + -size % 4
                    if kind == 31:
                        data = data.decode("utf-16-le", "replace").encode()
                        if tag in (0x1000, 0x1013):
                            data = codecs.BOM_UTF8 + data
                    elif kind == 30 and tag not in (0x1000, 0x1013):
                        data = decode(data, charset).text.encode()
                    found.append((tag, data))
                else:
                    position += _FIXED[kind]
    except (struct.error, KeyError):
        pass
    return found


def _named(value: bytes, position: int) -> int:
    (kind,) = struct.unpack_from("<I", value, position + 16)
    (size,) = struct.unpack_from("<I", value, position + 20)
    return position + 24 if kind == 0 else position + 24 + size + -size % 4
