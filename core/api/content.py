"""The content of one item, wherever it lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.api import listings
from core.api.backend import Backend
from core.errors import NotFound

BODY = (
    "SELECT content_text, content_bytes, blob_key FROM user_integration_content WHERE id = %(id)s"
)


def describe(backend: Backend, id: int) -> dict[str, Any]:
    """Everything about an item but its content.

    Raises:
      NotFound: There is no such item.
    """
    with backend.database.connection() as conn:
        return listings.content.one(conn, "content", id)


def read(backend: Backend, id: int) -> Iterator[bytes]:
    """An item's bytes, in portions.

    Raises:
      NotFound: There is no such item, or its blob is gone.
    """
    with backend.database.connection() as conn:
        rows = listings.fetch(conn, BODY, {"id": id})
    if not rows:
        raise NotFound("content-not-found", content=id)
    text, data, key = rows[0].values()
    if key is not None:
        yield from _blob(backend, key)
    elif text is not None:
        yield text.encode()
    elif data is not None:
        yield bytes(data)


def _blob(backend: Backend, key: str) -> Iterator[bytes]:
    try:
        for portion in backend.blobs.stream(key):
            yield bytes(portion)
    except FileNotFoundError:
        raise NotFound("blob-missing", blob=key) from None
