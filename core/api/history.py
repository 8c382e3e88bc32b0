"""Runs of all accounts, the newest first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from core.api.listings import Page, decode_cursor, encode_cursor, fetch
from core.api.timeouts import within
from core.db.pool import Conn

_NARROWED = """
(%(domain)s::text IS NULL OR r.integration_domain = %(domain)s)
AND (%(state)s::text IS NULL OR r.state = %(state)s)
AND (%(after_at)s::timestamptz IS NULL
    OR (r.started_at, r.id) < (%(after_at)s::timestamptz, %(after_id)s::uuid))
"""
# Served by `sync_run_latest`; open ones by `sync_run_by_domain`. A rare state is looked for among
# all runs, backwards.
ALL = f"""
SELECT r.*, a.name AS account_name, a.user_id FROM sync_run r
JOIN user_integration a ON a.id = r.user_integration_id
WHERE {_NARROWED} ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
"""
# The newest of each account by `sync_run_history`, then the newest of those: for one account, and
# for all of a user's.
OF_ACCOUNTS = f"""
SELECT r.*, a.name AS account_name, a.user_id FROM user_integration a CROSS JOIN LATERAL (
    SELECT * FROM sync_run r WHERE r.user_integration_id = a.id AND {_NARROWED}
    ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
) r
WHERE (%(account)s::uuid IS NULL OR a.id = %(account)s)
  AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs; None does not filter."""

    user: str | None = None
    account: UUID | None = None
    domain: str | None = None
    state: str | None = None


def page(conn: Conn, wanted: Wanted, *, limit: int = 50, after: str | None = None) -> Page:
    """One page of runs, each with its account's name.

    Raises:
      InvalidInput: The cursor is none of ours, or looking takes too long.
    """
    at, id = map(str, decode_cursor(after, 2)) if after is not None else (None, None)
    names: dict[str, Any] = asdict(wanted) | {"limit": limit + 1, "after_at": at, "after_id": id}
    statement = ALL if wanted.user is None and wanted.account is None else OF_ACCOUNTS
    with within(conn):
        rows = fetch(conn, statement, names, prepare=False)
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        rows[:limit],
        encode_cursor([last["started_at"].isoformat(), str(last["id"])]) if last else None,
    )
