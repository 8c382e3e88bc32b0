"""The delete guard in the database: it counts the items of a deletion, and judges it.

The rule is in `core.results.delete_guard`.
The statements run inside the saving transaction. They lock no content.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from core.content.missing import IN_WINDOW, UNTOUCHED, no_later_dispatch
from core.db.pool import Conn
from core.results.delete_guard import DeleteGuard
from core.results.text import json_text

# The named items and their descendants, as MARK_DELETED would delete them. The same indexes serve
# it: the unique one, and the one on (account, parent), by one look for each item. With a run, it
# leaves out the items that the run has seen, and those that were written since it began. A loop of
# parents ends where it began: UNION has each row once.
LOST = f"""
WITH RECURSIVE incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(items)s::json) AS r(id text, seq bigint)
), below AS (
    SELECT c.external_id, i.seq FROM incoming i CROSS JOIN LATERAL (
        SELECT * FROM user_integration_content
        WHERE user_integration_id = %(account)s AND external_id = i.id LIMIT 1) c
    WHERE c.deleted_at IS NULL AND {no_later_dispatch("i.seq")} AND {UNTOUCHED}
    UNION
    SELECT c.external_id, b.seq FROM below b CROSS JOIN LATERAL (
        SELECT * FROM user_integration_content
        WHERE user_integration_id = %(account)s AND parent = b.external_id OFFSET 0) c
    WHERE c.deleted_at IS NULL AND {no_later_dispatch("b.seq")} AND {UNTOUCHED}
)
SELECT DISTINCT external_id FROM (SELECT external_id FROM below LIMIT %(most)s) b
"""

# Everything that the account keeps in a listing: its items, and all their descendants.
_KEPT = f"""
WITH RECURSIVE below AS (
    SELECT external_id FROM user_integration_content c
    WHERE user_integration_id = %(account)s AND deleted_at IS NULL AND {IN_WINDOW}
"""
_DESCENDANTS = """
    UNION
    SELECT c.external_id FROM below b JOIN user_integration_content c
        ON c.user_integration_id = %(account)s AND c.parent = b.external_id
    WHERE c.deleted_at IS NULL
)
SELECT count(*) FROM (SELECT FROM below LIMIT %(enough)s) b
"""
# Two statements, because no index serves IS NOT DISTINCT FROM.
KEPT = f"{_KEPT} AND parent = %(parent)s {_DESCENDANTS}"
KEPT_AT_ROOT = f"{_KEPT} AND parent IS NULL {_DESCENDANTS}"

# True if an item remains: a live one, or one that the run has seen and a task will fetch. Served by
# the index on live items, which skips as many entries as there are lost items.
REMAINS = """
SELECT EXISTS (SELECT FROM user_integration_content
    WHERE user_integration_id = %(account)s AND deleted_at IS NULL
      AND external_id <> ALL(%(lost)s::text[]))
  OR EXISTS (SELECT FROM sync_seen
    WHERE run_id = %(run)s AND external_id <> ALL(%(lost)s::text[]))
"""

# Counts live items of the account, at most `enough`.
COUNT_LIVE = """
SELECT count(*) FROM (SELECT FROM user_integration_content
    WHERE user_integration_id = %(account)s AND deleted_at IS NULL LIMIT %(enough)s) live
"""
# Served by `sync_task_gone`, which has only tasks with such deletions.
GONE_IN_RUN = """
SELECT coalesce(sum(outputs_gone), 0) FROM sync_task WHERE run_id = %s AND outputs_gone > 0
"""

SAME_CONFIG = """
SELECT coalesce(r.config_version = a.config_version, true)
FROM sync_run r JOIN user_integration a ON a.id = r.user_integration_id WHERE r.id = %s
"""


class Decisions(NamedTuple):
    """The decisions of people on items that are missing.

    Attributes:
      accepted: Items to delete, because this run has looked for them again.
      stay: Items that stay: a person refused their deletion, or accepted it during this run, so
        that the next one looks for them again.
      waiting: Items of a share whose deletion waits for a decision. They stay until then.
    """

    accepted: frozenset[str]
    stay: frozenset[str]
    waiting: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """The items on which a person decided."""
        return self.accepted | self.stay


NONE = Decisions(frozenset(), frozenset(), frozenset())


class Lost(NamedTuple):
    """A deletion, and the decision on it.

    Attributes:
      ids: The items, descendants included.
      total: The items of which they are a share; 0 if it was not counted.
      is_held: True if the deletion waits for a person.
    """

    ids: Sequence[str]
    total: int
    is_held: bool


def judge_listing(
    conn: Conn,
    guard: DeleteGuard,
    place: Mapping[str, Any],
    lost: Sequence[str],
    decided: Decisions = NONE,
    *,
    most: int,
) -> Lost | None:
    """Judge the deletion of items that a complete listing lacks.

    Returns None if that needs a count of more than `most` items.

    Args:
      conn: A connection within the saving transaction.
      guard: The guard.
      place: The account, the run, `start` (its first sequence number) and the fields of the
        listing.
      lost: The items, descendants included, without those on which a person decided.
      decided: The decisions on items of the listing. If the run confirms a deletion, or if some of
        the items wait for a decision already, a person decides on all others too.
      most: The maximum number of items to count.
    """
    if decided.accepted or (decided.waiting and not guard.is_off):
        kept = _kept(conn, place, None, most)
        return None if kept is None else Lost(lost, kept - len(decided.stay), True)
    if guard.is_off:
        return Lost(lost, 0, False)
    if guard.is_small(len(lost)):
        ((remains,),) = conn.execute(REMAINS, {**place, "lost": lost})
        if remains:
            return Lost(lost, 0, False)
    # The count is exact if the deletion exceeds the share.
    stay = len(decided.stay)
    enough = math.ceil(len(lost) / guard.max_share) + 1 + stay if guard.max_share else None
    kept = _kept(conn, place, enough, most)
    if kept is None:
        return None
    total = kept - stay
    # A small deletion gets here only if nothing remains.
    is_held = guard.is_small(len(lost)) or guard.exceeds(len(lost), total)
    return Lost(lost, total, is_held)


def _kept(conn: Conn, place: Mapping[str, Any], enough: int | None, most: int) -> int | None:
    """Count the items that the account keeps in a listing, at most `enough`.

    Returns None if there are more than `most`, and `enough` does not bound them.
    """
    statement = KEPT_AT_ROOT if place["parent"] is None else KEPT
    bound = most + 1 if enough is None else min(enough, most + 1)
    ((kept,),) = conn.execute(statement, {**place, "enough": bound})
    return None if kept > most else int(kept)


def judge_gone(conn: Conn, guard: DeleteGuard, account: str, run: str, lost: Sequence[str]) -> Lost:
    """Judge the deletion of items that a plugin named one by one.

    All such deletions of a run count together, as a share of the items of the account.

    Args:
      conn: A connection within the saving transaction.
      guard: The guard.
      account: The id of the account.
      run: The id of the run.
      lost: The items, descendants included, without those on which a person decided.
    """
    if guard.is_off:
        return Lost(lost, 0, False)
    before = deleted_one_by_one(conn, run)
    count = before + len(lost)
    if not lost or guard.is_small(count):
        return Lost(lost, 0, False)
    enough = math.ceil(count / guard.max_share) + 1 if guard.max_share else count + 1
    ((live,),) = conn.execute(COUNT_LIVE, {"account": account, "enough": enough})
    total = before + live
    return Lost(lost, total, guard.exceeds(count, total))


def deleted_one_by_one(conn: Conn, run: str) -> int:
    """Return the number of items that a run deleted because the plugin named them."""
    ((number,),) = conn.execute(GONE_IN_RUN, (run,))
    return int(number)


def has_same_config(conn: Conn, run: str) -> bool:
    """Return True if config and identity of the account are those with which the run began."""
    ((same,),) = conn.execute(SAME_CONFIG, (run,))
    return bool(same)


def with_descendants(
    conn: Conn,
    account: str,
    items: Mapping[str, int],
    *,
    most: int | None = None,
    run: str | None = None,
    began: datetime | None = None,
) -> list[str]:
    """Return the items that a deletion of these would delete, at most `most`.

    Args:
      conn: A connection within the saving transaction.
      account: The id of the account.
      items: The items, each with the number of the dispatch that deletes it.
      most: The maximum number of items. Default: all.
      run: The run that looked for the items. It leaves out the items that this run has seen.
        Default: it leaves out no item.
      began: The time at which that run began. It leaves out the items that were written since.
        Default: it leaves out no item.
    """
    rows = [{"id": id, "seq": seq} for id, seq in items.items()]
    params = {"account": account, "items": json_text(rows), "most": most, "run": run}
    params |= {"began": "infinity" if began is None else str(began)}
    return sorted(id for (id,) in conn.execute(LOST, params))
