"""Reading what there is, page by page.

Cursors are keysets: a page costs the same wherever it lies.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from core.content.text import fits
from core.db.pool import Conn
from core.errors import InvalidInput, NotFound

Row = dict[str, Any]

MOST_AT_ONCE = 1_000

PLURALS = {"account": "accounts", "run": "runs", "task": "tasks", "content": "content"}

ACCOUNT_COLUMNS = """id, user_id, integration_domain, name, identity, limit_group, config, sync_status, status_reason,
    status_detail, poll_interval_minutes, next_sync_at, last_sync_at, consecutive_failures, resync_due, created_at,
    updated_at"""
TASK_COLUMNS = """id, run_id, user_integration_id, integration_domain, lane, parent_id, retry_of, retried_as, type,
    payload, state, priority, available_at, lease_until, dispatch_no, attempts, crashes, snoozes, snoozed_seconds,
    suspect, started_at, reason, errors, outputs_saved, outputs_unchanged, outputs_deleted, followups, created_at,
    finished_at"""
CONTENT_COLUMNS = """id, user_integration_id, integration_domain, external_id, kind, parent, name, external_timestamp,
    content_type, size, hash, metadata, fingerprint, blob_key, created_at, updated_at, deleted_at"""
CONTENT_COLUMNS_OF_C = ", ".join(f"c.{name.strip()}" for name in CONTENT_COLUMNS.split(","))


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and where the next page begins; None after the last one."""

    rows: list[Row]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A query that can be read page by page.

    Parameters:
      columns, table: What is read.
      key: The columns that order it, with their types.
      newest_first: Whether the order is descending.
      filters: What a page may be narrowed to, with its type: the column of this name is equal.
      bounds: Conditions of the filters that are not an equality, by name.
      where: A condition of every page.
    """

    columns: str
    table: str
    key: Mapping[str, str]
    newest_first: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, str] = field(default_factory=dict)
    where: str = "true"
    statement: str = field(init=False, repr=False)
    by_id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Write the statements, once: a filter that is not given is NULL, and is planned away."""
        filters = "".join(
            f" AND (%({name})s::{kind} IS NULL OR {self.bounds.get(name, f'{name} = %({name})s')})"
            for name, kind in self.filters.items()
        )
        place = [f"%(after_{index})s::{kind}" for index, kind in enumerate(self.key.values())]
        direction, further = ("DESC", "<") if self.newest_first else ("ASC", ">")
        order = ", ".join(f"{column} {direction}" for column in self.key)
        statement = f"""
        SELECT {self.columns} FROM {self.table} WHERE {self.where}{filters}
          AND ({place[0]} IS NULL OR ({", ".join(self.key)}) {further} ({", ".join(place)}))
        ORDER BY {order} LIMIT %(limit)s
        """
        object.__setattr__(self, "statement", statement)
        by_id = f"SELECT {self.columns} FROM {self.table} WHERE id = %(id)s"
        object.__setattr__(self, "by_id", by_id)

    def page(
        self, conn: Conn, *, limit: int = 50, after: str | None = None, **filters: Any
    ) -> Page:
        """One page.

        Parameters: filters: Values of `filters`, and of what `where` names; `None` does not
          filter. `deleted=False` leaves deleted rows out.

        Raises:
          InvalidInput: The cursor is none of ours.
        """
        unknown = [name for name in filters if f"%({name})s" not in self.statement]
        if unknown:
            raise TypeError(f"{self.table} cannot be filtered by {', '.join(unknown)}")
        limit = min(max(limit, 1), MOST_AT_ONCE)
        names: Row = dict.fromkeys(self.filters) | filters | {"limit": limit + 1}
        rows = fetch(conn, self.statement, names | self._place(after), prepare=False)
        more = len(rows) > limit
        return Page(rows[:limit], self._cursor(rows[limit - 1]) if more else None)

    def pages(self, conn: Conn, **filters: Any) -> Iterator[Row]:
        """All rows, read in portions."""
        after: str | None = None
        while True:
            page = self.page(conn, limit=MOST_AT_ONCE, after=after, **filters)
            yield from page.rows
            after = page.cursor
            if after is None:
                return

    def one(self, conn: Conn, what: str, id: UUID | int) -> Row:
        """One row by its id.

        Raises:
          NotFound: There is none.
        """
        rows = fetch(conn, self.by_id, {"id": id})
        if not rows:
            raise NotFound(f"there is no {what} {id}", f"List them: polling {PLURALS[what]}")
        return rows[0]

    def _cursor(self, row: Row) -> str:
        return encode_cursor([str(row[column]) for column in self.key])

    def _place(self, cursor: str | None) -> Row:
        if cursor is None:
            return {f"after_{index}": None for index in range(len(self.key))}
        place = decode_cursor(cursor, len(self.key))
        return {f"after_{index}": str(value) for index, value in enumerate(place)}


def encode_cursor(place: Sequence[object]) -> str:
    """Where a page ended, as text that fits into a URL."""
    return base64.urlsafe_b64encode(json.dumps(list(place)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[Any]:
    """The same place again, of so many values: texts that PostgreSQL can be asked about, and
    numbers.

    Raises:
      InvalidInput: The cursor is none of ours.
    """
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if not isinstance(place, list) or len(place) != length or not all(map(_may_be_asked, place)):
        raise no_cursor()
    return place


def decode_id(cursor: str) -> int:
    """The same where the place is an id alone.

    Raises:
      InvalidInput: The cursor is none of ours.
    """
    (id,) = decode_cursor(cursor, 1)
    if type(id) is not int or not 0 <= id < 2**63:
        raise no_cursor()
    return id


def _may_be_asked(value: object) -> bool:
    return fits(value) if isinstance(value, str) else isinstance(value, int | float)


def no_cursor() -> InvalidInput:
    """What is said about a cursor that somebody made up, or took from another listing."""
    return InvalidInput("this cursor is none of this listing", "Begin without --after")


accounts = Listing(
    ACCOUNT_COLUMNS,
    "user_integration",
    {"created_at": "timestamptz", "id": "uuid"},
    filters={
        "user_id": "text",
        "integration_domain": "text",
        "sync_status": "text",
        "due_before": "timestamptz",
    },
    bounds={"due_before": "next_sync_at <= %(due_before)s"},
)
runs = Listing(
    "*",
    "sync_run",
    {"started_at": "timestamptz", "id": "uuid"},
    newest_first=True,
    filters={"user_integration_id": "uuid", "state": "text"},
)
tasks = Listing(
    TASK_COLUMNS,
    "sync_task",
    {"id": "bigint"},
    newest_first=True,
    filters={"run_id": "uuid", "user_integration_id": "uuid", "state": "text"},
)
content = Listing(
    CONTENT_COLUMNS,
    "user_integration_content",
    {"id": "bigint"},
    filters={"user_integration_id": "uuid", "kind": "text", "deleted": "boolean"},
    bounds={"deleted": "(deleted_at IS NOT NULL) = %(deleted)s"},
)
content_of_account = replace(
    content, key={"external_id": "text"}, filters={**content.filters, "external_id": "text"}
)
"""Served by the unique index on account and external id; give it a `user_integration_id`."""

states = Listing(
    "partition, value, version, updated_at",
    "sync_state",
    {"partition": "text"},
    filters={"user_integration_id": "uuid", "forgotten": "boolean"},
    bounds={"forgotten": "(value IS NULL) = %(forgotten)s"},
)
"""Give it a `user_integration_id`: served by the primary key.

A partition that was forgotten has no value.
"""

COUNTED = """
SELECT count(*) FILTER (WHERE deleted_at IS NULL) AS items, count(deleted_at) AS deleted,
    coalesce(sum(size) FILTER (WHERE deleted_at IS NULL), 0)::bigint AS bytes
FROM user_integration_content WHERE user_integration_id = %(id)s
"""
HELD = """
SELECT parent, since, until, vanished, total, created_at FROM held_deletion
WHERE user_integration_id = %(id)s ORDER BY id
"""


def account_totals(conn: Conn, id: UUID) -> Row:
    """How much is kept of an account, and which deletions wait for a person."""
    return fetch(conn, COUNTED, {"id": id})[0] | {"held": fetch(conn, HELD, {"id": id})}


def fetch(
    conn: Conn, statement: str, names: Mapping[str, Any], *, prepare: bool | None = None
) -> list[Row]:
    """The rows of a query.

    Parameters:
      prepare: False plans it for these values: conditions on what is not given cost nothing.
    """
    try:
        with conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(cast(Any, statement), names, prepare=prepare).fetchall()
    except psycopg.DataError:
        raise no_cursor() from None
