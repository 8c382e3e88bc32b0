"""Compressed RTF (MS-OXRTFCP), and the text or HTML within it (MS-OXRTFEX).

Outlook writes the body of `winmail.dat` so. Sizes are bounded before anything is unpacked, and the
time is linear.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from core.mail.budget import UNPACKED_BYTES, Budget
from core.mail.charsets import codecs_of

MAX_RTF_BYTES = 2 * 1024 * 1024
"""The maximum size of RTF after decompression; what follows is cut off."""

MAX_DEPTH = 1_000

_PREFIX = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss "
    b"\\fmodern \\fscript \\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0"
    b"\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
_COMPRESSED, _STORED = 0x75465A4C, 0x414C454D

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,9})? ?|\\'([0-9A-Fa-f]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+"
    rb"|([^\\{}\r\n]+)|(.)",
    re.DOTALL,
)
_SKIPPED = frozenset({b"fonttbl", b"colortbl", b"stylesheet", b"info", b"pict", b"object",
    b"objdata", b"generator", b"listtable", b"listoverridetable", b"rsidtbl", b"themedata",
    b"datastore",
    b"header", b"footer", b"headerl", b"headerr", b"footerl", b"footerr", b"fldinst",
    b"xmlnstbl",
    b"mmathPr", b"latentstyles", b"bkmkstart", b"bkmkend", b"pntext"})  # fmt: skip
_CHARACTERS = {b"par": "\n", b"line": "\n", b"tab": "\t", b"sect": "\n", b"page": "\n",
    b"row": "\n",
    b"cell": "\t", b"emdash": "\u2014", b"endash": "\u2013", b"bullet": "\u2022",
    b"lquote": "\u2018", b"rquote": "\u2019", b"ldblquote": "\u201c", b"rdblquote": "\u201d",
    b"emspace": "\u2003", b"enspace": "\u2002"}  # fmt: skip
_SYMBOLS = {b"~": "\u00a0", b"_": "-", b"-": "", b"\\": "\\", b"{": "{", b"}": "}", b"\n": "\n",
    b"\r": "\n"}  # fmt: skip
_FONT_CHARSETS = {0: "cp1252", 128: "cp932", 129: "cp949", 134: "gb18030", 136: "cp950",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257",
    204: "cp1251", 222: "cp874", 238: "cp1250"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RtfText:
    """The text of RTF.

    Attributes:
      text: Plain text, or HTML.
      is_html: True if the RTF encapsulates HTML.
      is_cut: True if the RTF was longer than the bound.
    """

    text: str
    is_html: bool = False
    is_cut: bool = False


def decompress(data: bytes, budget: Budget) -> bytes | None:
    """Return the RTF of a compressed stream, up to a maximum size; None if it is not one."""
    if len(data) < 16:
        return None
    size, raw_size, magic, _ = struct.unpack_from("<IIII", data)
    body = data[16 : min(len(data), size + 4)]
    limit = min(raw_size, MAX_RTF_BYTES)
    if magic == _STORED:
        return body[:limit]
    if magic != _COMPRESSED:
        return None
    found = _unpacked(body, min(limit, max(budget.steps, 0) * UNPACKED_BYTES))
    budget.steps -= len(found) // UNPACKED_BYTES
    return found


def _unpacked(body: bytes, limit: int) -> bytes:
    """Unpack: a bit of each control byte tells a byte from a reference into the last 4 KiB."""
    # The dictionary of the format is a ring of 4,096 bytes that begins with the prefix.
    ring = bytearray(_PREFIX).ljust(4_096, b"\0")
    write, position, found = len(_PREFIX), 0, bytearray()
    while position < len(body) and len(found) < limit:
        control, position = body[position], position + 1
        for bit in range(8):
            if not control >> bit & 1:
                piece = body[position : position + 1]
                position += 1
                if not piece:
                    return bytes(found[:limit])
                ring[write] = piece[0]
                write = (write + 1) % 4_096
                found += piece
                continue
            token = int.from_bytes(body[position : position + 2], "big")
            offset, length = token >> 4, (token & 15) + 2
            position += 2
            if offset == write or position > len(body):
                return bytes(found[:limit])
            for step in range(length):
                value = ring[(offset + step) % 4_096]
                ring[write] = value
                write = (write + 1) % 4_096
                found.append(value)
    return bytes(found[:limit])


@dataclass(slots=True)
class _Group:
    """The state of a group: what is skipped, and how characters are read."""

    is_hidden: bool = False
    is_html: bool = False
    is_mark: bool = False
    codec: str = "cp1252"
    skip: int = 1


def text_of_rtf(data: bytes, budget: Budget) -> RtfText:
    """Return the HTML that the RTF encapsulates, or else its text."""
    is_html = b"\\fromhtml" in data[:4_096]
    return _Reader(data, is_html=is_html).read(budget)


class _Reader:
    def __init__(self, data: bytes, *, is_html: bool) -> None:
        self._data, self._is_html = data, is_html
        self._group = _Group()
        self._stack: list[_Group] = []
        self._found: list[str] = []
        self._bytes = bytearray()
        self._fonts: dict[int, str] = {}
        self._font = self._pending = 0
        self._in_fonts = self._pages = 0

    def read(self, budget: Budget) -> RtfText:
        """Read all tokens, as far as the budget goes."""
        is_cut = False
        for token in _TOKEN.finditer(self._data):
            if not budget.take(1):
                is_cut = True
                break
            self._take(token)
        self._flush()
        return RtfText(_joined("".join(self._found)), self._is_html, is_cut)

    def _take(self, token: re.Match[bytes]) -> None:
        if token[5]:
            self._brace(token[5])
        elif token[1]:
            self._word(token[1], int(token[2]) if token[2] else None)
        elif token[3]:
            self._raw(bytes((int(token[3], 16),)))
        elif token[4]:
            if token[4] == b"*":
                self._group.is_mark = True
            elif token[4] in _SYMBOLS:
                self._text(_SYMBOLS[token[4]])
        elif token[6]:
            self._raw(token[6])

    def _brace(self, brace: bytes) -> None:
        self._flush()
        old = self._group
        if brace == b"{" and len(self._stack) < MAX_DEPTH:
            self._stack.append(old)
            self._group = _Group(old.is_hidden, old.is_html, False, old.codec, old.skip)
        elif brace == b"}" and self._stack:
            self._group = self._stack.pop()
        if len(self._stack) < self._in_fonts:
            self._in_fonts = 0

    def _word(self, name: bytes, value: int | None) -> None:
        group = self._group
        if group.is_mark:  # the first word of a group that older readers skip
            group.is_mark = False
            if name == b"htmltag" and self._is_html:
                group.is_hidden, group.is_html = False, True
                return
            group.is_hidden = True
        if name == b"fonttbl":
            self._in_fonts = len(self._stack)
        if name in _SKIPPED:
            group.is_hidden = True
        elif name == b"htmlrtf":
            self._flush()
            group.is_hidden = value != 0
        elif name in (b"f", b"fcharset", b"ansicpg"):
            self._charset(name, value or 0)
        elif name == b"uc":
            group.skip = min(max(value or 0, 0), 10)
        elif name == b"u":
            self._text(_character(value or 0))
            self._pending = group.skip
        elif name in _CHARACTERS and not (group.is_html and name == b"par"):
            self._text(_CHARACTERS[name] if not self._is_html or name != b"par" else "\n")

    def _charset(self, name: bytes, value: int) -> None:
        self._flush()
        if name == b"f":
            self._font = value
            self._group.codec = self._fonts.get(value, self._group.codec)
        elif name == b"fcharset" and self._in_fonts and len(self._fonts) < 1_000:
            self._fonts[self._font] = _FONT_CHARSETS.get(value, self._group.codec)
        elif name == b"ansicpg" and not self._pages:  # the document has one
            self._pages += 1
            self._group.codec = next(iter(codecs_of(f"cp{value}")), self._group.codec)

    def _raw(self, data: bytes) -> None:
        if self._group.is_hidden:
            return
        if self._pending:  # the form of a Unicode character for older readers
            skipped = min(self._pending, len(data))
            data, self._pending = data[skipped:], self._pending - skipped
        self._bytes += data

    def _text(self, text: str) -> None:
        if not self._group.is_hidden:
            self._flush()
            self._found.append(text)

    def _flush(self) -> None:
        if self._bytes:
            self._found.append(self._bytes.decode(self._group.codec, "replace"))
            self._bytes.clear()
            self._pending = 0


def _character(value: int) -> str:
    """Return the character of the word `u`: a signed number of 16 bits, of UTF-16."""
    return chr(value & 0xFFFF)


def _joined(text: str) -> str:
    """Return text in which pairs of surrogates are characters, and lone ones are replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
