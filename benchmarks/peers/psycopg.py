"""Bare psycopg: the two fastest batch statements, without checks, comparison or fence."""

from __future__ import annotations

import json
from collections.abc import Sequence

from core.db.pool import Conn

Row = tuple[str, str, str, str, str, str, int, str, str, int, int]

COLUMNS = {
    "account": "uuid", "domain": "text", "id": "text", "kind": "text", "name": "text",
    "content": "text", "size": "bigint", "hash": "text", "digest": "text", "content_seq": "bigint",
    "metadata_seq": "bigint",
}  # fmt: skip

INTO = """
INSERT INTO user_integration_content (
    user_integration_id, integration_domain, external_id, kind, name, content_text, size, hash,
    digest, content_seq, metadata_seq
)
SELECT account, domain, id, kind, name, content, size, hash,
    decode(digest, 'hex'), content_seq, metadata_seq
FROM {source}
ON CONFLICT (user_integration_id, external_id) DO UPDATE SET
    kind = excluded.kind, name = excluded.name, content_text = excluded.content_text,
    size = excluded.size, hash = excluded.hash, digest = excluded.digest,
    content_seq = excluded.content_seq, metadata_seq = excluded.metadata_seq, updated_at = now()
"""
TYPED = ", ".join(f"{name} {type}" for name, type in COLUMNS.items())
FROM_COPY = INTO.replace("{source}", "incoming")
FROM_JSON = INTO.replace("{source}", f"json_to_recordset(%s::json) AS incoming({TYPED})")


def prepare(conn: Conn) -> None:
    """Create the temporary table that COPY fills, and that each commit empties."""
    conn.execute(f"CREATE TEMP TABLE incoming ({TYPED}) ON COMMIT DELETE ROWS")


def copy(conn: Conn, rows: Sequence[Row]) -> None:
    """Save rows with COPY to a temporary table, and one INSERT … ON CONFLICT from it."""
    with conn.cursor() as cursor:
        with cursor.copy("COPY incoming FROM STDIN") as into:
            for row in rows:
                into.write_row(row)
        cursor.execute(FROM_COPY)


def array(conn: Conn, rows: Sequence[Row]) -> None:
    """Save rows with one INSERT … ON CONFLICT from one JSON array."""
    conn.execute(FROM_JSON, (json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows]),))
