"""Queries on accounts and on the tables of one account, for pages and single rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from core.content.visible import OF_ACCOUNT, visible
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.service.accounts.owed import OWED_COLUMNS
from core.service.content.deletions import deletions
from core.service.formatting import ago
from core.service.pagination import Keyset, PagedQuery
from core.states import AccountState, Lane, RunState

ACCOUNT_COLUMNS = """id, user_id, integration_domain, name, identity, limit_group, config,
    sync_status, status_reason, status_detail, stopped_at, stopped_by, poll_interval_minutes,
    deletions, next_sync_at, last_sync_at, consecutive_failures, resync_due, notice, erasing_since,
    erases_account, created_at, updated_at"""

accounts = PagedQuery(
    ACCOUNT_COLUMNS,
    "user_integration",
    Keyset({"created_at": "timestamptz", "id": "uuid"}),
    filters={
        "user_id": "text",
        "integration_domain": "text",
        "sync_status": "text",
        "due_before": "timestamptz",
    },
    bounds={"due_before": "next_sync_at <= %(due_before)s"},
)
# `sync_run_open` serves it.
_IS_RUNNING = f"""
EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id AND r.lane = '{Lane.LIVE}'
    AND r.state = '{RunState.RUNNING}') AS is_running
"""
shown_accounts = replace(
    accounts, columns=f"{ACCOUNT_COLUMNS}, {_IS_RUNNING}", table="user_integration a"
)
"""The same rows with `is_running`: true if a live run is open."""

listed_accounts = replace(
    shown_accounts, columns=f"{ACCOUNT_COLUMNS}, {_IS_RUNNING}, {OWED_COLUMNS}"
)
"""The same rows with `owed_tasks` and `complete_as_of`. PostgreSQL computes them for the page only.
"""
states = PagedQuery(
    "partition, value, version, updated_at",
    "sync_state",
    Keyset({"partition": "text"}),
    filters={"user_integration_id": "uuid", "deleted": "boolean"},
    bounds={"user_integration_id": OF_ACCOUNT, "deleted": "(value IS NULL) = %(deleted)s"},
)
"""The state partitions of one account.

The filter `user_integration_id` is required, because the primary key serves the query. A deleted
partition keeps its row, without a value.
"""

MAX_SHOWN_STATE_CHARS = 4_000

shown_states = replace(
    states,
    columns=f"""partition, version, updated_at, left(value::text, {MAX_SHOWN_STATE_CHARS}) AS text,
    CASE WHEN octet_length(value::text) <= {MAX_SHOWN_STATE_CHARS} THEN value END AS value""",
)
"""The same partitions with the beginning of their text, and without large values."""

MAX_TOTALED_DELETIONS = 100
"""The number of held deletions in totals. A source decides how many there are."""

_IS_VISIBLE = visible("%(id)s::uuid")
CONTENT_TOTALS = f"""
SELECT count(*) FILTER (WHERE deleted_at IS NULL) AS items, count(deleted_at) AS deleted,
    count(gone_at_source) FILTER (WHERE deleted_at IS NULL) AS gone_at_source,
    coalesce(sum(size) FILTER (WHERE deleted_at IS NULL), 0)::bigint AS bytes
FROM user_integration_content WHERE user_integration_id = %(id)s AND {_IS_VISIBLE}
"""
MAX_COUNTED_ITEMS = 10_000
"""The number of items that a page counts. The planner's statistics estimate more."""

COUNTED_AT_MOST = f"""
SELECT count(*) AS items, coalesce(sum(size), 0)::bigint AS bytes FROM (
    SELECT size FROM user_integration_content
    WHERE user_integration_id = %(id)s AND deleted_at IS NULL AND {_IS_VISIBLE} LIMIT %(most)s
) counted
"""
# The partial indexes on deleted items and on items that are gone serve it.
RARE_AT_MOST = f"""
SELECT (SELECT count(*) FROM (SELECT FROM user_integration_content
        WHERE user_integration_id = %(id)s AND deleted_at IS NOT NULL AND {_IS_VISIBLE}
        LIMIT %(most)s) counted
    ) AS deleted,
    (SELECT count(*) FROM (SELECT FROM user_integration_content
        WHERE user_integration_id = %(id)s AND gone_at_source IS NOT NULL
          AND deleted_at IS NULL AND {_IS_VISIBLE} LIMIT %(most)s) counted) AS gone_at_source
"""
ESTIMATED = """
EXPLAIN (FORMAT JSON) SELECT FROM user_integration_content WHERE user_integration_id = %(id)s
"""
KINDS = f"""
SELECT kind, count(*) AS items, coalesce(sum(size), 0)::bigint AS bytes,
    count(content_text) AS texts, count(content_bytes) AS binaries, count(blob_key) AS blobs
FROM user_integration_content
WHERE user_integration_id = %(id)s AND deleted_at IS NULL AND {_IS_VISIBLE}
GROUP BY kind ORDER BY kind
"""


@dataclass(frozen=True, slots=True)
class NextSync:
    """The next sync of an account, for people.

    Attributes:
      at: Its time; None if it has no time to show.
      word: The state of the sync instead of a time: `running`, `due now`, or `paused` with its
        integration. None: `at` applies.
    """

    at: datetime | None = None
    word: str | None = None

    @property
    def text(self) -> str:
        """The word, or the distance of the time from now."""
        return self.word or ago(self.at)


def next_sync(row: Row) -> NextSync:
    """Return the next sync of a row of `shown_accounts`. An account that is not active has none.

    While a live run is open, `next_sync_at` is the time at which the scheduler looks again.
    """
    if row["sync_status"] != AccountState.ACTIVE:
        return NextSync()
    if row["is_running"]:
        return NextSync(word="running")
    at = row["next_sync_at"]
    if at is None:
        return NextSync(word="paused")
    return NextSync(word="due now") if at <= datetime.now(UTC) else NextSync(at)


@dataclass(frozen=True, slots=True)
class ShownTotals:
    """The stored items and bytes of an account, for people.

    Attributes:
      items, bytes: All items that are not deleted, and their size; estimates for many items.
      is_estimated: True if they are estimates, rounded to two digits.
      deleted, gone_at_source: Counts up to `MAX_COUNTED_ITEMS`.
      held: The latest held deletions.
    """

    items: int
    bytes: int
    is_estimated: bool
    deleted: int
    gone_at_source: int
    held: list[Row]


def shown_totals(conn: Conn, id: UUID) -> ShownTotals:
    """Count up to `MAX_COUNTED_ITEMS` items of an account, and estimate the number of more."""
    params = {"id": id, "most": MAX_COUNTED_ITEMS}
    counted = fetch(conn, COUNTED_AT_MOST, params)[0]
    items, bytes = counted["items"], counted["bytes"]
    is_estimated = items == MAX_COUNTED_ITEMS
    if is_estimated:
        plan = fetch(conn, ESTIMATED, {"id": id}, prepare=False)[0]["QUERY PLAN"]
        estimate = max(items, plan[0]["Plan"]["Plan Rows"])
        items, bytes = _rounded(estimate), _rounded(bytes * estimate // items)
    held = deletions.page(conn, limit=MAX_TOTALED_DELETIONS, user_integration_id=id)
    return ShownTotals(
        items, bytes, is_estimated, held=held.rows, **fetch(conn, RARE_AT_MOST, params)[0]
    )


def _rounded(number: int) -> int:
    """Round a number to two digits."""
    return round(number, 2 - len(str(number)))


def account_kinds(conn: Conn, id: UUID) -> list[Row]:
    """Count the stored items and bytes of an account by kind, and items stored in each form.

    The forms are `texts`, `binaries` (bytes in the row) and `blobs`.
    """
    return fetch(conn, KINDS, {"id": id})


def account_totals(conn: Conn, id: UUID) -> Row:
    """Count the stored items and bytes of an account, and list its latest held deletions."""
    held = deletions.page(conn, limit=MAX_TOTALED_DELETIONS, user_integration_id=id)
    return fetch(conn, CONTENT_TOTALS, {"id": id})[0] | {"held": held.rows}
