"""The statements that save content.

They run inside the saving transaction, after the fence. Each sorts its rows by key.

A row records two writers: `content_seq` is the dispatch that wrote its content, and `metadata_seq`
the dispatch that changed the row last. A write with a smaller number than the row's is late, and is
ignored.

Every change also writes `changed_xid`, the number of its transaction, which orders the change feed
(ADR 0040). For new rows it is the default of the column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from core.content.guard import has_same_config, hold, judge_listing, release, with_descendants
from core.content.portions import PORTION, Step, begin
from core.db.pool import Conn
from core.results.delete_guard import DeleteGuard
from core.results.rows import ListingRow, OutputRow
from core.results.text import json_text
from core.states import HoldSource

# Locks content rows in the order of (account, external id). The unique index serves it. The join
# excludes unchanged rows, so they are not locked.
UPSERT = """
WITH incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%s::json) AS r(
        account uuid, domain text, id text, kind text, parent text, name text,
        ts timestamptz, type text, text text, bytes text, blob text, size bigint,
        metadata jsonb, hash text, digest text, fingerprint text, seq bigint)
), changed AS (
    SELECT i.* FROM incoming i
    LEFT JOIN user_integration_content c
        ON c.user_integration_id = i.account AND c.external_id = i.id
    WHERE c.id IS NULL
        OR c.content_seq < i.seq
            AND (c.digest <> decode(i.digest, 'hex') OR c.deleted_at IS NOT NULL)
        -- The same result has just deleted the row, together with its parent.
        OR c.content_seq = i.seq AND c.deleted_at IS NOT NULL
    ORDER BY i.account, i.id
)
INSERT INTO user_integration_content AS c (
    user_integration_id, integration_domain, external_id, kind, parent, name,
    external_timestamp, content_type, content_text, content_bytes, blob_key, size,
    metadata, hash, digest, fingerprint, content_seq, metadata_seq)
SELECT account, domain, id, kind, parent, name,
    ts, type, text, decode(bytes, 'base64'), blob, size,
    metadata, hash, decode(digest, 'hex'), fingerprint, seq, seq
FROM changed
ON CONFLICT (user_integration_id, external_id) DO UPDATE SET
    kind = excluded.kind, parent = excluded.parent, name = excluded.name,
    external_timestamp = excluded.external_timestamp, content_type = excluded.content_type,
    content_text = excluded.content_text, content_bytes = excluded.content_bytes,
    blob_key = excluded.blob_key, size = excluded.size, hash = excluded.hash,
    content_seq = excluded.content_seq,
    -- A change of metadata that was dispatched later but saved earlier takes precedence.
    metadata = CASE WHEN c.metadata_seq < excluded.metadata_seq
        THEN excluded.metadata ELSE excluded.metadata || c.metadata END,
    fingerprint = CASE WHEN c.metadata_seq < excluded.metadata_seq
        THEN excluded.fingerprint ELSE c.fingerprint END,
    digest = CASE WHEN c.metadata_seq < excluded.metadata_seq
        THEN excluded.digest ELSE ''::bytea END,
    metadata_seq = greatest(c.metadata_seq, excluded.metadata_seq),
    updated_at = now(), deleted_at = NULL, changed_xid = excluded.changed_xid
WHERE c.content_seq < excluded.content_seq
    OR c.content_seq = excluded.content_seq AND c.deleted_at IS NOT NULL
RETURNING user_integration_id::text, external_id
"""

# It clears the digest, so that the next complete item counts as changed.
UPDATE = """
WITH incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%s::json)
        AS r(account uuid, id text, metadata jsonb, fingerprint text, seq bigint)
), locked AS (
    SELECT c.id, i.metadata, i.fingerprint, i.seq FROM incoming i
    JOIN user_integration_content c ON c.user_integration_id = i.account AND c.external_id = i.id
    WHERE c.metadata_seq < i.seq AND c.deleted_at IS NULL
      AND (c.metadata || i.metadata <> c.metadata OR i.fingerprint <> coalesce(c.fingerprint, ''))
    ORDER BY i.account, i.id FOR UPDATE OF c
)
UPDATE user_integration_content c SET
    metadata = c.metadata || l.metadata, fingerprint = coalesce(l.fingerprint, c.fingerprint),
    digest = '', metadata_seq = l.seq, updated_at = now(),
    changed_xid = pg_current_xact_id()::text::bigint
FROM locked l WHERE c.id = l.id
RETURNING c.user_integration_id::text, c.external_id
"""

# Marks items and all their descendants deleted. Two indexes serve it: the unique one, and the one
# on (account, parent). The last condition excludes rows that another transaction wrote while this
# statement waited for their lock.
MARK_DELETED = """
WITH RECURSIVE incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%s::json) AS r(account uuid, id text, seq bigint)
), below AS (
    SELECT c.id, c.user_integration_id, c.external_id, i.seq, i.id AS root FROM incoming i
    JOIN user_integration_content c ON c.user_integration_id = i.account AND c.external_id = i.id
    WHERE c.deleted_at IS NULL AND c.metadata_seq <= i.seq AND c.content_seq <= i.seq
    UNION
    SELECT c.id, c.user_integration_id, c.external_id, b.seq, b.root FROM below b
    JOIN user_integration_content c ON c.user_integration_id = b.user_integration_id
        AND c.parent = b.external_id
    WHERE c.deleted_at IS NULL AND c.metadata_seq <= b.seq AND c.content_seq <= b.seq
), locked AS (
    -- One entry for each row, joined only with the table. A join of two such lists would compare
    -- every row with every other row.
    SELECT b.* FROM (SELECT DISTINCT ON (id) id, seq, root FROM below ORDER BY id, seq DESC) b
    JOIN user_integration_content c ON c.id = b.id
    ORDER BY c.user_integration_id, c.external_id FOR UPDATE OF c
)
UPDATE user_integration_content c
SET deleted_at = now(), updated_at = now(), content_seq = b.seq, metadata_seq = b.seq,
    changed_xid = pg_current_xact_id()::text::bigint
FROM locked b
WHERE c.id = b.id AND c.metadata_seq <= b.seq AND c.content_seq <= b.seq
RETURNING c.user_integration_id::text, b.root
"""

# Inserts a deleted row, without content, for an item that was never stored. For a row that is
# already deleted, it raises the numbers of the writers. In both cases, a download that still runs
# cannot store the item.
INSERT_PLACEHOLDERS = """
INSERT INTO user_integration_content AS c (
    user_integration_id, integration_domain, external_id, kind, digest,
    content_seq, metadata_seq, deleted_at)
SELECT account, domain, id, 'item', '', seq, seq, now()
FROM json_to_recordset(%s::json) AS r(account uuid, domain text, id text, seq bigint)
ORDER BY account, id
ON CONFLICT (user_integration_id, external_id) DO UPDATE SET
    content_seq = excluded.content_seq, metadata_seq = excluded.metadata_seq
WHERE c.deleted_at IS NOT NULL
  AND c.content_seq < excluded.content_seq AND c.metadata_seq < excluded.metadata_seq
"""

SEEN = """
INSERT INTO sync_seen (run_id, external_id)
SELECT run, id FROM json_to_recordset(%s::json) AS r(run uuid, id text) ORDER BY run, id
ON CONFLICT DO NOTHING
"""

# Items that a complete listing no longer contains: the run has not seen them, and they were written
# before it began, by both their number and their time. The number alone would delete an item that a
# slow task of another run saved during this run. The time alone would delete an item that a slow
# transaction saved.
_VANISHED = """
SELECT external_id FROM user_integration_content c
WHERE user_integration_id = %(account)s AND deleted_at IS NULL
  AND content_seq <= %(start)s AND metadata_seq <= %(start)s AND updated_at < %(began)s
  AND NOT EXISTS (SELECT FROM sync_seen s
      WHERE s.run_id = %(run)s AND s.external_id = c.external_id)
  AND (%(since)s::timestamptz IS NULL OR external_timestamp >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR external_timestamp < %(until)s)
"""
# Two statements, because no index serves IS NOT DISTINCT FROM.
VANISHED = f"{_VANISHED} AND parent = %(parent)s"
VANISHED_AT_ROOT = f"{_VANISHED} AND parent IS NULL"

# The number of items that a sweep compares, at most %(most)s. Served by the index of listings.
_SIZE = """
SELECT count(*) FROM (SELECT FROM user_integration_content
    WHERE user_integration_id = %(account)s AND deleted_at IS NULL
"""
SIZE = f"{_SIZE} AND parent = %(parent)s LIMIT %(most)s) c"
SIZE_AT_ROOT = f"{_SIZE} AND parent IS NULL LIMIT %(most)s) c"


class Writer(NamedTuple):
    """The task that writes rows.

    Attributes:
      seq: The sequence number of its dispatch; see the docstring of this module.
    """

    account: str
    domain: str
    run: str
    task: int
    seq: int


Write = tuple[Writer, OutputRow]

Key = tuple[str, str]
"""An account and an external id."""


def upsert(conn: Conn, writes: Sequence[Write]) -> set[Key]:
    """Store complete items; return the keys of new and changed ones."""
    # Listing the fields is faster than a loop. This is half of the saver's own work for a row.
    rows = [
        {
            "account": writer.account,
            "domain": writer.domain,
            "seq": writer.seq,
            "id": row.id,
            "kind": row.kind,
            "parent": row.parent,
            "name": row.name,
            "ts": row.ts,
            "type": row.type,
            "text": row.text,
            "bytes": row.bytes,
            "blob": row.blob,
            "size": row.size,
            "metadata": row.metadata,
            "hash": row.hash,
            "digest": row.digest,
            "fingerprint": row.fingerprint,
        }
        for writer, row in writes
    ]
    return _keys(conn, UPSERT, rows)


def update(conn: Conn, writes: Sequence[Write]) -> set[Key]:
    """Change the metadata of stored items; return the keys of those that changed."""
    rows = [
        {
            "account": writer.account,
            "seq": writer.seq,
            "id": row.id,
            "metadata": row.metadata,
            "fingerprint": row.fingerprint,
        }
        for writer, row in writes
    ]
    return _keys(conn, UPDATE, rows)


def _keys(conn: Conn, statement: str, rows: Sequence[Mapping[str, Any]]) -> set[Key]:
    if not rows:
        return set()
    return {(account, id) for account, id in conn.execute(statement, (json_text(rows),))}


def mark_deleted(conn: Conn, deletions: Iterable[tuple[Writer, str]]) -> Counter[Key]:
    """Turn items and their descendants into tombstones.

    Returns the number of changed rows, descendants included, by the key of the item.
    """
    rows = _deletion_rows(deletions)
    if not rows:
        return Counter()
    keys = conn.execute(MARK_DELETED, (json_text(rows),))
    return Counter((account, root) for account, root in keys)


def insert_placeholders(conn: Conn, deletions: Iterable[tuple[Writer, str]]) -> None:
    """Insert placeholders for deleted items that were never stored."""
    rows = _deletion_rows(deletions)
    if rows:
        conn.execute(INSERT_PLACEHOLDERS, (json_text(rows),))


def _deletion_rows(deletions: Iterable[tuple[Writer, str]]) -> list[Mapping[str, Any]]:
    return [
        {"account": writer.account, "domain": writer.domain, "seq": writer.seq, "id": id}
        for writer, id in deletions
    ]


def record_seen(conn: Conn, seen: Iterable[tuple[str, str]]) -> None:
    """Record items that still exist at the source, each as (run, external id)."""
    rows = [{"run": run, "id": id} for run, id in seen]
    if rows:
        conn.execute(SEEN, (json_text(rows),))


def sweep(
    conn: Conn,
    listing: ListingRow,
    writer: Writer,
    *,
    start_seq: int,
    began: datetime,
    guard: DeleteGuard,
) -> tuple[int, Step | None]:
    """Mark items deleted that a complete listing no longer contains.

    Nothing is deleted if the config or identity of the account has changed since the run began.
    Returns the number of rows that were marked deleted, 0 if the guard holds the deletion. For a
    listing of more than `PORTION` items, or with as many lost ones, returns the first step of its
    sweep, and deletes nothing.

    Parameters:
      writer: The task that completed the listing.
      start_seq, began: The sequence number and the time at which its run began. Items written later
        exist, no matter which task wrote them.
      guard: The delete guard.
    """
    if not has_same_config(conn, writer.run):
        return 0, None
    place = {"account": writer.account, "run": writer.run, "start": start_seq, "began": began}
    place |= listing._asdict()
    release(conn, place)
    at_root = listing.parent is None
    ((size,),) = conn.execute(SIZE_AT_ROOT if at_root else SIZE, place | {"most": PORTION + 1})
    if size > PORTION:
        return 0, begin(conn, place)
    vanished = [id for (id,) in conn.execute(VANISHED_AT_ROOT if at_root else VANISHED, place)]
    if not vanished:
        return 0, None
    ids = dict.fromkeys(vanished, start_seq)
    lost = with_descendants(conn, writer.account, ids, most=PORTION + 1)
    if len(lost) > PORTION:
        return 0, begin(conn, place)
    judged = judge_listing(conn, guard, place, lost)
    if judged.is_held:
        hold(conn, place, HoldSource.LISTING, judged)
        return 0, None
    # As old as the beginning of the run: what any task wrote since, or will write, is newer.
    sweeper = writer._replace(seq=start_seq)
    return sum(mark_deleted(conn, [(sweeper, id) for id in vanished]).values()), None
