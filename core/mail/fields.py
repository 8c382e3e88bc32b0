"""The header fields of a message or part, split from raw bytes.

The rules are those of RFC 5322, sections 2.2 and 4.5 (blanks before a colon). Real mail also has
`>From ` lines, bare CR, CR CR LF, junk lines and a byte order mark, or lacks the blank line before
the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from core.mail.budget import Budget
from core.mail.charsets import Hints
from core.mail.encoded_words import readable, unfolded

MAX_LINES = 50_000
"""The maximum number of lines of a header."""

_LINE = re.compile(rb"[^\r\n]*(?:\r{0,4}\n|\r|\Z)")
_FIELD = re.compile(rb"(?!--)([!-9;-~]{1,200})[ \t]*:")  # a boundary may have a colon
_MBOX = re.compile(rb">?From [^:\r\n]*(?:\d\d?:\d\d|[\r\n])")
_KNOWN = re.compile(
    rb"(?:from|to|cc|bcc|subject|date|sender|reply-to|message-id|in-reply-to|references|received"
    rb"|return-path|mime-version|content-[a-z-]+|x-[!-9;-~]+|list-[a-z-]+|delivered-to"
    rb"|dkim-signature|authentication-results|arc-[a-z-]+|importance|user-agent|thread-[a-z]+"
    rb"|organization|errors-to|precedence|comments|keywords|resent-[a-z-]+)[ \t]*:",
    re.IGNORECASE,
)
_HEADER = re.compile(rb"^" + _KNOWN.pattern, re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Segment:
    """A parameter, or a piece of it with its number (RFC 2231); the number -1 stands for none."""

    number: int
    is_extended: bool
    value: bytes


@dataclass(slots=True)
class Fields:
    """Header fields in their order.

    Attributes:
      items: Names in lower case, and raw values.
      hints: Charsets to try for raw bytes, and the budget of the mail; the reader sets them.
      repaired: The names of the repairs.
      is_cut: True if the header has too many lines.
      segments: The parameters of values that were read, in pieces.
    """

    items: list[tuple[str, bytes]] = field(default_factory=list)
    hints: Hints = field(default_factory=Hints)
    repaired: list[str] = field(default_factory=list)
    is_cut: bool = False
    segments: dict[bytes, list[tuple[str, Segment]]] = field(default_factory=dict)

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
    """Split at LF, CR LF, CR CR LF and bare CR; there are up to `MAX_LINES` lines."""
    found = islice(_LINE.finditer(block), MAX_LINES)
    return [line[0] for line in found if line[0]]


def split_fields(  # noqa: C901  one state machine
    block: bytes, *, is_first: bool = False, budget: Budget | None = None
) -> tuple[Fields, bytes]:
    """Split the lines before a blank line into fields and the start of the body.

    Args:
      block: The lines.
      is_first: True for the message's own header. Default: False.
      budget: The budget of the mail. Default: one of its own.

    Returns:
      The fields, and the lines that do not belong to the header.
    """
    fields = Fields(hints=Hints(budget=budget or Budget()))
    if is_first and block.startswith(b"\xef\xbb\xbf"):
        block = block[3:]
    if is_first and block[:1] in b"\r\n" and not _HEADER.search(block):
        return fields, block  # an empty header
    block = block.lstrip(b"\r\n") if is_first else block
    lines = lines_of(block)
    names: list[str] = []
    values: list[list[bytes]] = []
    index, is_junk = 0, False
    while index < len(lines):
        line = lines[index]
        if line[:1] in b" \t" and values and (line.strip() or _continues(lines, index)):
            if not is_junk:
                values[-1].append(line)
        elif (found := _FIELD.match(line)) is not None:
            is_junk = False
            names.append(found[1].decode("latin-1").lower())
            values.append([line[found.end() :]])
        elif _is_boundary(line, names, values):
            _note(fields, "missing-separator")
            break
        elif _MBOX.match(line) and (not values or is_first):
            _note(fields, "mbox-line")
        elif _is_junk(lines, index):
            is_junk = True  # with the lines that continue it
            _note(fields, "junk-line")
        else:
            _note(fields, "missing-separator")
            break
        index += 1
    fields.items = [(name, b"".join(value)) for name, value in zip(names, values, strict=True)]
    rest = b"".join(lines[index:])
    if len(lines) == MAX_LINES:
        fields.is_cut = True
    return fields, rest.lstrip(b" \t\r\n") if rest[:1] in b" \t\r\n" else rest


def _continues(lines: list[bytes], index: int) -> bool:
    """Return True if the header continues after a line of blanks."""
    following = next((line for line in lines[index + 1 : index + 50] if line.strip()), None)
    return following is None or following[:1] in b" \t" or _KNOWN.match(following) is not None


def _is_boundary(line: bytes, names: list[str], values: list[list[bytes]]) -> bool:
    """Return True if a line is the boundary that the header itself has named."""
    mark = line[2:].strip()
    return (
        line[:2] == b"--"
        and bool(mark)
        and any(
            mark in piece[:2_000]
            for name, value in zip(names[-20:], values[-20:], strict=True)
            if name == "content-type"
            for piece in value[:20]
        )
    )


def _is_junk(lines: list[bytes], index: int) -> bool:
    """Return True if known fields follow a line that is none."""
    following = [line for line in lines[index + 1 : index + 12] if line[:1] not in b" \t"]
    return any(_KNOWN.match(line) for line in following[:2])


def _note(fields: Fields, what: str) -> None:
    if what not in fields.repaired:
        fields.repaired.append(what)


def join(fields: Fields, names: Iterable[str]) -> bytes:
    """Return the raw values of several fields, separated by commas."""
    return b", ".join(unfolded(value) for name in names for value in fields.all(name))
