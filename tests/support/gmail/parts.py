"""A message as Gmail parses it for `format=full`.

The module uses the standard library, so it is independent of the tested parser.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from typing import Any

AttachmentId = Callable[[str], str]


def payload(raw: bytes, attachment_id: AttachmentId, *, with_bodies: bool = True) -> dict[str, Any]:
    """Return the `payload` of a message resource.

    Args:
      raw: The message.
      attachment_id: Returns a new id for the attachment of a part.
      with_bodies: True to include the bodies of the parts.
    """
    return _part(message_from_bytes(raw, policy=compat32), "", attachment_id, with_bodies)


def body(raw: bytes, part_id: str) -> bytes:
    """Return the decoded bytes of a part."""
    message: Any = message_from_bytes(raw, policy=compat32)
    for number in part_id.split(".") if part_id else ():
        message = message.get_payload(int(number))
    return _decoded(message)


def _decoded(message: Message) -> bytes:
    if message.is_multipart():
        inner: Any = message.get_payload(0)
        return bytes(inner.as_bytes())
    data = message.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _part(
    message: Message, id: str, attachment_id: AttachmentId, with_bodies: bool
) -> dict[str, Any]:
    name = message.get_filename() or ""
    found: dict[str, Any] = {
        "partId": id,
        "mimeType": message.get_content_type(),
        "filename": name,
        "headers": [{"name": key, "value": str(value)} for key, value in message.items()],
    }
    if message.get_content_maintype() == "multipart" and message.is_multipart():
        children: Any = message.get_payload()
        found["body"] = {"size": 0}
        found["parts"] = [
            _part(child, f"{id}.{number}" if id else str(number), attachment_id, with_bodies)
            for number, child in enumerate(children)
        ]
        return found
    data = _decoded(message)
    found["body"] = {"size": len(data)}
    if name or message.get_content_maintype() != "text":
        found["body"]["attachmentId"] = attachment_id(id)
    elif with_bodies:
        found["body"]["data"] = base64.urlsafe_b64encode(data).decode()
    return found
