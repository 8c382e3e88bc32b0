"""List the runs of all accounts, the newest first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from uuid import UUID

from core.db.pool import Conn
from core.service.pagination import Keyset, Page
from core.service.query_timeout import QuerySlots

KEY = Keyset({"started_at": "timestamptz", "id": "uuid"})

_NARROWED = f"""
(%(domain)s::text IS NULL OR r.integration_domain = %(domain)s)
AND (%(state)s::text IS NULL OR r.state = %(state)s)
AND ({KEY.is_first_page} OR (r.started_at, r.id) < {KEY.place})
"""

# The index `sync_run_latest` serves it, and `sync_run_by_domain` serves open runs. For a rare state
# it reads all runs, the newest first.
ALL = f"""
SELECT r.*, a.name AS account_name, a.user_id FROM sync_run r
JOIN user_integration a ON a.id = r.user_integration_id
WHERE {_NARROWED} ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
"""
# Reads the newest runs of each account through `sync_run_history`, then takes the newest of those.
# Used for one account, and for all accounts of a user.
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
class RunFilter:
    """Conditions on runs. None: any value."""

    user: str | None = None
    account: UUID | None = None
    domain: str | None = None
    state: str | None = None


def page(
    conn: Conn,
    slots: QuerySlots,
    run_filter: RunFilter,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """Read one page of runs, each with the name of its account.

    Raises:
      InvalidInput: The cursor is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    params = asdict(run_filter) | KEY.params(limit, after)
    statement = ALL if run_filter.user is None and run_filter.account is None else OF_ACCOUNTS
    with slots.transaction(conn, user=run_filter.user):
        return KEY.read(conn, statement, params)
