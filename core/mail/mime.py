"""A streaming MIME parser that works line by line.

It holds a line and the headers of one part, looks a line up in a dictionary, and has limits.
Boundaries follow RFC 2046, section 5.1. Parts are numbered as in Gmail: "0", "1", "1.0", and ""
for a message that is one part.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from core.mail.budget import LINES_OF_STEP, Budget
from core.mail.charsets import Hints
from core.mail.fields import MAX_LINES, Fields, split_fields
from core.mail.parameters import (
    boundary,
    charset,
    chosen_type,
    content_id,
    disposition,
    filename,
    media_type,
    parameter,
)  # fmt: skip
from core.mail.transfer import (
    BULK,
    Identity,
    TransferDecoder,
    decoder,
    encoding_of,
)

MAX_DEPTH = 50
"""The maximum nesting of multiparts. A deeper multipart is kept undivided, as one part."""

MAX_NESTED = 12
"""The maximum nesting of mails within mails."""

MAX_PARTS = 1_000
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_PART_HEADER_BYTES = 256 * 1024
MAX_LINE_BYTES = PIECE_BYTES = 64 * 1024
MAX_PREAMBLE_BYTES = 256 * 1024
MAX_CONTAINER_BYTES = 16 * 1024 * 1024
"""The maximum size of TNEF and S/MIME that is opened, with that within it."""

READ_TYPES = frozenset({"text/plain", "text/html", "text/enriched", "text/richtext",
    "text/markdown", "text/x-markdown", "text/calendar"})  # fmt: skip
MAIL_TYPES = ("message/rfc822", "message/global")
REPORT_TYPES = frozenset({"message/delivery-status", "message/global-delivery-status",
    "message/disposition-notification", "message/global-disposition-notification",
    "message/feedback-report", "message/global-headers", "text/rfc822-headers"})  # fmt: skip
"""Reports that mail programs show as text; they are files too."""

UNREAD_TEXTS = frozenset({"text/css", "text/csv", "text/directory", "text/javascript", "text/rtf",
    "text/vcard", "text/x-vcard", "text/xml", "text/x-amp-html", "text/watch-html"})  # fmt: skip
"""Texts that mail programs do not show. They show other ones as plain text (RFC 2046, 4.1.4)."""

UNSEEN_TYPES = frozenset({"text/x-amp-html", "text/watch-html"})
"""Alternatives for other programs and devices, which are neither text nor files."""

_DASHES = re.compile(rb"--[^\s-][^\s]{0,198}[ \t]*\r*\n?\Z|---+[^\s]{1,190}[ \t]*\r*\n?\Z")
_CONTENT = re.compile(rb"content-[a-z-]{1,60}[ \t]*:", re.IGNORECASE)
_MIME = re.compile(rb"(?:content-[a-z-]{1,60}|mime-version)[ \t]*:", re.IGNORECASE)
_ESSENTIAL = re.compile(
    rb"(?:content-[a-z-]+|message-id|references|in-reply-to|subject|from|date|mime-version)[ \t]*:",
    re.IGNORECASE,
)

Write = Callable[[bytes], object]


@dataclass(slots=True)
class Part:
    """A part without parts of its own.

    Attributes:
      id: The part's number, as Gmail counts.
      content_type: The media type.
      charset: The declared charset.
      filename: The file's name, or None.
      disposition: `attachment`, `inline` or empty.
      content_id: The id by which HTML refers to the part.
      choice: The id of the outermost `multipart/alternative` around the part. Parts with the same
        value are alternatives. Default: the part's own id.
      is_alternative: True within alternatives.
      flowed, delsp: The parameters of `format=flowed` text.
      message: The id of the forwarded mail that the part belongs to; empty for the mail itself.
      named_by_disposition: True if Content-Disposition has the name.
      size: The decoded size in bytes; complete when the part has ended.
      is_nested: True for a forwarded mail, and for the parts within a mail or container.
    """

    id: str
    content_type: str
    charset: str | None = None
    filename: str | None = None
    disposition: str = ""
    content_id: str | None = None
    choice: str = ""
    is_alternative: bool = False
    flowed: bool = False
    delsp: bool = False
    message: str = ""
    named_by_disposition: bool = False
    size: int = 0
    is_nested: bool = False

    @property
    def is_text(self) -> bool:
        """True if the part is text to read: mail programs show it, and not as an attachment."""
        if self.disposition == "attachment":
            return False
        if self.content_type in REPORT_TYPES or self.is_unknown_text:
            return True
        if self.content_type not in READ_TYPES:
            return False
        return self.is_alternative or not self.named_by_disposition or self.disposition == "inline"

    @property
    def is_unknown_text(self) -> bool:
        """True if the part is a text without a name, of a type that is shown as plain text."""
        kind = self.content_type
        is_known = kind in READ_TYPES or kind in UNREAD_TEXTS
        return kind.startswith("text/") and not is_known and self.filename is None

    @property
    def is_file(self) -> bool:
        """True if the part is a file; an invitation and a named text are both text and file."""
        is_read = self.content_type in READ_TYPES - {"text/calendar"}
        if not self.is_text or not is_read:
            return True
        return self.named_by_disposition and not self.is_alternative


def part_of(id: str, fields: Fields, choice: str | None, default: str, message: str) -> Part:
    """Return a part from its header fields."""
    described = [item for item in fields.items if item[0].startswith("content-")]
    fields = Fields(described, fields.hints)
    kind = chosen_type(fields)
    disposed = (fields.raw("content-disposition") or b"").lower()
    name = filename(fields)
    return Part(
        id, media_type(fields, default), charset(fields), name, disposition(fields),
        content_id(fields), id if choice is None else choice, choice is not None,
        (parameter(fields, kind, "format") or "").lower() == "flowed",
        (parameter(fields, kind, "delsp") or "").lower() == "yes", message,
        b"name" in disposed and name is not None,
    )  # fmt: skip


@dataclass(slots=True)
class _Multipart:
    """An open multipart.

    Attributes:
      outer: The choices of those around it with the same boundary.
      declared: The boundary that its header has, if its parts have another one.
      preamble: The text before its first part.
    """

    id: str
    delimiter: bytes
    choice: str | None
    is_digest: bool
    encoding: str = ""
    parts: int = 0
    outer: list[str | None] = field(default_factory=list)
    declared: bytes = b""
    preamble: bytearray = field(default_factory=bytearray)

    def child(self) -> str:
        self.parts += 1
        return f"{self.id}.{self.parts - 1}" if self.id else str(self.parts - 1)


@dataclass(slots=True)
class Shared:
    """The state that the parsers of a mail and of the mails within it share.

    Attributes:
      opened, closed, forwarded: The functions that take parts and forwarded mails.
      parts: The number of parts.
      cut, repaired: The names of cuts and of repairs.
      budget: The work that is left.
      room: The number of bytes that further containers may hold back.
    """

    opened: Callable[[Part], Write | None]
    closed: Callable[[Part], None]
    forwarded: Callable[[str, Fields], None]
    parts: int = 0
    cut: set[str] = field(default_factory=set)
    repaired: set[str] = field(default_factory=set)
    budget: Budget = field(default_factory=Budget)
    room: int = MAX_CONTAINER_BYTES


class MessageParser:
    """A parser with the methods `feed` and `finish`.

    Args:
      shared: The functions that take the parts.
      prefix: The id of the part that this mail is. Default: none.
      nested: The number of mails around this one. Default: 0.
      choice: The alternative around this mail. Default: none.
      message: The id of the forwarded mail. Default: the mail itself.

    Attributes:
      fields: The header fields of the message.
    """

    def __init__(self, shared: Shared, prefix: str = "", nested: int = 0,
        choice: str | None = None, message: str = "") -> None:  # fmt: skip
        self.fields = Fields()
        self._shared, self._nested = shared, nested
        self._choice, self._message = choice, message
        self._lines = _Lines()
        self._stack: list[_Multipart] = []
        self._depths: dict[bytes, int] = {}
        self._block: bytearray | None = bytearray()
        self._id, self._own = prefix, 0
        self._is_first = True
        self._header_lines = self._tested = 0
        self._body: Body | None = None
        self._preamble = bytearray()
        self._candidate: bytes | None = None
        self._has_content = self._is_over = False
        self._shown_preamble: Fields | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._is_over:
            return
        body, self._tested = self._body, 0
        if body is not None and body.takes_bulk:
            lines, data = self._lines.before(data, self._is_delimiter if self._depths else None)
            self._feed(body, lines)
        marked = self._lines.feed(data) if data else []
        # CPython reads the lines of a forwarded mail once, not once for each mail around it.
        steps = -(-(len(marked) + self._tested) // LINES_OF_STEP)
        if self._nested and not self._shared.budget.take(steps):
            self._shared.cut.add("depth")
            self._is_over = True
            return
        bulk: list[bytes] = []
        for line, is_start in marked:
            body = self._body
            if (
                body is not None
                and body.takes_bulk
                and not (is_start and line[:2] == b"--" and self._is_delimiter(line))
            ):
                bulk.append(line)
                continue
            if body is not None:
                self._feed(body, b"".join(bulk))
                bulk.clear()
            self._take(line, is_start)
        if self._body is not None:
            self._feed(self._body, b"".join(bulk))

    def _feed(self, body: Body, lines: bytes) -> None:
        """Give lines to a body; their end belongs to the boundary that may follow."""
        if lines:
            self._has_content = self._has_content or not lines.isspace()
            body.feed(lines)

    def _is_delimiter(self, line: bytes) -> bool:
        """Return True if a line is the boundary of an open multipart, or its end."""
        self._tested += 1
        line = line.rstrip()
        return line in self._depths or (line[-2:] == b"--" and line[:-2].rstrip() in self._depths)

    def finish(self) -> None:
        """End the message."""
        for line, is_start in self._lines.finish():
            self._take(line, is_start)
        self._end_headers()
        if self._candidate is not None:
            candidate, self._candidate = self._candidate, None
            self._write(candidate)
        self._end_body(strip=False)
        self._end_multiparts(0)
        is_empty = not self._has_content and _MIME.match(self._preamble.lstrip())
        if (not self._own or is_empty) and self._preamble.strip():
            self._read_preamble()

    def _read_preamble(self) -> None:
        """Read a multipart without parts: all of its text is before the first boundary."""
        self._shared.repaired.add("no-boundary")
        lines = bytes(self._preamble).splitlines(keepends=True)
        first = next(index for index, line in enumerate(lines) if line.strip())
        if _MIME.match(lines[first]):  # the part's own header
            self._stack.clear()
            self._depths.clear()
            self._block = bytearray()
            for line in lines[first:]:
                self._take(line, True)
            self._end_headers()
        else:
            self._begin_body(Fields(hints=Hints(budget=self._shared.budget)))
            self._write(bytes(self._preamble))
        self._end_body(strip=False)

    def _take(self, line: bytes, is_start: bool) -> None:
        if is_start and self._depths and line.startswith(b"--") and self._delimits(line.rstrip()):
            self._candidate = None
            return
        if self._candidate is not None:
            self._adopt(line)
        block = self._block
        if block is None:
            self._write(line, is_start)
        elif is_start and not line.strip(b"\r\n"):
            if block.strip() or not self._is_first:
                self._end_headers(line)
            elif not block:  # blank lines before a message's header do not end it
                block += line
        elif self._header_lines < MAX_LINES and len(block) + len(line) <= (
            MAX_HEADER_BYTES if self._is_first else MAX_PART_HEADER_BYTES
        ):
            self._header_lines += 1
            block += line
        elif len(block) < 2 * MAX_HEADER_BYTES and _ESSENTIAL.match(line):
            if not block.endswith(b"\n"):
                block += b"\n"
            block += line
        else:
            self._shared.cut.add("headers")

    def _write(self, line: bytes, is_start: bool = True) -> None:
        if self._body is not None:
            self._feed(self._body, line)
            return
        inner = self._stack[-1] if self._stack else None
        if inner is not None and not inner.parts:
            if inner.encoding and line.strip():
                self._decode_whole(inner, line)
                return
            if is_start and _DASHES.match(line):
                self._candidate = line
                return
        if inner is not None and not inner.parts and len(self._stack) > 1:
            if len(inner.preamble) < MAX_PREAMBLE_BYTES:
                inner.preamble += line
        elif not self._own and len(self._preamble) < MAX_PREAMBLE_BYTES:
            self._preamble += line

    def _decode_whole(self, inner: _Multipart, line: bytes) -> None:
        """Open a multipart that is encoded completely, against RFC 2045, section 6.4."""
        encoding, inner.encoding = inner.encoding, ""
        is_base64 = encoding == "base64" and re.fullmatch(rb"[A-Za-z0-9+/=]{4,}\s*", line)
        is_quoted = encoding == "quoted-printable" and line.startswith(b"=2D=2D")
        if not (is_base64 or is_quoted) or self._nested >= MAX_NESTED:
            self._write(line)
            return
        self._shared.repaired.add("encoded-multipart")
        self._stack.pop()
        del self._depths[inner.delimiter]
        child = MessageParser(self._shared, inner.id, self._nested + 1, inner.choice, self._message)
        child._enter(_Multipart(inner.id, inner.delimiter, inner.choice, inner.is_digest))
        self._own += 1
        self._body = Body(None, decoder(encoding), child.feed, child.finish)
        self._body.feed(line)

    def _enter(self, multipart: _Multipart) -> None:
        self._block, self._is_first = None, False
        self._depths[multipart.delimiter] = len(self._stack)
        self._stack.append(multipart)

    def _adopt(self, line: bytes) -> None:
        """Take a line as the boundary of a multipart whose own never came, if a header follows."""
        candidate, self._candidate = self._candidate or b"", None
        inner = self._stack[-1]
        if not _CONTENT.match(line):
            if not inner.parts and len(self._stack) > 1:
                inner.preamble += candidate
            elif not self._own:
                self._preamble += candidate
            return
        if candidate.rstrip() in self._depths:
            return
        inner.declared, inner.delimiter = inner.delimiter, candidate.rstrip()
        self._shared.repaired.add("other-boundary")
        self._depths[inner.delimiter] = len(self._stack) - 1
        if not self._own:
            # Parts without a header of their own came before.
            lines = bytes(self._preamble).splitlines(keepends=True)
            stripped = [each.rstrip() for each in lines]
            if inner.delimiter in stripped:
                self._preamble.clear()
                for each in lines[stripped.index(inner.delimiter) :]:
                    self._take(each, True)
        self._delimits(inner.delimiter)

    def _delimits(self, line: bytes) -> bool:
        """End the open parts at a boundary line; return False if the line is not a boundary."""
        depth, is_end = self._depths.get(line), False
        if depth is None and line.endswith(b"--"):
            depth, is_end = self._depths.get(line[:-2].rstrip()), True
        if depth is None:
            return False
        self._end_headers()
        self._end_body(strip=True)
        if self._shown_preamble is not None:
            self._show_preamble(self._shown_preamble)
        self._end_multiparts(depth + (not is_end or bool(self._stack[depth].outer)))
        if is_end and (outer := self._stack[depth].outer):
            self._stack[depth].choice = outer.pop()
            depth += 1  # the outer one with the same boundary stays open
        for inner in self._stack[depth if is_end else depth + 1 :]:
            self._depths.pop(inner.delimiter, None)
            self._depths.pop(inner.declared, None)
        del self._stack[depth if is_end else depth + 1 :]
        if not is_end:
            self._stack[-1].encoding = ""
            self._id, self._block, self._is_first = self._stack[-1].child(), bytearray(), False
        return True

    def _show_preamble(self, fields: Fields) -> None:
        """Read the text before the first part, of a mail whose first type is text."""
        self._shown_preamble = None
        if self._own or not self._preamble.strip():
            return
        self._shared.repaired.add("repeated-type")
        self._begin_body(fields)
        self._write(bytes(self._preamble))
        self._end_body(strip=True)

    def _end_multiparts(self, depth: int) -> None:
        """Read the text of multiparts within others that end without a part."""
        for inner in self._stack[max(depth, 1) :]:
            preamble, inner.preamble = bytes(inner.preamble), bytearray()
            if inner.parts or not preamble.strip() or self._shared.parts >= MAX_PARTS:
                continue
            self._shared.repaired.add("no-boundary")
            fields = Fields(hints=Hints(budget=self._shared.budget))
            if _MIME.match(preamble.lstrip()):  # the part's own header
                head, _, preamble = preamble.lstrip().replace(b"\r\n", b"\n").partition(b"\n\n")
                fields, _ = split_fields(head + b"\n", budget=self._shared.budget)
            self._id = inner.id
            self._begin_body(fields)
            self._write(preamble)
            self._end_body(strip=True)

    def _end_headers(self, blank: bytes = b"") -> None:
        if self._block is None:
            return
        block, self._block = bytes(self._block), None
        self._header_lines = 0
        is_first, self._is_first = self._is_first, False
        if self._shared.parts >= MAX_PARTS:
            self._shared.cut.add("parts")
            return
        fields, rest = split_fields(block, is_first=is_first, budget=self._shared.budget)
        self._shared.repaired.update(fields.repaired)
        if fields.is_cut:
            self._shared.cut.add("headers")
        if is_first:
            self.fields = fields
        if self._opens_multipart(fields := self._without_repeated(fields)):
            for line in (rest + blank).splitlines(keepends=True) if rest else ():
                self._take(line, True)
            return
        self._begin_body(fields)
        if rest:
            self._write(rest + blank)

    def _without_repeated(self, fields: Fields) -> Fields:
        """Leave out a multipart that is open already, if the part has another type as well."""
        kinds = [value for value in fields.all("content-type") if value.strip()]
        if not self._stack or len(kinds) < 2 or b"--" + boundary(fields) not in self._depths:
            return fields
        chosen = chosen_type(fields)
        others = [item for item in fields.items if item[1][: len(chosen)] != chosen]
        self._shared.repaired.add("repeated-type")
        return Fields(others, fields.hints, fields.repaired, fields.is_cut)

    def _opens_multipart(self, fields: Fields) -> bool:
        kind = media_type(fields)
        if not kind.startswith("multipart/") or len(self._stack) >= MAX_DEPTH:
            return False
        delimiter = b"--" + (boundary(fields) or b"\0none")
        choice = self._stack[-1].choice if self._stack else self._choice
        if choice is None and kind == "multipart/alternative":
            choice = self._id
        if delimiter in self._depths:
            return self._repeats(delimiter, choice)
        encoding = encoding_of(fields.plain("content-transfer-encoding"))
        self._enter(_Multipart(self._id, delimiter, choice, kind == "multipart/digest", encoding))
        if len(self._stack) == 1:
            self._shown_preamble = _without_multiparts(fields)
        return True

    def _repeats(self, delimiter: bytes, choice: str | None) -> bool:
        """Open a multipart with the boundary of the one around it; they share their parts."""
        around = self._stack[-1]
        if around.delimiter != delimiter or len(around.outer) >= MAX_DEPTH:
            return False
        around.outer.append(around.choice)
        around.choice = choice
        return True

    def _begin_body(self, fields: Fields) -> None:
        self._own += 1
        self._shared.parts += 1
        choice = self._stack[-1].choice if self._stack else self._choice
        digest = bool(self._stack) and self._stack[-1].is_digest
        default = "message/rfc822" if digest else "text/plain"
        part = part_of(self._id, fields, choice, default, self._message)
        part.is_nested = self._nested > 0 or part.content_type in MAIL_TYPES
        if part.is_file and self._message and part.id == self._message:
            part.id = f"{part.id}.0"  # the forwarded mail itself has the id
        encoding = encoding_of(fields.plain("content-transfer-encoding"))
        is_text = part.content_type.startswith("text/")
        if part.content_type.startswith("multipart/"):
            if len(self._stack) >= MAX_DEPTH:
                self._shared.cut.add("depth")
            else:  # a repeated boundary
                part.content_type = "text/plain"
        self._body = open_body(self._shared, part, decoder(encoding, is_text=is_text), self._nested)

    def _end_body(self, *, strip: bool) -> None:
        if (body := self._body) is not None:
            self._body = None
            body.finish(strip=strip)


def _without_multiparts(fields: Fields) -> Fields | None:
    """Return the fields with another type that stands before a multipart; None without one."""
    kinds = [value for value in fields.all("content-type") if b"/" in value]
    if not kinds or not kinds[0].lstrip().lower().startswith(b"text/"):
        return None
    others = [item for item in fields.items if item[0] != "content-type" or item[1] == kinds[0]]
    return Fields(others, fields.hints)


def open_body(shared: Shared, part: Part, decode: TransferDecoder, nested: int) -> Body:
    """Return the body of a part: a leaf, a forwarded mail, or a container that is opened."""
    from core.mail.containers import Container, Forwarded

    if part.content_type in UNSEEN_TYPES:
        return Body(None, Identity(), None, None)
    if part.content_type in MAIL_TYPES and nested < MAX_NESTED:
        mail = Forwarded(shared, part, nested)
        return Body(part, decode, mail.write, mail.finish)
    if Container.opens(part) and nested < MAX_NESTED:
        container = Container(shared, part, nested)
        return Body(part, decode, container.write, container.finish)
    write = shared.opened(part)
    return Body(part, decode, write, lambda: shared.closed(part))


class Body:
    """Decodes the bytes of one part.

    The end of the last line belongs to the following boundary, so the body keeps one line back.
    """

    def __init__(self, part: Part | None, decode: TransferDecoder, write: Write | None,
        closed: Callable[[], None] | None) -> None:  # fmt: skip
        self._part, self._decoder, self._sink, self._closed = part, decode, write, closed
        self._held = b""
        self.takes_bulk = isinstance(decode, BULK)

    def feed(self, line: bytes) -> None:
        """Take a line, or several if the decoder needs no lines."""
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
        if self._closed is not None:
            self._closed()

    def _emit(self, data: bytes) -> None:
        if self._part is not None:
            self._part.size += len(data)
        if data and self._sink is not None:
            self._sink(data)


class _Lines:
    """Splits bytes into lines with their line ends. A line over the limit comes in pieces.

    Mail with CR as line end is split there: the first line with LF, or the first 64 KiB, decide.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_start = True
        self._is_cr: bool | None = None

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Return the lines that are complete; True marks the start of a line."""
        if self._is_cr:
            return self._marked(self._split_cr(data))
        lines = data.split(b"\n")
        lines = [line + b"\n" for line in lines[:-1]] + lines[-1:]
        if not lines[-1]:
            lines.pop()
        if self._rest and lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        if (
            self._is_cr is None
            and lines
            and (lines[0].endswith(b"\n") or len(lines[0]) > MAX_LINE_BYTES)
        ):
            self._is_cr = re.search(rb"\r[!-9;-~]{1,60}[ \t]*:", lines[0]) is not None
            if self._is_cr:
                return self._marked(self._split_cr(b"".join(lines)))
        if lines and not lines[-1].endswith(b"\n") and len(lines[-1]) <= MAX_LINE_BYTES:
            self._rest += lines.pop()
        return self._marked(lines)

    def before(
        self, data: bytes, is_delimiter: Callable[[bytes], bool] | None
    ) -> tuple[bytes, bytes]:
        """Return the complete lines before the first delimiter, and the rest of the data.

        Without a delimiter, there is no rest, and an incomplete line waits for more data.

        Args:
          data: The next bytes.
          is_delimiter: Returns True for a delimiter among lines that begin with two dashes. None:
            no line is one.
        """
        if self._is_cr is not False:
            return b"", data
        whole = bytes(self._rest) + data
        self._rest.clear()
        is_dashes = self._is_start and whole[:2] == b"--"
        start = 0 if is_dashes else whole.find(b"\n--") + 1 or -1
        while is_delimiter and start >= 0 and (end := whole.find(b"\n", start)) >= 0:
            if is_delimiter(whole[start : end + 1]):
                self._is_start = True
                return whole[:start], whole[start:]
            start = whole.find(b"\n--", end) + 1 or -1
        end = whole.rfind(b"\n") + 1
        if len(whole) - end > MAX_LINE_BYTES:
            self._is_start = False
            return whole, b""
        self._rest += whole[end:]
        self._is_start = self._is_start if not end else True
        return whole[:end], b""

    def finish(self) -> list[tuple[bytes, bool]]:
        """Return the rest, if there is one."""
        rest = bytes(self._rest)
        self._rest.clear()
        if self._is_cr is None and b"\r" in rest:
            self._is_cr = True
        if self._is_cr and rest:
            return self._marked(re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", rest))
        return self._marked([rest]) if rest else []

    def _split_cr(self, data: bytes) -> list[bytes]:
        """Split at CR, CR LF and LF; keep an incomplete line."""
        whole = bytes(self._rest) + data
        self._rest.clear()
        end = max(whole.rfind(b"\r", 0, -1), whole.rfind(b"\n")) + 1
        lines = re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)", whole[:end])
        rest = whole[end:]
        if len(rest) > MAX_LINE_BYTES:
            lines.append(rest)
        else:
            self._rest += rest
        return [line[:-1] + b"\n" if line.endswith(b"\r") else line for line in lines]

    def _marked(self, lines: list[bytes]) -> list[tuple[bytes, bool]]:
        marked = []
        for line in lines:
            marked.append((line, self._is_start))
            self._is_start = line.endswith((b"\n", b"\r"))
        return marked
