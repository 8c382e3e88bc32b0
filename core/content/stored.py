"""Reading kept items, for rereads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psycopg.rows import class_row

from core.content.blobs import Blobs, SpooledWriter
from core.db.pool import Conn, Database
from core.integration.limits import Reader
from core.integration.stored import M, StoredItem, state_value
from core.results.reread import KeptRow
from core.results.rows import StoredBlob

AHEAD_BYTES = 4 * 1024 * 1024
"""The maximum size of content that is loaded ahead, in bytes."""

MAX_AHEAD_BYTES = 256 * 1024
"""The size of one item's content above which it is loaded when it is used."""

READ_STATE = (
    "SELECT value, version FROM sync_state WHERE user_integration_id = %s AND partition = %s"
)

# A portion of an account's rows. The bound is on the rows read; the unique index serves it.
PAGE_OF_ITEMS = """
SELECT external_id, kind = ANY(%(kinds)s) AND deleted_at IS NULL FROM (
    SELECT external_id, kind, deleted_at FROM user_integration_content
    WHERE user_integration_id = %(account)s AND external_id > %(after)s
    ORDER BY external_id LIMIT %(most)s) c
ORDER BY external_id
"""
# Items with the rows below them, except what is read itself. The unique index serves the items, the
# index on (account, parent) the rows below: each LATERAL forces one look for each row.
TREES = """
WITH RECURSIVE tree AS (
    SELECT c.external_id AS root, c.id, c.external_id, 0 AS depth
    FROM unnest(%(ids)s::text[]) AS named(id) CROSS JOIN LATERAL (
        SELECT * FROM user_integration_content
        WHERE user_integration_id = %(account)s AND external_id = named.id
          AND kind = ANY(%(kinds)s) AND deleted_at IS NULL LIMIT 1) c
    UNION
    SELECT t.root, c.id, c.external_id, t.depth + 1
    FROM tree t CROSS JOIN LATERAL (
        SELECT id, external_id, kind FROM user_integration_content
        WHERE user_integration_id = %(account)s AND parent = t.external_id OFFSET 0) c
    WHERE c.kind <> ALL(%(kinds)s) AND t.depth < %(depth)s
)
SELECT c.id AS row_id, t.root, c.external_id, c.kind, c.parent, c.name, c.external_timestamp,
    c.content_type, c.size, c.hash, c.metadata, c.fingerprint, c.blob_key,
    c.deleted_at IS NOT NULL AS is_deleted, c.content_seq, c.metadata_seq
FROM (SELECT root, id, min(depth) AS depth FROM tree GROUP BY root, id) t
CROSS JOIN LATERAL (SELECT * FROM user_integration_content WHERE id = t.id LIMIT 1) c
ORDER BY t.root, t.depth, c.external_id
"""
# The primary key serves it.
CONTENT_BY_ID = """
SELECT id, content_text, content_bytes FROM user_integration_content WHERE id = ANY(%s)
"""

MAX_DEPTH = 32
"""The depth below an item at which its tree ends; parents may form a loop."""


def page(
    conn: Conn, account: str, kinds: Sequence[str], *, after: str, most: int
) -> list[tuple[str, bool]]:
    """Return the next rows of an account: the external id, and whether it is an item to read."""
    params = {"account": account, "kinds": list(kinds), "after": after, "most": most}
    return conn.execute(PAGE_OF_ITEMS, params).fetchall()


def trees(
    conn: Conn, account: str, kinds: Sequence[str], ids: Sequence[str]
) -> list[list[KeptRow]]:
    """Return those of these items that are kept, each followed by the rows below it."""
    params: dict[str, Any] = {"account": account, "kinds": list(kinds), "ids": list(ids)}
    found: dict[str, list[KeptRow]] = {}
    with conn.cursor(row_factory=class_row(KeptRow)) as cursor:
        for row in cursor.execute(TREES, params | {"depth": MAX_DEPTH}):
            found.setdefault(row.root, []).append(row)
    return [found[id] for id in ids if id in found]


class StoredContents:
    """The content of kept items, loaded ahead for a few and on use for the others.

    Args:
      database: The connections.
      blobs: The store of large content.
      account: The id of the account.
      name: The name of the task; its unfinished blobs have it.
    """

    def __init__(self, database: Database, blobs: Blobs, account: str, name: str) -> None:
        self._database, self._blobs, self._account, self._name = database, blobs, account, name
        self._states: dict[str, Any] = {}
        self._rows: dict[str, KeptRow] = {}
        self._ahead: dict[int, bytes] = {}
        self._writers = 0

    def items(self, trees: Iterable[Sequence[KeptRow]], reader: Reader) -> Iterator[StoredItem]:
        """Yield the items of these trees. Each is valid until the next."""
        waiting = list(trees)
        while waiting:
            taken, room = 0, AHEAD_BYTES
            for tree in waiting:
                room -= sum(row.size for row in _ahead(tree, reader))
                if taken and room < 0:
                    break
                taken += 1
            self._ahead = self._load(
                row.row_id for tree in waiting[:taken] for row in _ahead(tree, reader)
            )
            for tree in waiting[:taken]:
                self._rows = {row.external_id: row for row in tree}
                yield self._item(tree)
            del waiting[:taken]

    def chunks(self, item: StoredItem) -> Iterator[bytes]:
        """Yield the content of an item."""
        row = self._rows[item.id]
        if row.blob_key is not None:
            for chunk in self._blobs.stream(row.blob_key):
                yield bytes(chunk)
        elif row.hash is not None:
            yield self._inline(row)

    def handle(self, item: StoredItem) -> StoredBlob | None:
        """Return the content of an item, for an output."""
        row = self._rows[item.id]
        if row.hash is None:
            return None
        data = self._inline(row) if row.blob_key is None else None
        return StoredBlob(row.size, row.hash, row.blob_key, data)

    def writer(self) -> SpooledWriter:
        """Return a writer for large content."""
        self._writers += 1
        return SpooledWriter(self._blobs, f"{self._name}-{self._writers}", resumable=False)

    def state(self, partition: str, model: type[M]) -> M | None:
        """Return the value of a state partition, as it was when the first item asked for it.

        Raises:
          CursorExpired: The kept value does not fit the model.
        """
        if partition not in self._states:
            with self._database.connection() as conn:
                row = conn.execute(READ_STATE, (self._account, partition)).fetchone()
            self._states[partition] = row[0] if row is not None else None
        return state_value(partition, self._states[partition], model)

    def _inline(self, row: KeptRow) -> bytes:
        if row.row_id in self._ahead:
            return self._ahead[row.row_id]
        return self._load([row.row_id]).get(row.row_id, b"")

    def _load(self, row_ids: Iterable[int]) -> dict[int, bytes]:
        ids = list(row_ids)
        if not ids:
            return {}
        with self._database.connection() as conn:
            return {
                id: text.encode() if text is not None else bytes(data or b"")
                for id, text, data in conn.execute(CONTENT_BY_ID, (ids,))
            }

    def _item(self, tree: Sequence[KeptRow]) -> StoredItem:
        live = [row for row in tree[1:] if not row.is_deleted]
        children = tuple(self._stored(row) for row in sorted(live, key=lambda row: row.external_id))
        return self._stored(tree[0], children)

    def _stored(self, row: KeptRow, children: tuple[StoredItem, ...] = ()) -> StoredItem:
        return StoredItem(
            row.external_id, row.kind, row.parent, row.name, row.external_timestamp,
            row.content_type, row.metadata, row.fingerprint, row.size, children, _content=self,
        )  # fmt: skip


def _ahead(tree: Sequence[KeptRow], reader: Reader) -> Iterator[KeptRow]:
    """Yield the rows whose content is loaded ahead."""
    for row in tree:
        is_small = row.blob_key is None and row.hash is not None and row.size <= MAX_AHEAD_BYTES
        if is_small and row.kind in reader.sources and not row.is_deleted:
            yield row
