"""A streaming MIME parser that works line by line.

The standard library's parser holds several copies of a message, tests every line against every open
boundary, and recurses with the nesting. This one holds a line and the headers of one part, looks a
line up in a dictionary, and has limits. The library still parses the headers, with `compat32`.

Boundaries follow RFC 2046, section 5.1. Parts are numbered as in Gmail: "0", "1", "1.0", and "" for
a message that is one part.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32

from integration_polling_gmail.headers import content_type, disposition, filename, parameter, raw
from integration_polling_gmail.transfer import TransferDecoder, decoder

MAX_DEPTH = 50
"""The maximum nesting of multiparts. A deeper multipart is kept undivided, as one part."""

MAX_PARTS = 1_000
MAX_HEADER_BYTES = 256 * 1024
MAX_LINE_BYTES = 64 * 1024
MAX_PREAMBLE_BYTES = 256 * 1024

_HEADERS = re.compile(rb"(?:(?:>?From |[!-9;-~]*:|[\t ])[^\n]*(?:\n|\Z))*")
"""Header lines as the library recognizes them."""

BLANK = (b"\n", b"\r\n")

Write = Callable[[bytes], object]


@dataclass(slots=True)
class Part:
    """A part without parts of its own.

    Attributes:
      id: The part's number, as Gmail counts.
      headers: The part's headers; the message's headers if it is one part.
      choice: The id of the outermost `multipart/alternative` around the part. Parts with the same
        value are alternatives. Default: the part's own id.
      size: The decoded size in bytes; complete when the part has ended.
    """

    id: str
    headers: Message
    choice: str
    size: int = 0

    @property
    def content_type(self) -> str:
        """The part's media type."""
        return content_type(self.headers)

    @property
    def filename(self) -> str | None:
        """The part's file name, or None."""
        return filename(self.headers)

    @property
    def is_text(self) -> bool:
        """True if the part is text to read, and not an attachment."""
        is_text = (
            self.content_type in ("text/plain", "text/html")
            and disposition(self.headers) != "attachment"
        )
        return is_text and self.filename is None


@dataclass(slots=True)
class _Multipart:
    """A multipart that has not ended.

    Attributes:
      choice: As in `Part`; None outside of alternatives.
    """

    id: str
    delimiter: bytes
    choice: str | None
    is_digest: bool
    parts: int = 0

    def child(self) -> str:
        """Return the id of the next part."""
        self.parts += 1
        return f"{self.id}.{self.parts - 1}" if self.id else str(self.parts - 1)


class MessageParser:
    """A parser with the methods `feed` and `finish`.

    Args:
      opened: Called with each part after its headers. Returns the function that takes the part's
        decoded bytes, or None to ignore them.
      closed: Called with each part at its end.

    Attributes:
      headers: The headers of the message.
      is_truncated: True if the message has more parts than the limit.
    """

    def __init__(
        self, opened: Callable[[Part], Write | None], closed: Callable[[Part], None]
    ) -> None:
        self.headers: Message = Message(compat32)
        self.is_truncated = False
        self._opened, self._closed = opened, closed
        self._lines = _Lines()
        self._stack: list[_Multipart] = []
        self._depths: dict[bytes, int] = {}
        self._block: bytearray | None = bytearray()
        self._id, self._parts = "", 0
        self._body: _Body | None = None
        self._preamble = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        for line, is_start in self._lines.feed(data):
            self._take(line, is_start)

    def finish(self) -> None:
        """End the message."""
        for line, is_start in self._lines.finish():
            self._take(line, is_start)
        self._end_headers()
        self._end_body(strip=False)
        if not self._parts and self._preamble:
            # A multipart without parts: all of its text is before the first boundary.
            self._begin_body(Message(compat32))
            self._write(bytes(self._preamble))
            self._end_body(strip=False)

    def _take(self, line: bytes, is_start: bool) -> None:
        if is_start and self._depths and line.startswith(b"--") and self._delimits(line.rstrip()):
            return
        if self._block is None:
            self._write(line)
        elif is_start and line in BLANK:
            self._end_headers(line)
        elif len(self._block) + len(line) <= MAX_HEADER_BYTES:
            self._block += line

    def _write(self, line: bytes) -> None:
        if self._body is not None:
            self._body.feed(line)
        elif not self._parts and len(self._preamble) < MAX_PREAMBLE_BYTES:
            self._preamble += line

    def _delimits(self, line: bytes) -> bool:
        """End the open parts at a boundary line; return False if the line is not a boundary."""
        depth, is_end = self._depths.get(line), False
        if depth is None and line.endswith(b"--"):
            depth, is_end = self._depths.get(line[:-2]), True
        if depth is None:
            return False
        self._end_headers()
        self._end_body(strip=True)
        self._close(depth if is_end else depth + 1)
        if not is_end:
            self._id, self._block = self._stack[-1].child(), bytearray()
        return True

    def _close(self, depth: int) -> None:
        for inner in self._stack[depth:]:
            del self._depths[inner.delimiter]
        del self._stack[depth:]

    def _end_headers(self, blank: bytes = b"") -> None:
        if self._block is None:
            return
        if self._parts >= MAX_PARTS:
            self._block, self.is_truncated = None, True
            return
        block, self._block = bytes(self._block), None
        # The first line that is not a header starts the body.
        end = found.end() if (found := _HEADERS.match(block)) else 0
        headers, rest = (
            BytesHeaderParser(policy=compat32).parsebytes(block[:end] + b"\n"),
            block[end:],
        )
        if self._stack and self._stack[-1].is_digest:
            headers.set_default_type("message/rfc822")
        if not self._stack and not self._parts:
            self.headers = headers
        if self._opens_multipart(headers):
            return
        self._begin_body(headers)
        if rest:
            self._write(rest + blank)

    def _opens_multipart(self, headers: Message) -> bool:
        kind = content_type(headers)
        boundary = (parameter(headers, "Content-Type", "boundary") or "").rstrip()
        if not kind.startswith("multipart/") or not boundary or len(self._stack) >= MAX_DEPTH:
            return False
        delimiter = b"--" + boundary.encode("utf-8", "replace")
        if delimiter in self._depths:
            return False
        choice = self._stack[-1].choice if self._stack else None
        if choice is None and kind == "multipart/alternative":
            choice = self._id
        self._depths[delimiter] = len(self._stack)
        self._stack.append(_Multipart(self._id, delimiter, choice, kind == "multipart/digest"))
        return True

    def _begin_body(self, headers: Message) -> None:
        self._parts += 1
        choice = self._stack[-1].choice if self._stack else None
        part = Part(self._id, headers, self._id if choice is None else choice)
        self._body = _Body(part, self._opened(part))

    def _end_body(self, *, strip: bool) -> None:
        if (body := self._body) is not None:
            self._body = None
            body.finish(strip=strip)
            self._closed(body.part)


class _Lines:
    """Splits bytes into lines with their line ends. A line over the limit comes in pieces."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_start = True

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Return the lines that are complete; True marks the start of a line."""
        lines = _split(data)
        if self._rest and lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        if lines and not lines[-1].endswith(b"\n") and len(lines[-1]) <= MAX_LINE_BYTES:
            self._rest += lines.pop()
        return self._marked(lines)

    def finish(self) -> list[tuple[bytes, bool]]:
        """Return the rest, if there is one."""
        rest = bytes(self._rest)
        self._rest.clear()
        return self._marked([rest]) if rest else []

    def _marked(self, lines: list[bytes]) -> list[tuple[bytes, bool]]:
        marked = []
        for line in lines:
            marked.append((line, self._is_start))
            self._is_start = line.endswith(b"\n")
        return marked


def _split(data: bytes) -> list[bytes]:
    """Split bytes at line feeds only, because a carriage return may be the last byte so far."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


class _Body:
    """Decodes the bytes of one part.

    The end of the last line belongs to the following boundary, so the decoder holds one line back.
    """

    def __init__(self, part: Part, write: Write | None) -> None:
        self.part = part
        self._decoder: TransferDecoder = decoder(
            raw(part.headers, "Content-Transfer-Encoding") or ""
        )
        self._sink = write
        self._held = b""

    def feed(self, line: bytes) -> None:
        """Take a line."""
        held, self._held = self._held, line
        if held:
            self._emit(self._decoder.feed(held))

    def finish(self, *, strip: bool) -> None:
        """End the part; `strip` removes the line end that belongs to the boundary."""
        last = self._held
        if strip:
            last = last.removesuffix(b"\n").removesuffix(b"\r")
        self._emit(self._decoder.feed(last))
        self._emit(self._decoder.finish())

    def _emit(self, data: bytes) -> None:
        self.part.size += len(data)
        if data and self._sink is not None:
            self._sink(data)
