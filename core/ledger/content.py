"""Content in the saving transaction: the outputs, seen ids and complete listings of a batch.

The statements are in `core.content.store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.content import store
from core.content.store import Write, Writer
from core.db.pool import Conn
from core.ledger.fence import FencedRun
from core.ledger.finish import TaskCounts
from core.ledger.outcomes import Outcome
from core.states import Operation


def write_content(
    conn: Conn,
    outcomes: Sequence[Outcome],
    runs: Mapping[int, FencedRun],
    counts: Mapping[int, TaskCounts],
    max_deleted_share: float,
) -> set[store.Key]:
    """Write the content of a batch, and count rows by task.

    Args:
      conn: A connection within the saving transaction.
      outcomes: The outcomes that passed the fence, in the order of their dispatch.
      runs: Their runs, by task.
      counts: Their counts, by task; updated here.
      max_deleted_share: The share of a listing above which a deletion waits for a person.

    Returns:
      The keys of the rows that outputs created, changed or deleted. Rows that a sweep deleted are
      not included.
    """
    rows = _latest(outcomes)
    # Tombstones first: one result may delete a folder and keep a file that is now in it.
    gone = [(writer, row.id) for writer, row in rows[Operation.TOMBSTONE]]
    deleted = store.mark_deleted(conn, gone)
    store.insert_placeholders(conn, gone)
    kept, updates = rows[Operation.KEEP], rows[Operation.UPDATE]
    changed = store.upsert(conn, kept) | store.update(conn, updates)
    for writer, row in (*kept, *updates):
        if (writer.account, row.id) in changed:
            counts[writer.task].saved += 1
        else:
            counts[writer.task].unchanged += 1
    for writer, id in gone:
        counts[writer.task].deleted += deleted[writer.account, id]
    _record_seen(conn, outcomes, changed)
    shown = store.show_again(conn, [(_writer(o), id) for o in outcomes for id in o.seen])
    _sweep(conn, outcomes, runs, counts, max_deleted_share)
    return changed | set(deleted) | shown


def _latest(outcomes: Sequence[Outcome]) -> dict[Operation, list[Write]]:
    """Return the rows to write, by operation: the latest for each item."""
    rows: dict[Operation, dict[store.Key, Write]] = {each: {} for each in Operation}
    for outcome in outcomes:
        writer = _writer(outcome)
        for row in outcome.outputs:
            latest, key = rows[row.operation], (writer.account, row.id)
            write = (writer, row)
            if row.operation is Operation.UPDATE and key in latest:
                # Each update changes only its own keys.
                before = latest[key][1].metadata
                write = (writer, row._replace(metadata=before | row.metadata))
            latest[key] = write
    return {operation: list(latest.values()) for operation, latest in rows.items()}


def _record_seen(conn: Conn, outcomes: Sequence[Outcome], changed: set[store.Key]) -> None:
    """Record the unchanged items of a listing; changed ones have a new sequence number.

    The record lasts until the listing is complete.
    """
    seen = {(o.dispatch.run_id, id) for o in outcomes for id in o.seen}
    for outcome in outcomes:
        account, run = outcome.dispatch.account_id, outcome.dispatch.run_id
        seen.update(
            (run, row.id)
            for row in outcome.outputs
            if row.operation is not Operation.TOMBSTONE and (account, row.id) not in changed
        )
    store.record_seen(conn, seen)


def _sweep(
    conn: Conn,
    outcomes: Sequence[Outcome],
    runs: Mapping[int, FencedRun],
    counts: Mapping[int, TaskCounts],
    max_deleted_share: float,
) -> None:
    """Delete items that complete listings no longer have, unless the delete guard applies."""
    for outcome in outcomes:
        task = outcome.dispatch.task_id
        run = runs[task]
        for listing in outcome.listed if not run.carried else ():
            counts[task].deleted += store.sweep(
                conn,
                listing,
                _writer(outcome),
                start_seq=run.start_seq,
                began=run.began,
                max_deleted_share=max_deleted_share,
                keeps=run.keeps,
            )


def _writer(outcome: Outcome) -> Writer:
    dispatch = outcome.dispatch
    return Writer(
        dispatch.account_id,
        dispatch.domain,
        dispatch.run_id,
        dispatch.task_id,
        dispatch.dispatch_seq,
    )
