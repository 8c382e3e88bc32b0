"""Held deletions: what a listing no longer has, until a person decides.

A held deletion covers the items that were missing when the engine held it, by their ids. Items are
taken out of it, and never added: a person accepts exactly what was shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from core.content.guard import NONE, Decisions, Lost
from core.db.pool import Conn
from core.states import HeldState, HoldSource, RunState

# Served by the index on the account: few accounts have held deletions.
DECIDED = f"""
SELECT i.external_id, h.state = '{HeldState.ACCEPTED}' AND h.decided_at <= %(began)s
    AND NOT EXISTS (SELECT FROM sync_seen s
        WHERE s.run_id = %(run)s AND s.external_id = i.external_id)
FROM held_deletion h JOIN held_deletion_item i ON i.held_deletion_id = h.id
WHERE h.user_integration_id = %(account)s AND i.external_id = ANY(%(ids)s)
  AND h.state IN ('{HeldState.ACCEPTED}', '{HeldState.REFUSED}')
"""
STATES = "SELECT DISTINCT state FROM held_deletion WHERE user_integration_id = %s"

# Items whose deletion already waits, in one held deletion of the same part of the source.
COVERING = f"""
SELECT h.id FROM held_deletion h
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}'
  AND h.source = %(source)s AND h.parent IS NOT DISTINCT FROM %(parent)s
  AND (SELECT count(*) FROM held_deletion_item i
       WHERE i.held_deletion_id = h.id AND i.external_id = ANY(%(ids)s)) = %(items)s
ORDER BY h.id LIMIT 1
"""
HOLD = """
INSERT INTO held_deletion (
    user_integration_id, run_id, source, parent, since, until, vanished, total)
VALUES (%(account)s, %(run)s, %(source)s, %(parent)s, %(since)s, %(until)s, %(items)s, %(total)s)
RETURNING id
"""
HELD_BY_RUN = "UPDATE held_deletion SET run_id = %(run)s, total = %(total)s WHERE id = %(hold)s"
HOLD_ITEMS = """
INSERT INTO held_deletion_item (held_deletion_id, external_id)
SELECT %(hold)s, id FROM unnest(%(ids)s::text[]) AS id
ON CONFLICT DO NOTHING
"""
# A later listing of the same part of the source replaces the deletion that waits. `hold` is the one
# that stays.
DROP_REPLACED = f"""
DELETE FROM held_deletion
WHERE user_integration_id = %(account)s AND source = '{HoldSource.LISTING}'
  AND state IN ('{HeldState.HELD}', '{HeldState.COUNTING}')
  AND parent IS NOT DISTINCT FROM %(parent)s
  AND since IS NOT DISTINCT FROM %(since)s::timestamptz
  AND until IS NOT DISTINCT FROM %(until)s::timestamptz
  AND id IS DISTINCT FROM %(hold)s
"""
# The same items may wait in the listing of another time window, such as that of yesterday.
TAKE_OUT = f"""
DELETE FROM held_deletion_item i USING held_deletion h
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}'
  AND h.id IS DISTINCT FROM %(hold)s
  AND i.held_deletion_id = h.id AND i.external_id = ANY(%(ids)s)
"""
TAKE_OUT_ALL = f"""
DELETE FROM held_deletion_item i USING held_deletion h
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}' AND h.id <> %(hold)s
  AND i.held_deletion_id = h.id AND EXISTS (SELECT FROM held_deletion_item n
      WHERE n.held_deletion_id = %(hold)s AND n.external_id = i.external_id)
"""
KEEP_ONLY = """
DELETE FROM held_deletion_item
WHERE held_deletion_id = %(hold)s AND external_id <> ALL(%(ids)s)
"""

# Items that need no decision any more: they are deleted, or the source has shown them in this run
# or since it began.
RELEASE = """
DELETE FROM held_deletion_item i USING held_deletion h
WHERE h.user_integration_id = %(account)s AND i.held_deletion_id = h.id
  AND NOT EXISTS (SELECT FROM user_integration_content c
    WHERE c.user_integration_id = h.user_integration_id AND c.external_id = i.external_id
      AND c.deleted_at IS NULL AND c.content_seq <= %(start)s AND c.metadata_seq <= %(start)s
      AND NOT EXISTS (SELECT FROM sync_seen s
          WHERE s.run_id = %(run)s AND s.external_id = i.external_id))
"""
COUNT = """
UPDATE held_deletion h SET vanished = counted.items
FROM (SELECT d.id, (SELECT count(*) FROM held_deletion_item i WHERE i.held_deletion_id = d.id)
        AS items
    FROM held_deletion d WHERE d.user_integration_id = %(account)s) counted
WHERE h.id = counted.id AND h.vanished <> counted.items
"""
DROP_EMPTY = f"""
DELETE FROM held_deletion h
WHERE user_integration_id = %(account)s AND state <> '{HeldState.COUNTING}'
  AND NOT EXISTS (SELECT FROM held_deletion_item i WHERE i.held_deletion_id = h.id)
"""
# A run that listed everything has ended, and did not come to these items: a person decides again.
# After a run with failures, the next one tries again, for a week.
HOLD_AGAIN = f"""
UPDATE held_deletion h SET state = '{HeldState.HELD}', decided_at = NULL
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.ACCEPTED}'
  AND h.decided_at <= %(began)s
  AND (%(succeeded)s OR h.decided_at < now() - interval '7 days')
  AND NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = h.user_integration_id
      AND r.complete AND r.state = '{RunState.RUNNING}')
"""


def decisions(conn: Conn, place: Mapping[str, Any], ids: Sequence[str]) -> Decisions:
    """Return the decisions on these items of an account.

    Args:
      conn: A connection in a transaction.
      place: `account`, `run` and `began`, the time at which the run began. It confirms only what
        was accepted before.
      ids: Items that are missing.
    """
    states = {state for (state,) in conn.execute(STATES, (place["account"],))}
    if not ids or not states & {HeldState.ACCEPTED, HeldState.REFUSED}:
        return NONE
    decided = conn.execute(DECIDED, {**place, "ids": list(ids)}).fetchall()
    stay = frozenset(id for id, is_confirmed in decided if not is_confirmed)
    return Decisions(frozenset(id for id, _ in decided) - stay, stay)


def hold(conn: Conn, place: Mapping[str, Any], lost: Lost) -> None:
    """Hold the deletion of items. A deletion that waits already and covers them stays.

    Args:
      conn: A connection in a transaction.
      place: `account`, `run`, `source`, `parent`, `since` and `until` of the deletion.
      lost: The missing items, descendants included.
    """
    params = {**place, "ids": list(lost.ids), "items": len(lost.ids), "total": lost.total}
    covering = conn.execute(COVERING, params).fetchone()
    if covering is not None:
        params["hold"] = covering[0]
        conn.execute(HELD_BY_RUN, params)
        if place["source"] == HoldSource.LISTING:
            conn.execute(KEEP_ONLY, params)
    else:
        ((params["hold"],),) = conn.execute(HOLD, params)
        conn.execute(HOLD_ITEMS, params)
    _replace(conn, params)


def adopt(conn: Conn, place: Mapping[str, Any], held: int) -> None:
    """Take the items of a new held deletion out of the others, after a sweep in portions."""
    conn.execute(TAKE_OUT_ALL, {**place, "hold": held})
    _count(conn, place)


def release(conn: Conn, place: Mapping[str, Any]) -> None:
    """Drop the deletions that wait for the same part of the source: it was listed again."""
    conn.execute(DROP_REPLACED, {**place, "hold": None})


def _replace(conn: Conn, params: Mapping[str, Any]) -> None:
    if params["source"] == HoldSource.LISTING:
        conn.execute(DROP_REPLACED, params)
    conn.execute(TAKE_OUT, params)
    _count(conn, params)


def settle(conn: Conn, account: UUID, run: Mapping[str, Any]) -> None:
    """Take out of held deletions what needs no decision any more, at the end of a run.

    Args:
      conn: A connection. The rows of `sync_seen` of the run still exist.
      account: The account.
      run: The row of the run that has ended.
    """
    if not conn.execute(STATES, (account,)).fetchall():
        return
    params = {"account": account, "run": run["id"], "start": run["start_seq"]}
    params |= {"began": run["started_at"], "succeeded": run["state"] == RunState.SUCCEEDED}
    conn.execute(RELEASE, params)
    _count(conn, params)
    if run["complete"]:
        conn.execute(HOLD_AGAIN, params)


def _count(conn: Conn, params: Mapping[str, Any]) -> None:
    conn.execute(COUNT, params)
    conn.execute(DROP_EMPTY, params)
