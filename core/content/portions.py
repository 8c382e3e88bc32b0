"""Sweeps in portions: a large listing is compared, and its missing items are deleted, step by step.

Each step is a task of the run, of the type `SWEEP`, and one transaction. It handles at most
`PORTION` items, and returns the payload of the next step. The missing items are collected in
`held_deletion_item`, so no memory grows with the listing. Nothing is deleted before all of them are
counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from core.content import holds
from core.content.guard import NONE, REMAINS, Decisions, has_same_config
from core.db.pool import Conn
from core.results.delete_guard import DeleteGuard
from core.states import HeldState

SWEEP = "$sweep"
"""The type of the tasks that continue a sweep. It is not a name in Python, so plugins lack it."""

PORTION = 5_000
"""The maximum number of items that one transaction of a sweep reads or deletes.

A transaction may take 0.3 s. With 10,000 items, the slowest one took 0.55 s on two shared cores.
"""

MAX_FRAMES = 200
"""The maximum number of parents that one read adds to the payload."""

Phase = Literal["find", "count", "delete"]

BEGIN = f"""
INSERT INTO held_deletion (
    user_integration_id, run_id, state, parent, since, until, vanished, total)
VALUES (%(account)s, %(run)s, '{HeldState.COUNTING}', %(parent)s, %(since)s, %(until)s, 0, 0)
RETURNING id
"""
STILL_COUNTING = f"""
SELECT id FROM held_deletion WHERE id = %s AND state = '{HeldState.COUNTING}' FOR UPDATE
"""
DROP = "DELETE FROM held_deletion WHERE id = %s"
HOLD = f"""
UPDATE held_deletion SET state = '{HeldState.HELD}', vanished = %(lost)s, total = %(total)s
WHERE id = %(held)s
"""
ITEMS = """
INSERT INTO held_deletion_item (held_deletion_id, external_id)
SELECT %s, unnest(%s::text[]) ON CONFLICT DO NOTHING RETURNING external_id
"""
FEW_ITEMS = "SELECT external_id FROM held_deletion_item WHERE held_deletion_id = %s LIMIT 1000"

# The next children of a parent. Served by `user_integration_content_listing`; the bound is on the
# rows read, also where the listing has a window. `is_parent` has the order of the index. Without
# it, the planner reads the table if most items have one parent.
_CHILDREN = """
SELECT c.external_id,
    NOT %(top)s
        OR (%(since)s::timestamptz IS NULL OR c.external_timestamp >= %(since)s) IS TRUE
        AND (%(until)s::timestamptz IS NULL OR c.external_timestamp < %(until)s) IS TRUE AS inside,
    c.content_seq <= %(start)s AND c.metadata_seq <= %(start)s
        AND NOT (%(keeps)s AND c.gone_at_source IS NOT NULL)
        AND (NOT %(top)s OR c.updated_at < %(began)s AND NOT EXISTS (SELECT FROM sync_seen s
            WHERE s.run_id = %(run)s AND s.external_id = c.external_id)) AS missing,
    (SELECT d.id FROM user_integration_content d
        WHERE d.user_integration_id = %(account)s AND d.parent = c.external_id
          AND d.deleted_at IS NULL
        ORDER BY d.user_integration_id, d.parent, d.external_id LIMIT 1) IS NOT NULL AS is_parent
FROM user_integration_content c
WHERE c.user_integration_id = %(account)s AND c.deleted_at IS NULL
  AND c.external_id > %(after)s
"""
_IN_ORDER = "ORDER BY c.external_id LIMIT %(most)s"
CHILDREN = f"{_CHILDREN} AND c.parent = %(above)s {_IN_ORDER}"
CHILDREN_AT_ROOT = f"{_CHILDREN} AND c.parent IS NULL {_IN_ORDER}"

TAKE_ITEMS = """
WITH taken AS (
    DELETE FROM held_deletion_item WHERE held_deletion_id = %(held)s AND external_id = ANY (ARRAY(
        SELECT external_id FROM held_deletion_item
        WHERE held_deletion_id = %(held)s AND external_id > %(after)s
        ORDER BY external_id LIMIT %(most)s))
    RETURNING external_id
)
SELECT array_agg(external_id), max(external_id) FROM taken
"""
# Asks again whether each item is missing. Locks rows in the order of all writers; the unique index
# serves it.
DELETE_ITEMS = """
WITH locked AS (
    SELECT c.id FROM user_integration_content c
    WHERE c.user_integration_id = %(account)s AND c.external_id = ANY(%(items)s::text[])
      AND c.deleted_at IS NULL AND c.content_seq <= %(start)s AND c.metadata_seq <= %(start)s
      AND c.updated_at < %(began)s
      AND NOT EXISTS (SELECT FROM sync_seen s
          WHERE s.run_id = %(run)s AND s.external_id = c.external_id)
    ORDER BY c.user_integration_id, c.external_id FOR UPDATE OF c
)
UPDATE user_integration_content c
SET deleted_at = CASE WHEN NOT %(keeps)s THEN now() END,
    gone_at_source = CASE WHEN %(keeps)s THEN now() END,
    updated_at = now(), content_seq = %(start)s, metadata_seq = %(start)s,
    changed_xid = pg_current_xact_id()::text::bigint
FROM locked WHERE c.id = locked.id
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
      phase: `find` collects the missing items, `count` counts the listing, `delete` deletes.
      frames: The parents to read, the deepest last, each with the last child that was read. None
        stands for the parent of the listing.
      after: The last item that was deleted.
      lost, total: The numbers of missing items, and of items in the listing, so far.
      confirms: True if the sweep has deleted items that a person accepted. A person decides on all
        others too.
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


def step_of(payload: Mapping[str, Any]) -> Step:
    """Return the step that a task's payload describes."""
    frames = tuple((above, after) for above, after in payload["frames"])
    return Step(**{**payload, "frames": frames})


def begin(conn: Conn, place: Mapping[str, Any]) -> Step:
    """Return the first step of the sweep of a large listing."""
    ((held,),) = conn.execute(BEGIN, place)
    return Step(held, place["parent"], place["since"], place["until"])


def advance(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> tuple[int, Step | None]:
    """Run a step of a sweep. Returns the number of deleted rows, and the next step."""
    if conn.execute(STILL_COUNTING, (step.held,)).fetchone() is None:
        return 0, None  # a later listing of the same part has replaced it
    if not has_same_config(conn, place.run):
        abandon(conn, step)
        return 0, None
    match step.phase:
        case "find":
            step, deleted = _walk(conn, step, place)
            return deleted, step if step.frames else _found(conn, step, place, guard)
        case "count":
            step, _ = _walk(conn, step, place)
            return 0, _counted(conn, step, place, guard)
        case "delete":
            return _delete(conn, step, place)


def abandon(conn: Conn, step: Step) -> None:
    """End a sweep before it deletes anything more."""
    conn.execute(DROP, (step.held,))


def _walk(conn: Conn, step: Step, place: Place) -> tuple[Step, int]:
    """Read the next children, at most `PORTION`. Returns the next step, and deleted rows."""
    deleted, confirms = 0, step.confirms
    frames, room, lost, total = list(step.frames), PORTION, step.lost, step.total
    while frames and room > 0:
        above, after = frames.pop()
        top = above is None
        most = room
        above = step.parent if top else above
        statement = CHILDREN_AT_ROOT if above is None else CHILDREN
        given = {**place._asdict(), "since": step.since, "until": step.until, "top": top}
        rows = conn.execute(
            statement, {**given, "above": above, "after": after, "most": most}
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
        room -= max(taken, 20)  # a read costs about as much as 20 rows
        if step.phase == "find":
            decided = NONE if place.keeps else holds.decisions(conn, place._asdict(), chosen)
            deleted += _delete_accepted(conn, place, decided)
            confirms |= bool(decided.accepted)
            rest = [id for id in chosen if id not in decided.accepted | decided.stay]
            new = {id for (id,) in conn.execute(ITEMS, (step.held, rest))}
            parents = [id for id in parents if id in new or id in decided.accepted]
            lost += len(new)
        else:
            total += len(chosen)
        if taken == most or taken < len(rows):
            frames.append((None if top else above, after))
        frames += [(id, "") for id in parents]
    step = step._replace(frames=tuple(frames), lost=lost, total=total, confirms=confirms)
    return step, deleted


def _delete_accepted(conn: Conn, place: Place, decided: Decisions) -> int:
    if not decided.accepted:
        return 0
    items = sorted(decided.accepted)
    return conn.execute(DELETE_ITEMS, {**place._asdict(), "items": items}).rowcount


def _found(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> Step | None:
    if not step.lost:
        conn.execute(DROP, (step.held,))
        return None
    if guard.is_off or place.keeps:
        return step._replace(phase="delete")
    if step.confirms:
        return step._replace(phase="count", frames=((None, ""),))
    if guard.is_small(step.lost):
        few = [id for (id,) in conn.execute(FEW_ITEMS, (step.held,))]
        ((remains,),) = conn.execute(REMAINS, {**place._asdict(), "lost": few})
        if remains:
            return step._replace(phase="delete")
    return step._replace(phase="count", frames=((None, ""),))


def _counted(conn: Conn, step: Step, place: Place, guard: DeleteGuard) -> Step | None:
    enough = math.inf if not guard.max_share else step.lost / guard.max_share
    if step.total >= enough and not guard.is_small(step.lost) and not step.confirms:
        return step._replace(phase="delete", frames=())
    if step.frames:
        return step
    conn.execute(HOLD, step._asdict())
    holds.adopt(conn, {"account": place.account}, step.held)
    return None


def _delete(conn: Conn, step: Step, place: Place) -> tuple[int, Step | None]:
    given = {"held": step.held, "after": step.after, "most": PORTION}
    ((items, last),) = conn.execute(TAKE_ITEMS, given)
    if not items:
        conn.execute(DROP, (step.held,))
        return 0, None
    deleted = conn.execute(DELETE_ITEMS, {**place._asdict(), "items": items}).rowcount
    return 0 if place.keeps else deleted, step._replace(after=last)
