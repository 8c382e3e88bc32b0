"""File names: bytes on the wire, text in the database.

Both conversions preserve the bytes.

Commands are latin-1, which maps each byte to one character. A name in UTF-8 is stored as text.
Other bytes, and line breaks, become `%XX`. A percent sign that looks like such an escape becomes
`%25`.
"""

from __future__ import annotations

import re

_MISTAKABLE = re.compile(r"%(?=[0-9A-F]{2})")
_UNDECODABLE = re.compile(r"[\udc80-\udcff]")
_ESCAPE = re.compile(r"%([0-9A-F]{2})")


def to_text(wire: str, encoding: str = "utf-8") -> str:
    """Return a name as it is stored, from its latin-1 form.

    Args:
      wire: The name's bytes, decoded as latin-1.
      encoding: The charset of the server's names. Bytes that are not a name in it become `%XX`.
    """
    raw, encoding = wire.encode("latin-1"), encoding or "utf-8"
    text = from_user(
        raw.decode(encoding if _converts(raw, encoding) else "ascii", "surrogateescape")
    )
    return text.replace("\n", "%0A")


def from_user(name: str) -> str:
    """Return a name as it is stored, from one that a person typed."""
    name = _MISTAKABLE.sub("%25", name)
    return _UNDECODABLE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)


def to_wire(text: str, encoding: str = "utf-8") -> str:
    """Return the latin-1 form of a stored name.

    Raises:
      UnicodeEncodeError: The charset does not have a character of the name.
    """
    return _ESCAPE.sub(_byte, text).encode(encoding or "utf-8", "surrogateescape").decode("latin-1")


def _converts(raw: bytes, encoding: str) -> bool:
    """Return True if a name converts to text and back. UTF-8 always does, with escapes."""
    if encoding.lower() in ("", "utf-8", "utf8"):
        return True
    try:
        return raw.decode(encoding).encode(encoding) == raw
    except UnicodeError:
        return False


def is_safe(wire: str, *, newlines: bool = False) -> bool:
    """Return True if a name has no path separator, line break or NUL, and is not `.` or `..`.

    Args:
      wire: The name's bytes, decoded as latin-1.
      newlines: True if the server takes names with a LF; see `Control.takes_newlines`. Default:
        False.
    """
    unsafe = "/\r\0" if newlines else "/\r\n\0"
    return wire not in ("", ".", "..") and not any(character in wire for character in unsafe)


def join(directory: str, name: str) -> str:
    """Return the path of a name in a directory."""
    return f"{directory.rstrip('/')}/{name}"


def base_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def _byte(match: re.Match[str]) -> str:
    value = int(match[1], 16)
    return chr(value) if value < 0x80 else chr(0xDC00 + value)
