"""List the content of many accounts, by filters and by search words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.errors import ProgramLimitExceeded

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput
from core.search import query as search_query
from core.search import snippets
from core.search.documents import account_lexeme, operator_lexeme, quoted
from core.search.words import folded, words
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

FOUND_KEY = Keyset({"rank": "bigint", "moment": "timestamptz", "id": "bigint"})

MAX_RANKED = 10_000
"""The number of matches that are ranked. The index returns them in the order of their storage."""

MAX_ACCOUNTS = 50
"""The number of accounts whose items the index finds itself; of more, the rows are filtered."""

# The words and the accounts are searched in the index. A match in a name counts ten times as much
# as one in the text. Each form of a word counts, so the word itself counts once more. The best
# matches come first, and of equal ones the newest. The bound counts only the matches that
# the filters leave: others' items, and other days, take no place in it.
SEARCH = f"""
WITH found AS MATERIALIZED (
    SELECT c.id, coalesce(c.external_timestamp, c.created_at) AS moment, s.document
    FROM content_search s JOIN user_integration_content c ON c.id = s.content_id
    JOIN (SELECT id AS account_id, user_id
        FROM user_integration) a ON a.account_id = c.user_integration_id
    WHERE s.document @@ %(q)s::tsquery
      AND (%(account)s::uuid IS NULL OR c.user_integration_id = %(account)s)
      AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
      AND (%(domain)s::text IS NULL OR c.integration_domain = %(domain)s) {_NARROWED}
      AND (%(after_day)s::timestamptz IS NULL
        OR coalesce(c.external_timestamp, c.created_at) >= %(after_day)s)
      AND (%(before_day)s::timestamptz IS NULL
        OR coalesce(c.external_timestamp, c.created_at) < %(before_day)s)
    LIMIT %(most_ranked)s
), ranked AS MATERIALIZED (
    SELECT id, moment,
        ((ts_rank_cd('{{0.1, 0.2, 0.4, 1}}', document, %(exact)s::tsquery, 1)
            + ts_rank_cd('{{0.1, 0.2, 0.4, 1}}', document, %(ranked)s::tsquery, 1) / 4)
            * 1e6)::bigint AS rank
    FROM found
)
SELECT ranked.rank, ranked.moment, {CONTENT_COLUMNS_OF_C},
    left(coalesce(c.content_text, x.text), {snippets.MAX_TEXT_CHARS}) AS text
FROM (
    SELECT * FROM ranked WHERE {FOUND_KEY.is_first_page} OR (rank, moment, id) < {FOUND_KEY.place}
    ORDER BY rank DESC, moment DESC, id DESC LIMIT %(limit)s
) ranked JOIN user_integration_content c ON c.id = ranked.id
LEFT JOIN extracted_text x ON x.content_id = c.id AND x.hash = c.hash
ORDER BY ranked.rank DESC, ranked.moment DESC, ranked.id DESC
"""

ACCOUNTS = f"""
SELECT id FROM user_integration
WHERE (%(account)s::uuid IS NULL OR id = %(account)s)
  AND (%(user)s::text IS NULL OR user_id = %(user)s)
  AND (%(domain)s::text IS NULL OR integration_domain = %(domain)s)
LIMIT {MAX_ACCOUNTS + 1}
"""

MAX_RESOLVED = 200
"""The number of people, channels, labels and folders with a name that are compared."""

NAMED = f"""
SELECT c.external_id, c.name FROM content_search s
JOIN user_integration_content c ON c.id = s.content_id
WHERE s.document @@ %(q)s::tsquery AND c.deleted_at IS NULL LIMIT {MAX_RESOLVED}
"""

NAMED_KINDS = {"from": ("user", "person"), "in": ("channel", "label", "directory", "folder")}
"""The kinds of items whose names `from:` and `in:` understand."""


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
      q: A search query (see `core.search.query`), such as
        `invoice -draft "last call" or memo from:ann in:#general before:2026-05-01`.
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
    """Read one page: ordered by account and external id, or by rank if there is a search query.

    Rows of a search have a `snippet`: the part of the text with the words.

    Raises:
      InvalidInput: The cursor or the search query is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    if content_filter.q is not None:
        return _search(conn, slots, content_filter, content_filter.q, limit, after)
    params = asdict(content_filter) | KEY.params(limit, after)
    with slots.transaction(conn, MAX_SEARCH_SECONDS, user=content_filter.user):
        return KEY.read(conn, PAGE, params)


def _search(
    conn: Conn,
    slots: QuerySlots,
    content_filter: ContentFilter,
    text: str,
    limit: int,
    after: str | None,
) -> Page:
    params = asdict(content_filter) | FOUND_KEY.params(limit, after)
    try:
        with slots.transaction(conn, MAX_SEARCH_SECONDS, user=content_filter.user):
            accounts = _accounts(conn, params)
            if accounts == "":
                return Page([], None)
            query = search_query.parse(text, lambda kind, name: _named(conn, accounts, kind, name))
            conditions = [one for one in (accounts, query.text) if one]
            if not query.has_conditions or not conditions:
                return Page([], None)
            params |= {
                "q": " & ".join(conditions),
                "ranked": query.ranked,
                "exact": query.exact,
                "most_ranked": MAX_RANKED,
                "after_day": query.since,
                "before_day": query.until,
            }
            page = FOUND_KEY.read(
                conn, SEARCH, params, shape=lambda row: _with_snippet(row, query.shown)
            )
    except (psycopg.InternalError, ProgramLimitExceeded):
        raise InvalidInput("search-invalid") from None
    return Page([_without(row, "rank", "moment") for row in page.rows], page.cursor)


def _with_snippet(row: Row, shown: Sequence[str]) -> Row:
    return _without(row, "text") | {"snippet": snippets.snippet(row["text"] or "", shown)}


def _without(row: Row, *columns: str) -> Row:
    return {name: value for name, value in row.items() if name not in columns}


def _accounts(conn: Conn, params: Row) -> str | None:
    """Return the condition for the accounts; empty if there are none, None if they are many."""
    rows = fetch(conn, ACCOUNTS, params)
    if len(rows) > MAX_ACCOUNTS:
        return None
    lexemes = [quoted(account_lexeme(str(row["id"]))) for row in rows]
    return f"( {' | '.join(lexemes)} )" if lexemes else ""


def _named(conn: Conn, accounts: str | None, operator: str, name: str) -> list[str]:
    """Return the ids of people or places with a name.

    A place has exactly this name, with or without its sign; a person's name has all these words.
    """
    found = list(words(name))
    kinds = NAMED_KINDS[operator]
    if not found:
        return []
    kind = " | ".join(quoted(operator_lexeme("kind", one)) for one in kinds)
    named = " & ".join(quoted(word.folded) + (":*" if operator == "from" else "") for word in found)
    query = " & ".join(filter(None, [accounts, f"( {kind} )", f"( {named} )"]))
    rows = fetch(conn, NAMED, {"q": query})
    if operator == "from":
        return [row["external_id"] for row in rows]
    wanted = folded(name.strip("#@/"))
    return [
        row["external_id"].removeprefix("label/")
        for row in rows
        if folded((row["name"] or "").strip("#@/")) == wanted
    ]
