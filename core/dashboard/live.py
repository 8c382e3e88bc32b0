"""Pages that update themselves through server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html

A page that is requested as `text/event-stream` sends its live part after each change. A part is
rendered once for all its viewers. The longer a rendering takes, the longer the pause before the
next one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from core.errors import PollingError
from core.web.feed_watcher import FeedWatcher
from core.web.user_slots import UserSlots

MIN_PAUSE_SECONDS = 1.0
"""The minimum pause between two renderings, in seconds."""

PAUSE_FACTOR = 10
"""The pause after a rendering, in multiples of its duration."""

MAX_CONCURRENT_RENDERS = 4
"""The number of concurrent renderings.

Further streams wait without occupying a thread of the pool that answers requests.
"""

MAX_RENDERS_PER_USER = 2
"""The number of concurrent renderings for one user: half, so that others' pages update too."""

KEEPALIVE_SECONDS = 15.0
AUTHORIZATION_SECONDS = 15.0
"""The interval at which a stream checks its token, in seconds."""

CACHE_SECONDS = 60.0

MAX_STREAMS = 60
"""The maximum number of concurrent streams of one user, or of one operator's token."""

MAX_STREAMS_IN_ALL = 400
"""The maximum number of concurrent streams. The rest of the server's connections is for others."""

LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(slots=True)
class _CacheEntry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    html: str = ""
    streams: int = 0
    rendered_at: float = 0.0
    fresh_until: float = 0.0
    pause: float = MIN_PAUSE_SECONDS


class Live:
    """A cache of rendered live parts, and the streams that send them."""

    def __init__(self) -> None:
        self._cache: dict[tuple[str, ...], _CacheEntry] = {}
        self._streams: Counter[str | UUID] = Counter()
        self._rendering = asyncio.Semaphore(MAX_CONCURRENT_RENDERS)
        self._shares = UserSlots(MAX_RENDERS_PER_USER)

    async def get(
        self, key: tuple[str, ...], user: str | UUID, render: Callable[[], str], since: float = 0.0
    ) -> tuple[str, float]:
        """Return the HTML of a live part, and the seconds until the next update.

        Args:
          key: The identity of the part; equal for viewers who see the same rows.
          user: The viewer's user, or the ID of an operator's token.
          render: A function that renders the part.
          since: The start of the viewer's stream, by `time.monotonic`. An older rendering is not
            returned: it could show the state before an action of the viewer.
        """
        self._evict()
        entry = self._cache.setdefault(key, _CacheEntry())
        async with entry.lock:
            if time.monotonic() >= entry.fresh_until or entry.rendered_at < since:
                async with self._shares.slot(user), self._rendering:
                    entry.rendered_at = started_at = time.monotonic()
                    entry.html = await run_in_threadpool(render)
                entry.pause = max(MIN_PAUSE_SECONDS, PAUSE_FACTOR * (time.monotonic() - started_at))
                entry.fresh_until = time.monotonic() + entry.pause * 0.9
            return entry.html, entry.pause

    def _evict(self) -> None:
        expired_before = time.monotonic() - CACHE_SECONDS
        for key in [
            key
            for key, entry in self._cache.items()
            if 0 < entry.fresh_until < expired_before and not entry.streams
        ]:
            del self._cache[key]

    async def stream(
        self,
        key: tuple[str, ...],
        user: str | UUID,
        render: Callable[[], str],
        allowed: Callable[[], bool],
        feed_watcher: FeedWatcher,
    ) -> AsyncGenerator[str, None]:
        """Yield events until the client disconnects, the viewer loses access, or the server stops.

        Args:
          key: The identity of the part, as for `get`.
          user: The viewer's user, or the ID of an operator's token.
          render: A function that renders the part.
          allowed: A function that returns True while the token is valid.
          feed_watcher: The watcher that ends the stream when the server stops.
        """
        full = self._streams.total() >= MAX_STREAMS_IN_ALL
        if full or self._streams[user] >= MAX_STREAMS:
            yield "retry: 30000\n\n"
            return
        entry = self._cache.setdefault(key, _CacheEntry())
        self._streams[user] += 1
        entry.streams += 1
        try:
            async for text in self._events(key, user, render, allowed, feed_watcher):
                yield text
        finally:
            entry.streams -= 1
            if not entry.streams and self._cache.get(key) is entry:
                del self._cache[key]
            self._streams[user] -= 1
            self._streams += Counter()  # removes zero counts

    async def _events(
        self,
        key: tuple[str, ...],
        user: str | UUID,
        render: Callable[[], str],
        allowed: Callable[[], bool],
        feed_watcher: FeedWatcher,
    ) -> AsyncIterator[str]:
        sent_html, last_event_at, authorized_at, since = (
            "",
            time.monotonic(),
            time.monotonic(),
            time.monotonic(),
        )
        yield "retry: 3000\n\n"
        while not feed_watcher.ended:
            now = time.monotonic()
            if now - authorized_at >= AUTHORIZATION_SECONDS:
                if not await run_in_threadpool(allowed):
                    yield event("end", "")
                    return
                authorized_at = now
            try:
                html, pause = await self.get(key, user, render, since)
            # The object was deleted, or the viewer lost access. The page shows the error.
            except PollingError:
                yield event("end", "")
                return
            if html != sent_html:
                yield event("live", html)
                sent_html, last_event_at = html, now
            elif now - last_event_at >= KEEPALIVE_SECONDS:
                yield ": keepalive\n\n"
                last_event_at = now
            await feed_watcher.pause(pause)


def event(name: str, data: str) -> str:
    """Encode one event.

    A carriage return also ends a line. Without the split, untrusted text could start an event.
    """
    lines = "".join(f"data: {line}\n" for line in LINE_END.split(data))
    return f"event: {name}\n{lines}\n"
