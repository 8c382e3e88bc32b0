"""File names: bytes on the wire, text in the database.

Both conversions preserve the bytes.

ftplib speaks latin-1 here, which gives each byte one character. A name that is UTF-8 is kept as it
reads. Bytes that are not become `%XX`, and a percent sign that could be mistaken for such an escape
becomes `%25`.
"""

from __future__ import annotations

import re

_MISTAKABLE = re.compile(r"%(?=[0-9A-F]{2})")
_UNDECODABLE = re.compile(r"[\udc80-\udcff]")
_ESCAPE = re.compile(r"%([0-9A-F]{2})")


def to_text(wire: str) -> str:
    """A name as it is kept, from latin-1."""
    return from_user(wire.encode("latin-1").decode("utf-8", "surrogateescape"))


def from_user(name: str) -> str:
    """A name as it is kept, from what a person typed."""
    name = _MISTAKABLE.sub("%25", name)
    return _UNDECODABLE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)


def to_wire(text: str) -> str:
    """The bytes of a kept name, in latin-1."""
    return _ESCAPE.sub(_byte, text).encode("utf-8", "surrogateescape").decode("latin-1")


def is_safe(wire: str) -> bool:
    """Whether a name stays in its directory and on its line."""
    return wire not in ("", ".", "..") and not any(character in wire for character in "/\r\n\0")


def join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def base_name(path: str) -> str:
    return path.rpartition("/")[2]


def _byte(match: re.Match[str]) -> str:
    value = int(match[1], 16)
    return chr(value) if value < 0x80 else chr(0xDC00 + value)
