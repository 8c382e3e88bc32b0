"""Content in memory, with the rules of the content table."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from core.integration.results import Listing, TaskOutput
from core.testing.blobs import MemoryBlob

Change = Literal["saved", "unchanged", "deleted", "ignored"]


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the content table; two that are equal are the same content."""

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
    def of(cls, output: TaskOutput) -> Item:
        content, is_text = _bytes(output)
        return cls(
            output.id, content, is_text, output.kind, output.parent, output.name, output.timestamp,
            output.content_type, dict(output.metadata), output.fingerprint,
        )  # fmt: skip


class ContentTable:
    """One row per id of an account.

    Every write carries a sequence number, taken when its task was dispatched. A write older than
    the last one of its row is ignored; a sweep takes what was not touched since its run began.
    """

    def __init__(self, delete_guard: float) -> None:
        self.rows: dict[str, Item] = {}
        self._delete_guard = delete_guard
        self._children: defaultdict[str | None, set[str]] = defaultdict(set)
        self._written: dict[str, int] = {}
        self._touched: dict[str, int] = {}

    def live(self) -> Iterator[Item]:
        return (item for item in self.rows.values() if not item.deleted)

    def known(self, ids: Iterable[str]) -> dict[str, str | None]:
        rows = (self.rows.get(key) for key in ids)
        return {row.id: row.fingerprint for row in rows if row is not None and not row.deleted}

    def touch(self, ids: Iterable[str], now: int) -> None:
        self._touched.update(dict.fromkeys(ids, now))

    def write(self, output: TaskOutput, sequence: int, now: int) -> tuple[Change, int]:
        """Keep, update or delete one item; says what came of it, and of how many rows."""
        if self._written.get(output.id, 0) > sequence:
            return "ignored", 0
        self._written[output.id] = sequence
        self.touch([output.id], now)
        if output.code == 410:
            return "deleted", self._delete(output.id)
        return (self._keep(Item.of(output)) if output.code == 200 else self._update(output)), 1

    def sweep(self, listing: Listing, began: int, *, allow_deletions: bool) -> int | None:
        """Delete what a complete listing no longer has.

        Returns `None` if a deletion is so large that a person must confirm it.
        """
        inside = [item for item in self._candidates(listing) if _lies_in(item, listing)]
        gone = [item.id for item in inside if self._touched.get(item.id, 0) < began]
        if len(gone) > self._delete_guard * len(inside) and not allow_deletions:
            return None
        return sum(self._delete(key) for key in gone)

    def _keep(self, item: Item) -> Change:
        before = self.rows.get(item.id)
        if before == item:
            return "unchanged"
        if before is not None:
            self._children[before.parent].discard(item.id)
        self.rows[item.id] = item
        self._children[item.parent].add(item.id)
        return "saved"

    def _update(self, output: TaskOutput) -> Change:
        before = self.rows.get(output.id)
        if before is None or before.deleted:
            return "ignored"
        fingerprint = before.fingerprint if output.fingerprint is None else output.fingerprint
        return self._keep(
            replace(
                before, metadata={**before.metadata, **output.metadata}, fingerprint=fingerprint
            )
        )

    def _delete(self, id: str) -> int:
        """Mark an item and all below it; says how many that were."""
        count, below = 0, [id]
        while below:
            item = self.rows.get(below.pop())
            if item is None or item.deleted:
                continue
            self.rows[item.id] = replace(item, deleted=True)
            below.extend(self._children[item.id])
            count += 1
        return count

    def _candidates(self, listing: Listing) -> list[Item]:
        rows = (self.rows[key] for key in self._children[listing.parent])
        return [row for row in rows if not row.deleted]


def _lies_in(item: Item, listing: Listing) -> bool:
    if listing.since is None and listing.until is None:
        return True
    if item.timestamp is None:
        return False
    return (listing.since is None or item.timestamp >= listing.since) and (
        listing.until is None or item.timestamp < listing.until
    )


def _bytes(output: TaskOutput) -> tuple[bytes | None, bool]:
    content = output.content
    if isinstance(content, str):
        return content.encode(), True
    if content is None or isinstance(content, bytes):
        return content, False
    assert isinstance(content, MemoryBlob)
    return content.data, False
