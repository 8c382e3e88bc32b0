"""Content in memory, by the rules of the content table's statements."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from core.results.delete_guard import DeleteGuard
from core.results.reread import KeptRow, RereadRow
from core.results.rows import ListingRow, OutputRow, ResultRows
from core.results.text import encode_json
from core.states import Deletions, Operation
from core.testing.blobs import MemoryStore

Change = Literal["saved", "unchanged", "deleted", "ignored", "held"]


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the content table. Two equal items are the same content.

    Attributes:
      id, kind, parent, name, timestamp, content_type, metadata, fingerprint: As in
        `core.TaskOutput`.
      content: The content as bytes; None for an item without content.
      is_text: True if the engine stores the content as text. Large content, and text with
        characters that PostgreSQL cannot store, is stored as bytes.
      deleted: True if the item is marked deleted.
      gone: True if the item is gone at the source, in an account that keeps such items.
      hash: The SHA-256 of the content, in lower-case hexadecimal; None without content.
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
    gone: bool = False
    hash: str | None = field(init=False)

    def __post_init__(self) -> None:
        digest = None if self.content is None else hashlib.sha256(self.content).hexdigest()
        object.__setattr__(self, "hash", digest)

    @property
    def size(self) -> int:
        """The size of the content in bytes; 0 without content."""
        return len(self.content or b"")

    @property
    def text(self) -> str:
        """The content, decoded as UTF-8."""
        return (self.content or b"").decode()

    @classmethod
    def of(cls, row: OutputRow, store: MemoryStore) -> Item:
        """Return the item that a checked output stands for."""
        return cls(
            row.id, _content(row, store), row.text is not None, row.kind, row.parent, row.name,
            moment(row.ts), row.type, row.metadata, row.fingerprint,
        )  # fmt: skip


@dataclass(slots=True)
class _Kept:
    """An item, and the dispatches that wrote it.

    Attributes:
      item: The item; None for a tombstone of an item that was never kept.
      digest: The digest of the last complete item; empty if the next one counts as changed.
      content_seq, metadata_seq: The dispatch that wrote the content, and the last one that changed
        anything.
      updated: The time of the last write.
    """

    item: Item | None
    digest: str
    content_seq: int
    metadata_seq: int
    updated: int

    @property
    def deleted(self) -> bool:
        return self.item is None or self.item.deleted

    @property
    def gone(self) -> bool:
        return self.item is not None and self.item.gone

    def written_by(self, sequence: int) -> bool:
        """Return True if no later dispatch wrote the item."""
        return self.content_seq <= sequence and self.metadata_seq <= sequence


class ContentTable:
    """The content of an account: one row per id.

    Attributes:
      deletions: The treatment of items that disappear at the source.
      held: The items whose deletion waits for a person, by listing; None for single deletions.
      accepted, refused: The items whose deletion a person has accepted or refused.

    Every write carries the number of its dispatch. The methods follow the statements of
    `core.content.store` one by one.
    """

    def __init__(
        self, guard: DeleteGuard, store: MemoryStore, deletions: Deletions = Deletions.MARK
    ) -> None:
        self.deletions = deletions
        self.held: dict[ListingRow | None, set[str]] = {}
        self._totals: dict[ListingRow | None, int] = {}
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self._rows: dict[str, _Kept] = {}
        self._guard = guard
        self._store = store
        self._children: defaultdict[str | None, set[str]] = defaultdict(set)
        self._seen: set[tuple[str, str]] = set()
        self._gone: Counter[str] = Counter()

    def live(self) -> Iterator[Item]:
        """Yield the items that are kept and not deleted."""
        return (item for item in self._items() if not item.deleted)

    def deleted(self) -> set[str]:
        """Return the ids of the items that are marked deleted."""
        return {item.id for item in self._items() if item.deleted}

    def fingerprints(self, ids: Iterable[str]) -> dict[str, str | None]:
        """Return the live items among `ids`, with their fingerprints."""
        rows = (self._rows.get(id) for id in ids)
        items = (row.item for row in rows if row is not None and row.item is not None)
        return {item.id: item.fingerprint for item in items if not item.deleted}

    def fingerprints_below(self, parent: str | None) -> dict[str, str | None]:
        """Return the live items with this parent, with their fingerprints."""
        return self.fingerprints(sorted(self._children[parent]))

    def write(self, rows: ResultRows, run: str, sequence: int, now: int) -> Counter[Change]:
        """Save the outputs and seen ids of a result.

        Args:
          rows: The checked result.
          run: The id of the task's run.
          sequence: The number of the task's dispatch.
          now: The time.

        Returns:
          The number of rows by kind of change.
        """
        changes: Counter[Change] = Counter()
        outputs = {
            each: [row for row in rows.outputs if row.operation is each] for each in Operation
        }
        gone = [row.id for row in outputs[Operation.TOMBSTONE]]
        lost = self._below(gone, lambda row: row.written_by(sequence))
        accepted = lost & self.accepted if self.deletions is Deletions.MARK else set()
        deleted = sum(self._delete(id, sequence, now, alone=True) for id in accepted)
        waiting = self._waiting()
        rest = lost - accepted - self.refused - waiting
        if self.deletions is Deletions.MARK and self._holds_gone(rest, run):
            changes["held"] += len(rest)
            total = self._gone[run] + sum(1 for _ in self.live())
            self._hold(None, rest | self.held.get(None, set()), total)
        else:
            gone = [id for id in gone if id not in waiting]
            deleted += sum(self._delete(id, sequence, now, stay=waiting) for id in gone)
        changes["deleted"] += deleted
        self._gone[run] += deleted
        for row in outputs[Operation.TOMBSTONE]:
            self._leave_tombstone(row.id, sequence, now)
        for row in (*outputs[Operation.KEEP], *outputs[Operation.UPDATE]):
            keep = self._keep if row.operation is Operation.KEEP else self._update
            change = keep(row, sequence, now)
            changes[change] += 1
            if change != "saved":
                self._seen.add((run, row.id))
        self._seen.update((run, id) for id in rows.seen)
        for id in rows.seen:
            self._show(id, sequence, now)
        return changes

    def sweep(self, listing: ListingRow, run: str, began: int, now: int) -> tuple[int, int]:
        """Delete the items that a complete listing no longer has, or record that they are gone.

        Args:
          listing: The listing.
          run: The id of the run whose task listed it.
          began: The time at which that run began.
          now: The time.

        Returns:
          The numbers of deleted items, and of those that wait for a person.
        """
        inside = [row for row in self._placed(listing.parent) if _lies_in(row.item, listing)]
        inside += self._orphans(listing, run)
        gone = [
            item.id
            for row in inside
            if (item := row.item) is not None and self._is_missing(row, run, began)
        ]
        waiting = self._waiting()
        self.held.pop(listing, None)
        # As old as the beginning of the run: what any task wrote since, or will write, is newer.
        lost = self._below(gone, lambda row: self._is_missing(row, run, began))
        if self.deletions is Deletions.KEEP:
            return sum(self._delete(id, began, now, alone=True) for id in lost), 0
        accepted = {id for id in lost & self.accepted if (run, id) not in self._seen}
        deleted = sum(self._delete(id, began, now, alone=True) for id in accepted)
        rest = lost - accepted - self.refused
        waits = accepted or (rest & waiting and not self._guard.is_off)
        if rest and (waits or self._holds_listing(rest, inside, run)):
            self._hold(listing, rest, self._kept_in(inside))
            return deleted, len(rest)
        return deleted + sum(self._delete(id, began, now, alone=True) for id in rest), 0

    def _orphans(self, listing: ListingRow, run: str) -> list[_Kept]:
        """Return the items below deleted items of a listing: no other listing compares them."""
        if listing.since is not None or listing.until is not None:
            return []
        return [
            row
            for parent, children in self._children.items()
            if parent is not None
            and (run, parent) not in self._seen
            and (above := self._rows.get(parent)) is not None
            and above.deleted
            and self._listed_at(above) == listing.parent
            for child in children
            if not (row := self._rows[child]).deleted
        ]

    def _listed_at(self, row: _Kept) -> str | None:
        """Return the nearest item above that is not deleted; None for the root of the account."""
        passed = set[str]()
        while (parent := row.item.parent if row.item else None) is not None:
            above = self._rows.get(parent)
            if above is None or not above.deleted or parent in passed:
                break
            passed.add(parent)
            row = above
        return parent

    def accept(self) -> None:
        """Accept the held deletions: a later sync deletes the items that are still missing."""
        self.accepted.update(*self.held.values())
        self.held.clear()

    def refuse(self) -> None:
        """Refuse the held deletions: the items stay until the source shows them."""
        self.refused.update(*self.held.values())
        self.held.clear()

    def settle(self, run: str, began: int) -> None:
        """End a run: take out of the decisions what the source has shown."""
        for ids in (self.refused, *self.held.values()):
            rows = {id: self._rows[id] for id in ids if id in self._rows}
            ids.intersection_update(
                [id for id, row in rows.items() if self._is_missing(row, run, began)]
            )

    def plant(self, items: Iterable[Item]) -> None:
        """Keep items that the source does not have, as if an earlier sync had kept them."""
        for item in items:
            self._rows[item.id] = _Kept(item, "", 0, 0, 0)
            self._children[item.parent].add(item.id)

    def _is_missing(self, row: _Kept, run: str, began: int) -> bool:
        return (
            row.item is not None
            and not row.deleted
            and row.written_by(began)
            and row.updated < began
            and (run, row.item.id) not in self._seen
        )

    def _waiting(self) -> set[str]:
        """Return the items of shares whose deletion waits for a person."""
        floor = self._guard.floor
        shares = [ids for place, ids in self.held.items() if self._totals[place] >= floor]
        return set[str]().union(*shares)

    def _hold(self, listing: ListingRow | None, ids: set[str], total: int) -> None:
        """Hold the deletion of items. Each item waits in one held deletion, the latest."""
        self._totals[listing] = total
        others = {place: held - ids for place, held in self.held.items() if place != listing}
        self.held = {place: held for place, held in others.items() if held} | {listing: ids}

    def _holds_listing(self, lost: set[str], inside: Sequence[_Kept], run: str) -> bool:
        guard = self._guard
        if guard.is_off:
            return False
        if guard.is_small(len(lost)):
            remains = {item.id for item in self.live()}
            remains |= {id for seen_in, id in self._seen if seen_in == run}
            return not remains - lost
        return guard.exceeds(len(lost), self._kept_in(inside))

    def _kept_in(self, inside: Sequence[_Kept]) -> int:
        """Count the items of a listing, descendants included."""
        return len(self._below(row.item.id for row in inside if row.item) - self.refused)

    def _holds_gone(self, lost: set[str], run: str) -> bool:
        guard = self._guard
        count = self._gone[run] + len(lost)
        if not lost or guard.is_off or guard.is_small(count):
            return False
        return guard.exceeds(count, self._gone[run] + sum(1 for _ in self.live()))

    def _below(
        self, ids: Iterable[str], belongs: Callable[[_Kept], bool] = lambda _: True
    ) -> set[str]:
        """Return live items and their live descendants, down to those that do not belong."""
        found, below = set[str](), list(ids)
        while below:
            id = below.pop()
            row = self._rows.get(id)
            if id in found or row is None or row.deleted:
                continue
            if belongs(row):
                found.add(id)
                below.extend(self._children[id])
        return found

    def trees(self, kinds: Sequence[str]) -> list[list[KeptRow]]:
        """Return the live items of these kinds by id, each followed by the rows below it."""
        roots = sorted(item.id for item in self.live() if item.kind in kinds)
        return [self._tree(root, kinds) for root in roots]

    def _tree(self, root: str, kinds: Sequence[str]) -> list[KeptRow]:
        found: dict[str, KeptRow] = {}
        below = [root]
        while below:
            id = below.pop(0)
            row = self._rows[id]
            if row.item is None or id in found or (id != root and row.item.kind in kinds):
                continue
            item = row.item
            found[id] = KeptRow(
                0, root, id, item.kind, item.parent, item.name, item.timestamp, item.content_type,
                item.size, item.hash, item.metadata, item.fingerprint, None, item.deleted,
                row.content_seq, row.metadata_seq,
            )  # fmt: skip
            below.extend(sorted(self._children[id]))
        return list(found.values())

    def apply_reread(self, changes: RereadRow) -> None:
        """Save the changes of an item that was read again; its writers stay the same."""
        for write in changes.writes:
            fields = write._asdict()
            del fields["same"]
            item = Item.of(OutputRow(Operation.KEEP, **fields), self._store)
            before = self._rows.get(item.id)
            if before is None or before.item is None:
                self._rows[item.id] = _Kept(item, write.digest, changes.seq, changes.seq, 0)
            else:
                if write.same:
                    content = before.item.content
                    item = replace(item, content=content, is_text=before.item.is_text)
                self._children[before.item.parent].discard(item.id)
                before.item, before.digest = item, write.digest
            self._children[item.parent].add(item.id)
        for id in changes.gone:
            row = self._rows[id]
            if row.item is not None:
                row.item = replace(row.item, deleted=True)

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
        absent = before.deleted or before.gone
        differs = before.digest != row.digest or absent
        # The same result deleted it, with the item that it belonged to.
        revived = before.content_seq == sequence and absent
        if not ((before.content_seq < sequence and differs) or revived):
            return "ignored" if before.content_seq > sequence else "unchanged"
        digest = row.digest
        if before.metadata_seq >= sequence and before.item is not None:
            # A later dispatch has already changed the metadata: its change stays.
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
        # After an update, the engine does not compare digests, and writes the same item again. For
        # a plugin author, the item is unchanged.
        return "unchanged" if item == before.item else "saved"

    def _update(self, row: OutputRow, sequence: int, now: int) -> Change:
        before = self._rows.get(row.id)
        if before is None or before.item is None or before.deleted:
            return "ignored"
        if before.metadata_seq >= sequence:
            return "ignored"
        metadata = before.item.metadata | row.metadata
        fingerprint = before.item.fingerprint if row.fingerprint is None else row.fingerprint
        # Compare as JSON: in Python, 1 equals True.
        encoded = [encode_json(each, "metadata") for each in (metadata, before.item.metadata)]
        same = encoded[0] == encoded[1] and (fingerprint or "") == (before.item.fingerprint or "")
        if same and not before.gone:
            return "unchanged"
        before.item = replace(before.item, metadata=metadata, fingerprint=fingerprint, gone=False)
        before.digest, before.metadata_seq, before.updated = "", sequence, now
        return "saved"

    def _show(self, id: str, sequence: int, now: int) -> None:
        """Record that the source shows an item again."""
        row = self._rows.get(id)
        if row is not None and row.item is not None and row.gone and row.written_by(sequence):
            row.item, row.updated = replace(row.item, gone=False), now

    def _delete(
        self,
        id: str,
        sequence: int,
        now: int,
        *,
        alone: bool = False,
        stay: Collection[str] = (),
    ) -> int:
        """Mark an item and all its descendants deleted, and return their number.

        An account that keeps such items records that they are gone; then nothing is deleted.
        Items of `stay`, and those below them, stay as they are.
        """
        keeps = self.deletions is Deletions.KEEP
        count, below = 0, [id]
        while below:
            row = self._rows.get(below.pop())
            if row is None or row.item is None or row.deleted or not row.written_by(sequence):
                continue
            if (keeps and row.gone) or row.item.id in self.refused or row.item.id in stay:
                continue
            row.item = replace(row.item, gone=keeps, deleted=not keeps)
            row.content_seq = row.metadata_seq = sequence
            row.updated = now
            below.extend(() if alone else self._children[row.item.id])
            count += not keeps
        return count

    def _leave_tombstone(self, id: str, sequence: int, now: int) -> None:
        """Leave a tombstone, so that a download in progress does not restore the item."""
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
    """Return the time that an ISO 8601 text stands for; None for None."""
    return None if ts is None else datetime.fromisoformat(ts)


def _content(row: OutputRow, store: MemoryStore) -> bytes | None:
    if row.text is not None:
        return row.text.encode()
    if row.bytes is not None:
        return base64.b64decode(row.bytes)
    return None if row.blob is None else store.get(row.blob)
