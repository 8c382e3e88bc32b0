"""The statements that save rereads, inside the saving transaction.

A reread writes with the sequence numbers of the rows that it read: it never changes `content_seq`
and `metadata_seq`. So a download that is newer than the stored source stays newer than the reread.
An item whose rows have changed since they were read is not written; it is read again.

A reread does not change `updated_at` either. A sweep that has begun before treats the row as
before, and deletes it if the source no longer has it. `synced_xid` keeps the position in the change
feed of the latest other change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.content.store import Key, changed_keys
from core.db.pool import Conn
from core.results.reread import RereadRow
from core.results.text import json_text

# Locks the rows that were read, in the order of all writers. The unique index serves it.
LOCK_READ = """
SELECT c.user_integration_id::text, c.external_id, c.content_seq, c.metadata_seq
FROM json_to_recordset(%s::json) AS r(account uuid, id text)
JOIN user_integration_content c ON c.user_integration_id = r.account AND c.external_id = r.id
ORDER BY c.user_integration_id, c.external_id FOR UPDATE OF c
"""
# Writes changed rows, which are locked, and inserts new ones. A new row gets the sequence number
# and the time of the change of its item. In the feed without rereads it is right before its item,
# so that a reader who has passed the item does not meet it. An id that the account has elsewhere
# gets no row.
WRITE_REREAD = """
WITH incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%s::json) AS r(
        account uuid, domain text, id text, kind text, parent text, name text,
        ts timestamptz, type text, text text, bytes text, blob text, size bigint,
        metadata jsonb, hash text, digest text, fingerprint text, same bool, seq bigint,
        item text, known bool)
), changed AS (
    UPDATE user_integration_content c SET
        kind = i.kind, parent = i.parent, name = i.name, external_timestamp = i.ts,
        content_type = i.type,
        content_text = CASE WHEN i.same THEN c.content_text ELSE i.text END,
        content_bytes = CASE WHEN i.same THEN c.content_bytes
            ELSE decode(i.bytes, 'base64') END,
        blob_key = CASE WHEN i.same THEN c.blob_key ELSE i.blob END,
        size = i.size, hash = i.hash, metadata = i.metadata, fingerprint = i.fingerprint,
        digest = decode(i.digest, 'hex'), deleted_at = NULL,
        reread_at = now(), synced_xid = coalesce(c.synced_xid, c.changed_xid),
        changed_xid = pg_current_xact_id()::text::bigint
    FROM incoming i
    WHERE i.known AND c.user_integration_id = i.account AND c.external_id = i.id
    RETURNING c.user_integration_id, c.external_id
), added AS (
    INSERT INTO user_integration_content (
        user_integration_id, integration_domain, external_id, kind, parent, name,
        external_timestamp, content_type, content_text, content_bytes, blob_key, size,
        metadata, hash, digest, fingerprint, content_seq, metadata_seq,
        created_at, updated_at, reread_at, synced_xid)
    SELECT i.account, i.domain, i.id, i.kind, i.parent, i.name,
        i.ts, i.type, i.text, decode(i.bytes, 'base64'), i.blob, i.size,
        i.metadata, i.hash, decode(i.digest, 'hex'), i.fingerprint, i.seq, i.seq,
        now(), above.updated_at, now(), coalesce(above.synced_xid, above.changed_xid) - 1
    FROM incoming i JOIN user_integration_content above
        ON above.user_integration_id = i.account AND above.external_id = i.item
    WHERE NOT i.known ORDER BY i.account, i.id
    ON CONFLICT (user_integration_id, external_id) DO NOTHING
    RETURNING user_integration_id, external_id
)
SELECT user_integration_id::text, external_id FROM changed
UNION ALL SELECT user_integration_id::text, external_id FROM added
"""
# The rows are locked.
DELETE_REREAD = """
UPDATE user_integration_content c SET deleted_at = now(), reread_at = now(),
    synced_xid = coalesce(c.synced_xid, c.changed_xid),
    changed_xid = pg_current_xact_id()::text::bigint
FROM json_to_recordset(%s::json) AS r(account uuid, id text)
WHERE c.user_integration_id = r.account AND c.external_id = r.id AND c.deleted_at IS NULL
RETURNING c.user_integration_id::text, c.external_id
"""


def write(
    conn: Conn, rows: Sequence[tuple[str, str, RereadRow]]
) -> tuple[set[Key], set[Key], set[Key]]:
    """Save the changes of items; return the keys written, the keys deleted, and stale items.

    An item is stale if one of its rows has changed since it was read. Nothing of it is saved.

    Args:
      conn: A connection within the saving transaction.
      rows: The changes, each with its account and domain.
    """
    latest = {(account, row.item): (account, domain, row) for account, domain, row in rows}
    found = _locked(conn, latest.values())
    stale = {
        key
        for key, (account, _, row) in latest.items()
        if any(found.get((account, id)) != (seq, changed) for id, seq, changed in row.read)
    }
    current = [each for key, each in latest.items() if key not in stale]
    writes = [
        {**write._asdict(), "account": account, "domain": domain, "seq": row.seq,
         "item": row.item, "known": (account, write.id) in found}
        for account, domain, row in current
        for write in row.writes
    ]  # fmt: skip
    gone = [{"account": account, "id": id} for account, _, row in current for id in row.gone]
    return changed_keys(conn, WRITE_REREAD, writes), changed_keys(conn, DELETE_REREAD, gone), stale


def _locked(conn: Conn, rows: Any) -> dict[Key, tuple[int, int]]:
    named = [{"account": account, "id": id} for account, _, row in rows for id, _, _ in row.read]
    if not named:
        return {}
    return {
        (account, id): (seq, changed)
        for account, id, seq, changed in conn.execute(LOCK_READ, (json_text(named),))
    }
