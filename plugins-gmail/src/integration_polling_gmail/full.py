"""Messages without a source, such as chats: a mail made from Gmail's `format=full`.

Source: https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.messages. The mail
goes through the same reader as all others. It is not kept as a source, because it is none.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core.mail import Base64Decoder
from integration_polling_gmail.api import dicts

MAX_DEPTH = 30
MAX_ATTACHMENTS = 20
"""The maximum number of attachments that are requested."""

MAX_ATTACHMENT_BYTES = 25 * 1024 * 1024

Fetch = Callable[[str, Callable[[bytes], object]], object]


def mail_of(payload: Mapping[str, Any], fetch: Fetch) -> Iterator[bytes]:
    """Yield a mail with the headers and bodies of a payload, in pieces.

    Args:
      payload: The message's `payload`.
      fetch: Takes the id of an attachment and a function, and writes the bytes to the function.
    """
    yield from _Writer(fetch).part(payload, 0)


class _Writer:
    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._fetched = self._boundaries = 0

    def part(self, payload: Mapping[str, Any], depth: int) -> Iterator[bytes]:
        """Yield the headers and the body of a part."""
        children = dicts(payload.get("parts")) if depth < MAX_DEPTH else []
        body = payload.get("body")
        data = b"" if children else self._data(body if isinstance(body, dict) else {})
        dropped = {"content-transfer-encoding", *(("content-type",) if children else ())}
        for header in dicts(payload.get("headers")):
            name, value = _line(header.get("name")), _line(header.get("value"))
            if name and name.lower() not in dropped:
                yield f"{name}: {value}\r\n".encode("utf-8", "replace")
        if children:
            yield from self._parts(payload, children, depth)
        else:
            yield b"Content-Transfer-Encoding: base64\r\n\r\n"
            yield base64.encodebytes(data)

    def _parts(
        self, payload: Mapping[str, Any], children: list[dict[str, Any]], depth: int
    ) -> Iterator[bytes]:
        self._boundaries += 1
        boundary = f"=_part_{self._boundaries}_="
        declared = _line(payload.get("mimeType")).lower()
        kind = declared if declared.startswith("multipart/") else "multipart/mixed"
        yield f'Content-Type: {kind}; boundary="{boundary}"\r\n\r\n'.encode("utf-8", "replace")
        for child in children:
            yield f"\r\n--{boundary}\r\n".encode()
            yield from self.part(child, depth + 1)
        yield f"\r\n--{boundary}--\r\n".encode()

    def _data(self, body: Mapping[str, Any]) -> bytes:
        found, id, size = bytearray(), body.get("attachmentId"), body.get("size")
        if isinstance(text := body.get("data"), str):
            decoder = Base64Decoder()
            found += decoder.feed(text.encode("ascii", "ignore"))
            found += decoder.finish()
        elif isinstance(id, str) and isinstance(size, int) and size <= MAX_ATTACHMENT_BYTES:
            self._fetched += 1
            if self._fetched <= MAX_ATTACHMENTS:
                self._fetch(id, found.extend)
        return bytes(found)


def _line(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
