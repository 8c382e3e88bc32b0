"""List the content of many accounts, by filters and by search words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.errors import ProgramLimitExceeded

from core.content.visible import ACCOUNT_IS_VISIBLE, visible
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput
from core.search import query as search_query
from core.search import snippets
from core.search.documents import FORM, account_lexeme, operator_lexeme, quoted
from core.search.words import folded, spelled_out, words
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

# Each filter with an index on (…, account, external id). A page reads the rows that one of them
# leaves, and compares at most `MAX_SCANNED_ROWS` of them with the other filters.
PATHS: Mapping[str, str] = {
    "external_id": "c.external_id = %(external_id)s",
    "parent": "c.parent = %(parent)s",
    "gone": "c.gone_at_source IS NOT NULL",
    "deleted": "c.deleted_at IS NOT NULL",
    "kind": "c.kind = %(kind)s",
    "all": "true",
}

_AFTER = f"({KEY.is_first_page} OR (c.user_integration_id, c.external_id) > {KEY.place})"
_UNTIL = f"({KEY.is_endless} OR (c.user_integration_id, c.external_id) <= {KEY.end})"
_OF_DOMAIN = "(%(domain)s::text IS NULL OR c.integration_domain = %(domain)s)"

# The content of one account, or of all accounts. The sort order within the inner query keeps the
# filters out of it, so that the planner takes the index of the path.
_OF_ACCOUNT = f"""
(%(account)s::uuid IS NULL
    OR c.user_integration_id = %(account)s AND {visible("%(account)s::uuid")})
AND (%(user)s::text IS NULL OR EXISTS (SELECT FROM user_integration a
    WHERE a.id = %(account)s AND a.user_id = %(user)s))
"""
PAGES: Mapping[str, str] = {
    name: f"""
SELECT * FROM (
    SELECT {CONTENT_COLUMNS_OF_C} FROM user_integration_content c
    WHERE {path} AND {_OF_ACCOUNT} AND {_AFTER} AND {_UNTIL}
    ORDER BY c.user_integration_id, c.external_id OFFSET 0
) c
WHERE {_OF_DOMAIN} {_NARROWED} AND {visible("c.user_integration_id")}
ORDER BY c.user_integration_id, c.external_id LIMIT %(limit)s
"""
    for name, path in PATHS.items()
}
ENDS: Mapping[str, str] = {
    name: f"""
SELECT c.user_integration_id, c.external_id FROM user_integration_content c
WHERE {path} AND {_OF_ACCOUNT} AND {_AFTER}
ORDER BY c.user_integration_id, c.external_id OFFSET %(skipped)s LIMIT 1
"""
    for name, path in PATHS.items()
}

# The accounts of a user in the order of their ids, each with its content in the order of external
# ids. Because the rows are sorted by the account's id first, the sort is incremental: it reads the
# next account only when the previous one is exhausted.
_ACCOUNTS_IN_ORDER = f"""
SELECT id FROM user_integration a
WHERE (%(user)s::text IS NULL OR a.user_id = %(user)s)
  AND (%(domain)s::text IS NULL OR a.integration_domain = %(domain)s)
  AND {ACCOUNT_IS_VISIBLE}
  AND ({KEY.is_first_page} OR a.id >= %(after_user_integration_id)s)
"""
PAGES_OF_USER: Mapping[str, str] = {
    name: f"""
SELECT c.* FROM (
    {_ACCOUNTS_IN_ORDER} AND ({KEY.is_endless} OR a.id <= %(end_user_integration_id)s)
    ORDER BY a.id
) a CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT {CONTENT_COLUMNS_OF_C} FROM user_integration_content c
        WHERE {path} AND c.user_integration_id = a.id AND {_AFTER} AND {_UNTIL}
        ORDER BY c.external_id OFFSET 0
    ) c
    WHERE true {_NARROWED} ORDER BY c.external_id LIMIT %(limit)s
) c
ORDER BY a.id, c.external_id LIMIT %(limit)s
"""
    for name, path in PATHS.items()
}
ENDS_OF_USER: Mapping[str, str] = {
    name: f"""
SELECT a.id AS user_integration_id, c.external_id FROM (
    {_ACCOUNTS_IN_ORDER} ORDER BY a.id
) a CROSS JOIN LATERAL (
    SELECT c.external_id FROM user_integration_content c
    WHERE {path} AND c.user_integration_id = a.id AND {_AFTER}
    ORDER BY c.external_id LIMIT %(skipped)s + 1
) c
ORDER BY a.id, c.external_id OFFSET %(skipped)s LIMIT 1
"""
    for name, path in PATHS.items()
} | {
    # An account has at most one such item, so the number of accounts is bounded.
    "external_id": f"""
SELECT a.id AS user_integration_id, %(external_id)s::text AS external_id
FROM ({_ACCOUNTS_IN_ORDER}) a ORDER BY a.id OFFSET %(skipped)s LIMIT 1
"""
}

FOUND_KEY = Keyset({"rank": "bigint", "moment": "timestamptz", "id": "bigint"})

MAX_RANKED = 1_000
"""The number of matches that are ranked."""

MAX_EXAMINED = 5_000
"""The number of items whose words are compared without the index of words."""

MIN_COMMON = 50_000
"""The estimated number of matches from which a search compares the newest items first."""

MIN_NEWEST = 100
"""The number of matches among the newest items from which a search leaves out older ones."""

MAX_ESTIMATED = 8
"""The conditions on words whose matches are estimated. The index does not search the others."""

RARE_FACTOR = 4
"""The index searches the conditions with up to this many times the matches of the rarest one."""

MAX_ACCOUNTS = 50
"""The number of accounts whose items the index finds itself; of more, the rows are filtered."""

_FILTERED = f"""
{ACCOUNT_IS_VISIBLE}
AND (%(account)s::uuid IS NULL OR c.user_integration_id = %(account)s)
AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
AND (%(domain)s::text IS NULL OR c.integration_domain = %(domain)s) {_NARROWED}
AND (%(after_day)s::timestamptz IS NULL
    OR coalesce(c.external_timestamp, c.created_at) >= %(after_day)s)
AND (%(before_day)s::timestamptz IS NULL
    OR coalesce(c.external_timestamp, c.created_at) < %(before_day)s)
"""
# The rows of the items that have the words. With OFFSET, the planner begins with these items: it
# would otherwise begin with all items of the accounts.
_JOINED = """
CROSS JOIN LATERAL (
    SELECT * FROM user_integration_content WHERE id = s.content_id OFFSET 0
) c
CROSS JOIN LATERAL (
    SELECT user_id, sync_status FROM user_integration
    WHERE id = c.user_integration_id OFFSET 0
) a
"""
_OF_RANGE = """
s.moment >= coalesce(greatest(%(since)s::timestamptz, %(after_day)s::timestamptz), '-infinity')
AND s.moment < coalesce(least(%(until)s::timestamptz, %(before_day)s::timestamptz), 'infinity')
"""
_OF_OWNER = """
(%(account)s::uuid IS NULL OR o.id = %(account)s)
AND (%(user)s::text IS NULL OR o.user_id = %(user)s)
"""
_MATCH = "c.id, coalesce(c.external_timestamp, c.created_at) AS moment, s.document"

# The matches that are ranked, from one of three sources. The bound counts only the matches that the
# filters leave: others' items, and other days, take no place in it.
FOUND: Mapping[str, str] = {
    # All items of a few accounts that have few items.
    "accounts": f"""
    SELECT {_MATCH}
    FROM (
        SELECT i.id AS item FROM user_integration o
        JOIN user_integration_content i ON i.user_integration_id = o.id
        WHERE {_OF_OWNER} OFFSET 0
    ) i JOIN content_search s ON s.content_id = i.item {_JOINED}
    WHERE s.document @@ %(q)s::tsquery AND {_FILTERED} LIMIT %(most_ranked)s
    """,
    # The newest items of the range of time, for common words.
    "newest": f"""
    SELECT {_MATCH}
    FROM (
        SELECT * FROM content_search s WHERE {_OF_RANGE}
        ORDER BY s.moment DESC, s.content_id DESC LIMIT %(most_of_each)s
    ) s {_JOINED}
    WHERE s.document @@ %(q)s::tsquery AND {_FILTERED} LIMIT %(most_ranked)s
    """,
    # The newest items of each account.
    "newest of accounts": f"""
    SELECT {_MATCH}
    FROM (
        SELECT s.* FROM user_integration o CROSS JOIN LATERAL (
            SELECT * FROM content_search s WHERE s.user_integration_id = o.id AND {_OF_RANGE}
            ORDER BY s.moment DESC, s.content_id DESC LIMIT %(most_of_each)s
        ) s
        WHERE {_OF_OWNER} LIMIT {MAX_EXAMINED}
    ) s {_JOINED}
    WHERE s.document @@ %(q)s::tsquery AND {_FILTERED} LIMIT %(most_ranked)s
    """,
    # The index of words, which returns matches in the order of their storage. It searches the
    # rarest conditions: reading a common word takes longer than comparing the others. No other
    # index can serve the inner query, however common the planner thinks that the words are.
    "words": f"""
    SELECT {_MATCH}
    FROM (SELECT * FROM content_search WHERE document @@ %(rarest)s::tsquery OFFSET 0) s {_JOINED}
    WHERE s.document @@ %(q)s::tsquery AND {_FILTERED} LIMIT %(most_ranked)s
    """,
}

# A match in a name counts ten times as much as one in the text. Each form of a word counts, so the
# word itself counts once more. The best matches come first, and of equal ones the newest.
SEARCHES: Mapping[str, str] = {
    source: f"""
WITH found AS MATERIALIZED ({found}), ranked AS MATERIALIZED (
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
    for source, found in FOUND.items()
}

# True if the accounts have more items than a search compares without the index of words.
HAS_MANY = f"""
SELECT EXISTS (
    SELECT FROM user_integration o
    JOIN user_integration_content i ON i.user_integration_id = o.id
    WHERE {_OF_OWNER} OFFSET {MAX_EXAMINED}) AS has_many
"""
COUNT_ACCOUNTS = f"SELECT count(*) AS number FROM user_integration o WHERE {_OF_OWNER}"

# True if the range of time has items beyond the newest ones.
HAS_OLDER: Mapping[str, str] = {
    "newest": f"""
SELECT EXISTS (SELECT FROM content_search s WHERE {_OF_RANGE} OFFSET %(most_of_each)s) AS has_older
""",
    "newest of accounts": f"""
SELECT EXISTS (SELECT FROM user_integration o WHERE {_OF_OWNER} AND EXISTS (
    SELECT FROM content_search s WHERE s.user_integration_id = o.id AND {_OF_RANGE}
    OFFSET %(most_of_each)s)) AS has_older
""",
}

# True while the indexer writes the documents of an earlier version again, which have no moment.
# Served by the partial index on them.
HAS_OUTDATED = f"""
SELECT EXISTS (SELECT FROM content_search WHERE form < {FORM}) AS has_outdated
"""
# Sorts and bitmap scans are free to use, or avoided: the planner expects accounts of average size,
# and would otherwise sort all items of a large one.
SET_ORDER = """
SELECT set_config('enable_bitmapscan', %(is_free)s, true),
    set_config('enable_sort', %(is_free)s, true)
"""
ESTIMATE = """
EXPLAIN (FORMAT JSON) SELECT FROM content_search WHERE document @@ %(condition)s::tsquery
"""
COUNT_MATCHES: Mapping[str, str] = {
    source: f"SELECT count(*) AS number FROM ({found}) found" for source, found in FOUND.items()
}

SEARCHED_ACCOUNTS = f"""
SELECT id FROM user_integration
WHERE (%(account)s::uuid IS NULL OR id = %(account)s)
  AND (%(user)s::text IS NULL OR user_id = %(user)s)
  AND (%(domain)s::text IS NULL OR integration_domain = %(domain)s)
LIMIT {MAX_ACCOUNTS + 1}
"""

MAX_RESOLVED = 200
"""The number of people, channels, labels and folders with a name that are compared."""

IS_HIDDEN = f"SELECT 1 FROM user_integration a WHERE id = %(id)s AND NOT {ACCOUNT_IS_VISIBLE}"

NAMED_CONTENT = f"""
SELECT c.external_id, c.name
FROM (SELECT * FROM content_search WHERE document @@ %(rarest)s::tsquery OFFSET 0) s
JOIN user_integration_content c ON c.id = s.content_id
WHERE s.document @@ %(q)s::tsquery AND c.deleted_at IS NULL
  AND {visible("c.user_integration_id")} LIMIT {MAX_RESOLVED}
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

    Rows of a search have a `snippet`: the part of the text with the words. A page without a search
    query may have fewer rows than `limit`, or none, and a cursor.

    Raises:
      InvalidInput: The cursor or the search query is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    if content_filter.q is not None:
        return _search(conn, slots, content_filter, content_filter.q, limit, after)
    params = asdict(content_filter) | KEY.params(limit, after)
    statement, end = statements(content_filter)
    with slots.transaction(conn, MAX_SEARCH_SECONDS, user=content_filter.user):
        page = KEY.read_bounded(
            conn, statement, end, params, is_scattered=_is_of_user(content_filter)
        )
    return page if page.cursor is None else Page(page.rows, _past_hidden(conn, page.cursor))


def _past_hidden(conn: Conn, cursor: str) -> str:
    """Return a cursor that names no hidden item. The last item that a page compares may be hidden.

    All items of its account are hidden then, so the next page begins with the next account.
    """
    account, _ = KEY.decode(cursor)
    if not fetch(conn, IS_HIDDEN, {"id": account}):
        return cursor
    return KEY.encode({"user_integration_id": UUID(int=account.int + 1), "external_id": ""})


def statements(content_filter: ContentFilter) -> tuple[str, str]:
    """Return the query of a page, and that of the last row which it compares with the filters."""
    path = _path(content_filter)
    by_account = _is_of_user(content_filter) or (
        content_filter.account is None and path == "external_id"
    )
    return (PAGES_OF_USER[path], ENDS_OF_USER[path]) if by_account else (PAGES[path], ENDS[path])


def _is_of_user(content_filter: ContentFilter) -> bool:
    return content_filter.account is None and content_filter.user is not None


def _path(content_filter: ContentFilter) -> str:
    """Return the filter whose index a page reads: the one that usually leaves the fewest rows."""
    if content_filter.external_id is not None:
        return "external_id"
    if content_filter.parent is not None:
        return "parent"
    if content_filter.gone:
        return "gone"
    if content_filter.deleted:
        return "deleted"
    return "kind" if content_filter.kind is not None else "all"


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
            conditions = [condition for condition in (accounts, *query.conditions) if condition]
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
            source, params["rarest"] = _source(conn, params, conditions)
            page = FOUND_KEY.read(
                conn,
                SEARCHES[source],
                params,
                shape=lambda row: _with_snippet(row, query.shown),
            )
    except (psycopg.InternalError, ProgramLimitExceeded):
        raise InvalidInput("search-invalid") from None
    return Page([_without(row, "rank", "moment") for row in page.rows], page.cursor)


def _source(conn: Conn, params: Row, conditions: Sequence[str]) -> tuple[str, str]:
    """Return the source of a search's matches that reads the fewest rows.

    Args:
      conn: A connection.
      params: The parameters of the search. The function adds parameters of the source.
      conditions: The conditions on words, all of which must hold.

    Returns:
      A key of `FOUND`, and the conditions that the index of words searches.
    """
    everything = " & ".join(conditions)
    params["most_of_each"] = MAX_EXAMINED
    is_of_few = params["account"] is not None or params["user"] is not None
    if is_of_few and not fetch(conn, HAS_MANY, params, prepare=False)[0]["has_many"]:
        return "accounts", everything
    if _estimate(conn, everything) >= MIN_COMMON:
        source = "newest of accounts" if is_of_few else "newest"
        if _are_enough(conn, source, params):
            return source, everything
    return "words", _rarest(conn, conditions)


def _are_enough(conn: Conn, source: str, params: Row) -> bool:
    """Return True if the newest items have many matches, or if there are no other items.

    The transaction then reads items in the order of their indexes.
    """
    if fetch(conn, HAS_OUTDATED, {})[0]["has_outdated"]:
        return False
    accounts = 0
    if source == "newest of accounts":
        accounts = fetch(conn, COUNT_ACCOUNTS, params, prepare=False)[0]["number"]
        params["most_of_each"] = max(1, MAX_EXAMINED // max(accounts, 1))
    conn.execute(SET_ORDER, {"is_free": "off"})
    counted = params | {"most_ranked": MIN_NEWEST}
    if fetch(conn, COUNT_MATCHES[source], counted, prepare=False)[0]["number"] >= MIN_NEWEST:
        return True
    if (
        accounts <= MAX_EXAMINED
        and not (fetch(conn, HAS_OLDER[source], params, prepare=False)[0]["has_older"])
    ):
        return True
    conn.execute(SET_ORDER, {"is_free": "on"})
    return False


def _rarest(conn: Conn, conditions: Sequence[str]) -> str:
    """Return those conditions on words that the index of words searches."""
    rows = {condition: _estimate(conn, condition) for condition in conditions[:MAX_ESTIMATED]}
    most = RARE_FACTOR * min(rows.values())
    return " & ".join(condition for condition, number in rows.items() if number <= most)


def _estimate(conn: Conn, condition: str) -> int:
    """Return the number of items that meet a condition on words, as the planner estimates it."""
    plan = fetch(conn, ESTIMATE, {"condition": condition}, prepare=False)[0]["QUERY PLAN"]
    rows: int = plan[0]["Plan"]["Plan Rows"]
    return rows


def _with_snippet(row: Row, shown: Sequence[str]) -> Row:
    return _without(row, "text") | {"snippet": snippets.snippet(row["text"] or "", shown)}


def _without(row: Row, *columns: str) -> Row:
    return {name: value for name, value in row.items() if name not in columns}


def _accounts(conn: Conn, params: Row) -> str | None:
    """Return the condition for the accounts; empty if there are none, None if they are many."""
    rows = fetch(conn, SEARCHED_ACCOUNTS, params)
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
    kind = " | ".join(quoted(operator_lexeme("kind", name)) for name in kinds)
    named = " & ".join(quoted(word.folded) + (":*" if operator == "from" else "") for word in found)
    conditions = [*filter(None, [accounts]), f"( {kind} )", f"( {named} )"]
    params = {"q": " & ".join(conditions), "rarest": _rarest(conn, conditions)}
    rows = fetch(conn, NAMED_CONTENT, params, prepare=False)
    if operator == "from":
        return [row["external_id"] for row in rows]
    wanted = _spellings(name)
    return [
        row["external_id"].removeprefix("label/")
        for row in rows
        if _spellings(row["name"] or "") & wanted
    ]


def _spellings(name: str) -> set[str]:
    """Return the name of a place without its sign, and without umlauts in both spellings."""
    bare = name.strip("#@/")
    return {folded(bare), spelled_out(bare)}
