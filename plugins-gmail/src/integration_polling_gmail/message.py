"""The rows of a message: the message, its source and its attachments."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from core import BlobWriter, Context, StoredItem, TaskOutput
from integration_polling_gmail import headers
from integration_polling_gmail.account import Config
from integration_polling_gmail.api import strings
from integration_polling_gmail.attachments import MEGABYTE, Capture, Captured
from integration_polling_gmail.charsets import clean
from integration_polling_gmail.fingerprint import Fingerprint
from integration_polling_gmail.mime import MessageParser, Part, Write
from integration_polling_gmail.text import MAX_TEXT_BYTES, MAX_TOTAL_BYTES, TextPart, readable_text

SOURCE = "raw"
"""The end of the id of a source's row."""

MAX_SUBJECT_CHARS = 1_000

MAX_LISTED_ATTACHMENTS = 100
"""The maximum number of attachments in the message's metadata; each has a row of its own."""


@dataclass(slots=True)
class Message:
    """A message that has been read.

    Attributes:
      id: The message's id.
      resource: Gmail's description of the message, without the source.
      source: The source; None if it is kept already.
      parser: The parser that has read the source.
      texts: The parts to read as text.
      attachments: All attachments, with or without their bytes.
    """

    id: str
    resource: dict[str, Any]
    source: BlobWriter | None
    parser: MessageParser
    texts: list[TextPart]
    attachments: list[Captured]

    @property
    def labels(self) -> list[str]:
        """The ids of the labels, sorted."""
        return sorted(set(strings(self.resource.get("labelIds"))))

    def outputs(self, fingerprint: Fingerprint) -> Iterator[TaskOutput]:
        """Yield the message, its source and its attachments."""
        when, fields = headers.instant(self.resource.get("internalDate")), self.parser.headers
        subject = headers.text(fields, "subject")
        yield TaskOutput(
            self.id, readable_text(self.texts), kind="message",
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
        fields, resource = self.parser.headers, self.resource
        found: dict[str, JsonValue] = {
            name: [{**person} for person in headers.addresses(fields, name.replace("_", "-"))]
            for name in ("from", "to", "cc", "bcc", "reply_to")
        }
        size = resource.get("sizeEstimate")
        found |= {
            "date": headers.date(fields),
            "labels": [*self.labels],
            "thread_id": _line(resource.get("threadId")),
            "snippet": clean(html.unescape(_line(resource.get("snippet")) or "")),
            "size": size if isinstance(size, int) else None,
            "headers": {name: [*values] for name, values in headers.kept(fields).items()},
            "attachments": [
                captured.attachment.metadata()
                for captured in self.attachments[:MAX_LISTED_ATTACHMENTS]
            ],
        }
        return found | ({"truncated": True} if self.parser.is_truncated else {})


def _line(value: object) -> str | None:
    return value[:MAX_SUBJECT_CHARS] if isinstance(value, str) else None


class MessageReader:
    """Parses the source of a message as a stream, in bounded memory.

    Use it as a context manager, and call `message` after it.

    Args:
      ctx: The task's context, or the kept message.
      config: The account's config.
      id: The message's id.
    """

    def __init__(self, ctx: Context | StoredItem, config: Config, id: str) -> None:
        self._ctx, self._id = ctx, id
        self._most = config.max_attachment_mb * MEGABYTE if config.attachments == "all" else 0
        self._parser = MessageParser(self._opened, self._closed)
        self._source = None if isinstance(ctx, StoredItem) else ctx.blob()
        self._texts: list[TextPart] = []
        self._attachments: list[Captured] = []
        self._capture: Capture | None = None
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
        """Take the next bytes of the source, and keep them."""
        if self._source is not None:
            self._source.write(data)
        self._parser.feed(data)

    def finish(self) -> None:
        """End the source."""
        self._parser.finish()

    def message(self, resource: dict[str, Any]) -> Message:
        """Return the message. Call it after the context manager has ended."""
        return Message(
            self._id, resource, self._source, self._parser, self._texts, self._attachments
        )

    def _opened(self, part: Part) -> Write | None:
        if part.is_text:
            room = MAX_TOTAL_BYTES - sum(len(each.data) for each in self._texts)
            self._texts.append(TextPart.of(part, min(room, MAX_TEXT_BYTES)))
            return self._texts[-1].write
        self._capture = Capture(self._ctx, part, self._most)
        return self._capture.write

    def _closed(self, part: Part) -> None:
        if self._capture is not None:
            capture, self._capture = self._capture, None
            self._attachments.append(capture.finish())

    def _abandon(self) -> None:
        if self._capture is not None:
            self._capture.abandon()
