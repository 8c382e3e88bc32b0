"""Read the content of items from its row or from the blob store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from core.db.rows import fetch
from core.errors import NotFound
from core.service.backend import Backend
from core.service.content import queries as content_queries
from core.service.pagination import Keyset, PagedQuery

BODY = (
    "SELECT content_text, content_bytes, blob_key FROM user_integration_content WHERE id = %(id)s"
)

# Computes the hash from the stored bytes. The `hash` of the row is not proof of them.
STORED = PagedQuery(
    """external_id, blob_key, CASE
        WHEN content_text IS NOT NULL THEN encode(sha256(convert_to(content_text, 'UTF8')), 'hex')
        WHEN content_bytes IS NOT NULL THEN encode(sha256(content_bytes), 'hex') END AS digest""",
    "user_integration_content",
    Keyset({"external_id": "text"}),
    filters=content_queries.content.filters,
    bounds=content_queries.content.bounds,
)


def describe(backend: Backend, id: int) -> dict[str, Any]:
    """Return the row of an item, without its content.

    Raises:
      NotFound: The item does not exist.
    """
    with backend.database.connection() as conn:
        return content_queries.content.one(conn, "content", id)


def read(backend: Backend, id: int) -> Iterator[bytes]:
    """Yield the content of an item in chunks.

    Raises:
      NotFound: The item or its blob does not exist.
    """
    with backend.database.connection() as conn:
        rows = fetch(conn, BODY, {"id": id})
    if not rows:
        raise NotFound("content-not-found", content=id)
    text, data, key = rows[0].values()
    if key is not None:
        yield from _blob(backend, key)
    elif text is not None:
        yield text.encode()
    elif data is not None:
        yield bytes(data)


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


def _blob(backend: Backend, key: str) -> Iterator[bytes]:
    try:
        for chunk in backend.blobs.stream(key):
            yield bytes(chunk)
    except FileNotFoundError:
        raise NotFound("blob-missing", blob=key) from None
