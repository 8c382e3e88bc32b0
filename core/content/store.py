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

from core.content import holds, orphans
from core.content.guard import has_same_config, judge_listing, with_descendants
from core.content.missing import IN_WINDOW, MISSING, UNMARKED, no_later_dispatch, unmarked
from core.content.portions import Step, begin
from core.db.pool import Conn
from core.db.short_transactions import MAX_ROWS, DirectRows
from core.results.delete_guard import DeleteGuard
from core.results.rows import ListingRow, OutputRow
from core.results.text import json_text
from core.states import Deletions, HeldState, HoldSource

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
            AND (c.digest <> decode(i.digest, 'hex')
                OR c.deleted_at IS NOT NULL OR c.gone_at_source IS NOT NULL)
        -- The same result has just deleted the row, together with its parent.
        OR c.content_seq = i.seq AND (c.deleted_at IS NOT NULL OR c.gone_at_source IS NOT NULL)
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
    updated_at = now(), deleted_at = NULL, gone_at_source = NULL,
    changed_xid = excluded.changed_xid, synced_xid = NULL
WHERE c.content_seq < excluded.content_seq
    OR c.content_seq = excluded.content_seq
        AND (c.deleted_at IS NOT NULL OR c.gone_at_source IS NOT NULL)
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
      AND (c.metadata || i.metadata <> c.metadata OR i.fingerprint <> coalesce(c.fingerprint, '')
        OR c.gone_at_source IS NOT NULL)
    ORDER BY i.account, i.id FOR UPDATE OF c
)
UPDATE user_integration_content c SET
    metadata = c.metadata || l.metadata, fingerprint = coalesce(l.fingerprint, c.fingerprint),
    digest = '', metadata_seq = l.seq, updated_at = now(), gone_at_source = NULL,
    changed_xid = pg_current_xact_id()::text::bigint, synced_xid = NULL
FROM locked l WHERE c.id = l.id
RETURNING c.user_integration_id::text, c.external_id
"""

# True for a row without such a held deletion. Served by the index on the account, which has few
# held deletions, and the primary key of their items.
_HELD_ITEM = """
    SELECT h.id FROM held_deletion h
    JOIN held_deletion_item x ON x.held_deletion_id = h.id AND x.external_id = c.external_id
    WHERE h.user_integration_id = c.user_integration_id"""
NOT_REFUSED = f"({_HELD_ITEM} AND h.state = '{HeldState.REFUSED}' LIMIT 1) IS NULL"
NOT_WAITING = f"""({_HELD_ITEM} AND (h.state = '{HeldState.REFUSED}'
    OR h.state = '{HeldState.HELD}' AND h.total >= b.floor) LIMIT 1) IS NULL"""

# Marks items and all their descendants deleted. In an account that keeps them, it records since
# when they are gone, once. Items whose deletion a person refused stay, and so do descendants whose
# deletion waits for a decision. Two indexes serve it: the unique one, and the one on (account,
# parent). Each LATERAL forces one look for each item; a join may read all rows of the account for
# it. The last condition excludes rows that another transaction wrote while this statement waited
# for their lock.
MARK_DELETED = f"""
WITH RECURSIVE incoming AS MATERIALIZED (
    SELECT r.*, a.deletions = '{Deletions.KEEP}' AS keeps
    FROM json_to_recordset(%s::json) AS r(
        account uuid, id text, seq bigint, alone bool, floor bigint)
    JOIN user_integration a ON a.id = r.account
), below AS (
    SELECT c.id, c.user_integration_id, c.external_id, i.seq, i.id AS root, i.keeps, i.alone,
        i.floor
    FROM incoming i CROSS JOIN LATERAL (
        SELECT * FROM user_integration_content
        WHERE user_integration_id = i.account AND external_id = i.id LIMIT 1) c
    WHERE c.deleted_at IS NULL AND {unmarked("i.keeps")} AND {no_later_dispatch("i.seq")}
      AND (i.keeps OR {NOT_REFUSED})
    UNION
    SELECT c.id, c.user_integration_id, c.external_id, b.seq, b.root, b.keeps, b.alone,
        b.floor
    FROM below b CROSS JOIN LATERAL (
        SELECT * FROM user_integration_content
        WHERE user_integration_id = b.user_integration_id AND parent = b.external_id OFFSET 0) c
    WHERE c.deleted_at IS NULL AND {unmarked("b.keeps")} AND {no_later_dispatch("b.seq")}
      AND b.alone IS NOT TRUE
      AND (b.keeps OR {NOT_WAITING})
), locked AS (
    -- One entry for each row, joined only with the table. A join of two such lists would compare
    -- every row with every other row.
    SELECT b.* FROM (
        SELECT DISTINCT ON (id) id, seq, root, keeps FROM below ORDER BY id, seq DESC) b
    JOIN user_integration_content c ON c.id = b.id
    ORDER BY c.user_integration_id, c.external_id FOR UPDATE OF c
)
UPDATE user_integration_content c
SET deleted_at = CASE WHEN NOT b.keeps THEN now() END,
    gone_at_source = CASE WHEN b.keeps THEN now() END,
    updated_at = now(), content_seq = b.seq, metadata_seq = b.seq,
    changed_xid = pg_current_xact_id()::text::bigint, synced_xid = NULL
FROM locked b
WHERE c.id = b.id AND {no_later_dispatch("b.seq")}
RETURNING c.user_integration_id::text, b.root, c.deleted_at IS NOT NULL
"""

# Accounts with items that are gone. `user_integration_content_gone` serves it.
HAVE_GONE = """
SELECT account::text FROM unnest(%s::uuid[]) AS account WHERE EXISTS (
    SELECT FROM user_integration_content
    WHERE user_integration_id = account AND gone_at_source IS NOT NULL)
"""
# Records that the source shows items again. `user_integration_content_gone` serves it: it has only
# the rows that are gone.
SHOW_AGAIN = f"""
WITH incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%s::json) AS r(account uuid, id text, seq bigint)
), locked AS (
    SELECT c.id FROM user_integration_content c
    JOIN incoming i ON i.account = c.user_integration_id AND i.id = c.external_id
    WHERE c.gone_at_source IS NOT NULL AND {no_later_dispatch("i.seq")}
    ORDER BY c.user_integration_id, c.external_id FOR UPDATE OF c
)
UPDATE user_integration_content c SET gone_at_source = NULL, updated_at = now(),
    changed_xid = pg_current_xact_id()::text::bigint, synced_xid = NULL
FROM locked l WHERE c.id = l.id
RETURNING c.user_integration_id::text, c.external_id
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

# Items that a complete listing no longer contains.
_VANISHED = f"""
SELECT external_id FROM user_integration_content c
WHERE user_integration_id = %(account)s AND {MISSING} AND {UNMARKED}
  AND {IN_WINDOW}
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
    return changed_keys(conn, UPSERT, rows)


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
    return changed_keys(conn, UPDATE, rows)


def changed_keys(conn: Conn, statement: str, rows: Sequence[Mapping[str, Any]]) -> set[Key]:
    """Write rows with a statement; return the keys of those that it changed."""
    if not rows:
        return set()
    return {(account, id) for account, id in conn.execute(statement, (json_text(rows),))}


def mark_deleted(
    conn: Conn, deletions: Iterable[tuple[Writer, str]], *, alone: bool = False, floor: int = 0
) -> Counter[Key]:
    """Turn items and their descendants into tombstones, or record that they are gone.

    Returns the number of deleted rows, descendants included, by the key of the item. It has the
    keys of all items that changed; in an account that keeps items, the numbers are 0.

    Args:
      conn: A connection in the saving transaction.
      deletions: The external id of each item, with the task that deletes it.
      alone: True to leave the descendants as they are.
      floor: The floor of the delete guard.
    """
    rows = [{**row, "alone": alone, "floor": floor} for row in _item_rows(deletions)]
    deleted: Counter[Key] = Counter()
    if rows:
        for account, root, is_deleted in conn.execute(MARK_DELETED, (json_text(rows),)):
            deleted[account, root] += is_deleted
    return deleted


def insert_placeholders(conn: Conn, deletions: Iterable[tuple[Writer, str]]) -> None:
    """Insert placeholders for deleted items that were never stored."""
    rows = _item_rows(deletions)
    if rows:
        conn.execute(INSERT_PLACEHOLDERS, (json_text(rows),))


def _item_rows(items: Iterable[tuple[Writer, str]]) -> list[Mapping[str, Any]]:
    return [
        {"account": writer.account, "domain": writer.domain, "seq": writer.seq, "id": id}
        for writer, id in items
    ]


def record_seen(conn: Conn, seen: Iterable[tuple[str, str]]) -> None:
    """Record items that still exist at the source, each as (run, external id)."""
    rows = [{"run": run, "id": id} for run, id in seen]
    if rows:
        conn.execute(SEEN, (json_text(rows),))


def show_again(conn: Conn, seen: Iterable[tuple[Writer, str]]) -> set[Key]:
    """Record that the source shows items; return the keys of those that were gone."""
    shown = list(seen)
    accounts = sorted({writer.account for writer, _ in shown})
    have_gone = {account for (account,) in conn.execute(HAVE_GONE, (accounts,))} if accounts else ()
    again = [(writer, id) for writer, id in shown if writer.account in have_gone]
    return changed_keys(conn, SHOW_AGAIN, _item_rows(again))


def sweep(
    conn: Conn,
    listing: ListingRow,
    writer: Writer,
    *,
    start_seq: int,
    began: datetime,
    guard: DeleteGuard,
    keeps: bool,
    direct: DirectRows,
) -> tuple[int, Step | None]:
    """Mark items deleted that a complete listing no longer contains, or record that they are gone.

    Nothing is deleted if the config or identity of the account has changed since the run began.
    Returns the number of rows that were marked deleted, 0 if the guard holds the deletion. For a
    listing with more items than this transaction may still compare or delete, returns the first
    step of its sweep, and deletes nothing.

    Args:
      conn: A connection in the saving transaction.
      listing: The listing.
      writer: The task that completed the listing.
      start_seq: The sequence number at which its run began.
      began: The time at which its run began. Items written later exist, no matter which task wrote
        them.
      guard: The delete guard.
      keeps: True if the account keeps items that are gone at the source; then it holds nothing.
      direct: The rows that this transaction may still handle; counts those of this sweep.
    """
    if not has_same_config(conn, writer.run):
        return 0, None
    place = {"account": writer.account, "run": writer.run, "start": start_seq, "began": began}
    place |= {"source": HoldSource.LISTING, "keeps": keeps, **listing._asdict()}
    at_root = listing.parent is None
    most = direct.to_read
    ((size,),) = conn.execute(SIZE_AT_ROOT if at_root else SIZE, place | {"most": most + 1})
    orphaned = () if keeps else orphans.marked_parents(conn, place)
    if size > most or orphaned:
        return 0, _in_portions(conn, place, orphaned)
    direct.count(read=size)
    vanished = [id for (id,) in conn.execute(VANISHED_AT_ROOT if at_root else VANISHED, place)]
    if not vanished:
        holds.release(conn, place)
        return 0, None
    ids, most = dict.fromkeys(vanished, start_seq), direct.to_delete
    lost = with_descendants(conn, writer.account, ids, most=most + 1, run=writer.run, began=began)
    if len(lost) > most:
        return 0, _in_portions(conn, place, orphaned)
    direct.count(deleted=len(lost))
    # As old as the beginning of the run: what any task wrote since, or will write, is newer.
    sweeper = writer._replace(seq=start_seq)
    if keeps:
        holds.release(conn, place)
        return sum(mark_deleted(conn, [(sweeper, id) for id in lost], alone=True).values()), None
    return _decide(conn, place, sweeper, lost, guard)


def _in_portions(conn: Conn, place: Mapping[str, Any], orphaned: Sequence[str]) -> Step:
    """Begin a sweep in portions. It replaces one that has not ended."""
    holds.release(conn, place, HeldState.COUNTING)
    return begin(conn, place, orphaned)


def _decide(
    conn: Conn,
    place: Mapping[str, Any],
    sweeper: Writer,
    lost: Sequence[str],
    guard: DeleteGuard,
) -> tuple[int, Step | None]:
    """Delete the items that a person accepted or the guard allows, and hold the rest.

    If a judgement needs the count of a large listing, the sweep continues in portions.
    """
    decided = holds.decisions(conn, place, lost, guard)
    rest = [id for id in lost if id not in decided.all]
    judged = None
    if rest:
        judged = judge_listing(conn, guard, place, rest, decided, most=MAX_ROWS)
        if judged is None:
            return 0, _in_portions(conn, place, ())
    accepted = [(sweeper, id) for id in lost if id in decided.accepted]
    deleted = sum(mark_deleted(conn, accepted, alone=True).values())
    if judged is not None and judged.is_held:
        holds.hold(conn, place, judged)
    else:
        holds.release(conn, place)
        allowed = [(sweeper, id) for id in rest]
        deleted += sum(mark_deleted(conn, allowed, alone=True).values())
    orphans.mark_parents(conn, [(sweeper.account, id) for id in lost])
    return deleted, None
