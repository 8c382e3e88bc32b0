"""The items of a thread, in the order of their times, with their texts."""

from __future__ import annotations

from core.content.visible import visible
from core.db.pool import Conn
from core.db.rows import Row
from core.errors import NotFound
from core.search import query as search_query
from core.service.content.listing import MAX_SEARCH_SECONDS
from core.service.content.queries import CONTENT_COLUMNS_OF_C, TEXT_COLUMNS_OF_C
from core.service.pagination import Keyset, Page
from core.service.query_timeout import QuerySlots

KEY = Keyset({"moment": "timestamptz", "id": "bigint"})

# The search index has the items of a thread. The statement reads only them, and only the texts
# of one page.
PAGE_OF_THREAD = f"""
WITH found AS MATERIALIZED (
    SELECT content_id FROM content_search WHERE document @@ %(query)s::tsquery
), page AS MATERIALIZED (
    SELECT * FROM (
        SELECT c.id, coalesce(c.external_timestamp, c.created_at) AS moment
        FROM found JOIN user_integration_content c ON c.id = found.content_id
        WHERE c.user_integration_id = %(account)s AND c.metadata->>'thread_id' = %(thread)s
          AND c.deleted_at IS NULL AND {visible("%(account)s::uuid")}
    ) c
    WHERE {KEY.is_first_page} OR (moment, id) > {KEY.place}
    ORDER BY moment, id LIMIT %(limit)s
)
SELECT page.moment, {CONTENT_COLUMNS_OF_C}, {TEXT_COLUMNS_OF_C}
FROM page JOIN user_integration_content c ON c.id = page.id
ORDER BY page.moment, page.id
"""


def thread_of(row: Row) -> str | None:
    """Return the thread of an item, or None if it has none."""
    thread = row["metadata"].get("thread_id")
    return thread if isinstance(thread, str) and thread else None


def page(
    conn: Conn,
    slots: QuerySlots,
    item: Row,
    *,
    user: str | None,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """Read the thread of an item, the oldest first.

    Deleted items are left out. New items are part of the thread after about a second.

    Args:
      conn: A connection.
      slots: The slots of slow queries.
      item: The row of any item of the thread.
      user: The reader; None for an operator.
      limit: The maximum number of rows of the page.
      after: The cursor of the page before. Default: the first page.

    Raises:
      NotFound: The item has no thread.
      InvalidInput: The cursor is invalid.
      ServerUnavailable: Too many slow queries are in progress.
    """
    thread = thread_of(item)
    if thread is None:
        raise NotFound("content-has-no-thread")
    params = KEY.params(limit, after) | {"account": item["user_integration_id"], "thread": thread}
    params |= {"query": search_query.thread_query(thread)}
    with slots.transaction(conn, MAX_SEARCH_SECONDS, user=user):
        return KEY.read(conn, PAGE_OF_THREAD, params)
