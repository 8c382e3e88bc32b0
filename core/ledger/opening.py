"""Open a run of an account, or find the open one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from core.db.pool import Conn
from core.errors import NotFound, WrongState
from core.integration.base import START
from core.results.result import task_key
from core.states import AccountState, RunState

DOMAIN_OF = "SELECT integration_domain FROM user_integration WHERE id = %s"

OPEN_RUN = """
INSERT INTO sync_run (
    id, user_integration_id, integration_domain, lane, trigger, start_seq, complete,
    config_version, next_sync_at)
SELECT %(id)s, %(account)s, %(domain)s, %(lane)s, %(trigger)s, last_value, %(complete)s,
    (SELECT config_version FROM user_integration WHERE id = %(account)s),
    (SELECT next_sync_at FROM user_integration WHERE id = %(account)s)
FROM dispatch_seq
"""
NO_PAYLOAD = "'{}'"
ROOT_KEY = bytes.fromhex(task_key(START))
ADD_ROOT = f"""
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key)
VALUES (%(id)s, %(account)s, %(domain)s, %(lane)s, '{START}', {NO_PAYLOAD}, %(root)s)
"""
# The unique index `sync_run_open` prevents a second run: the statement waits for an uncommitted
# transaction that has inserted one into the same lane.
OPEN_RUN_IF_NONE = f"""{OPEN_RUN}
ON CONFLICT (user_integration_id, lane) WHERE state = '{RunState.RUNNING}' DO NOTHING
"""
# Waits for a transaction that ends the run, and then returns no row. Served by `sync_run_open`.
SHARE_OPEN_RUN = f"""
SELECT id FROM sync_run WHERE user_integration_id = %(account)s AND lane = %(lane)s
    AND state = '{RunState.RUNNING}' FOR SHARE
"""


def open_run(conn: Conn, account: UUID, *, lane: str, trigger: str) -> UUID:
    """Return the open run of a lane, locked FOR SHARE. If necessary, open one without a root task.

    Call this in a transaction. The run cannot end before the transaction does, so it can take more
    tasks.

    Raises:
      NotFound: The account does not exist.
    """
    params: dict[str, Any] = {"account": account, "domain": _domain_of(conn, account)}
    params |= {"lane": lane, "trigger": trigger, "complete": False}
    while True:
        _open_if_none(conn, params)
        run = _share_open(conn, params)
        if run is not None:
            return run
        # The open run that `_open_if_none` found has ended since.


def _domain_of(conn: Conn, account: UUID) -> str:
    """Return the domain of an account. Locks nothing, because a domain never changes."""
    row = conn.execute(DOMAIN_OF, (account,)).fetchone()
    if row is None:
        raise NotFound("account-not-found", account=account)
    domain: str = row[0]
    return domain


def _open_if_none(conn: Conn, params: Mapping[str, Any]) -> None:
    """Insert a run unless one is open in the lane.

    Locks the new run, after the account or the tasks that the caller has locked. Waits for a
    concurrent transaction that opens a run in the same lane.
    """
    conn.execute(OPEN_RUN_IF_NONE, {**params, "id": uuid4()})


def _share_open(conn: Conn, params: Mapping[str, Any]) -> UUID | None:
    """Lock the open run FOR SHARE, after the account or the tasks that the caller has locked.

    Waits for a concurrent transaction that ends the run. Returns None if the run has ended.
    """
    row = conn.execute(SHARE_OPEN_RUN, params).fetchone()
    return None if row is None else row[0]


def not_active(status: str, account: UUID) -> WrongState:
    """Return the error for a request that only an active account accepts."""
    match status:
        case AccountState.PAUSED:
            return WrongState("account-paused", account=account)
        case AccountState.DISCONNECTED:
            return WrongState("account-disconnected", account=account)
        case AccountState.ERASING:
            return WrongState("account-erasing", account=account)
    return WrongState("account-stopped", account=account)
