"""Queries on content rows, for pages and single rows."""

from __future__ import annotations

from dataclasses import replace

from core.content.visible import OF_ACCOUNT, visible
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.service.pagination import Keyset, PagedQuery

CONTENT_COLUMNS = """id, user_integration_id, integration_domain, external_id, kind, parent, name,
    external_timestamp, content_type, size, hash, metadata, fingerprint, blob_key,
    created_at, updated_at, deleted_at, gone_at_source, reread_at"""

CONTENT_COLUMNS_OF_C = ", ".join(f"c.{name.strip()}" for name in CONTENT_COLUMNS.split(","))
"""The same columns of a table with the alias `c`."""

MAX_TEXT_CHARS = 100_000
"""The characters of each item's text in a page."""

TEXT_COLUMNS_OF_C = f"""left(c.content_text, {MAX_TEXT_CHARS}) AS text,
    coalesce(length(c.content_text) > {MAX_TEXT_CHARS}, c.blob_key IS NOT NULL) AS truncated"""
"""The text of an item, and true if it has more content, of a table with the alias `c`."""

content = PagedQuery(
    CONTENT_COLUMNS,
    "user_integration_content",
    Keyset({"id": "bigint"}),
    filters={
        "user_integration_id": "uuid",
        "kind": "text",
        "deleted": "boolean",
        "gone": "boolean",
    },
    bounds={
        "user_integration_id": OF_ACCOUNT,
        "deleted": "(deleted_at IS NOT NULL) = %(deleted)s",
        "gone": "(gone_at_source IS NOT NULL) = %(gone)s",
    },
    visible=visible(),
)
content_of_account = replace(
    content,
    key=Keyset({"external_id": "text"}),
    filters={**content.filters, "external_id": "text"},
)
"""The content of one account.

The filter `user_integration_id` is required, because the unique index on account and external id
serves the query.
"""

# The primary key serves it.
TEXT_PROBLEM = """
SELECT reason FROM extracted_text WHERE content_id = %(id)s AND hash = %(hash)s
"""

# The index on (account, parent) serves it.
SOURCE_OF_ITEM = f"""
SELECT {CONTENT_COLUMNS} FROM user_integration_content
WHERE user_integration_id = %(account)s AND parent = %(item)s AND kind = 'source'
  AND {visible("%(account)s::uuid")}
ORDER BY id LIMIT 1
"""


def item(conn: Conn, id: int) -> Row:
    """Return the row of an item. Its `text_problem` says why the search does not find its text.

    Raises:
      NotFound: The item does not exist.
    """
    row = content.one(conn, "content", id)
    rows = fetch(conn, TEXT_PROBLEM, row)
    return row | {"text_problem": rows[0]["reason"] if rows else None}


def source(conn: Conn, item: Row) -> Row | None:
    """Return the row of the source of a kept item, such as a mail; None if it has none."""
    params = {"account": item["user_integration_id"], "item": item["external_id"]}
    rows = fetch(conn, SOURCE_OF_ITEM, params)
    return rows[0] if rows else None
