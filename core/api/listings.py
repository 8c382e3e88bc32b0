"""Reading what there is, page by page.

Cursors are keysets: a page costs the same wherever it lies.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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

ACCOUNT_COLUMNS = """id, user_id, integration_domain, name, identity, limit_group, config,
    sync_status, status_reason, status_detail, poll_interval_minutes, next_sync_at, last_sync_at,
    consecutive_failures, resync_due, created_at, updated_at"""
TASK_COLUMNS = """id, run_id, user_integration_id, integration_domain, lane, parent_id, retry_of,
    retried_as, type, payload, state, priority, available_at, lease_until, dispatch_no, attempts,
    crashes, snoozes, snoozed_seconds, suspect, started_at, reason, errors, outputs_saved,
    outputs_unchanged, outputs_deleted, followups, created_at, finished_at"""
CONTENT_COLUMNS = """id, user_integration_id, integration_domain, external_id, kind, parent, name,
    external_timestamp, content_type, size, hash, metadata, fingerprint, blob_key,
    created_at, updated_at, deleted_at"""


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
      bounds: Filters that are no equality, by name, as conditions.
    """

    columns: str
    table: str
    key: Mapping[str, str]
    newest_first: bool = False
    bounds: Mapping[str, str] = field(default_factory=dict)

    def page(
        self, conn: Conn, *, limit: int = 50, after: str | None = None, **filters: Any
    ) -> Page:
        """One page.

        Parameters: filters: Columns and what they must equal; `None` does not filter.
          `deleted=False` leaves deleted rows out.

        Raises:
          InvalidInput: The cursor is none of ours.
        """
        limit = min(max(limit, 1), MOST_AT_ONCE)
        live = ["deleted_at IS NULL"] if filters.pop("deleted", None) is False else []
        given = {column: value for column, value in filters.items() if value is not None}
        names: Row = {**given, "limit": limit + 1}
        conditions = [
            *live,
            *(self.bounds.get(column, f"{column} = %({column})s") for column in given),
        ]
        if after is not None:
            names |= (place := self._place(after))
            types = ", ".join(
                f"%({name})s::{kind}" for name, kind in zip(place, self.key.values(), strict=True)
            )
            conditions.append(
                f"({', '.join(self.key)}) {'<' if self.newest_first else '>'} ({types})"
            )
        rows = fetch(conn, self._statement(conditions), names)
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
        statement = f"SELECT {self.columns} FROM {self.table} WHERE id = %(id)s"  # noqa: S608
        rows = fetch(conn, statement, {"id": id})
        if not rows:
            raise NotFound(f"there is no {what} {id}", f"List them: polling {PLURALS[what]}")
        return rows[0]

    def _statement(self, conditions: Sequence[str]) -> str:
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        order = ", ".join(
            f"{column} {'DESC' if self.newest_first else 'ASC'}" for column in self.key
        )
        return f"""
        SELECT {self.columns} FROM {self.table} {where} ORDER BY {order} LIMIT %(limit)s
        """  # noqa: S608  constants

    def _cursor(self, row: Row) -> str:
        return encode_cursor([str(row[column]) for column in self.key])

    def _place(self, cursor: str) -> Row:
        place = decode_cursor(cursor, len(self.key))
        return {f"after_{index}": str(value) for index, value in enumerate(place)}


def encode_cursor(place: Sequence[object]) -> str:
    """Where a page ended, as text that fits into a URL."""
    return base64.urlsafe_b64encode(json.dumps(list(place)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[Any]:
    """Decode a cursor into `length` values: numbers, and texts that PostgreSQL accepts.

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
    bounds={"due_before": "next_sync_at <= %(due_before)s"},
)
runs = Listing("*", "sync_run", {"started_at": "timestamptz", "id": "uuid"}, newest_first=True)
tasks = Listing(TASK_COLUMNS, "sync_task", {"id": "bigint"}, newest_first=True)
content = Listing(CONTENT_COLUMNS, "user_integration_content", {"id": "bigint"})
content_of_account = Listing(CONTENT_COLUMNS, "user_integration_content", {"external_id": "text"})
"""Served by the unique index on account and external id; give it a `user_integration_id`."""

states = Listing(
    "partition, value, version, updated_at",
    "sync_state",
    {"partition": "text"},
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


def fetch(conn: Conn, statement: str, names: Mapping[str, Any]) -> list[Row]:
    """The rows of a query."""
    try:
        with conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(cast(Any, statement), names).fetchall()
    except psycopg.DataError:
        raise no_cursor() from None
