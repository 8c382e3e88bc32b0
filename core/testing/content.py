"""Content in memory, as the statements of the content table keep it."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from core.results.rows import ListingRow, OutputRow, ResultRows
from core.results.text import encode_json
from core.states import Operation
from core.testing.blobs import MemoryStore

Change = Literal["saved", "unchanged", "deleted", "ignored"]


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the content table; two that are equal are the same content.

    Attributes:
      is_text: Whether the content is kept as text: not where it is large, or has characters that
        PostgreSQL cannot hold.
    """

    id: str
    content: bytes | None
    is_text: bool
    kind: str
    parent: str | None
    name: str | None
    timestamp: datetime | None
    content_type: str | None
    metadata: dict[str, JsonValue]
    fingerprint: str | None
    deleted: bool = False
    hash: str | None = field(init=False)

    def __post_init__(self) -> None:
        digest = None if self.content is None else hashlib.sha256(self.content).hexdigest()
        object.__setattr__(self, "hash", digest)

    @property
    def size(self) -> int:
        """In bytes; 0 without content."""
        return len(self.content or b"")

    @property
    def text(self) -> str:
        """The content as text."""
        return (self.content or b"").decode()

    @classmethod
    def of(cls, row: OutputRow, store: MemoryStore) -> Item:
        return cls(
            row.id, _content(row, store), row.text is not None, row.kind, row.parent, row.name,
            moment(row.ts), row.type, row.metadata, row.fingerprint,
        )  # fmt: skip


@dataclass(slots=True)
class _Kept:
    """An item with its writers: the dispatch that wrote its content, and the last one that changed
    anything.

    Attributes:
      item: None for a tombstone of what was never kept.
      digest: Empty: the next complete item counts as changed.
      updated: When it was last written.
    """

    item: Item | None
    digest: str
    content_seq: int
    metadata_seq: int
    updated: int

    @property
    def deleted(self) -> bool:
        return self.item is None or self.item.deleted

    def written_by(self, sequence: int) -> bool:
        """Whether nobody wrote it who was dispatched later."""
        return self.content_seq <= sequence and self.metadata_seq <= sequence


class ContentTable:
    """One row per id of an account.

    Every write carries the number of its dispatch; see `core.content.store`, whose statements
    these methods follow one by one.
    """

    def __init__(self, max_deleted_share: float, store: MemoryStore) -> None:
        self._rows: dict[str, _Kept] = {}
        self._max_deleted_share = max_deleted_share
        self._store = store
        self._children: defaultdict[str | None, set[str]] = defaultdict(set)
        self._seen: set[tuple[str, str]] = set()

    def live(self) -> Iterator[Item]:
        """What is kept and not deleted."""
        return (item for item in self._items() if not item.deleted)

    def deleted(self) -> set[str]:
        """The ids of what was kept and marked deleted."""
        return {item.id for item in self._items() if item.deleted}

    def fingerprints(self, ids: Iterable[str]) -> dict[str, str | None]:
        """Those of `ids` that are live, with their fingerprints."""
        rows = (self._rows.get(id) for id in ids)
        items = (row.item for row in rows if row is not None and row.item is not None)
        return {item.id: item.fingerprint for item in items if not item.deleted}

    def write(self, rows: ResultRows, run: str, sequence: int, now: int) -> Counter[Change]:
        """Keep what a result says.

        Parameters:
          run: The id of its task's run.
          sequence: The number of its task's dispatch.
          now: The time.

        Returns:
          How many rows it changed, and in which way.
        """
        changes: Counter[Change] = Counter()
        outputs = {
            each: [row for row in rows.outputs if row.operation is each] for each in Operation
        }
        for row in outputs[Operation.TOMBSTONE]:
            changes["deleted"] += self._delete(row.id, sequence, now)
        for row in outputs[Operation.TOMBSTONE]:
            self._bury(row.id, sequence, now)
        for row in (*outputs[Operation.KEEP], *outputs[Operation.UPDATE]):
            keep = self._keep if row.operation is Operation.KEEP else self._update
            change = keep(row, sequence, now)
            changes[change] += 1
            if change != "saved":
                self._seen.add((run, row.id))
        self._seen.update((run, id) for id in rows.seen)
        return changes

    def sweep(
        self, listing: ListingRow, run: str, began: int, sequence: int, now: int, *, allow: bool
    ) -> int | None:
        """Delete what a complete listing no longer has; None when so much is gone that a person
        has to look.

        Parameters:
          run, began: The run of the task that says so, and when it began.
          allow: Whether more may go than the guard allows.
        """
        inside = [row for row in self._placed(listing.parent) if _lies_in(row.item, listing)]
        gone = [
            item.id
            for row in inside
            if (item := row.item) is not None
            and row.written_by(began)
            and row.updated < began
            and (run, item.id) not in self._seen
        ]
        if len(gone) > self._max_deleted_share * len(inside) and not allow:
            return None
        return sum(self._delete(id, sequence, now) for id in gone)

    def _items(self) -> Iterator[Item]:
        return (row.item for row in self._rows.values() if row.item is not None)

    def _placed(self, parent: str | None) -> list[_Kept]:
        rows = (self._rows[id] for id in self._children[parent])
        return [row for row in rows if not row.deleted]

    def _keep(self, row: OutputRow, sequence: int, now: int) -> Change:
        item = Item.of(row, self._store)
        before = self._rows.get(row.id)
        if before is None:
            self._rows[row.id] = _Kept(item, row.digest, sequence, sequence, now)
            self._children[item.parent].add(row.id)
            return "saved"
        differs = before.digest != row.digest or before.deleted
        # Deleted a moment ago by the same result, along with what it belonged to.
        revived = before.content_seq == sequence and before.deleted
        if not ((before.content_seq < sequence and differs) or revived):
            return "ignored" if before.content_seq > sequence else "unchanged"
        digest = row.digest
        if before.metadata_seq >= sequence and before.item is not None:
            # A change of metadata that was dispatched later, yet saved before, stands.
            item = replace(
                item,
                metadata=item.metadata | before.item.metadata,
                fingerprint=before.item.fingerprint,
            )
            digest = ""
        if before.item is not None:
            self._children[before.item.parent].discard(row.id)
        self._children[item.parent].add(row.id)
        metadata_seq = max(before.metadata_seq, sequence)
        self._rows[row.id] = _Kept(item, digest, sequence, metadata_seq, now)
        # After an update the engine compares no digest, and writes the same item once more. For an
        # author nothing has changed.
        return "unchanged" if item == before.item else "saved"

    def _update(self, row: OutputRow, sequence: int, now: int) -> Change:
        before = self._rows.get(row.id)
        if before is None or before.item is None or before.deleted:
            return "ignored"
        if before.metadata_seq >= sequence:
            return "ignored"
        metadata = before.item.metadata | row.metadata
        fingerprint = before.item.fingerprint if row.fingerprint is None else row.fingerprint
        # As JSON, where 1 and true are two things.
        told = [encode_json(each, "metadata") for each in (metadata, before.item.metadata)]
        if told[0] == told[1] and (fingerprint or "") == (before.item.fingerprint or ""):
            return "unchanged"
        before.item = replace(before.item, metadata=metadata, fingerprint=fingerprint)
        before.digest, before.metadata_seq, before.updated = "", sequence, now
        return "saved"

    def _delete(self, id: str, sequence: int, now: int) -> int:
        """Mark an item and all below it; says how many that were."""
        count, below = 0, [id]
        while below:
            row = self._rows.get(below.pop())
            if row is None or row.item is None or row.deleted or not row.written_by(sequence):
                continue
            row.item = replace(row.item, deleted=True)
            row.content_seq = row.metadata_seq = sequence
            row.updated = now
            below.extend(self._children[row.item.id])
            count += 1
        return count

    def _bury(self, id: str, sequence: int, now: int) -> None:
        """Leave a tombstone, so that a download which is under way does not bring it in."""
        row = self._rows.get(id)
        if row is None:
            self._rows[id] = _Kept(None, "", sequence, sequence, now)
        elif row.deleted and row.content_seq < sequence and row.metadata_seq < sequence:
            row.content_seq = row.metadata_seq = sequence


def _lies_in(item: Item | None, listing: ListingRow) -> bool:
    since, until = moment(listing.since), moment(listing.until)
    if since is None and until is None:
        return True
    if item is None or item.timestamp is None:
        return False
    return (since is None or item.timestamp >= since) and (until is None or item.timestamp < until)


def moment(ts: str | None) -> datetime | None:
    return None if ts is None else datetime.fromisoformat(ts)


def _content(row: OutputRow, store: MemoryStore) -> bytes | None:
    if row.text is not None:
        return row.text.encode()
    if row.bytes is not None:
        return base64.b64decode(row.bytes)
    return None if row.blob is None else store.get(row.blob)
