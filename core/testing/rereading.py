"""Rereads in memory, by the engine's rules and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from core.egress import Egress
from core.errors import SkipItem
from core.integration.base import BaseIntegration
from core.integration.limits import Reader
from core.integration.results import Blob, TaskResult
from core.integration.stored import M, StoredItem, state_value
from core.results.reread import ItemChanges, KeptRow, item_changes
from core.results.result import result_rows
from core.results.rows import ResultRows, StoredBlob
from core.testing.blobs import MemoryWriter
from core.testing.context import Account

EGRESS = Egress()


@dataclass(slots=True)
class RereadResult:
    """The numbers of rows that a reread saved, found unchanged and marked deleted."""

    saved: int = 0
    unchanged: int = 0
    deleted: int = 0


class MemoryContents:
    """The `core.integration.stored.StoredContent` of an account in memory."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._items = {item.id: item for item in account.content.live()}

    def chunks(self, item: StoredItem, /) -> Iterator[bytes]:
        """Yield the content of an item."""
        content = self._items[item.id].content
        if content is not None:
            yield content

    def handle(self, item: StoredItem, /) -> Blob | None:
        """Return the content of an item, for an output."""
        kept = self._items[item.id]
        if kept.hash is None:
            return None
        return StoredBlob(kept.size, kept.hash, data=kept.content)

    def writer(self) -> MemoryWriter:
        """Return a writer for large content."""
        return self._account.spool.writer(None)

    def state(self, partition: str, model: type[M], /) -> M | None:
        """Return the value of a state partition, or None if it is empty."""
        return state_value(partition, self._account.state.get(partition), model)

    def item(self, tree: list[KeptRow]) -> StoredItem:
        """Return the item of a tree of rows."""
        below = sorted((row for row in tree[1:] if not row.is_deleted), key=_id)
        return self._stored(tree[0], tuple(self._stored(row) for row in below))

    def _stored(self, row: KeptRow, children: tuple[StoredItem, ...] = ()) -> StoredItem:
        return StoredItem(
            row.external_id, row.kind, row.parent, row.name, row.external_timestamp,
            row.content_type, row.metadata, row.fingerprint, row.size, children, _content=self,
        )  # fmt: skip


def _id(row: KeptRow) -> str:
    return row.external_id


def reader_of(integration: type[BaseIntegration[Any, Any]]) -> Reader:
    """Return the reader of an integration.

    Raises:
      ValueError: It has none.
    """
    reader = integration.manifest.reader
    if reader is None:
        raise ValueError(f"{integration.manifest.domain} has no reader: set Manifest.reader")
    return reader


def reread_items(
    integration: type[BaseIntegration[Any, Any]], config: BaseModel, account: Account
) -> Iterator[tuple[ResultRows, ItemChanges]]:
    """Read each kept item again; yield its checked result and its changes.

    The instance has no credentials and no network, and is not initialized.

    Raises:
      Exception: The integration raised it, or its result is invalid.
    """
    reader, contents = reader_of(integration), MemoryContents(account)
    for tree in account.content.trees(reader.kinds):
        instance = integration(config, integration.credentials_model.model_construct())
        with EGRESS.offline():
            try:
                result = instance.reread(contents.item(tree))
            except SkipItem:
                result = TaskResult()
            rows = result_rows(result, integration, account.blobs, {})
        yield rows, item_changes(tree, rows)
