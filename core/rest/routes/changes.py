"""`/v1/changes`: the change feed."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from core.rest.routes import problems
from core.rest.schemas import Change, Changes, Content
from core.service.content import changes
from core.web.dependencies import After, Authenticated, Engine, Limit
from core.web.feed_watcher import FeedWatcher

router = APIRouter(prefix="/v1/changes", tags=["changes"])

MAX_WAIT_SECONDS = 60


@router.get("", responses=problems(401, 410, 422))
async def read_changes(
    request: Request,
    engine: Engine,
    principal: Authenticated,
    after: After = None,
    limit: Limit = 100,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="Seconds to wait for a change if there is none",
        ),
    ] = 0,
) -> Changes:
    """List what was created, updated or deleted after a cursor, the oldest first.

    No change is missed, and none appears twice.

    Without `after` it begins with the oldest; with `after=latest`, with what comes from now on.
    Read until `more` is false, keep the cursor, and go on from there at any time. An item that
    changed twice in between is told once, as it is now.
    """
    pulse: FeedWatcher = request.app.state.pulse
    deadline = time.monotonic() + wait

    def read(cursor: str | None) -> changes.Feed:
        with engine.database.connection() as conn:
            return changes.read(conn, principal, after=cursor, limit=limit)

    while True:
        # Looked up before reading: what comes in between is noticed.
        reaches = await pulse.newest() if wait else -1
        feed = await run_in_threadpool(read, after)
        left = deadline - time.monotonic()
        if feed.changes or left <= 0 or pulse.ended:
            return _answer(feed)
        after = feed.cursor
        if not feed.more and not await pulse.wait_beyond(reaches, left):
            return _answer(feed)
        if await request.is_disconnected():
            return _answer(feed)


def _answer(feed: changes.Feed) -> Changes:
    items = [
        Change(
            change=change.kind,
            user_integration_id=change.account,
            content=None if change.content is None else Content.model_validate(change.content),
        )
        for change in feed.changes
    ]
    return Changes(changes=items, cursor=feed.cursor, more=feed.more)
