"""From what a plugin returns to rows: checked, bounded, hashed, and fit for PostgreSQL."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from core.content.text import encode_json, fits, holds_unfit, mended, mended_json
from core.errors import ResultInvalid
from core.integration.results import Listing, TaskOutput

Row = dict[str, Any]

INLINE_BYTES = 1024 * 1024
"""Larger content goes to the blob store."""

LONGEST_ID = 2_048
"""Bytes of UTF-8; a longer one would not fit into the unique index."""


LONGEST_TEXT = 65_536
"""Characters of a name, a kind, a content type or a fingerprint."""

EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
"""The earliest and latest time that Python can read in any time zone.

PostgreSQL holds earlier and later ones, and a reader in Python would fail on the complete page.
"""


class BlobStore(Protocol):
    """Where large content goes."""

    def put(self, data: bytes) -> str:
        """Store it and return its key."""
        ...


def output_row(output: TaskOutput, blobs: BlobStore) -> Row:
    """One item as a row of the upsert.

    Raises:
      ResultInvalid: It cannot be kept, and why.
    """
    if not isinstance(output, TaskOutput):
        raise ResultInvalid(f"output holds a {type(output).__name__} where a TaskOutput belongs")
    row: Row = {
        "id": external_id(output.id),
        "code": output.code,
        "fingerprint": _string(output.fingerprint, "fingerprint"),
    }
    row["weight"] = 0
    if output.code == 410:
        return row
    row["metadata"], row["weight"] = _metadata(output)
    if output.code == 206:
        return row
    if output.code != 200:
        raise ResultInvalid(
            f"output {output.id[:80]!r} has the code {output.code!r}; use 200, 206 or 410"
        )
    row["kind"] = mended(_string(output.kind, "kind") or "item")
    row["parent"] = None if output.parent is None else external_id(output.parent)
    row["name"] = mended(_string(output.name, "name"))
    row["ts"] = timestamp(output.timestamp)
    row["type"] = mended(_string(output.content_type, "content_type"))
    row.update(_content(output.content, blobs))
    row["weight"] += len(row["text"] or "") + len(row["bytes"] or "")
    row["digest"] = _digest(row)
    return row


def amend(row: Row, update: Row) -> None:
    """An item, or a change of its metadata, and a later change in one result are one row."""
    row["metadata"] = row["metadata"] | update["metadata"]
    row["fingerprint"] = update["fingerprint"] or row["fingerprint"]
    if row["code"] == 200:
        row["digest"] = _digest(row)


def _digest(row: Row) -> str:
    """What tells a changed item from an unchanged one."""
    described = [
        row[key]
        for key in ("kind", "parent", "name", "ts", "type", "hash", "fingerprint", "metadata")
    ]
    return hashlib.blake2b(encode_json(described, "output").encode(), digest_size=16).hexdigest()


def external_id(value: object) -> str:
    """An item's id, as long as the index can hold it.

    Raises:
      ResultInvalid: It is no text, empty, too long, or has characters that PostgreSQL cannot hold.
    """
    if not isinstance(value, str) or not value:
        raise ResultInvalid("an output's id is no text")
    if not fits(value):
        raise ResultInvalid(f"the id {value[:80]!r} has a NUL or a lone surrogate")
    if len(value) > LONGEST_ID or len(value.encode()) > LONGEST_ID:
        raise ResultInvalid(f"the id {value[:80]!r}… is longer than {LONGEST_ID} bytes")
    return value


def listing_row(listing: Listing) -> Row:
    """One complete listing."""
    if not isinstance(listing, Listing):
        raise ResultInvalid(f"listed holds a {type(listing).__name__} where a Listing belongs")
    parent = None if listing.parent is None else external_id(listing.parent)
    return {"parent": parent, "since": timestamp(listing.since), "until": timestamp(listing.until)}


def seen_ids(ids: Iterable[str]) -> list[str]:
    """The ids a listing has seen, each once."""
    return list(dict.fromkeys(external_id(id) for id in ids))


def timestamp(value: datetime | None) -> str | None:
    """Format a time as ISO 8601 with a zone.

    A time beyond the calendar in another time zone, such as a forged date, moves to the calendar's
    edge.

    Raises:
      ResultInvalid: It has no time zone.
    """
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ResultInvalid(f"the timestamp {value!r} has no time zone")
    return min(max(value, EARLIEST), LATEST).isoformat()


def _string(value: object, what: str) -> str | None:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise ResultInvalid(f"an output's {what} is longer than {LONGEST_TEXT:,} characters")
    if value is None or isinstance(value, str):
        return value
    raise ResultInvalid(f"an output's {what} is a {type(value).__name__}, not text")


def _metadata(output: TaskOutput) -> tuple[Any, int]:
    """The metadata, and how many bytes it has."""
    if not output.metadata:
        return {}, 0
    encoded = encode_json(dict(output.metadata), f"metadata of {output.id[:80]!r}")
    if len(encoded) > INLINE_BYTES:
        raise ResultInvalid(
            f"metadata of {output.id[:80]!r} is larger than {INLINE_BYTES} bytes; keep it as"
            " content"
        )
    # A copy of our own: a generator may change what it has yielded.
    metadata = json.loads(encoded)
    return (mended_json(metadata) if holds_unfit(encoded) else metadata), len(encoded)


def _content(content: object, blobs: BlobStore) -> Row:
    """Text where it is text, bytes where it is not, a blob key where it is large."""
    row: Row = {"text": None, "bytes": None, "blob": None, "size": 0, "hash": None}
    if content is None:
        return row
    if isinstance(content, str):
        data = content.encode("utf-8", "surrogatepass")
    elif isinstance(content, bytes | bytearray | memoryview):
        data = bytes(content)
    else:
        return row | _blob(content)
    row.update(size=len(data), hash=hashlib.sha256(data).hexdigest())
    if len(data) > INLINE_BYTES:
        row["blob"] = blobs.put(data)
    elif isinstance(content, str) and fits(content):
        row["text"] = content
    else:
        row["bytes"] = base64.b64encode(data).decode()
    return row


def _blob(content: object) -> Row:
    key, data = getattr(content, "key", None), getattr(content, "data", None)
    if not (hasattr(content, "sha256") and hasattr(content, "size")) or (
        key is None and data is None
    ):
        raise ResultInvalid(
            f"content is a {type(content).__name__}; use text, bytes, or a blob of ctx.blob()"
        )
    inline = None if data is None else base64.b64encode(data).decode()
    return {"blob": key, "bytes": inline, "size": content.size, "hash": content.sha256}
