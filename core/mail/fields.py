"""The header fields of a message or part, split from raw bytes.

The rules are those of RFC 5322, sections 2.2 and 4.5 (blanks before a colon). Real mail also has
`>From ` lines, bare CR, CR CR LF, junk lines and a byte order mark, or lacks the blank line before
the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from core.mail.encoded_words import readable, unfolded

_LINE = re.compile(rb"[^\r\n]*(?:\r*\n|\r|\Z)")
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:")
_MBOX = re.compile(rb">?From [^:\r\n]*(?:\d\d?:\d\d|[\r\n])")
_KNOWN = re.compile(
    rb"(?:from|to|cc|bcc|subject|date|sender|reply-to|message-id|in-reply-to|references|received"
    rb"|return-path|mime-version|content-[a-z-]+|x-[!-9;-~]+|list-[a-z-]+|delivered-to"
    rb"|dkim-signature|authentication-results|arc-[a-z-]+|importance|user-agent|thread-[a-z]+"
    rb"|organization|errors-to|precedence|comments|keywords|resent-[a-z-]+)[ \t]*:",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Fields:
    """Header fields in their order.

    Attributes:
      items: Names in lower case, and raw values.
      hints: Charsets to try for raw bytes; the reader sets them. Default: none.
      repaired: The names of the repairs.
    """

    items: list[tuple[str, bytes]] = field(default_factory=list)
    hints: tuple[str | None, ...] = ()
    repaired: list[str] = field(default_factory=list)

    def raw(self, name: str) -> bytes | None:
        """Return the raw value of the first field with this name that is not blank."""
        found = self.all(name)
        return next((value for value in found if value.strip()), found[0] if found else None)

    def all(self, name: str) -> list[bytes]:
        """Return the raw values of all fields with this name."""
        return [value for other, value in self.items if other == name]

    def text(self, name: str) -> str | None:
        """Return a field as readable text in one line."""
        value = self.raw(name)
        return None if value is None else readable(value, self.hints)

    def plain(self, name: str) -> str:
        """Return a structured field in one line without decoding its words; empty if missing."""
        value = self.raw(name)
        return "" if value is None else unfolded(value).decode("latin-1").strip()

    def names(self) -> Iterator[str]:
        """Yield the names, each once."""
        yield from dict.fromkeys(name for name, _ in self.items)


def lines_of(block: bytes) -> list[bytes]:
    """Split at LF, CR LF, CR CR LF and bare CR."""
    return [line for line in _LINE.findall(block) if line]


def split_fields(block: bytes, *, is_first: bool = False) -> tuple[Fields, bytes]:
    """Split the lines before a blank line into fields and the start of the body.

    Args:
      block: The lines.
      is_first: True for the message's own header. Default: False.

    Returns:
      The fields, and the lines that do not belong to the header.
    """
    fields = Fields()
    if is_first and block.startswith(b"\xef\xbb\xbf"):
        block = block[3:]
    lines = lines_of(block)
    names: list[str] = []
    values: list[list[bytes]] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if line[:1] in b" \t" and values and (line.strip() or _continues(lines, index)):
            values[-1].append(line)
        elif (found := _FIELD.match(line)) is not None:
            names.append(found[1].decode("latin-1").lower())
            values.append([line[found.end() :]])
        elif _MBOX.match(line) and (not values or is_first):
            _note(fields, "mbox-line")
        elif _is_junk(lines, index):
            _note(fields, "junk-line")
        else:
            _note(fields, "missing-separator")
            break
        index += 1
    fields.items = [(name, b"".join(value)) for name, value in zip(names, values, strict=True)]
    rest = b"".join(lines[index:])
    return fields, rest.lstrip(b" \t\r\n") if rest[:1] in b" \t\r\n" else rest


def _continues(lines: list[bytes], index: int) -> bool:
    """Return True if the header continues after a line of blanks."""
    following = next((line for line in lines[index + 1 : index + 50] if line.strip()), None)
    return following is None or following[:1] in b" \t" or _KNOWN.match(following) is not None


def _is_junk(lines: list[bytes], index: int) -> bool:
    """Return True if known fields follow a line that is none."""
    return any(_KNOWN.match(line) for line in lines[index + 1 : index + 3])


def _note(fields: Fields, what: str) -> None:
    if what not in fields.repaired:
        fields.repaired.append(what)


def join(fields: Fields, names: Iterable[str]) -> bytes:
    """Return the raw values of several fields, separated by commas."""
    return b", ".join(unfolded(value) for name in names for value in fields.all(name))
