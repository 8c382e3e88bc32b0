"""The rule about missing items: fragments for all statements that look for them.

A complete listing of a run lacks an item under three conditions. The item is live. No task that was
dispatched since the run began wrote it. The run has neither written nor seen it. An item `c` is a row of
`user_integration_content`, or a row with its `external_id`. The parameters are `run`, `start` (the
sequence number at which the run began), `began` (the time) and `keeps` (True if the account keeps
items that are gone at the source).
"""

from __future__ import annotations

# The number alone would find an item that a slow task of another run saved during this run. The
# time alone would find an item that a slow transaction saved.
LIVE_BEFORE = """
c.deleted_at IS NULL AND c.content_seq <= %(start)s AND c.metadata_seq <= %(start)s
"""

# One look for each item, by the primary key of `sync_seen`. A join would depend on the statistics
# of a table whose rows live as long as a run.
UNSEEN = """
(SELECT s.run_id FROM sync_seen s
    WHERE s.run_id = %(run)s::uuid AND s.external_id = c.external_id LIMIT 1) IS NULL
"""
UNTOUCHED = f"c.updated_at < %(began)s::timestamptz AND {UNSEEN}"
MISSING = f"{LIVE_BEFORE} AND {UNTOUCHED}"

# Excludes items that are already marked as gone, in an account that keeps items.
UNMARKED = "NOT (%(keeps)s AND c.gone_at_source IS NOT NULL)"
