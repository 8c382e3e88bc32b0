"""The rows of a message: the message, its source and its attachments."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from core import BlobWriter, Context, StoredItem, TaskOutput
from core.mail import Mail, MailReader, Part, Write, clean, split_reply
from integration_polling_gmail.account import Config
from integration_polling_gmail.api import strings
from integration_polling_gmail.attachments import MEGABYTE, Capture, Captured
from integration_polling_gmail.fingerprint import Fingerprint

SOURCE = "raw"
"""The end of the id of a source's row."""

MAX_SUBJECT_CHARS = 1_000

PEOPLE_FIELDS = (
    ("from", "from"),
    ("to", "to"),
    ("cc", "cc"),
    ("bcc", "bcc"),
    ("reply_to", "reply-to"),
)

MAX_LISTED_ATTACHMENTS = 100
"""The maximum number of attachments in the message's metadata; each has a row of its own."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Gmail's description of a message, without its source.

    A kept message has it in its row, so that its source can be read again without a call.

    Attributes:
      labels: The ids of the labels, sorted.
      thread_id: The id of the thread.
      snippet: The first words, as Gmail shows them.
      size: The estimated size in bytes.
      accepted: The time at which Google accepted the mail (`internalDate`).
    """

    labels: tuple[str, ...] = ()
    thread_id: str | None = None
    snippet: str = ""
    size: int | None = None
    accepted: datetime | None = None

    @classmethod
    def of_resource(cls, resource: Mapping[str, Any]) -> Self:
        """Return the envelope in Gmail's description of a message."""
        size = resource.get("sizeEstimate")
        return cls(
            tuple(sorted(set(strings(resource.get("labelIds"))))),
            _line(resource.get("threadId")),
            clean(html.unescape(_line(resource.get("snippet")) or "")),
            size if isinstance(size, int) else None,
            instant(resource.get("internalDate")),
        )

    @classmethod
    def of_row(cls, metadata: Mapping[str, Any], timestamp: datetime | None) -> Self:
        """Return the envelope in the kept row of a message.

        Args:
          metadata: The row's metadata.
          timestamp: The row's time.
        """
        is_googles = metadata.get("timestamp_source", "internalDate") == "internalDate"
        size, thread = metadata.get("size"), metadata.get("thread_id")
        return cls(
            tuple(sorted(set(strings(metadata.get("labels"))))),
            thread if isinstance(thread, str) else None,
            str(metadata.get("snippet") or ""),
            size if isinstance(size, int) else None,
            timestamp if is_googles else None,
        )


@dataclass(slots=True)
class Message:
    """A message that has been read.

    Attributes:
      id: The message's id.
      envelope: Gmail's description of it.
      source: The source; None if it is kept already.
      mail: The mail that the reader returned.
      attachments: All attachments, with or without their bytes.
    """

    id: str
    envelope: Envelope
    source: BlobWriter | None
    mail: Mail
    attachments: list[Captured]

    @property
    def has_no_source(self) -> bool:
        """True if Gmail gave no source, or only a line of it, as for chats."""
        mail = self.mail
        return not (mail.text or self.attachments or len(mail.fields.items) > 1)

    @property
    def labels(self) -> list[str]:
        """The ids of the labels, sorted."""
        return [*self.envelope.labels]

    @property
    def when(self) -> tuple[datetime | None, str | None]:
        """The time of the message, and its source: Google's own leads."""
        if self.envelope.accepted is not None:
            return self.envelope.accepted, "internalDate"
        return self.mail.date

    def outputs(self, fingerprint: Fingerprint) -> Iterator[TaskOutput]:
        """Yield the message, its source and its attachments."""
        when, subject = self.when[0], self.mail.subject
        yield TaskOutput(
            self.id, self.mail.text, kind="message",
            name=subject and subject[:MAX_SUBJECT_CHARS], timestamp=when, content_type="text/plain",
            metadata=self._metadata(), fingerprint=fingerprint.text,
        )  # fmt: skip
        if self.source is not None and self.source.blob.size:
            yield TaskOutput(
                f"{self.id}/{SOURCE}", self.source.blob, kind="source", parent=self.id,
                timestamp=when, content_type="message/rfc822",
            )  # fmt: skip
        for captured in self.attachments:
            yield captured.attachment.output(self.id, when, captured.blob)

    def _metadata(self) -> dict[str, JsonValue]:
        mail, envelope = self.mail, self.envelope
        found: dict[str, JsonValue] = {
            name: [{"name": each.name, "address": each.address} for each in mail.people(field)]
            for name, field in PEOPLE_FIELDS
        }
        sent, sent_source = mail.date
        found |= {
            "date": sent.isoformat() if sent else None,
            "date_source": sent_source,
            "timestamp_source": self.when[1],
            "labels": [*self.labels],
            "thread_id": envelope.thread_id,
            "snippet": envelope.snippet,
            "size": envelope.size,
            "headers": {name: [*values] for name, values in mail.headers().items()},
            "attachments": [
                captured.attachment.metadata()
                for captured in self.attachments[:MAX_LISTED_ATTACHMENTS]
            ],
        }
        reply = split_reply(mail.text)
        if reply.is_split:
            found |= {"new_text": reply.new, "signature": reply.signature}
        found["reading"] = mail.reading()
        return found | ({"truncated": True} if mail.cut else {})


def instant(milliseconds: object) -> datetime | None:
    """Return the time of Gmail's `internalDate`: when Google accepted the mail."""
    try:
        return datetime.fromtimestamp(int(str(milliseconds)) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _line(value: object) -> str | None:
    return value[:MAX_SUBJECT_CHARS] if isinstance(value, str) else None


class MessageReader:
    """Reads the source of a message as a stream, in bounded memory.

    Use it as a context manager, and call `message` after it.

    Args:
      ctx: The task's context; or the kept message, whose source is not kept again.
      config: The account's config.
      id: The message's id.
      keeps_source: False to keep no source. Default: True, unless it is kept already.
    """

    def __init__(
        self, ctx: Context | StoredItem, config: Config, id: str, *, keeps_source: bool = True
    ) -> None:
        self._ctx, self._id = ctx, id
        self._most = config.max_attachment_mb * MEGABYTE if config.attachments == "all" else 0
        self._reader = MailReader(self._opened, self._closed)
        self._source = None if isinstance(ctx, StoredItem) or not keeps_source else ctx.blob()
        self._attachments: list[Captured] = []
        self._captures: dict[str, Capture] = {}
        self._mail: Mail | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            if self._source is not None:
                exits.enter_context(self._source)
            exits.callback(self._abandon)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def write(self, data: bytes) -> None:
        """Take the next bytes of the source."""
        if self._source is not None:
            self._source.write(data)
        self._reader.feed(data)

    def finish(self) -> None:
        """End the source."""
        self._mail = self._reader.finish()

    def message(self, envelope: Envelope) -> Message:
        """Return the message. Call it after the context manager has ended."""
        if self._mail is None:
            raise RuntimeError("call finish first")
        return Message(self._id, envelope, self._source, self._mail, self._attachments)

    def _opened(self, part: Part) -> Write | None:
        # A forwarded mail and the files within it are open at the same time.
        self._captures[part.id] = Capture(self._ctx, part, self._most)
        return self._captures[part.id].write

    def _closed(self, part: Part) -> None:
        if (capture := self._captures.pop(part.id, None)) is not None:
            self._attachments.append(capture.finish())

    def _abandon(self) -> None:
        for capture in self._captures.values():
            capture.abandon()
