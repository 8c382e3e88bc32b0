"""Attachments: each is streamed into a blob, if the account's config asks for its content."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, JsonValue

from core import Blob, BlobWriter, Context, StoredItem, TaskOutput
from core.mail import Part, Write

MEGABYTE = 1024 * 1024


class Attachment(BaseModel):
    """The description of an attachment without its bytes; also the payload of its task.

    Attributes:
      part_id: The number of its part, as Gmail counts.
      filename: The name of the file.
      content_type: The media type. Default: `application/octet-stream`.
      size: The decoded size in bytes.
      inline: True if the message shows the attachment within its text.
      content_id: The id by which the message's HTML refers to it.
    """

    part_id: str
    filename: str | None = None
    content_type: str = "application/octet-stream"
    size: int = 0
    inline: bool = False
    content_id: str | None = None

    @classmethod
    def of(cls, part: Part) -> Attachment:
        """Return the description of a part."""
        return cls(
            part_id=part.id,
            filename=part.filename,
            content_type=part.content_type,
            size=part.size,
            inline=part.disposition == "inline" or part.content_id is not None,
            content_id=part.content_id,
        )

    def external_id(self, message: str) -> str:
        """Return the id of the attachment's row.

        It has the number of the part, because Gmail's own attachment id changes with each request.
        """
        return attachment_id(message, self.part_id)

    def metadata(self) -> dict[str, JsonValue]:
        """Return the fields that have a value, as JSON."""
        found: dict[str, JsonValue] = self.model_dump(mode="json", exclude_none=True)
        return found

    def output(self, message: str, timestamp: datetime | None, content: Blob | None) -> TaskOutput:
        """Return the attachment's row."""
        metadata = self.metadata() | {"has_content": content is not None}
        return TaskOutput(
            self.external_id(message), content, kind="attachment", parent=message,
            name=self.filename, timestamp=timestamp, content_type=self.content_type,
            metadata=metadata,
        )  # fmt: skip


def attachment_id(message: str, part: str) -> str:
    """Return the id of an attachment's row.

    If the message has only one part, the part has no number, and `root` replaces it.
    """
    return f"{message}/{part or 'root'}"


@dataclass(slots=True)
class Captured:
    """An attachment that has been read; without its bytes if they are not kept."""

    attachment: Attachment
    blob: Blob | None = None


class Capture:
    """Writes an attachment's bytes to a blob, unless they exceed a limit.

    Args:
      ctx: The task's context, or the kept message.
      part: The attachment's part.
      most: The maximum size in bytes; 0 to keep no content.
    """

    def __init__(self, ctx: Context | StoredItem, part: Part, most: int) -> None:
        self._part, self._most = part, most
        self._writer: BlobWriter | None = None
        if most:
            self._writer = ctx.blob()
            self._writer.__enter__()

    @property
    def write(self) -> Write | None:
        """The function that takes the bytes, or None if they are not kept."""
        return self._take if self._writer is not None else None

    def _take(self, data: bytes) -> None:
        if self._writer is not None:
            self._writer.write(data)
            if self._writer.tell() > self._most:
                self.abandon()

    def abandon(self) -> None:
        """Discard the bytes written so far."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(Abandoned, Abandoned(), None)

    def finish(self) -> Captured:
        """End the part, and return its attachment."""
        attachment = Attachment.of(self._part)
        writer, self._writer = self._writer, None
        if writer is None:
            return Captured(attachment)
        writer.__exit__(None, None, None)
        return Captured(attachment, writer.blob)


class Abandoned(Exception):
    """Tells a blob's writer to discard its bytes."""
