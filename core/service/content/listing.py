"""List the content of many accounts, by filters and by search words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.errors import ProgramLimitExceeded

from core.db.pool import Conn
from core.db.rows import fetch
from core.errors import InvalidInput
from core.service.content.queries import CONTENT_COLUMNS_OF_C
from core.service.pagination import Keyset, Page
from core.service.query_timeout import within

MAX_SEARCH_SECONDS = 20.0
"""Seconds that a query may take.

A word that nearly every text contains makes the query read the texts of all users, and so does the
exclusion of a word that nearly no text contains.
"""

KEY = Keyset({"user_integration_id": "uuid", "external_id": "text"})

_NARROWED = """
(%(external_id)s::text IS NULL OR c.external_id = %(external_id)s)
AND (%(parent)s::text IS NULL OR c.parent = %(parent)s)
AND (%(kind)s::text IS NULL OR c.kind = %(kind)s)
AND (%(since)s::timestamptz IS NULL OR c.external_timestamp >= %(since)s)
AND (%(until)s::timestamptz IS NULL OR c.external_timestamp < %(until)s)
AND (%(updated_since)s::timestamptz IS NULL OR c.updated_at >= %(updated_since)s)
AND (%(deleted)s::boolean IS NULL OR (c.deleted_at IS NOT NULL) = %(deleted)s)
"""

# Accounts in the order of their ids, each with its content in the order of external ids: served by
# the unique index on both, at any place, for one account as for all of a user's. Sorted by the
# outer id, the sort is incremental: it reads an account when its turn has come.
PAGE = f"""
SELECT c.* FROM (
    SELECT id FROM user_integration a
    WHERE (%(account)s::uuid IS NULL OR a.id = %(account)s)
      AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
      AND (%(domain)s::text IS NULL OR a.integration_domain = %(domain)s)
      AND (%(after_user_integration_id)s::uuid IS NULL OR a.id >= %(after_user_integration_id)s)
    ORDER BY a.id
) a CROSS JOIN LATERAL (
    SELECT {CONTENT_COLUMNS_OF_C} FROM user_integration_content c
    WHERE c.user_integration_id = a.id AND {_NARROWED}
      AND c.external_id > CASE WHEN a.id = %(after_user_integration_id)s::uuid
          THEN %(after_external_id)s::text ELSE '' END
    ORDER BY c.external_id LIMIT %(limit)s
) c
ORDER BY a.id, c.external_id LIMIT %(limit)s
"""

# Search the words by their index first; then restrict the matches to the accounts.
SEARCH = f"""
WITH found AS MATERIALIZED (
    SELECT content_id FROM content_search WHERE document @@ websearch_to_tsquery('simple', %(q)s)
)
SELECT {CONTENT_COLUMNS_OF_C}
FROM found JOIN user_integration_content c ON c.id = found.content_id
JOIN (SELECT id AS account_id, user_id
    FROM user_integration) a ON a.account_id = c.user_integration_id
WHERE (%(account)s::uuid IS NULL OR c.user_integration_id = %(account)s)
  AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
  AND (%(domain)s::text IS NULL OR c.integration_domain = %(domain)s) AND {_NARROWED}
  AND ({KEY.is_first_page} OR (c.user_integration_id, c.external_id) > {KEY.place})
ORDER BY c.user_integration_id, c.external_id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class ContentFilter:
    """Which content; None does not filter.

    Attributes:
      user: Whose accounts.
      since, until: The half-open window of the item's own timestamp.
      updated_since: Changed here at this time or later.
      deleted: Whether deleted at the source; None lists both.
      q: Words, as people type them into a search box: `invoice -draft "last call" or memo`.
    """

    account: UUID | None = None
    user: str | None = None
    domain: str | None = None
    external_id: str | None = None
    parent: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    updated_since: datetime | None = None
    deleted: bool | None = False
    q: str | None = None


def page(
    conn: Conn, content_filter: ContentFilter, *, limit: int = 50, after: str | None = None
) -> Page:
    """Read one page, ordered by account and external id.

    Raises:
      InvalidInput: The cursor is invalid, PostgreSQL cannot parse the words, or it takes too long.
    """
    params = asdict(content_filter) | KEY.params(limit, after)
    try:
        with within(conn, MAX_SEARCH_SECONDS):
            rows = fetch(conn, PAGE if content_filter.q is None else SEARCH, params, prepare=False)
    except (psycopg.InternalError, ProgramLimitExceeded):
        if content_filter.q is None:
            raise
        # PostgreSQL's parser fails on a few dozen punctuation marks in a row: a line of dashes.
        raise InvalidInput("search-invalid") from None
    return KEY.page(rows, limit)
