"""Items that are still here below a deleted item.

A task may save or see an item after another one deleted its parent. No listing further up would
compare it, because no listing reads below a deleted item. So the deleted parent is marked: its
`gone_at_source` is set. The next complete listing above it continues below it.

An account that keeps items has no deleted parents: there, such an item only lacks the time since
when it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.content.missing import LIVE_CHILD, UNSEEN
from core.db.pool import Conn
from core.results.text import json_text

# Locks rows in the order of all writers. The unique index and the index of listings serve it, one
# look for each item.
MARK_PARENTS = f"""
WITH incoming AS MATERIALIZED (
    SELECT DISTINCT account, id FROM json_to_recordset(%s::json) AS r(account uuid, id text)
), locked AS (
    SELECT c.id FROM incoming i JOIN user_integration_content c
        ON c.user_integration_id = i.account AND c.external_id = i.id
    WHERE c.deleted_at IS NOT NULL AND c.gone_at_source IS NULL AND {LIVE_CHILD} IS NOT NULL
    ORDER BY i.account, i.id FOR UPDATE OF c
)
UPDATE user_integration_content c SET gone_at_source = c.deleted_at
FROM locked WHERE c.id = locked.id
"""
# The marked parents whose nearest ancestor that is not deleted is the parent of the listing, and
# which this run has not seen. `user_integration_content_gone` serves it: few rows are marked.
MARKED = f"""
WITH RECURSIVE up AS (
    SELECT external_id, parent AS above FROM user_integration_content
    WHERE user_integration_id = %(account)s AND gone_at_source IS NOT NULL
      AND deleted_at IS NOT NULL
    UNION
    SELECT up.external_id, c.parent FROM up CROSS JOIN LATERAL (
        SELECT * FROM user_integration_content
        WHERE user_integration_id = %(account)s AND external_id = up.above LIMIT 1) c
    WHERE c.deleted_at IS NOT NULL
)
SELECT DISTINCT c.external_id FROM up c WHERE c.above IS NOT DISTINCT FROM %(parent)s
  AND {UNSEEN}
ORDER BY c.external_id LIMIT %(most)s
"""
# Parents without items below them need no mark.
UNMARK = f"""
WITH locked AS (
    SELECT c.id FROM user_integration_content c
    WHERE c.user_integration_id = %(account)s AND c.external_id = ANY(%(ids)s)
      AND c.deleted_at IS NOT NULL AND c.gone_at_source IS NOT NULL AND {LIVE_CHILD} IS NULL
    ORDER BY c.user_integration_id, c.external_id FOR UPDATE OF c
)
UPDATE user_integration_content c SET gone_at_source = NULL
FROM locked WHERE c.id = locked.id RETURNING c.external_id
"""

MAX_PARENTS = 200
"""The maximum number of marked parents that one sweep continues below. Later sweeps do the rest."""


def mark_parents(conn: Conn, items: Iterable[tuple[str, str]]) -> None:
    """Mark those of these items that are deleted and have live items below them.

    Args:
      conn: A connection within the saving transaction.
      items: Each as (account, external id).
    """
    rows = [{"account": account, "id": id} for account, id in items]
    if rows:
        conn.execute(MARK_PARENTS, (json_text(rows),))


def marked_parents(conn: Conn, place: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the deleted items below which the sweep of a listing continues.

    A listing of a time window continues below none.

    Args:
      conn: A connection within the saving transaction.
      place: `account`, `run` and `parent`, `since` and `until` of the listing.
    """
    if place["since"] is not None or place["until"] is not None:
        return ()
    found = [id for (id,) in conn.execute(MARKED, {**place, "most": MAX_PARENTS})]
    if not found:
        return ()
    params = {"account": place["account"], "ids": found}
    empty = {id for (id,) in conn.execute(UNMARK, params)}
    return tuple(id for id in found if id not in empty)
