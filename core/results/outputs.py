"""Convert the outputs of a plugin to rows: validated, bounded, hashed, and storable."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from core.errors import ResultInvalid
from core.integration.results import MAX_ID_BYTES, MAX_INLINE_BYTES, Listing, TaskOutput
from core.results.rows import ListingRow, OutputRow, StoredBlob
from core.results.text import (
    UNSTORABLE,
    decode_json,
    encode_json,
    is_storable,
    is_storable_json,
    sanitize,
    sanitize_json,
)
from core.states import Operation

MAX_TEXT_CHARS = 65_536
"""Characters of a name, a kind, a content type or a fingerprint."""

EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
"""Bounds of timestamps.

PostgreSQL can store timestamps outside these bounds. Converting one to another time zone in Python
fails, and with it the read of the complete page.
"""

MAX_OFFSET = timedelta(hours=15)
"""The largest offset of a time zone. PostgreSQL rejects offsets of 16 hours and more."""


class BlobStore(Protocol):
    """The store for large content."""

    def put(self, data: bytes) -> str:
        """Store bytes, and return their key."""
        ...


class Content(NamedTuple):
    """Content in the form of an `OutputRow`."""

    text: str | None = None
    bytes: str | None = None
    blob: str | None = None
    size: int = 0
    hash: str | None = None


EMPTY = Content()


def output_row(output: TaskOutput, blobs: BlobStore) -> tuple[OutputRow, int]:
    """Convert an output to a row; return the row and the bytes that it adds to its result.

    Raises:
      ResultInvalid: The output is invalid; the message gives the reason.
    """
    if not isinstance(output, TaskOutput):
        raise ResultInvalid(f"output contains a {type(output).__name__}; use TaskOutput")
    id = external_id(output.id)
    try:
        operation = Operation.of_code(output.code)
    except ValueError as error:
        raise ResultInvalid(
            f"output {id[:80]!r} has the invalid code {output.code!r}; {error}"
        ) from None
    fingerprint = _fingerprint(output.fingerprint)
    if operation is Operation.TOMBSTONE:
        return OutputRow(operation, id, fingerprint), 0
    metadata, weight = _metadata(output)
    if operation is Operation.UPDATE:
        return OutputRow(operation, id, fingerprint, metadata), weight
    kind = sanitize(_string(output.kind, "kind")) or "item"
    parent = None if output.parent is None else external_id(output.parent)
    name = sanitize(_string(output.name, "name"))
    ts = timestamp(output.timestamp)
    media_type = sanitize(_string(output.content_type, "content_type"))
    content = _content(output.content, blobs)
    digest = _digest(kind, parent, name, ts, media_type, content.hash, fingerprint, metadata)
    return (
        OutputRow(
            operation, id, fingerprint, metadata, kind, parent, name, ts, media_type, *content,
            digest,
        ),
        weight + len(content.text or "") + len(content.bytes or ""),
    )  # fmt: skip


def amended(row: OutputRow, update: OutputRow) -> OutputRow:
    """Merge a later metadata update of the same result into the row of an item or an update."""
    merged = row._replace(
        metadata=row.metadata | update.metadata,
        fingerprint=update.fingerprint or row.fingerprint,
    )
    if row.operation is not Operation.KEEP:
        return merged
    return merged._replace(
        digest=_digest(
            merged.kind, merged.parent, merged.name, merged.ts, merged.type, merged.hash,
            merged.fingerprint, merged.metadata,
        )
    )  # fmt: skip


def _digest(*described: Any) -> str:
    """Return the hash that distinguishes a changed item from an unchanged one."""
    return hashlib.blake2b(encode_json(described, "output").encode(), digest_size=16).hexdigest()


def external_id(value: object) -> str:
    """Validate the external id of an item.

    Raises:
      ResultInvalid: The id is not a string, empty, too long for the index, or has characters that
        PostgreSQL cannot store.
    """
    if not isinstance(value, str) or not value:
        raise ResultInvalid("an output's id must be a non-empty string")
    if not is_storable(value):
        raise ResultInvalid(f"the id {value[:80]!r} contains {UNSTORABLE}")
    if len(value) > MAX_ID_BYTES or len(value.encode()) > MAX_ID_BYTES:
        raise ResultInvalid(f"the id {value[:80]!r}… is longer than {MAX_ID_BYTES} bytes")
    return value


def listing_row(listing: Listing) -> ListingRow:
    """Convert a complete listing to a row.

    Raises:
      ResultInvalid: The parent is not a valid id, or a timestamp has no time zone.
    """
    if not isinstance(listing, Listing):
        raise ResultInvalid(f"listed contains a {type(listing).__name__}; use Listing")
    parent = None if listing.parent is None else external_id(listing.parent)
    return ListingRow(parent, timestamp(listing.since), timestamp(listing.until))


def seen_ids(ids: Iterable[str]) -> list[str]:
    """Validate the ids that a listing has seen, and remove duplicates."""
    return list(dict.fromkeys(external_id(id) for id in ids))


def timestamp(value: datetime | None) -> str | None:
    """Format a timestamp as ISO 8601 with an offset.

    A timestamp outside `EARLIEST` and `LATEST`, for example from a forged date, becomes the nearest
    bound. A timestamp with an offset that PostgreSQL cannot read is converted to UTC.

    Raises:
      ResultInvalid: The timestamp has no time zone.
    """
    if value is None:
        return None
    offset = value.utcoffset() if isinstance(value, datetime) else None
    if offset is None:
        raise ResultInvalid(f"the timestamp {value!r} has no time zone")
    moment = min(max(value, EARLIEST), LATEST)
    if abs(offset) > MAX_OFFSET or offset.microseconds:
        moment = moment.astimezone(UTC)
    return moment.isoformat()


def _string(value: object, what: str) -> str | None:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        raise ResultInvalid(f"an output's {what} is longer than {MAX_TEXT_CHARS:,} characters")
    if value is None or isinstance(value, str):
        return value
    raise ResultInvalid(f"an output's {what} is a {type(value).__name__}, not a string")


def _fingerprint(value: object) -> str | None:
    """Validate a fingerprint.

    Because fingerprints are compared, an unstorable one is an error and is not sanitized.
    """
    fingerprint = _string(value, "fingerprint")
    if fingerprint is not None and not is_storable(fingerprint):
        raise ResultInvalid(f"an output's fingerprint contains {UNSTORABLE}")
    return fingerprint


def _metadata(output: TaskOutput) -> tuple[dict[str, Any], int]:
    """Return the validated metadata and its size in bytes."""
    if not output.metadata:
        return {}, 0
    what = f"metadata of {output.id[:80]!r}"
    encoded = encode_json(mapping(output.metadata, what), what)
    if len(encoded) > MAX_INLINE_BYTES:
        raise ResultInvalid(
            f"{what} is larger than {MAX_INLINE_BYTES:,} bytes; return it as content instead"
        )
    if not is_storable_json(encoded):
        encoded = sanitize_json(encoded)
    # A copy, because a generator may change an object after yielding it.
    return decode_json(encoded, what), len(encoded)


def mapping(value: Any, what: str) -> dict[Any, Any]:
    """Copy a mapping to a dictionary.

    Args:
      value: The value of the plugin.
      what: The name of the value in the message.

    Raises:
      ResultInvalid: The value is not a mapping.
    """
    try:
        return dict(value)
    except (TypeError, ValueError):
        raise ResultInvalid(f"{what} is a {type(value).__name__}, not a mapping") from None


def _content(content: object, blobs: BlobStore) -> Content:
    """Return storable text as text, other small content as bytes, and large content as a blob."""
    if content is None:
        return EMPTY
    if isinstance(content, StoredBlob):
        return _blob(content)
    if isinstance(content, str):
        data = content.encode("utf-8", "surrogatepass")
    elif isinstance(content, bytes | bytearray | memoryview):
        data = bytes(content)
    else:
        raise ResultInvalid(
            f"content is a {type(content).__name__}; use a string, bytes, or a blob of ctx.blob()"
        )
    size, hash = len(data), hashlib.sha256(data).hexdigest()
    if size > MAX_INLINE_BYTES:
        return Content(blob=blobs.put(data), size=size, hash=hash)
    if isinstance(content, str) and is_storable(content):
        return Content(text=content, size=size, hash=hash)
    return Content(bytes=base64.b64encode(data).decode(), size=size, hash=hash)


def _blob(blob: StoredBlob) -> Content:
    inline = None if blob.data is None else base64.b64encode(blob.data).decode()
    return Content(bytes=inline, blob=blob.key, size=blob.size, hash=blob.sha256)
