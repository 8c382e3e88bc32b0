"""Content in the saving transaction: the outputs, seen ids and complete listings of a batch.

The statements are in `core.content.store`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from core.content import holds, orphans, portions, reread, store
from core.content.guard import judge_gone, with_descendants
from core.content.store import Write, Writer
from core.db.pool import Conn
from core.db.short_transactions import DirectRows
from core.ledger import rereads
from core.ledger.fence import FencedRun
from core.ledger.finish import TaskCounts
from core.ledger.follow_ups import NewTask
from core.ledger.outcomes import Outcome
from core.results.delete_guard import DeleteGuard
from core.results.result import task_key
from core.results.rows import ListingRow, TaskRow
from core.results.text import json_text
from core.states import HoldSource, Operation, TaskState


def write_content(
    conn: Conn,
    outcomes: Sequence[Outcome],
    runs: Mapping[int, FencedRun],
    counts: Mapping[int, TaskCounts],
    guard: DeleteGuard,
) -> tuple[set[store.Key], list[NewTask]]:
    """Write the content of a batch, and count rows by task.

    Args:
      conn: A connection within the saving transaction.
      outcomes: The outcomes that passed the fence, in the order of their dispatch.
      runs: Their runs, by task.
      counts: Their counts, by task; updated here.
      guard: The delete guard.

    Returns:
      The keys of the rows that outputs created, changed or deleted. Rows that a sweep deleted are
      not included. And the tasks that continue large sweeps, as rows.
    """
    rows, direct = _latest(outcomes), DirectRows()
    # Tombstones first: one result may delete a folder and keep a file that is now in it.
    deleted, large = _delete_gone(conn, rows[Operation.TOMBSTONE], runs, guard, direct)
    kept, updates = rows[Operation.KEEP], rows[Operation.UPDATE]
    changed = store.upsert(conn, kept) | store.update(conn, updates)
    for writer, row in (*kept, *updates):
        if (writer.account, row.id) in changed:
            counts[writer.task].saved += 1
        else:
            counts[writer.task].unchanged += 1
    for writer, row in rows[Operation.TOMBSTONE]:
        number = deleted[writer.account, row.id]
        counts[writer.task].deleted += number
        counts[writer.task].gone += number
    parents = [(writer.account, row.parent) for writer, row in kept if row.parent is not None]
    orphans.mark_parents(conn, parents)
    _record_seen(conn, outcomes, changed)
    shown = store.show_again(conn, [(_writer(o), id) for o in outcomes for id in o.seen])
    steps = _sweep(conn, outcomes, runs, counts, guard, direct)
    reread_changes, again = _write_rereads(conn, outcomes, counts)
    steps += again
    by_task = {outcome.dispatch.task_id: outcome for outcome in outcomes}
    steps += [_step_row(by_task[task], step) for task, step in large]
    return changed | set(deleted) | shown | reread_changes, steps


def _write_rereads(
    conn: Conn, outcomes: Sequence[Outcome], counts: Mapping[int, TaskCounts]
) -> tuple[set[store.Key], list[NewTask]]:
    """Save the changes of rereads. Returns the changed keys, and tasks for stale items."""
    rows = [
        (outcome.dispatch.account_id, outcome.dispatch.domain, row)
        for outcome in outcomes
        for row in outcome.rereads
    ]
    written, deleted, stale = reread.write(conn, rows)
    again = []
    for outcome in outcomes:
        account, count = outcome.dispatch.account_id, counts[outcome.dispatch.task_id]
        for row in outcome.rereads:
            count.saved += sum((account, write.id) in written for write in row.writes)
            count.deleted += sum((account, id) in deleted for id in row.gone)
        items = [row.item for row in outcome.rereads if (account, row.item) in stale]
        again += [_reread_row(outcome, items)] if items else []
    return written | deleted, again


def _reread_row(outcome: Outcome, items: Sequence[str]) -> NewTask:
    """Return the task that reads items again, which have changed since this task read them."""
    dispatch = outcome.dispatch
    task = rereads.again(dispatch.payload, items, f"{dispatch.task_id}-{dispatch.dispatch_no}")
    return NewTask.of(dispatch, task)


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


def _delete_gone(
    conn: Conn,
    gone: Sequence[Write],
    runs: Mapping[int, FencedRun],
    guard: DeleteGuard,
    direct: DirectRows,
) -> tuple[Counter[store.Key], list[tuple[int, portions.Step]]]:
    """Do the single deletions that a person accepted or the delete guard allows; hold the others.

    Returns the numbers of deleted rows, as `store.mark_deleted` does, and the first steps of large
    deletions, each with its task.
    """
    by_run: dict[str, list[tuple[Writer, str]]] = {}
    for writer, row in gone:
        by_run.setdefault(writer.run, []).append((writer, row.id))
    allowed: list[tuple[Writer, str]] = []
    confirmed: list[tuple[Writer, str]] = []
    large: list[tuple[int, portions.Step]] = []
    absent: list[tuple[Writer, str]] = []
    left: list[store.Key] = []
    for _, deletions in sorted(by_run.items()):
        run = runs[deletions[0][0].task]
        named = {id: each.seq for each, id in deletions}
        most = direct.to_delete
        lost = with_descendants(conn, deletions[0][0].account, named, most=most + 1)
        if len(lost) > most:
            large += _in_portions(conn, deletions, run, guard)
            absent += deletions
            continue
        direct.count(deleted=len(lost))
        left += [(deletions[0][0].account, id) for id in lost]
        of_run = _judged(conn, deletions, lost, run, guard)
        allowed += of_run[0]
        confirmed += of_run[1]
    deleted = store.mark_deleted(conn, confirmed, alone=True)
    deleted.update(store.mark_deleted(conn, allowed, floor=guard.floor))
    placed = [*confirmed, *allowed, *absent]
    store.insert_placeholders(conn, placed)
    left += [(writer.account, id) for writer, id in placed]
    orphans.mark_parents(conn, left)
    return deleted, large


def _in_portions(
    conn: Conn, deletions: Sequence[tuple[Writer, str]], run: FencedRun, guard: DeleteGuard
) -> Iterator[tuple[int, portions.Step]]:
    """Begin to delete items with many descendants. Yields the first steps, each with its task."""
    by_writer: dict[Writer, list[str]] = {}
    for writer, id in deletions:
        by_writer.setdefault(writer, []).append(id)
    for writer, ids in by_writer.items():
        place = _place(writer, run)
        for step in portions.begin_gone(conn, place, ids, writer.seq, guard):
            yield writer.task, step


def _place(writer: Writer, run: FencedRun) -> portions.Place:
    return portions.Place(writer.account, writer.run, run.start_seq, run.began, run.keeps)


def _judged(
    conn: Conn,
    deletions: Sequence[tuple[Writer, str]],
    lost: Sequence[str],
    run: FencedRun,
    guard: DeleteGuard,
) -> tuple[Sequence[tuple[Writer, str]], Sequence[tuple[Writer, str]]]:
    """Return those of a run's single deletions that the guard allows, and those to confirm."""
    if run.keeps:
        return deletions, []
    writer = min((writer for writer, _ in deletions), key=lambda writer: writer.seq)
    place = {"account": writer.account, "run": writer.run, "began": run.began}
    decided = holds.decisions(conn, place, lost, guard)
    # Items that wait for a decision stay, even if the source says that they are gone.
    waiting = decided.all | decided.waiting
    rest = [id for id in lost if id not in waiting]
    judged = judge_gone(conn, guard, writer.account, writer.run, rest)
    confirmed = [(writer, id) for id in lost if id in decided.accepted]
    if judged.is_held:
        place |= {"source": HoldSource.GONE, **ListingRow(None, None, None)._asdict()}
        holds.hold(conn, place, judged)
        return [], confirmed
    return [(each, id) for each, id in deletions if id not in waiting], confirmed


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
    guard: DeleteGuard,
    direct: DirectRows,
) -> list[NewTask]:
    """Delete items that complete listings no longer have, unless the delete guard applies.

    Returns the tasks that continue large sweeps.
    """
    following = []
    for outcome in outcomes:
        task = outcome.dispatch.task_id
        for deleted, step in _swept(conn, outcome, runs[task], guard, direct):
            counts[task].deleted += deleted
            counts[task].gone += deleted if _names_items(outcome) else 0
            following += [_step_row(outcome, step)] if step is not None else []
    return following


def _swept(
    conn: Conn, outcome: Outcome, run: FencedRun, guard: DeleteGuard, direct: DirectRows
) -> Iterator[tuple[int, portions.Step | None]]:
    """Sweep the listings of an outcome, or continue a sweep. Yields deleted rows and next steps."""
    writer = _writer(outcome)
    if outcome.dispatch.type == portions.SWEEP and outcome.state == TaskState.DONE:
        step = portions.step_of(outcome.dispatch.payload)
        place = _place(writer, run)
        deleted, following = portions.advance(conn, step, place, guard, carried=run.carried)
        yield 0 if run.keeps else len(deleted), following
    for listing in outcome.listed if not run.carried else ():
        yield store.sweep(
            conn,
            listing,
            writer,
            start_seq=run.start_seq,
            began=run.began,
            guard=guard,
            keeps=run.keeps,
            direct=direct,
        )


def _names_items(outcome: Outcome) -> bool:
    """Return True if a plugin deleted the items of this sweep one by one."""
    dispatch = outcome.dispatch
    return dispatch.type == portions.SWEEP and bool(dispatch.payload.get("roots"))


def _step_row(outcome: Outcome, step: portions.Step) -> NewTask:
    """Return the task that continues a sweep, in the run of the outcome."""
    payload = step._asdict()
    key = task_key(f"{portions.SWEEP}:{json_text([payload])}")
    return NewTask.of(outcome.dispatch, TaskRow(portions.SWEEP, payload, key, 0, False))


def _writer(outcome: Outcome) -> Writer:
    dispatch = outcome.dispatch
    return Writer(
        dispatch.account_id,
        dispatch.domain,
        dispatch.run_id,
        dispatch.task_id,
        dispatch.dispatch_seq,
    )
