"""The content of items, wherever it lies."""

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

# From the stored bytes themselves, and not from the hash that their row claims.
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
    """Everything about an item but its content.

    Raises:
      NotFound: There is no such item.
    """
    with backend.database.connection() as conn:
        return content_queries.content.one(conn, "content", id)


def read(backend: Backend, id: int) -> Iterator[bytes]:
    """An item's bytes, in portions.

    Raises:
      NotFound: There is no such item, or its blob is gone.
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
    """Compute the SHA-256 of what is stored of each item of a kind that is not deleted.

    Yields its external id and the hash in hexadecimal; None where nothing is stored, or its blob is
    gone.
    """
    with backend.database.connection() as conn:
        rows = STORED.pages(conn, user_integration_id=account, kind=kind, deleted=False)
        for row in rows:
            key = row["blob_key"]
            yield row["external_id"], row["digest"] if key is None else _blob_digest(backend, key)


def _blob_digest(backend: Backend, key: str) -> str | None:
    digest = hashlib.sha256()
    try:
        for portion in _blob(backend, key):
            digest.update(portion)
    except NotFound:
        return None
    return digest.hexdigest()


def _blob(backend: Backend, key: str) -> Iterator[bytes]:
    try:
        for portion in backend.blobs.stream(key):
            yield bytes(portion)
    except FileNotFoundError:
        raise NotFound("blob-missing", blob=key) from None
