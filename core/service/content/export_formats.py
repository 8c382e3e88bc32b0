"""Encode the records of an export as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from core.errors import InvalidInput

if TYPE_CHECKING:
    from core.db.rows import Row

FIELDS: Mapping[str, str] = {
    "change": "text",
    "user_id": "text",
    "user_integration_id": "text",
    "integration_domain": "text",
    "content_id": "integer",
    "external_id": "text",
    "kind": "text",
    "parent": "text",
    "name": "text",
    "external_timestamp": "time",
    "content_type": "text",
    "size": "integer",
    "hash": "text",
    "metadata": "json",
    "created_at": "time",
    "updated_at": "time",
    "deleted_at": "time",
    "gone_at_source": "time",
    "content": "text",
    "file": "text",
}
"""The fields of a record in their order, each with its type."""

GROUP_ROWS = 50_000
GROUP_BYTES = 32 * 1024 * 1024
"""The size of a row group of Parquet, in rows and in bytes of text. Readers load one at a time."""


class Format(StrEnum):
    """A format of an export."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES: Mapping[Format, str] = {
    Format.CSV: "text/csv; charset=utf-8",
    Format.JSONL: "application/jsonl",
    Format.PARQUET: "application/vnd.apache.parquet",
}
"""The media types: RFC 4180, https://jsonlines.org, and the registry of IANA."""


def encoded(format: Format, batches: Iterable[Sequence[Row]]) -> Iterator[bytes]:
    """Yield records in a format, in chunks.

    CSV and Parquet always have their heading or schema, even without a record.

    Args:
      format: The format.
      batches: The records, as `core.service.content.export.batches` yields them.

    Raises:
      InvalidInput: The format needs a package that is not installed.
    """
    if format is Format.PARQUET and find_spec("pyarrow") is None:
        raise InvalidInput("parquet-package-missing")
    return _ENCODERS[format](batches)


def _csv(batches: Iterable[Sequence[Row]]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\r\n")
    writer.writeheader()
    for batch in batches:
        writer.writerows({name: _as_text(value) for name, value in row.items()} for row in batch)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    if text.tell():
        yield text.getvalue().encode()


def _as_text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def _jsonl(batches: Iterable[Sequence[Row]]) -> Iterator[bytes]:
    for batch in batches:
        yield b"".join(
            json.dumps(row, ensure_ascii=False, default=datetime.isoformat).encode() + b"\n"
            for row in batch
        )


def _parquet(batches: Iterable[Sequence[Row]]) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    types = {
        "text": pa.string(),
        "json": pa.string(),
        "integer": pa.int64(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in FIELDS.items()])
    sink = _Sink()
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _groups(batches):
            rows = [row | {"metadata": _as_text(row["metadata"])} for row in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            yield sink.drain()
    yield sink.drain()


def _groups(batches: Iterable[Sequence[Row]]) -> Iterator[list[Row]]:
    group: list[Row] = []
    used = 0
    for batch in batches:
        group += batch
        used += sum(len(row["content"] or "") for row in batch)
        if len(group) >= GROUP_ROWS or used >= GROUP_BYTES:
            yield group
            group, used = [], 0
    if group:
        yield group


class _Sink(io.RawIOBase):
    """A file that collects what is written until it is drained."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        portion = bytes(data)
        self._written.append(portion)
        self._position += len(portion)
        return len(portion)

    def tell(self) -> int:
        return self._position

    def drain(self) -> bytes:
        """Return the bytes written since the last call."""
        written, self._written = self._written, []
        return b"".join(written)


_ENCODERS: Mapping[Format, Callable[[Iterable[Sequence[Row]]], Iterator[bytes]]] = {
    Format.CSV: _csv,
    Format.JSONL: _jsonl,
    Format.PARQUET: _parquet,
}
