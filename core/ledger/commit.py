"""The saving transaction: all effects of a batch of tasks, committed together.

Every process writes in this order, each kind sorted by its key, so that savers do not deadlock:

1. `fence` locks the tasks.
2. `state` writes state partitions.
3. `follow_ups` opens and locks backfill runs.
4. `content` writes content.
5. `follow_ups` inserts new tasks.
6. This module stops accounts and blocks limits, and `breakers` counts failures.
7. `finish` writes the next state of the tasks.

The completion check is a transaction of its own: see `core.ledger.completion`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from core.accounts.store import STOP
from core.content.store import Key
from core.db.clocks import beyond
from core.db.pool import Conn
from core.errors import ResultConflict, StateContended
from core.ledger import breakers, follow_ups
from core.ledger.content import write_content
from core.ledger.fence import pass_fence
from core.ledger.finish import TaskCounts, finish
from core.ledger.outcomes import Block, Outcome
from core.ledger.state import write_states
from core.results.delete_guard import DeleteGuard
from core.states import TaskState

BLOCK = f"""
INSERT INTO limit_block (key, until, reason, blocked_at)
VALUES (%s, clock_timestamp() + %s * interval '1 second', %s, clock_timestamp())
ON CONFLICT (key) DO UPDATE SET blocked_at = excluded.blocked_at,
    until = greatest(excluded.until, CASE
        WHEN NOT {beyond("limit_block.until", "limit_block.until")} THEN limit_block.until END),
    reason = excluded.reason
"""

MAX_CONFLICTS = 5
"""The number of tries to save a batch while other transactions insert its state partitions."""

MARK_RESYNC_DUE = "UPDATE user_integration SET resync_due = true WHERE id = %s"


@dataclass(slots=True)
class CommitResult:
    """The effects of a transaction, as the saver needs them after its commit.

    Attributes:
      applied: The outcomes that passed the fence, with the task's new state.
      changed: External ids created, changed or deleted, by (account, domain).
      added: True if tasks were added or returned to `ready`, so that the dispatcher has work.
    """

    applied: list[tuple[Outcome, str]] = field(default_factory=list)
    changed: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    added: bool = False


def commit_outcomes(conn: Conn, outcomes: Sequence[Outcome], *, guard: DeleteGuard) -> CommitResult:
    """Commit these outcomes in one transaction; drop those that the fence refuses.

    Args:
      conn: A connection in autocommit mode.
      outcomes: The batch.
      guard: The delete guard.

    Raises:
      StateContended: `MAX_CONFLICTS` tries lost against other transactions. Nothing was saved.
      psycopg.Error: Nothing was saved, unless the connection broke during the commit: then
        everything may be. Saving the same outcomes again is right in both cases.
    """
    for _ in range(MAX_CONFLICTS):
        try:
            with conn.transaction():
                return _commit(conn, outcomes, guard)
        except ResultConflict:
            continue
    raise StateContended("state-contended")


def _commit(conn: Conn, outcomes: Sequence[Outcome], guard: DeleteGuard) -> CommitResult:
    """Run the steps of the transaction, in the order of locks."""
    passed, runs, watched = pass_fence(conn, outcomes)
    if not passed:
        return CommitResult()
    passed = write_states(conn, passed)
    counts = {outcome.dispatch.task_id: TaskCounts() for outcome in passed}
    tasks = follow_ups.prepare(conn, passed, runs)
    changed, steps = write_content(conn, passed, runs, counts, guard)
    inserted = follow_ups.insert(conn, [*tasks, *steps])
    for task, count in inserted.items():
        counts[task].followups = count
    _stop_accounts(conn, passed)
    block_limits(conn, [outcome.block for outcome in passed if outcome.block is not None])
    closed = breakers.record(conn, passed, watched)
    states = finish(conn, passed, counts)
    breakers.take_back_attempts(conn, breakers.failed_accounts(passed))
    return CommitResult(
        applied=[(outcome, states[outcome.dispatch.task_id]) for outcome in passed],
        changed=_by_account(passed, changed),
        added=bool(inserted) or closed or TaskState.READY in states.values(),
    )


def _stop_accounts(conn: Conn, outcomes: Sequence[Outcome]) -> None:
    for outcome in sorted(outcomes, key=lambda outcome: outcome.dispatch.account_id):
        if outcome.stop is not None:
            stop, account = outcome.stop, outcome.dispatch.account_id
            params = {
                "id": account,
                "reason": stop.reason,
                "detail": stop.detail,
                "task": outcome.dispatch.task_id,
                "credentials_version": stop.credentials_version,
            }
            conn.execute(STOP, params)
        if outcome.expired is not None:
            conn.execute(MARK_RESYNC_DUE, (outcome.dispatch.account_id,))


def block_limits(conn: Conn, blocks: Iterable[Block]) -> None:
    """Block limits for all workers. Locks their rows by key."""
    for block in sorted(blocks, key=lambda block: block.key):
        conn.execute(BLOCK, (block.key, block.seconds, block.reason))


def _by_account(outcomes: Sequence[Outcome], changed: set[Key]) -> dict[tuple[str, str], list[str]]:
    """Return the changed external ids, sorted, by (account, domain)."""
    domains = {each.dispatch.account_id: each.dispatch.domain for each in outcomes}
    ids: dict[tuple[str, str], list[str]] = {}
    for account, id in sorted(changed):
        ids.setdefault((account, domains[account]), []).append(id)
    return ids
