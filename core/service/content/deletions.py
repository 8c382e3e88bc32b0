"""Held deletions: list them with their items, and accept or refuse them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from core.content.visible import ACCOUNT_IS_VISIBLE, visible
from core.db.pool import Conn
from core.db.rows import Row
from core.errors import QuotaReached, WrongState
from core.ledger import audit, scheduling
from core.service.backend import Backend
from core.service.errors import not_found
from core.service.pagination import Keyset, Page, PagedQuery
from core.states import Act, AuditTarget, Deletions, HeldState, ShownHeldState, literals

COLUMNS = """id, user_integration_id, user_id, integration_domain, account_name, run_id, source,
    parent, parent_name, since, until, vanished, total, state, created_at, decided_at"""

deletions = PagedQuery(
    COLUMNS,
    # An account that keeps items holds nothing, also while one of its sweeps is under way.
    f"""(SELECT h.*, a.user_id, a.integration_domain, a.name AS account_name,
        (SELECT p.name FROM user_integration_content p
            WHERE p.user_integration_id = h.user_integration_id AND p.external_id = h.parent
        ) AS parent_name
    FROM held_deletion h JOIN user_integration a ON a.id = h.user_integration_id
    WHERE (a.deletions = '{Deletions.MARK}' OR h.state = '{HeldState.REFUSED}')
      AND {ACCOUNT_IS_VISIBLE}) h""",
    Keyset({"id": "bigint"}),
    newest_first=True,
    filters={
        "user_integration_id": "uuid",
        "user_id": "text",
        "state": "text",
        "held_since": "timestamptz",
        "held_until": "timestamptz",
    },
    bounds={
        "held_since": "created_at >= %(held_since)s",
        "held_until": "created_at < %(held_until)s",
    },
    where=f"state IN ({literals(ShownHeldState)})",
)
oldest = replace(deletions, newest_first=False)
"""The same held deletions, the oldest first."""

items = PagedQuery(
    "external_id, content_id, kind, name, parent, external_timestamp, size",
    f"""(SELECT i.held_deletion_id, i.external_id, c.id AS content_id, c.kind, c.name, c.parent,
        c.external_timestamp, c.size
    FROM held_deletion h JOIN held_deletion_item i ON i.held_deletion_id = h.id
    JOIN user_integration_content c ON c.user_integration_id = h.user_integration_id
        AND c.external_id = i.external_id
    WHERE {visible("h.user_integration_id")}) i""",
    Keyset({"external_id": "text"}),
    filters={"held_deletion_id": "bigint"},
)
"""The items of one held deletion, descendants included.

The filter `held_deletion_id` is required, because the primary keys of items and content serve it.
"""

# Every transaction locks the account before its runs and its held deletions.
LOCK_ACCOUNTS = """
SELECT a.id FROM user_integration a
WHERE a.id IN (SELECT user_integration_id FROM held_deletion WHERE id = ANY(%(ids)s))
ORDER BY a.id FOR NO KEY UPDATE
"""
# An acceptance that a person repeats stays as it is.
DECIDE = f"""
UPDATE held_deletion SET state = %(state)s,
    decided_at = CASE WHEN state = %(state)s THEN decided_at ELSE clock_timestamp() END
WHERE id = ANY(%(ids)s) AND state IN ({literals(ShownHeldState)}) AND {visible()} RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Decided:
    """A held deletion after a person decided.

    Attributes:
      row: Its row.
      run: The run that confirms it: a new one. None if a run is open, so that the next one confirms
        it, or if the account is not active; and for a refusal.
    """

    row: Row
    run: UUID | None = None


def place_name(row: Row) -> str:
    """Return the name of the listing whose items disappeared: of a folder, its path."""
    name, parent = (row["parent_name"] or "").strip(), row["parent"] or ""
    return parent if name and parent.endswith(f"/{name}") else name or parent or "(no name)"


def page_of_items(conn: Conn, id: int, *, limit: int = 50, after: str | None = None) -> Page:
    """Read a page of the items that a held deletion would delete, ordered by external id.

    Raises:
      NotFound: The held deletion does not exist.
    """
    deletions.one(conn, "deletion", id)
    return items.page(conn, limit=limit, after=after, held_deletion_id=id)


def accept(backend: Backend, ids: Sequence[int]) -> list[Decided]:
    """Accept held deletions: the next run looks for their items, and deletes those still missing.

    Nothing else is deleted: the items of a held deletion are those that were shown.

    Raises:
      NotFound: One of them does not exist; none is accepted.
    """
    with backend.database.connection() as conn:
        rows = _decide(conn, ids, HeldState.ACCEPTED)
        runs = {account: _confirm(conn, account) for account in _accounts(rows)}
    backend.wake()
    return [Decided(row, runs[row["user_integration_id"]]) for row in rows]


def refuse(backend: Backend, ids: Sequence[int]) -> list[Decided]:
    """Refuse held deletions: their items stay until the source shows them, or a person decides.

    Raises:
      NotFound: One of them does not exist; none is refused.
    """
    with backend.database.connection() as conn:
        return [Decided(row) for row in _decide(conn, ids, HeldState.REFUSED)]


def _decide(conn: Conn, ids: Sequence[int], state: HeldState) -> list[Row]:
    params = {"ids": list(ids), "state": state}
    with conn.transaction():
        conn.execute(LOCK_ACCOUNTS, params)
        decided = {id for (id,) in conn.execute(DECIDE, params)}
        for id in ids:
            if id not in decided:
                raise not_found("deletion", id)
        rows = [deletions.one(conn, "deletion", id) for id in dict.fromkeys(ids)]
        act = Act.DELETION_ACCEPT if state == HeldState.ACCEPTED else Act.DELETION_REFUSE
        for row in rows:
            audit.record_for_account(
                conn,
                act,
                row["user_integration_id"],
                AuditTarget.HELD_DELETION,
                row["id"],
                vanished=row["vanished"],
            )
        return rows


def _accounts(rows: Sequence[Row]) -> list[UUID]:
    return list(dict.fromkeys(row["user_integration_id"] for row in rows))


def _confirm(conn: Conn, account: UUID) -> UUID | None:
    """Open the run that confirms; None if it starts later: after a run, a pause, or a quota."""
    try:
        run, is_new = scheduling.request_run(conn, account)
    except (WrongState, QuotaReached):
        return None
    return run if is_new else None
