"""Read the content of items from its row or from the blob store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.content.visible import visible
from core.db.rows import fetch
from core.errors import NotFound
from core.service.backend import Backend
from core.service.content import queries as content_queries
from core.service.pagination import Keyset, PagedQuery

BODY = f"""
SELECT content_text, content_bytes, blob_key, size, hash FROM user_integration_content
WHERE id = %(id)s AND {visible()}
"""

# Computes the hash from the stored bytes. The `hash` of the row is not proof of them.
STORED = PagedQuery(
    """external_id, blob_key, CASE
        WHEN content_text IS NOT NULL THEN encode(sha256(convert_to(content_text, 'UTF8')), 'hex')
        WHEN content_bytes IS NOT NULL THEN encode(sha256(content_bytes), 'hex') END AS digest""",
    "user_integration_content",
    Keyset({"external_id": "text"}),
    filters=content_queries.content.filters,
    bounds=content_queries.content.bounds,
    visible=visible(),
)


def describe(backend: Backend, id: int) -> dict[str, Any]:
    """Return the row of an item, without its content.

    Raises:
      NotFound: The item does not exist.
    """
    with backend.database.connection() as conn:
        return content_queries.item(conn, id)


@dataclass(frozen=True, slots=True)
class ItemBody:
    """The content of an item at one time.

    Attributes:
      size: The number of bytes.
      hash: The SHA-256 hash in hexadecimal; None without content.
    """

    backend: Backend
    size: int
    hash: str | None
    data: bytes
    blob: str | None

    def read(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` up to the one before `end` in chunks; by default all.

        Raises:
          NotFound: The blob does not exist.
        """
        if self.blob is not None:
            yield from _blob(self.backend, self.blob, start, end)
        elif part := self.data[start:end]:
            yield part


def find(backend: Backend, id: int) -> ItemBody:
    """Find the content of an item.

    Raises:
      NotFound: The item does not exist.
    """
    with backend.database.connection() as conn:
        rows = fetch(conn, BODY, {"id": id})
    if not rows:
        raise NotFound("content-not-found", content=id)
    text, data, blob, size, hash = rows[0].values()
    data = text.encode() if text is not None else bytes(data or b"")
    return ItemBody(backend, size if blob is not None else len(data), hash, data, blob)


def read(backend: Backend, id: int) -> Iterator[bytes]:
    """Yield the content of an item in chunks.

    Raises:
      NotFound: The item or its blob does not exist.
    """
    yield from find(backend, id).read()


def digests(backend: Backend, account: UUID, kind: str) -> Iterator[tuple[str, str | None]]:
    """Compute the SHA-256 of the stored content of all items of a kind that are not deleted.

    Yields the external id and the hash in hexadecimal. The hash is None if the item has no content
    or its blob does not exist.
    """
    with backend.database.connection() as conn:
        rows = STORED.pages(conn, user_integration_id=account, kind=kind, deleted=False)
        for row in rows:
            key = row["blob_key"]
            yield row["external_id"], row["digest"] if key is None else _blob_digest(backend, key)


def _blob_digest(backend: Backend, key: str) -> str | None:
    digest = hashlib.sha256()
    try:
        for chunk in _blob(backend, key):
            digest.update(chunk)
    except NotFound:
        return None
    return digest.hexdigest()


def _blob(backend: Backend, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    try:
        for chunk in backend.blobs.stream(key, start, end):
            yield bytes(chunk)
    except FileNotFoundError:
        raise NotFound("blob-missing", blob=key) from None
