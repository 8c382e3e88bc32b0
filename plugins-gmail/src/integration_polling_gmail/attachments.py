"""Stream attachments, each into its own blob, as far as the account's config wants them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, JsonValue

from core import Blob, BlobWriter, Context, TaskOutput
from integration_polling_gmail.headers import content_id, disposition
from integration_polling_gmail.mime import Part, Write

MEGABYTE = 1024 * 1024

LARGE = 8 * MEGABYTE
"""Bytes from which on an attachment gets a task of its own, which asks Gmail for it alone."""


class Attachment(BaseModel):
    """What is known of an attachment without its bytes; also the payload of its task."""

    part_id: str
    filename: str | None = None
    content_type: str = "application/octet-stream"
    size: int = 0
    inline: bool = False
    content_id: str | None = None

    @classmethod
    def of(cls, part: Part) -> Attachment:
        return cls(
            part_id=part.id,
            filename=part.filename,
            content_type=part.content_type,
            size=part.size,
            inline=disposition(part.headers) == "inline" or content_id(part.headers) is not None,
            content_id=content_id(part.headers),
        )

    def external_id(self, message: str) -> str:
        """By message and part: Gmail's own attachment ids are others at every look."""
        return attachment_id(message, self.part_id)

    def metadata(self) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = self.model_dump(mode="json", exclude_none=True)
        return found

    def output(self, message: str, timestamp: datetime | None, content: Blob | None) -> TaskOutput:
        """Its row."""
        metadata = self.metadata() | {"has_content": content is not None}
        return TaskOutput(
            self.external_id(message), content, kind="attachment", parent=message,
            name=self.filename, timestamp=timestamp, content_type=self.content_type,
            metadata=metadata,
        )  # fmt: skip


def attachment_id(message: str, part: str) -> str:
    """A message that is one part, and that part an attachment, has no number for it."""
    return f"{message}/{part or 'root'}"


@dataclass(slots=True)
class Captured:
    """An attachment that has gone by; `is_large` where it was left for a task of its own."""

    attachment: Attachment
    blob: Blob | None = None
    is_large: bool = False


class Capture:
    """Takes one attachment's bytes, until they are more than are wanted here.

    Parameters:
      most: Bytes that are wanted at all; 0 for none.
    """

    def __init__(self, ctx: Context, part: Part, most: int) -> None:
        self._part, self._most = part, most
        self._writer: BlobWriter | None = None
        if most:
            self._writer = ctx.blob()
            self._writer.__enter__()

    @property
    def write(self) -> Write | None:
        return self._take if self._writer is not None else None

    def _take(self, data: bytes) -> None:
        if self._writer is not None:
            self._writer.write(data)
            if self._writer.tell() > min(self._most, LARGE):
                self.abandon()

    def abandon(self) -> None:
        """Let go of it; nothing of it is stored."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(Abandoned, Abandoned(), None)

    def finish(self) -> Captured:
        """The part has ended."""
        attachment = Attachment.of(self._part)
        writer, self._writer = self._writer, None
        if writer is None:
            return Captured(attachment, is_large=LARGE < attachment.size <= self._most)
        writer.__exit__(None, None, None)
        return Captured(attachment, writer.blob)


class Abandoned(Exception):
    """Tells a blob's writer that nothing comes of it."""
