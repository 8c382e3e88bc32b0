"""The search for an attachment in a message as Gmail parsed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core import PermanentError
from integration_polling_gmail.api import dicts
from integration_polling_gmail.attachments import Attachment

MAX_PARTS = 10_000


def attachment_of(payload: Mapping[str, Any], wanted: Attachment) -> str:
    """Return Gmail's id of an attachment.

    The search prefers parts of the same size. It takes the part with the same number, or the only
    part with the same file name. Gmail may number the parts of a malformed message differently.

    Args:
      payload: The message's `payload`, from the format `full`.
      wanted: The description of the attachment.

    Raises:
      PermanentError: No part matches.
    """
    parts = [(part, id) for part in _parts(payload) if (id := _attachment_id(part)) is not None]
    same = [(part, id) for part, id in parts if part.get("partId", "") == wanted.part_id]
    named = [
        (part, id)
        for part, id in parts
        if wanted.filename and part.get("filename") == wanted.filename
    ]
    as_large = [
        [each for each in those if each[0]["body"].get("size") == wanted.size]
        for those in (same, named)
    ]
    for found in (*as_large, same, named):
        if len(found) == 1:
            return found[0][1]
    raise PermanentError(
        f"Gmail lists no attachment at part {wanted.part_id!r}; the message's source contains it"
    )


def _parts(payload: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting = [payload]
    for _ in range(MAX_PARTS):
        if not waiting:
            return
        part = waiting.pop()
        yield part
        waiting += dicts(part.get("parts"))


def _attachment_id(part: Mapping[str, Any]) -> str | None:
    body = part.get("body")
    id = body.get("attachmentId") if isinstance(body, dict) else None
    return id if isinstance(id, str) and id else None
