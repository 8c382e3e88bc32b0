"""The changes of a reread: the rows of its result that differ from the kept ones.

The worker and the kit apply these rules, without a database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from core.errors import ResultInvalid
from core.results.rows import OutputRow, ResultRows
from core.results.text import encode_json
from core.states import Operation


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A kept row without its content, also one that is marked deleted.

    Attributes:
      row_id: Its key in the table.
      root: The external id of the item to which it belongs: its own, or that of an item above.
      content_seq, metadata_seq: The sequence numbers of its writers.
    """

    row_id: int
    root: str
    external_id: str
    kind: str
    parent: str | None
    name: str | None
    external_timestamp: datetime | None
    content_type: str | None
    size: int
    hash: str | None
    metadata: Mapping[str, Any]
    fingerprint: str | None
    blob_key: str | None
    is_deleted: bool
    content_seq: int
    metadata_seq: int


class RereadWrite(NamedTuple):
    """A new or changed row: the fields of `OutputRow`.

    Attributes:
      same: True if the content is equal to the kept content. Then the row has none.
    """

    id: str
    same: bool
    digest: str
    fingerprint: str | None = None
    metadata: dict[str, Any] = {}
    kind: str = "item"
    parent: str | None = None
    name: str | None = None
    ts: str | None = None
    type: str | None = None
    text: str | None = None
    bytes: str | None = None
    blob: str | None = None
    size: int = 0
    hash: str | None = None


class RereadRow(NamedTuple):
    """The changes of one item, as the saving transaction writes them.

    Attributes:
      item: The external id of the item.
      seq: The sequence number of the item's content, which new rows get.
      read: The rows that were read: external id, `content_seq` and `metadata_seq`. The changes are
        written only if all of them are still the same.
      writes: New and changed rows.
      gone: External ids of rows to mark deleted.
    """

    item: str
    seq: int
    read: list[tuple[str, int, int]]
    writes: list[RereadWrite]
    gone: list[str]


@dataclass(slots=True)
class ItemChanges:
    """The result of rereading one item.

    Attributes:
      row: The changes; None if nothing differs.
      unchanged: The number of returned rows that are equal to the kept ones.
    """

    row: RereadRow | None = None
    unchanged: int = 0
    size: int = field(default=0)


def item_changes(tree: Sequence[KeptRow], rows: ResultRows) -> ItemChanges:
    """Compare the result of a reread with the kept rows.

    Args:
      tree: The item, followed by the rows below it.
      rows: The result.

    Raises:
      ResultInvalid: A reread cannot have this result; the message says why.
    """
    item, kept = tree[0], {row.external_id: row for row in tree}
    _require_allowed(item, kept, rows)
    outputs = [row for row in rows.outputs if row.operation is Operation.KEEP]
    writes = [row for row in outputs if _differs(row, kept.get(row.id))]
    gone = _gone(tree, rows)
    changes = ItemChanges(unchanged=len(outputs) - len(writes), size=rows.size if writes else 0)
    if writes or gone:
        read = [(row.external_id, row.content_seq, row.metadata_seq) for row in tree]
        written = [_written(row, kept.get(row.id)) for row in writes]
        changes.row = RereadRow(item.external_id, item.content_seq, read, written, gone)
    return changes


def _require_allowed(item: KeptRow, kept: Mapping[str, KeptRow], rows: ResultRows) -> None:
    if rows.tasks or rows.states:
        raise ResultInvalid("a reread returns neither tasks nor state")
    if any(row.operation is Operation.UPDATE for row in rows.outputs):
        raise ResultInvalid("a reread returns complete items (code 200) and deletions (code 410)")
    below = {item.external_id, *kept, *(row.id for row in rows.outputs)}
    for row in rows.outputs:
        if row.operation is Operation.TOMBSTONE and (
            row.id not in kept or row.id == item.external_id
        ):
            raise ResultInvalid(f"a reread may delete only items below {item.external_id[:80]!r}")
        if row.id not in kept and row.operation is Operation.KEEP and row.parent not in below:
            raise ResultInvalid(f"the item {row.id[:80]!r} is not below {item.external_id[:80]!r}")
    for listing in rows.listed:
        if listing.parent not in kept or listing.since is not None or listing.until is not None:
            raise ResultInvalid("a reread lists only the complete children of items that it reads")


def _gone(tree: Sequence[KeptRow], rows: ResultRows) -> list[str]:
    """Return the live rows to delete: those named, those not listed, and all rows below."""
    present = {row.id for row in rows.outputs if row.operation is Operation.KEEP} | {*rows.seen}
    gone = {row.id for row in rows.outputs if row.operation is Operation.TOMBSTONE}
    listed = {listing.parent for listing in rows.listed}
    # The rows above others come first in a tree, at any depth.
    for row in tree[1:]:
        if row.external_id not in present and (row.parent in listed or row.parent in gone):
            gone.add(row.external_id)
    return [row.external_id for row in tree[1:] if row.external_id in gone and not row.is_deleted]


def _differs(row: OutputRow, kept: KeptRow | None) -> bool:
    if kept is None or kept.is_deleted:
        return True
    return (
        row.hash != kept.hash
        or _described(row) != (kept.kind, kept.parent, kept.name, kept.content_type)
        or (row.fingerprint or None) != (kept.fingerprint or None)
        or _moment(row.ts) != kept.external_timestamp
        or encode_json(row.metadata, "metadata") != encode_json(dict(kept.metadata), "metadata")
    )


def _described(row: OutputRow) -> tuple[str, str | None, str | None, str | None]:
    return row.kind, row.parent, row.name, row.type


def _moment(ts: str | None) -> datetime | None:
    return None if ts is None else datetime.fromisoformat(ts)


def _written(row: OutputRow, kept: KeptRow | None) -> RereadWrite:
    """Return the row to write. Equal content is not written again."""
    fields = row._asdict()
    del fields["operation"]
    write = RereadWrite(same=kept is not None and row.hash == kept.hash, **fields)
    return write._replace(text=None, bytes=None, blob=None) if write.same else write
