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
from core.service.content import search_query
from core.service.content.queries import CONTENT_COLUMNS_OF_C
from core.service.pagination import Keyset, Page
from core.service.query_timeout import QuerySlots

MAX_SEARCH_SECONDS = 20.0
"""Timeout of a query, in seconds.

A query reads the texts of all users if nearly every text contains the word, or if it excludes a
word that almost no text contains.
"""

KEY = Keyset({"user_integration_id": "uuid", "external_id": "text"})

_NARROWED = """
AND (%(external_id)s::text IS NULL OR c.external_id = %(external_id)s)
AND (%(parent)s::text IS NULL OR c.parent = %(parent)s)
AND (%(kind)s::text IS NULL OR c.kind = %(kind)s)
AND (%(since)s::timestamptz IS NULL OR c.external_timestamp >= %(since)s)
AND (%(until)s::timestamptz IS NULL OR c.external_timestamp < %(until)s)
AND (%(updated_since)s::timestamptz IS NULL
    OR greatest(c.updated_at, c.reread_at) >= %(updated_since)s)
AND (%(deleted)s::boolean IS NULL OR (c.deleted_at IS NOT NULL) = %(deleted)s)
AND (%(gone)s::boolean IS NULL OR (c.gone_at_source IS NOT NULL) = %(gone)s)
"""

# Accounts in the order of their ids, each with its content in the order of external ids. The unique
# index on both columns serves every page, for one account and for all accounts of a user. Because
# the rows are sorted by the account's id first, the sort is incremental: it reads the next account
# only when the previous one is exhausted.
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
    WHERE c.user_integration_id = a.id {_NARROWED}
      AND c.external_id > CASE WHEN a.id = %(after_user_integration_id)s::uuid
          THEN %(after_external_id)s::text ELSE '' END
    ORDER BY c.external_id LIMIT %(limit)s
) c
ORDER BY a.id, c.external_id LIMIT %(limit)s
"""

# The statement searches the words in their index first, and then restricts the matches to the
# accounts.
SEARCH = f"""
WITH found AS MATERIALIZED (
    SELECT content_id FROM content_search WHERE document @@ %(q)s::tsquery
)
SELECT {CONTENT_COLUMNS_OF_C}
FROM found JOIN user_integration_content c ON c.id = found.content_id
JOIN (SELECT id AS account_id, user_id
    FROM user_integration) a ON a.account_id = c.user_integration_id
WHERE (%(account)s::uuid IS NULL OR c.user_integration_id = %(account)s)
  AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
  AND (%(domain)s::text IS NULL OR c.integration_domain = %(domain)s) {_NARROWED}
  AND ({KEY.is_first_page} OR (c.user_integration_id, c.external_id) > {KEY.place})
ORDER BY c.user_integration_id, c.external_id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class ContentFilter:
    """Conditions on content. None: any value.

    Attributes:
      user: The owner of the accounts.
      since, until: The range of the item's own timestamp, without `until` itself.
      updated_since: The row changed in the database at this time or later.
      deleted: True for items that are marked deleted, False for the others, None for both.
      gone: True for items that are kept, and gone at the source; False for the others, None for
        both.
      q: A query in web search syntax, with operators for participants and threads:
        `invoice -draft "last call" or memo from:ann to:example.com`.
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
    gone: bool | None = None
    q: str | None = None


def page(
    conn: Conn,
    slots: QuerySlots,
    content_filter: ContentFilter,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """Read one page, ordered by account and external id.

    Raises:
      InvalidInput: The cursor or the search query is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    params = asdict(content_filter) | KEY.params(limit, after)
    try:
        with slots.transaction(conn, MAX_SEARCH_SECONDS):
            if content_filter.q is not None:
                params["q"] = search_query.parse(conn, content_filter.q)
            rows = fetch(conn, PAGE if content_filter.q is None else SEARCH, params, prepare=False)
    except (psycopg.InternalError, ProgramLimitExceeded):
        if content_filter.q is None:
            raise
        # PostgreSQL's parser fails on several dozen consecutive punctuation marks, as in a rule.
        raise InvalidInput("search-invalid") from None
    return KEY.page(rows, limit)
