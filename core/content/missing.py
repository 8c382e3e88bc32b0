"""The rules about late writes and missing items: fragments for all statements that apply them.

An item is missing if it is live, and if the run of a complete listing has neither written nor seen
it. A task that was dispatched after the run began must not have written it either.

The fragments call the item `c`: a row of `user_integration_content`, or any row with an
`external_id`. Their parameters are:

- `run`, with `start` (the sequence number at which it began) and `began` (the time);
- `keeps`: true if the account keeps items that are gone at the source;
- `since` and `until`: the time window of the listing.
"""

from __future__ import annotations


def no_later_dispatch(seq: str) -> str:
    """Return the condition that no dispatch after `seq` wrote the item.

    Args:
      seq: The column, or the parameter, with the sequence number.
    """
    return f"c.content_seq <= {seq} AND c.metadata_seq <= {seq}"


def unmarked(keeps: str) -> str:
    """Return the condition that the item is not yet marked as gone, in an account that keeps items.

    Args:
      keeps: The column, or the parameter, that is true if the account keeps items.
    """
    return f"(NOT {keeps} OR c.gone_at_source IS NULL)"


# The number alone would find an item that a slow task of another run saved during this run. The
# time alone would find an item that a slow transaction saved.
LIVE_BEFORE = f"c.deleted_at IS NULL AND {no_later_dispatch('%(start)s')}"

# One look for each item, by the primary key of `sync_seen`. A join would depend on the statistics
# of a table whose rows live as long as a run.
UNSEEN = """
(SELECT s.run_id FROM sync_seen s
    WHERE s.run_id = %(run)s::uuid AND s.external_id = c.external_id LIMIT 1) IS NULL
"""
UNTOUCHED = f"c.updated_at < %(began)s::timestamptz AND {UNSEEN}"
MISSING = f"{LIVE_BEFORE} AND {UNTOUCHED}"
UNMARKED = unmarked("%(keeps)s")

# The first live item below the item, in the order of the index of listings. Without the order, the
# planner reads the table if most items have one parent.
LIVE_CHILD = """
(SELECT child.id FROM user_integration_content child
    WHERE child.user_integration_id = c.user_integration_id AND child.parent = c.external_id
      AND child.deleted_at IS NULL
    ORDER BY child.user_integration_id, child.parent, child.external_id LIMIT 1)
"""

IN_WINDOW = """
(%(since)s::timestamptz IS NULL OR c.external_timestamp >= %(since)s)
AND (%(until)s::timestamptz IS NULL OR c.external_timestamp < %(until)s)
"""
