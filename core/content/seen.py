"""The items that runs have seen: their records, after the end of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.db.short_transactions import DIRECT_ROWS, statement_in_portions
from core.states import RunState

# The cursor passes the entries of deleted rows in the index.
DELETE_SEEN = """
WITH gone AS (
    DELETE FROM sync_seen WHERE run_id = %(run)s AND external_id = ANY (ARRAY(
        SELECT external_id FROM sync_seen WHERE run_id = %(run)s AND external_id > %(after)s
        ORDER BY external_id LIMIT %(most)s))
    RETURNING external_id)
SELECT count(*), max(external_id) FROM gone
"""
# The records of a few runs, unless there are more than the maximum.
DELETE_SOME = """
DELETE FROM sync_seen WHERE run_id = ANY (%(runs)s) AND (SELECT count(*) FROM (
    SELECT FROM sync_seen WHERE run_id = ANY (%(runs)s) LIMIT %(most)s + 1) counted) <= %(most)s
"""
# The next run with records. The primary key serves it, one look for each run.
NEXT_RUN = f"""
SELECT run_id, EXISTS (
    SELECT FROM sync_run r WHERE r.id = s.run_id AND r.state = '{RunState.RUNNING}')
FROM sync_seen s WHERE run_id > %s ORDER BY run_id LIMIT 1
"""
BEFORE_ALL = "00000000-0000-0000-0000-000000000000"


def delete_seen(conn: Conn, run: Any) -> Iterator[int]:
    """Delete the records of a run in portions; yield the rows of each.

    Args:
      conn: A connection in autocommit mode.
      run: The id of the run.
    """
    return statement_in_portions(conn, DELETE_SEEN, {"run": run})


def delete_some(conn: Conn, runs: Sequence[UUID]) -> Sequence[UUID]:
    """Delete the records of runs in the transaction that ends them, if there are few.

    Args:
      conn: A connection in a transaction.
      runs: The ids of runs that have records.

    Returns:
      The ids of the runs whose records are left.
    """
    if runs and not conn.execute(DELETE_SOME, {"runs": runs, "most": DIRECT_ROWS}).rowcount:
        return runs
    return []


def prune(conn: Conn, seconds: float) -> bool:
    """Delete the records of runs that have ended, such as those of a process that died.

    Args:
      conn: A connection in autocommit mode.
      seconds: The time after which to stop.

    Returns:
      True if nothing is left.
    """
    deadline, run = time.monotonic() + seconds, BEFORE_ALL
    while found := conn.execute(NEXT_RUN, (run,)).fetchone():
        run, is_running = found
        for _ in delete_seen(conn, run) if not is_running else ():
            if time.monotonic() >= deadline:
                return False
    return True
