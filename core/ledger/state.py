"""Compare and set the state partitions in the saving transaction.

This step follows the fence and precedes all other writes, because a conflict drops the complete
result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.db.pool import Conn
from core.errors import ResultConflict
from core.ledger.outcomes import Outcome
from core.results.decisions import CONFLICT_SECONDS
from core.results.rows import StateRow
from core.results.text import json_text
from core.states import TaskState

# Locks state rows by key.
LOCK_STATE = """
SELECT s.user_integration_id::text, s.partition, s.version, s.dispatch_seq FROM sync_state s
JOIN unnest(%s::uuid[], %s::text[]) AS named(account, partition)
  ON named.account = s.user_integration_id AND named.partition = s.partition
ORDER BY s.user_integration_id, s.partition FOR UPDATE OF s
"""
WRITE_STATE = """
INSERT INTO sync_state AS s (user_integration_id, partition, value, version, dispatch_seq)
SELECT account, partition, value, version, seq FROM json_to_recordset(%s::json)
    AS r(account uuid, partition text, value jsonb, version bigint, seq bigint)
ORDER BY account, partition
ON CONFLICT (user_integration_id, partition) DO UPDATE SET
    value = excluded.value, version = excluded.version,
    dispatch_seq = excluded.dispatch_seq, updated_at = now()
WHERE s.version = excluded.version - 1
RETURNING 1
"""

# The number is higher than that of every dispatch so far, so no running task can restore an expired
# partition.
NEXT_SEQUENCE = "SELECT nextval('dispatch_seq')"

Key = tuple[str, str]


def write_states(conn: Conn, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Write the state partitions of these outcomes, which are in the order of their dispatch.

    Returns:
      The outcomes. If a partition changed since a task read it, that task's outcome is replaced:
      the task runs again.

    Raises:
      ResultConflict: Another transaction inserted a partition that could not be locked before. The
        caller repeats the batch.
    """
    keys = [key for outcome in outcomes for key, _ in _writes(outcome)]
    if not keys:
        return list(outcomes)
    locked = conn.execute(
        LOCK_STATE, ([account for account, _ in keys], [partition for _, partition in keys])
    )
    current = {(account, partition): (version, seq) for account, partition, version, seq in locked}
    rows: dict[Key, dict[str, Any]] = {}
    passed = []
    for outcome in outcomes:
        if any(_conflicts(row, current.get(key), key in rows) for key, row in _writes(outcome)):
            passed.append(
                Outcome(
                    outcome.dispatch,
                    state=TaskState.READY,
                    delay=CONFLICT_SECONDS,
                    reason="another task changed the state that this task had read",
                )
            )
            continue
        passed.append(outcome)
        for key, row in _writes(outcome):
            version, seq = current.get(key, (0, 0))
            number = (
                conn.execute(NEXT_SEQUENCE).fetchall()[0][0]
                if row.expired
                else outcome.dispatch.dispatch_seq
            )
            if row.read is None and seq > number:
                continue  # a write without a read loses against a later one
            current[key] = (version, max(seq, number))
            rows[key] = {
                "account": key[0],
                "partition": row.partition,
                "value": row.value,
                "version": version + 1,
                "seq": current[key][1],
            }
    if rows and conn.execute(WRITE_STATE, (json_text(list(rows.values())),)).rowcount != len(rows):
        raise ResultConflict
    return passed


def _writes(outcome: Outcome) -> Iterator[tuple[Key, StateRow]]:
    """Yield the writes of an outcome with their (account, partition). Expired ones are dropped."""
    for row in outcome.states:
        yield (outcome.dispatch.account_id, row.partition), row
    if outcome.expired is not None:
        row = StateRow(outcome.expired, None, expired=True)
        yield (outcome.dispatch.account_id, outcome.expired), row


def _conflicts(row: StateRow, current: tuple[int, int] | None, written: bool) -> bool:
    """Return True if the partition changed since the task read it.

    A commit or another result of this batch may have changed it.
    """
    return row.read is not None and (written or row.read != (current[0] if current else 0))
