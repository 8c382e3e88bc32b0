"""Sweeps in portions: a large listing is compared, and its missing items are deleted, step by step.

Each step is a task of the run, of the type `SWEEP`, and one short transaction
(`core.db.short_transactions`). It returns the payload of the next step. The missing items are
collected in `held_deletion_item`, so no memory grows with the listing. Nothing is deleted before
all of them are counted. Items that a plugin deletes one by one, with many descendants, go the same
way.

The items are deleted from the top: each only after its parent, and if it is still missing. So what
is below an item that came back, or that was moved, stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from core.content import holds, orphans
from core.content.guard import NONE, REMAINS, Decisions, deleted_one_by_one, has_same_config
from core.content.missing import IN_WINDOW, LIVE_BEFORE, LIVE_CHILD, MISSING, UNMARKED
from core.db.pool import Conn
from core.db.short_transactions import Portion
from core.results.delete_guard import DeleteGuard
from core.states import HeldState, HoldSource

SWEEP = "$sweep"
"""The type of the tasks that continue a sweep. It is not a name in Python, so plugins lack it."""

MAX_FRAMES = 200
"""The maximum number of parents that one read adds to the payload."""

MAX_COUNTED = 10_000_000
"""The number of items at which a count ends.

Items that move during the count may be counted twice.
"""

Phase = Literal["find", "count", "delete", "hold"]

BEGIN_SWEEP = f"""
INSERT INTO held_deletion (
    user_integration_id, run_id, source, state, parent, since, until, vanished, total)
VALUES (%(account)s, %(run)s, %(source)s, '{HeldState.COUNTING}', %(parent)s, %(since)s, %(until)s,
    0, 0)
RETURNING id
"""
CONTINUES = f"""
SELECT id FROM held_deletion
WHERE id = %(held)s AND state IN ('{HeldState.COUNTING}', '{HeldState.DELETING}') FOR UPDATE
"""
# Nothing replaces the sweep any more: an item that is deleted takes its descendants with it.
DELETING = f"""
UPDATE held_deletion SET state = '{HeldState.DELETING}', total = %(lost)s WHERE id = %(held)s
"""
HOLD_SWEEP = f"""
UPDATE held_deletion SET state = '{HeldState.HELD}', vanished = %(lost)s, total = %(total)s
WHERE id = %(held)s
"""
ITEMS = """
INSERT INTO held_deletion_item (held_deletion_id, external_id)
SELECT %s, unnest(%s::text[]) ON CONFLICT DO NOTHING RETURNING external_id
"""

# The next children of a parent. Served by `user_integration_content_listing`; the bound is on the
# rows read, also where the listing has a window.
_CHILDREN = f"""
SELECT c.external_id,
    NOT %(top)s OR ({IN_WINDOW}) IS TRUE AS inside,
    {MISSING} AND {UNMARKED} AS missing,
    {LIVE_CHILD} IS NOT NULL AS is_parent
FROM user_integration_content c
WHERE c.user_integration_id = %(account)s AND c.deleted_at IS NULL
  AND c.external_id > %(after)s
"""
_IN_ORDER = "ORDER BY c.external_id LIMIT %(most)s"
CHILDREN = f"{_CHILDREN} AND c.parent = %(above)s {_IN_ORDER}"
CHILDREN_AT_ROOT = f"{_CHILDREN} AND c.parent IS NULL {_IN_ORDER}"

# Items of a plugin's single deletions that are still there.
LIVE_NAMED = f"""
SELECT external_id FROM user_integration_content c
WHERE user_integration_id = %(account)s AND external_id = ANY(%(ids)s)
  AND {LIVE_BEFORE} AND {UNMARKED}
ORDER BY external_id
"""
# The next live items of the account, by the unique index; the bound is on the rows read.
COUNT_NEXT_LIVE = """
SELECT count(*) FILTER (WHERE deleted_at IS NULL), count(*), max(external_id) FROM (
    SELECT external_id, deleted_at FROM user_integration_content
    WHERE user_integration_id = %(account)s AND external_id > %(after)s
    ORDER BY external_id LIMIT %(most)s) c
"""
IS_GONE = """
SELECT deleted_at IS NOT NULL OR %(keeps)s AND gone_at_source IS NOT NULL
FROM user_integration_content WHERE user_integration_id = %(account)s AND external_id = %(above)s
"""
TAKE_ITEMS = """
DELETE FROM held_deletion_item
WHERE held_deletion_id = %(held)s AND external_id = ANY(%(items)s::text[]) RETURNING external_id
"""
# Asks again whether each item is missing. Locks rows in the order of all writers; the unique index
# serves it.
DELETE_ITEMS = f"""
WITH locked AS (
    SELECT c.id FROM user_integration_content c
    WHERE c.user_integration_id = %(account)s AND c.external_id = ANY(%(items)s::text[])
      AND {MISSING}
    ORDER BY c.user_integration_id, c.external_id FOR UPDATE OF c
)
UPDATE user_integration_content c
SET deleted_at = CASE WHEN NOT %(keeps)s THEN now() END,
    gone_at_source = CASE WHEN %(keeps)s THEN now() END,
    updated_at = now(), content_seq = %(start)s, metadata_seq = %(start)s,
    changed_xid = pg_current_xact_id()::text::bigint, synced_xid = NULL
FROM locked WHERE c.id = locked.id
RETURNING c.external_id
"""


class Place(NamedTuple):
    """The account and the run of a sweep, and the beginning of the run.

    Attributes:
      keeps: True if the account keeps items that are gone at the source.
    """

    account: str
    run: str
    start: int
    began: datetime
    keeps: bool


class Step(NamedTuple):
    """The payload of a task that continues a sweep.

    Attributes:
      held: The id of the row that collects the missing items.
      parent, since, until: The listing.
      phase: `find` collects the missing items, `count` counts the listing, `delete` deletes, and
        `hold` takes the items out of other held deletions.
      frames: The parents to read, the deepest last, each with the last child that was read. None
        stands for the parent of the listing.
      after: The last item that was counted, or taken out of other held deletions.
      lost, total: The numbers of missing items, and of items in the listing, so far.
      confirms: True if the sweep has deleted items that a person accepted, or found items that
        wait for a decision. A person decides on all others too.
      orphaned: The deleted items of the listing with live items below them.
      roots: The items that a plugin deleted one by one; empty for a listing.
      seq: The number of the dispatch that deleted `roots`.
    """

    held: int
    parent: str | None
    since: str | None
    until: str | None
    phase: Phase = "find"
    frames: tuple[tuple[str | None, str], ...] = ((None, ""),)
    after: str = ""
    lost: int = 0
    total: int = 0
    confirms: bool = False
    orphaned: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    seq: int = 0

    @property
    def top(self) -> tuple[tuple[str | None, str], ...]:
        """The frames with which the items are read from the top."""
        if self.roots:
            return tuple((root, "") for root in self.roots)
        return ((None, ""), *((id, "") for id in self.orphaned))


def step_of(payload: Mapping[str, Any]) -> Step:
    """Return the step that a task's payload describes."""
    frames = tuple((above, after) for above, after in payload["frames"])
    lists = {name: tuple(payload.get(name, ())) for name in ("roots", "orphaned")}
    return Step(**{**payload, "frames": frames, **lists})


def begin(conn: Conn, place: Mapping[str, Any], orphaned: Sequence[str] = ()) -> Step:
    """Return the first step of the sweep of a large listing.

    Args:
      conn: A connection within the saving transaction.
      place: The account, the run and the listing.
      orphaned: Deleted items of the listing that have live items below them.
    """
    ((held,),) = conn.execute(BEGIN_SWEEP, {**place, "source": HoldSource.LISTING})
    parts = (place["parent"], place["since"], place["until"])
    step = Step(held, *parts, orphaned=tuple(orphaned))
    return step._replace(frames=step.top)


def begin_gone(
    conn: Conn, place: Place, ids: Sequence[str], seq: int, guard: DeleteGuard
) -> list[Step]:
    """Return the first steps that delete items and their many descendants.

    Args:
      conn: A connection within the saving transaction.
      place: The account and the run.
      ids: The items that a plugin deleted one by one.
      seq: The number of the dispatch that deleted them.
      guard: The delete guard.
    """
    params = {**place._asdict(), "ids": list(ids), "source": HoldSource.GONE}
    params |= {"parent": None, "since": None, "until": None}
    named = [id for (id,) in conn.execute(LIVE_NAMED, {**params, "start": seq})]
    steps = []
    for number in range(0, len(named), MAX_FRAMES):
        part = named[number : number + MAX_FRAMES]
        decided = _decisions(conn, place, part, guard)
        rest = [id for id in part if id not in decided.all | decided.waiting]
        roots = tuple(id for id in part if id in decided.accepted or id in rest)
        if not roots:
            continue
        ((held,),) = conn.execute(BEGIN_SWEEP, params)
        conn.execute(ITEMS, (held, rest))
        step = Step(held, None, None, None, roots=roots, seq=seq, lost=len(rest))
        steps.append(step._replace(frames=step.top))
    return steps


def advance(
    conn: Conn, step: Step, place: Place, guard: DeleteGuard, *, carried: bool
) -> tuple[Sequence[str], Step | None]:
    """Run a step of a sweep. Returns the items that it deleted or marked gone, and the next step.

    Args:
      conn: A connection within the saving transaction.
      step: The step.
      place: The account and the run.
      guard: The delete guard.
      carried: True if the run of the listing was cancelled. Then only what is below deleted items
        is deleted.
    """
    if conn.execute(CONTINUES, {"held": step.held}).fetchone() is None:
        return (), None  # a later listing of the same part has replaced it
    if not step.roots and (carried or not has_same_config(conn, place.run)):
        below = tuple((above, after) for above, after in step.frames if above is not None)
        step = step._replace(frames=below if step.phase == "delete" else ())
        if not step.frames:
            holds.discard(conn, step.held)
            return (), None
    if place.keeps and step.phase in ("count", "hold"):
        step = _to_delete(conn, step, place)  # such an account has no held deletions
    match step.phase:
        case "find":
            step, deleted = _walk(conn, step, place, guard)
            return deleted, step if step.frames else _found(conn, step, place, guard)
        case "count":
            return (), _count(conn, step, place, guard)
        case "delete":
            step, deleted = _walk(conn, step, place, guard)
            if step.frames:
                return deleted, step
            holds.discard(conn, step.held)
            return deleted, None
        case "hold":
            return (), _hold(conn, step, place, guard)


def _given(step: Step, place: Place) -> dict[str, Any]:
    """Return the parameters of the statements that ask whether items are missing."""
    params = {**place._asdict(), "held": step.held, "since": step.since, "until": step.until}
    if step.roots:  # a plugin has named them: it does not matter what the run has seen
        params |= {"start": step.seq, "began": "infinity", "run": None}
    return params


def _walk(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> tuple[Step, list[str]]:
    """Read the next children, in one portion. Returns the next step, and deleted items."""
    deleted, confirms = list[str](), step.confirms
    frames, portion, lost, total = list(step.frames), Portion(), step.lost, step.total
    params = _given(step, place)
    if step.roots and step.frames == step.top:
        deleted += _start(conn, step, place, params, guard)
        portion.count(len(deleted))
    while frames and (most := portion.next_rows()):
        above, after = frames.pop()
        top = above is None
        above = step.parent if top else above
        if step.phase == "delete" and not top and not _is_gone(conn, params, above):
            portion.count(1)
            continue
        statement = CHILDREN_AT_ROOT if above is None else CHILDREN
        rows = conn.execute(
            statement, {**params, "top": top, "above": above, "after": after, "most": most}
        ).fetchall()
        taken, parents = 0, list[str]()
        chosen: list[str] = []
        for id, inside, missing, is_parent in rows:
            taken, after = taken + 1, id
            if inside and (missing or step.phase == "count"):
                chosen.append(id)
                parents += [id] if is_parent else []
            if len(parents) >= MAX_FRAMES:
                break
        portion.count(max(taken, 1))
        match step.phase:
            case "find":
                decided = _decisions(conn, place, chosen, guard)
                gone = _delete_accepted(conn, params, decided)
                # Waiting items wait further, together with the other missing items of a listing.
                waiting = decided.waiting
                confirms |= bool(decided.accepted or (waiting and not step.roots))
                stay = decided.all | waiting if step.roots else decided.all
                rest = [id for id in chosen if id not in stay]
                new = {id for (id,) in conn.execute(ITEMS, (step.held, rest))}
                lost += len(new)
            case "delete":
                gone, new = _delete(conn, params, chosen, guard), set[str]()
            case _:
                # Each item has one parent. So only the top can be below itself, in a loop.
                gone, new = [], {*chosen} - {step.parent}
                total += len(chosen)
        deleted += gone
        _mark_orphaned(conn, step, place, None if top else above, taken - len(gone))
        below = new.union(gone)
        if taken == most or taken < len(rows):
            frames.append((None if top else above, after))
        frames += [(id, "") for id in parents if id in below]
    step = step._replace(frames=tuple(frames), lost=lost, total=total, confirms=confirms)
    return step, deleted


def _mark_orphaned(conn: Conn, step: Step, place: Place, above: str | None, left: int) -> None:
    """Mark a deleted item if some of the items below it stay."""
    if above is not None and left and step.phase != "count":
        orphans.mark_parents(conn, [(place.account, above)])


def _start(
    conn: Conn, step: Step, place: Place, params: Mapping[str, Any], guard: DeleteGuard
) -> list[str]:
    """Delete the items that a plugin named; before that, only those that a person accepted."""
    if step.phase == "delete":
        return _delete(conn, params, step.roots, guard)
    decided = _decisions(conn, place, step.roots, guard)
    return _delete_accepted(conn, params, decided)


def _decisions(conn: Conn, place: Place, ids: Sequence[str], guard: DeleteGuard) -> Decisions:
    return NONE if place.keeps else holds.decisions(conn, place._asdict(), ids, guard)


def _is_gone(conn: Conn, params: Mapping[str, Any], above: str | None) -> bool:
    row = conn.execute(IS_GONE, {**params, "above": above}).fetchone()
    return row is not None and bool(row[0])


def _delete(
    conn: Conn, params: Mapping[str, Any], items: Sequence[str], guard: DeleteGuard
) -> list[str]:
    """Delete the items that the sweep has found, that are missing, and that no person refused."""
    taken = [id for (id,) in conn.execute(TAKE_ITEMS, {**params, "items": list(items)})]
    if not params["keeps"]:
        stay = holds.decisions(conn, params, taken, guard).stay
        taken = [id for id in taken if id not in stay]
    return [id for (id,) in conn.execute(DELETE_ITEMS, {**params, "items": taken})]


def _delete_accepted(conn: Conn, params: Mapping[str, Any], decided: Decisions) -> list[str]:
    if not decided.accepted:
        return []
    items = sorted(decided.accepted)
    return [id for (id,) in conn.execute(DELETE_ITEMS, {**params, "items": items})]


def _found(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> Step | None:
    if not step.lost:
        _replace(conn, step, place)
        holds.discard(conn, step.held)
        return None
    if guard.is_off or _is_small(conn, step, place, guard):
        return _to_delete(conn, step, place)
    return step._replace(phase="count", frames=step.top)


def _is_small(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> bool:
    """Return True if the share does not matter for so few deletions."""
    if step.roots:
        return guard.is_small(deleted_one_by_one(conn, place.run) + step.lost)
    if step.confirms or not guard.is_small(step.lost):
        return False
    few = holds.next_items(conn, step.held, "", guard.min_items)
    ((remains,),) = conn.execute(REMAINS, {**place._asdict(), "lost": few})
    return bool(remains)


def _replace(conn: Conn, step: Step, place: Place) -> None:
    """Drop the deletion of the same listing that waits: this sweep has compared its items."""
    if not step.roots:
        listing = {"parent": step.parent, "since": step.since, "until": step.until}
        holds.release(conn, {"account": place.account, **listing}, hold=step.held)


def _to_delete(conn: Conn, step: Step, place: Place) -> Step:
    _replace(conn, step, place)
    conn.execute(DELETING, step._asdict())
    return step._replace(phase="delete", frames=step.top, after="")


def _count(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> Step:
    """Count the next items, until it is clear whether the deletion exceeds the share."""
    before = deleted_one_by_one(conn, place.run) if step.roots else 0
    if step.roots:
        step, is_last = _count_live(conn, step, place)
    else:
        step, _ = _walk(conn, step, place, guard)
        is_last = not step.frames
    lost, total = before + step.lost, before + step.total
    always = step.confirms or (not step.roots and guard.is_small(step.lost))
    if not always and guard.max_share and total >= lost / guard.max_share:
        return _to_delete(conn, step, place)
    if is_last or step.total >= MAX_COUNTED:
        return step._replace(phase="hold", frames=(), after="", total=total)
    return step


def _count_live(conn: Conn, step: Step, place: Place) -> tuple[Step, bool]:
    """Count the next live items of the account. Returns the next step; True after the last item."""
    portion, live, after = Portion(), step.total, step.after
    while most := portion.next_rows():
        params = {"account": place.account, "after": after, "most": most}
        ((number, rows, last),) = conn.execute(COUNT_NEXT_LIVE, params)
        portion.count(rows)
        live, after = live + number, last or after
        if rows < most:
            return step._replace(total=live, after=after), True
    return step._replace(total=live, after=after), False


def _hold(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> Step | None:
    """Take the next items out of other held deletions. After the last one, hold them."""
    portion, after = Portion(), step.after
    while most := portion.next_rows():
        items = holds.next_items(conn, step.held, after, most)
        if items:
            # A person may have decided on some of them since the sweep found them.
            decided = holds.decisions(conn, place._asdict(), items, guard).all
            taken = conn.execute(TAKE_ITEMS, {"held": step.held, "items": sorted(decided)}).rowcount
            step = step._replace(lost=step.lost - taken)
            holds.take_out(conn, {"account": place.account, "ids": items, "hold": step.held})
            after = items[-1]
        portion.count(len(items))
        if len(items) < most:
            _replace(conn, step, place)
            conn.execute(HOLD_SWEEP, step._asdict())
            if not step.lost:
                holds.discard(conn, step.held)
            return None
    return step._replace(after=after)
