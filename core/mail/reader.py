"""The reader: from bytes to headers, text, people, files and defects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.mail.bodies import MAX_TEXT_BYTES, MAX_TOTAL_BYTES, TextPart, readable_text
from core.mail.charsets import Hints
from core.mail.dates import date_of
from core.mail.encoded_words import readable
from core.mail.fields import Fields
from core.mail.inline_files import take_files
from core.mail.mime import PIECE_BYTES, MessageParser, Part, Shared, Write
from core.mail.parameters import safe_name
from core.mail.people import Person, people

READER_VERSION = 5
"""The version of the reader. It grows with each change that reads some mail differently."""

MAX_KEPT_CHARS = 32 * 1024
"""The maximum length of all headers in `Mail.headers`."""

MIN_ROOM_CHARS = 100
MAX_REFUSED = 100
"""The number of fields without room after which no others are tried."""


ESSENTIAL = ("message-id", "in-reply-to", "references", "list-id", "list-unsubscribe", "subject")
PEOPLE = ("from", "to", "cc", "bcc", "reply-to")
MAX_PART_READINGS = 20


@dataclass(slots=True)
class Mail:
    """A mail that has been read.

    Attributes:
      fields: The header fields.
      parts: The files, in order.
      texts: The text parts, in order.
      text: The readable text.
      forwarded: The header fields of forwarded mails by part.
      cut: What was cut: `headers`, `parts`, `depth`, `text`, `container`, or a people field.
      repaired: What was repaired.
    """

    fields: Fields
    parts: list[Part]
    texts: list[TextPart]
    text: str
    forwarded: dict[str, Fields]
    cut: set[str]
    repaired: set[str]

    @property
    def subject(self) -> str | None:
        """The subject in one line."""
        return self.fields.text("subject")

    @property
    def date(self) -> tuple[datetime | None, str | None]:
        """The sender's date, and the header that has it: `date` or `received`."""
        return date_of(self.fields)

    def people(self, name: str) -> list[Person]:
        """Return the people of an address field, such as `to`."""
        found, is_cut = people(self.fields, name)
        if is_cut:
            self.cut.add(name)
        return found

    def headers(self) -> dict[str, list[str]]:
        """Return the fields by lower-case name, up to a total length; essential ones first."""
        found: dict[str, list[str]] = {}
        room = MAX_KEPT_CHARS
        refused = 0
        fields: dict[str, list[bytes]] = {name: [] for name in ESSENTIAL}
        for name, raw in self.fields.items:
            fields.setdefault(name, []).append(raw)
        for name, values in fields.items():
            for raw in values:
                if len(raw) > 4 * MAX_KEPT_CHARS and name in PEOPLE:
                    continue  # `people` has them
                if room < MIN_ROOM_CHARS or refused > MAX_REFUSED:
                    self.cut.add("headers")
                    break
                words = readable(raw, self.fields.hints)
                if room - len(name) - len(words) - 8 < 0:
                    refused += 1
                    if name not in PEOPLE:
                        self.cut.add("headers")
                    continue
                room -= len(name) + len(words) + 8
                found.setdefault(name, []).append(words)
        return found

    def reading(self) -> dict[str, Any]:
        """Return how the mail was read, as JSON; call it after the other methods."""
        found: dict[str, Any] = {"version": READER_VERSION}
        charsets = [
            {"part": each.part.id, "declared": each.part.charset, "used": each.decoded.charset,
             "how": each.decoded.how}
            for each in self.texts if each.decoded is not None
        ]  # fmt: skip
        if charsets:
            found["charsets"] = charsets[:MAX_PART_READINGS]
        if replaced := sum(each.decoded.replaced for each in self.texts if each.decoded):
            found["replaced"] = replaced
        if self.cut:
            found["cut"] = sorted(self.cut)
        if self.repaired:
            found["repaired"] = sorted(self.repaired)
        return found


class MailReader:
    """Reads a mail as a stream, in bounded memory, without raising.

    Args:
      opened: Called with each file after its headers. Returns the function that takes its bytes,
        or None to ignore them. Default: ignore all.
      closed: Called with each file at its end. Default: nothing.
    """

    def __init__(self, opened: Callable[[Part], Write | None] = lambda _: None,
        closed: Callable[[Part], object] = lambda _: None) -> None:  # fmt: skip
        self._opened, self._closed = opened, closed
        self._texts: list[TextPart] = []
        self._open: dict[str, tuple[TextPart | None, bool]] = {}
        self._files: list[Part] = []
        self._forwarded: dict[str, Fields] = {}
        self._shared = Shared(self._part_opened, self._part_closed, self._was_forwarded)
        self._parser = MessageParser(self._shared)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._parser.feed(data)

    def finish(self) -> Mail:
        """End the mail, and return it."""
        self._parser.finish()
        fields = self._parser.fields
        labels = dict.fromkeys(each.part.charset for each in self._texts if each.part.charset)
        fields.hints = Hints(tuple(labels), self._shared.budget)
        for each in list(self._texts):
            if each.part.content_type == "text/plain" and b"begin " in each.data:
                self._take_files(each)
        text = self._text()
        if any(each.is_cut for each in self._texts):
            self._shared.cut.add("text")
        return Mail(fields, self._files, self._texts, text, self._forwarded,
            self._shared.cut, self._shared.repaired)  # fmt: skip

    def _take_files(self, text: TextPart) -> None:
        """Emit the uuencoded files of a plain text as files."""
        rest, files = take_files(bytes(text.data))
        if not files:
            return
        text.data = bytearray(rest)
        self._shared.repaired.add("uuencoded-file")
        for number, (name, data) in enumerate(files):
            part = Part(f"{text.part.id or 'root'}.uu{number}", "application/octet-stream",
                filename=safe_name(name), disposition="attachment", message=text.part.message,
                size=len(data), is_nested=True)  # fmt: skip
            self._files.append(part)
            if (write := self._opened(part)) is not None:
                write(data)
            self._closed(part)

    def _text(self) -> str:
        own = [each for each in self._texts if not each.part.message]
        found = [readable_text(own)]
        for id, fields in sorted(self._forwarded.items(), key=_in_order):
            inner = readable_text(each for each in self._texts if each.part.message == id)
            head = [f"{name.title()}: {words}" for name in ("from", "date", "subject", "to")
                    if (words := fields.text(name))]  # fmt: skip
            found.append("\n".join(["---------- Forwarded message ----------", *head, "", inner]))
        return "\n\n".join(filter(None, (each.strip() for each in found)))

    def _part_opened(self, part: Part) -> Write | None:
        text = None
        if part.is_text:
            room = MAX_TOTAL_BYTES - sum(len(each.data) for each in self._texts)
            text = TextPart(part, min(room, MAX_TEXT_BYTES), budget=self._shared.budget)
            self._texts.append(text)
            if not part.is_file:
                return text.write
        self._files.append(part)
        write = self._opened(part)
        if text is None:
            return write
        taken = text.write

        def both(data: bytes) -> None:
            taken(data)
            if write is not None:
                write(data)

        return both

    def _part_closed(self, part: Part) -> None:
        if part.is_file:
            self._closed(part)

    def _was_forwarded(self, id: str, fields: Fields) -> None:
        self._forwarded[id] = fields


def _in_order(forwarded: tuple[str, Fields]) -> list[int]:
    """Return the place of a forwarded mail among the parts."""
    return [int(step) if step.isdecimal() else -1 for step in forwarded[0].split(".")]


def _pieces(source: bytes) -> Iterator[bytes]:
    for start in range(0, len(source), PIECE_BYTES):
        yield source[start : start + PIECE_BYTES]


def read(source: bytes | Iterable[bytes], opened: Callable[[Part], Write | None] = lambda _: None,
    closed: Callable[[Part], object] = lambda _: None) -> Mail:  # fmt: skip
    """Read a mail.

    Args:
      source: The bytes of the mail, or an iterable of pieces.
      opened: As for `MailReader`.
      closed: As for `MailReader`.
    """
    reader = MailReader(opened, closed)
    for piece in _pieces(source) if isinstance(source, bytes) else source:
        reader.feed(piece)
    return reader.finish()
