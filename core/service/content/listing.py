"""Listing content of many accounts, by filters and by words.

Words are found by `content_search`, which a follower in `polling serve` keeps beside the content:
making a search document in the saving transaction cost two to four times what the saving itself
costs (ADR 0041).
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.errors import ProgramLimitExceeded

from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database, passes
from core.db.rows import fetch
from core.errors import InvalidInput
from core.service.content import changes
from core.service.listings import CONTENT_COLUMNS_OF_C
from core.service.pagination import Keyset, Page
from core.service.query_timeout import within

MAX_TEXT_CHARS = 100_000
"""Characters of an item that are searched."""

MAX_SEARCH_SECONDS = 20.0
"""That a query may take.

A word that nearly all texts have, or nearly none shall have, is looked for in the texts of
everybody.
"""

PORTION = 200
"""Items made searchable in one transaction."""

PAUSE_SECONDS = 1.0
"""Between two looks for new content, once all is searchable."""

MEND_SECONDS = 60.0
"""Seconds between two checks for rows of another cluster.

The first check is at the start, as after a restore.
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

# The words first, by their index; then whose it is.
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

# Asked every second by each `polling serve`: an idle installation shall stay idle. A place of
# another cluster is none.
WAITING = """
SELECT changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    OR EXISTS (
        SELECT FROM user_integration_content c
        WHERE (c.changed_xid, c.id) > (p.changed_xid, p.content_id)
          AND c.changed_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
FROM search_progress p
"""

# Follows the change feed, one follower in the fleet at a time. A content row that goes meanwhile
# takes its document along, by the foreign key; one that was deleted at its source stays searchable,
# as it can still be listed. Rows are locked in the order that all writers of content keep, and
# weakly: savers do not wait, those who erase do.
LOCK_PROGRESS = """
SELECT CASE
    WHEN changed_xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN changed_xid
    ELSE 0 END, content_id
FROM search_progress FOR UPDATE SKIP LOCKED
"""
FOLLOW = """
WITH changed AS MATERIALIZED (
    SELECT id, changed_xid, name, left(content_text, %(longest)s) AS content_text
    FROM user_integration_content
    WHERE (changed_xid, id) > (%(changed_xid)s, %(content_id)s)
      AND changed_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY changed_xid, id LIMIT %(portion)s
), kept AS (
    INSERT INTO content_search (content_id, document)
    SELECT c.id, to_tsvector('simple', concat_ws(' ', changed.name, changed.content_text))
    FROM changed JOIN user_integration_content c ON c.id = changed.id
    ORDER BY c.user_integration_id, c.external_id FOR KEY SHARE OF c
    ON CONFLICT (content_id) DO UPDATE SET document = excluded.document
)
SELECT changed_xid, id FROM changed ORDER BY changed_xid DESC, id DESC LIMIT 1
"""
ADVANCE = "UPDATE search_progress SET changed_xid = %(changed_xid)s, content_id = %(content_id)s"
BEHIND = """
SELECT count(*) FROM (
    SELECT FROM user_integration_content c, search_progress p
    WHERE (c.changed_xid, c.id) > (p.changed_xid, p.content_id) LIMIT 10000
) waiting
"""

log = logging.getLogger(__name__)


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


def page(conn: Conn, wanted: ContentFilter, *, limit: int = 50, after: str | None = None) -> Page:
    """One page, by account and external id.

    Raises:
      InvalidInput: The cursor is invalid, PostgreSQL cannot parse the words, or it takes too long.
    """
    names = asdict(wanted) | KEY.names(limit, after)
    try:
        with within(conn, MAX_SEARCH_SECONDS):
            rows = fetch(conn, PAGE if wanted.q is None else SEARCH, names, prepare=False)
    except (psycopg.InternalError, ProgramLimitExceeded):
        if wanted.q is None:
            raise
        # Its parser gives up on some dozens of signs in a row, as in a line of dashes.
        raise InvalidInput("search-invalid") from None
    return KEY.page(rows, limit)


def index_portion(conn: Conn, portion: int = PORTION, longest: int = MAX_TEXT_CHARS) -> int | None:
    """Make the next portion of changed content searchable. None: another process is at it.

    Parameters:
      longest: Characters of an item's text that are searched; 0 leaves its name.

    Returns:
      1 if there was any, 0 if all that is committed is searchable.
    """
    with conn.transaction():
        progress = conn.execute(LOCK_PROGRESS).fetchone()
        if progress is None:
            return None
        names = {
            "changed_xid": progress[0],
            "content_id": progress[1],
            "portion": portion,
            "longest": longest,
        }
        last = conn.execute(FOLLOW, names).fetchone()
        if last is not None:
            conn.execute(ADVANCE, {"changed_xid": last[0], "content_id": last[1]})
    return int(last is not None)


def index_lag(conn: Conn) -> int:
    """How many changes are not searchable yet; counts no further than 10,000."""
    row = conn.execute(BEHIND).fetchone()
    return row[0] if row else 0


def index_pending(conn: Conn) -> int | None:
    """Update the search documents; handle an item that has no valid document by itself.

    Search finds such an item by its name, and the other items are not affected.
    """
    for portion, longest in ((PORTION, MAX_TEXT_CHARS), (1, MAX_TEXT_CHARS), (1, 0)):
        try:
            return index_portion(conn, portion, longest)
        except psycopg.DatabaseError as error:
            if passes(error) or longest == 0:
                raise
            log.warning(
                "content could not be made searchable (%s): going on in smaller steps",
                type(error).__name__,
            )
    raise AssertionError


class SearchIndexer:
    """A thread that keeps content searchable, beside the requests of `polling serve`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the portion under way."""
        self._ended.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        mended = -MEND_SECONDS
        while not self._ended.is_set():
            try:
                with self._database.connection() as conn:
                    if time.monotonic() - mended >= MEND_SECONDS:
                        while changes.repair_horizon(conn):
                            pass
                        mended = time.monotonic()
                    waiting = conn.execute(WAITING).fetchone()
                    more = index_pending(conn) if waiting and waiting[0] else None
            except DATABASE_UNAVAILABLE as error:
                log.warning("content is not made searchable now: %s", error)
                more = None
            except Exception:
                log.exception("content could not be made searchable; it is tried again")
                more = None
            if not more:
                self._ended.wait(PAUSE_SECONDS)
