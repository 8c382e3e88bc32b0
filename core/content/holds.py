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

PORTION = 5_000
"""The maximum number of items that one transaction of a sweep reads or deletes.

A transaction may take 0.3 s. With 10,000 items, the slowest one took 0.55 s on two shared cores.
"""

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
# Every transaction locks the held deletions of an account before their items.
LOCK = """
SELECT id FROM held_deletion WHERE user_integration_id = %(account)s ORDER BY id FOR UPDATE
"""

# Items whose deletion already waits, in one held deletion of the same part of the source.
COVERING = f"""
SELECT h.id FROM held_deletion h
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}'
  AND h.source = %(source)s AND h.parent IS NOT DISTINCT FROM %(parent)s
  AND h.vanished <= %(most)s
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
# that stays. A large one is only marked here: the end of a run removes its items in portions.
_REPLACED = """
WHERE user_integration_id = %(account)s AND source = 'listing'
  AND parent IS NOT DISTINCT FROM %(parent)s
  AND since IS NOT DISTINCT FROM %(since)s::timestamptz
  AND until IS NOT DISTINCT FROM %(until)s::timestamptz
  AND id IS DISTINCT FROM %(hold)s
"""
DELETE_REPLACED = f"""
DELETE FROM held_deletion {_REPLACED} AND state = '{HeldState.HELD}' AND vanished <= %(most)s
"""
DROP_REPLACED = f"""
UPDATE held_deletion SET state = '{HeldState.DROPPED}'
{_REPLACED} AND state IN ('{HeldState.HELD}', '{HeldState.COUNTING}')
"""
DROP = f"UPDATE held_deletion SET state = '{HeldState.DROPPED}' WHERE id = %s"
# The same items may wait in the listing of another time window, such as that of yesterday.
TAKE_OUT = f"""
WITH taken AS (
    DELETE FROM held_deletion_item i USING held_deletion h
    WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}'
      AND h.id IS DISTINCT FROM %(hold)s
      AND i.held_deletion_id = h.id AND i.external_id = ANY(%(ids)s)
    RETURNING i.held_deletion_id
), counted AS (SELECT held_deletion_id AS id, count(*) AS items FROM taken GROUP BY 1)
UPDATE held_deletion h SET vanished = vanished - items FROM counted WHERE h.id = counted.id
"""
KEEP_ONLY = """
DELETE FROM held_deletion_item
WHERE held_deletion_id = %(hold)s AND external_id <> ALL(%(ids)s)
"""

# The held deletions of an account, for the end of a run. A sweep that has not ended by then is
# dropped.
AT_END = f"""
SELECT id, state = '{HeldState.DROPPED}' OR state = '{HeldState.COUNTING}' AND run_id = %(run)s
FROM held_deletion
WHERE user_integration_id = %(account)s
  AND (state <> '{HeldState.COUNTING}' OR run_id = %(run)s)
ORDER BY id
"""
LOCK_ONE = "SELECT id FROM held_deletion WHERE id = %(hold)s FOR UPDATE"
# The last item of the next portion. The primary key serves it.
LAST = """
SELECT max(external_id) FROM (
    SELECT external_id FROM held_deletion_item
    WHERE held_deletion_id = %(hold)s AND external_id > %(after)s
    ORDER BY external_id LIMIT %(most)s) portion
"""
# Items that need no decision any more: they are deleted, the source has shown them in this run or
# since it began, or they wait in a newer held deletion. The unique index serves the first look, the
# primary keys the others.
RELEASE = f"""
DELETE FROM held_deletion_item i
WHERE held_deletion_id = %(hold)s AND external_id > %(after)s AND external_id <= %(last)s
  AND (%(drop)s OR (
    SELECT c.id FROM user_integration_content c
    WHERE c.user_integration_id = %(account)s AND c.external_id = i.external_id
      AND c.deleted_at IS NULL AND c.content_seq <= %(start)s AND c.metadata_seq <= %(start)s
      AND NOT EXISTS (SELECT FROM sync_seen s
          WHERE s.run_id = %(run)s AND s.external_id = i.external_id)
    LIMIT 1) IS NULL OR (
    SELECT n.held_deletion_id FROM held_deletion h JOIN held_deletion_item n
        ON n.held_deletion_id = h.id AND n.external_id = i.external_id
    WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}'
      AND h.id > i.held_deletion_id
      AND (SELECT state FROM held_deletion WHERE id = i.held_deletion_id) = '{HeldState.HELD}'
    LIMIT 1) IS NOT NULL)
"""
COUNT_DOWN = "UPDATE held_deletion SET vanished = vanished - %(items)s WHERE id = %(hold)s"
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
    params["most"] = PORTION
    conn.execute(LOCK, params)
    covering = conn.execute(COVERING, params).fetchone()
    if covering is not None:
        params["hold"] = covering[0]
        conn.execute(HELD_BY_RUN, params)
        if place["source"] == HoldSource.LISTING:
            params["items"] = conn.execute(KEEP_ONLY, params).rowcount
            conn.execute(COUNT_DOWN, params)
    else:
        ((params["hold"],),) = conn.execute(HOLD, params)
        conn.execute(HOLD_ITEMS, params)
    if place["source"] == HoldSource.LISTING:
        _drop_replaced(conn, params)
    conn.execute(TAKE_OUT, params)
    conn.execute(DROP_EMPTY, params)


def release(conn: Conn, place: Mapping[str, Any]) -> None:
    """Drop the deletions that wait for the same part of the source: it was listed again."""
    if conn.execute(STATES, (place["account"],)).fetchone() is not None:
        conn.execute(LOCK, place)
        _drop_replaced(conn, {**place, "hold": None, "most": PORTION})


def _drop_replaced(conn: Conn, params: Mapping[str, Any]) -> None:
    conn.execute(DELETE_REPLACED, params)
    conn.execute(DROP_REPLACED, params)


def drop(conn: Conn, hold: int) -> None:
    """Hide a held deletion. The end of a run removes it with its items, in portions."""
    conn.execute(DROP, (hold,))


def settle(conn: Conn, account: UUID, run: Mapping[str, Any]) -> None:
    """Take out of held deletions what needs no decision any more, at the end of a run.

    Each portion of items is a transaction.

    Args:
      conn: A connection in autocommit mode. The rows of `sync_seen` of the run still exist.
      account: The account.
      run: The row of the run that has ended.
    """
    params = {"account": account, "run": run["id"], "start": run["start_seq"], "most": PORTION}
    params |= {"began": run["started_at"], "succeeded": run["state"] == RunState.SUCCEEDED}
    held = conn.execute(AT_END, params).fetchall()
    if not held:
        return
    for hold, is_dropped in held:
        if is_dropped:
            drop(conn, hold)
        after: str | None = ""
        while after is not None:
            after = _settle_portion(conn, {**params, "hold": hold, "drop": is_dropped}, after)
    conn.execute(DROP_EMPTY, params)
    if run["complete"]:
        conn.execute(HOLD_AGAIN, params)


def _settle_portion(conn: Conn, params: Mapping[str, Any], after: str) -> str | None:
    """Return the last item of the portion after this one; None if there is none."""
    with conn.transaction():
        if conn.execute(LOCK_ONE, params).fetchone() is None:
            return None
        last: str | None
        ((last,),) = conn.execute(LAST, {**params, "after": after})
        if last is not None:
            released = conn.execute(RELEASE, {**params, "after": after, "last": last}).rowcount
            conn.execute(COUNT_DOWN, {**params, "items": released})
        return last
