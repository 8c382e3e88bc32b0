"""`/v1/changes`: the change feed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from core.db.pool import Conn
from core.rest.routes import problems
from core.rest.schemas.content import Change, ChangedContent, Changes
from core.service import tokens
from core.service.authorization import Principal
from core.service.content import changes
from core.web.dependencies import After, Engine, Limit
from core.web.feed_watcher import FeedWatcher
from core.web.permissions import TO_READ_CONTENT, ContentReader
from core.web.problems import HttpProblem
from core.web.request_rates import caller_of

router = APIRouter(prefix="/v1/changes", tags=["changes"])

MAX_WAIT_SECONDS = 60


@router.get("", responses=problems(401, 410, 422, 429, 503), response_model_exclude_unset=True)
async def read_changes(
    request: Request,
    engine: Engine,
    principal: ContentReader,
    after: After = None,
    limit: Limit = 100,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="Maximum number of seconds to wait for the first change",
        ),
    ] = 0,
    rereads: Annotated[
        bool,
        Query(
            description=(
                "False: leave out changes that only a reread made. Their cause is a newer plugin"
                " version or a changed config, not the provider"
            )
        ),
    ] = True,
    include: Annotated[
        Literal["content"] | None,
        Query(
            description=(
                "`content`: add the `text` of each item, of at most 100,000 characters. A page then"
                " has fewer items"
            )
        ),
    ] = None,
) -> Changes:
    """List created, updated and deleted content after a cursor, the oldest change first.

    No change is missed, and none is listed twice. An item that changed several times between two
    requests is listed once, with its current state.

    Without `after`, the list starts with the oldest change. With `after=latest`, it starts with the
    next change. Read pages until `more` is false, store the cursor, and continue from it at any
    time.

    At most 20 requests with the tokens of one user, or with one operator's token, may wait at the
    same time; for more, the response is 429.
    """

    def read(cursor: str | None, *, waited: bool = False) -> changes.Feed:
        with engine.database.connection() as conn:
            reader = _current(conn, principal) if waited else principal
            return changes.read(
                conn,
                reader,
                after=cursor,
                limit=limit,
                without_rereads=not rereads,
                with_texts=include == "content",
            )

    if not wait:
        return _answer(await run_in_threadpool(read, after))
    feed_watcher: FeedWatcher = request.app.state.feed_watcher
    with feed_watcher.reader(principal.counted_as):
        return _answer(await _wait(request, feed_watcher, read, after, wait))


async def _wait(
    request: Request,
    feed_watcher: FeedWatcher,
    read: Callable[..., changes.Feed],
    after: str | None,
    seconds: float,
) -> changes.Feed:
    """Read until there is a change, the time has passed, or the client or the server ends."""
    deadline, woken = time.monotonic() + seconds, False
    while True:
        # Read the end first, so that a change during the read ends the wait.
        reaches = await feed_watcher.newest()
        async with feed_watcher.reading if woken else nullcontext():
            feed = await run_in_threadpool(read, after, waited=woken)
        woken, left = True, deadline - time.monotonic()
        if feed.changes or left <= 0 or feed_watcher.ended:
            return feed
        if (caller := caller_of(request)) is not None:
            caller.release()  # waiting readers have a bound of their own
        after = feed.cursor
        if not feed.more and not await feed_watcher.wait_beyond(
            reaches, left, request.is_disconnected
        ):
            return feed
        if await request.is_disconnected():
            return feed


def _current(conn: Conn, principal: Principal) -> Principal:
    """Return the principal of a reader that has waited, if its token may still read."""
    reader = tokens.current(conn, principal)
    if reader is None:
        raise HttpProblem("token-invalid")
    TO_READ_CONTENT.check(reader)
    return reader


def _answer(feed: changes.Feed) -> Changes:
    items = [
        Change(
            change=change.kind,
            user_integration_id=change.account,
            content=change.content and ChangedContent.model_validate(change.content),
            cause=change.cause,
        )
        for change in feed.changes
    ]
    return Changes(
        changes=items,
        cursor=feed.cursor,
        more=feed.more,
        deletions_held=feed.deletions_held,
    )
