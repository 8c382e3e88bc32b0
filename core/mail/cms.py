"""The text within opaque S/MIME: signed data, not encrypted (RFC 8551, section 3.5.2)."""

from __future__ import annotations

import zlib

from core.mail.budget import Budget

MAX_DEPTH = 30

_SIGNED = bytes.fromhex("2a864886f70d010702")
_COMPRESSED = bytes.fromhex("2a864886f70d0109100109")


def content_of(data: bytes, budget: Budget) -> bytes | None:
    """Return the mail within signed or compressed data.

    Returns:
      The mail, or None if the data is encrypted or broken, or exceeds the budget.
    """
    reader = _Reader(data, budget)
    try:
        return _find(reader, reader.element(0, len(data), 0), 0)
    except (ValueError, IndexError, zlib.error, RecursionError):
        return None


class _Reader:
    """Reads BER: tags, definite and indefinite lengths, and strings in pieces (X.690)."""

    def __init__(self, data: bytes, budget: Budget) -> None:
        self.data, self.budget = data, budget

    def element(self, start: int, end: int, depth: int) -> tuple[int, int, int, int]:
        """Return tag, start and end of the content, and the position after the element."""
        if depth > MAX_DEPTH or start + 2 > end or not self.budget.take(1):
            raise ValueError("no element")
        tag, length, position = self.data[start], self.data[start + 1], start + 2
        if length == 0x80:
            inner = position
            while self.data[inner : inner + 2] != b"\0\0":
                inner = self.element(inner, end, depth + 1)[3]
            return tag, position, inner, inner + 2
        if length > 0x80:
            count = length & 0x7F
            length = int.from_bytes(self.data[position : position + count], "big")
            position += count
        if position + length > end:
            raise ValueError("truncated")
        return tag, position, position + length, position + length

    def children(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Return tag, start and end of the elements within a constructed element."""
        found: list[tuple[int, int, int]] = []
        while start < end and len(found) < 10_000:
            tag, inner, inner_end, start = self.element(start, end, 0)
            found.append((tag, inner, inner_end))
        return found

    def octets(self, tag: int, start: int, end: int, depth: int = 0) -> bytes:
        """Return the bytes of an octet string, which may be in pieces."""
        if depth > MAX_DEPTH:
            raise ValueError("too deep")
        if not tag & 0x20:
            return self.data[start:end]
        return b"".join(self.octets(*child, depth + 1) for child in self.children(start, end))


def _find(reader: _Reader, whole: tuple[int, int, int, int], depth: int) -> bytes | None:
    kind, content = reader.children(whole[1], whole[2])[:2]
    oid = reader.data[kind[1] : kind[2]]
    if oid not in (_SIGNED, _COMPRESSED) or depth > MAX_DEPTH:
        return None
    inner = reader.children(reader.element(content[1], content[2], 0)[1], content[2])
    # encapContentInfo: a sequence that begins with an object identifier, and has [0] content.
    for tag, start, end in inner:
        parts = reader.children(start, end) if tag == 0x30 else []
        if len(parts) == 2 and parts[0][0] == 6 and parts[1][0] == 0xA0:
            string = reader.children(parts[1][1], parts[1][2])[0]
            data = reader.octets(*string)
            return _inflated(data, reader.budget) if oid == _COMPRESSED else data
    return None


def _inflated(data: bytes, budget: Budget) -> bytes:
    """Return the bytes of compressed data, if the budget has room for them."""
    room = len(data) + budget.inflated
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, room)
    if not inflater.eof and len(found) >= room:
        budget.is_spent = True
        raise ValueError("too large")
    budget.inflated -= max(len(found) - len(data), 0)
    return found
