"""Pages that update themselves through server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html

A page that is requested as `text/event-stream` answers with its live part whenever that changes. A
part is rendered once for all its viewers; the longer rendering takes, the longer is the pause
before the next one.
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

MIN_PAUSE_SECONDS = 1.0
"""Minimum pause between two renderings."""

PAUSE_FACTOR = 10
"""The pause after a rendering, in multiples of its duration."""

MAX_CONCURRENT_RENDERS = 4
"""A stream that waits for a rendering holds no thread of those that answer requests."""

KEEPALIVE_SECONDS = 15.0
AUTHORIZATION_SECONDS = 15.0
"""Interval at which a stream checks its token."""

CACHE_SECONDS = 60.0

MAX_STREAMS = 60
"""Concurrent streams of one token.

The server limits all connections together; one token must not use them all.
"""

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
        self._streams: Counter[UUID] = Counter()
        self._rendering = asyncio.Semaphore(MAX_CONCURRENT_RENDERS)

    async def get(
        self, key: tuple[str, ...], render: Callable[[], str], since: float = 0.0
    ) -> tuple[str, float]:
        """Return the HTML of a live part, and the seconds until it should be read again.

        Parameters:
          key: Identifies the part; equal for viewers who see the same rows.
          since: When the stream of the viewer started, by `time.monotonic`. An older rendering is
            not returned: it could show the state before an action of the viewer.
        """
        self._evict()
        entry = self._cache.setdefault(key, _CacheEntry())
        async with entry.lock:
            if time.monotonic() >= entry.fresh_until or entry.rendered_at < since:
                async with self._rendering:
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
        token: UUID,
        render: Callable[[], str],
        allowed: Callable[[], bool],
        pulse: FeedWatcher,
    ) -> AsyncGenerator[str, None]:
        """Yield events until the client disconnects, the viewer loses access, or the server stops.

        Parameters:
          token: The token of the viewer.
          allowed: Returns whether the token is still valid.
        """
        if self._streams[token] >= MAX_STREAMS:
            yield "retry: 30000\n\n"
            return
        entry = self._cache.setdefault(key, _CacheEntry())
        self._streams[token] += 1
        entry.streams += 1
        try:
            async for text in self._events(key, render, allowed, pulse):
                yield text
        finally:
            entry.streams -= 1
            if not entry.streams and self._cache.get(key) is entry:
                del self._cache[key]
            self._streams[token] -= 1
            self._streams += Counter()  # removes zero counts

    async def _events(
        self,
        key: tuple[str, ...],
        render: Callable[[], str],
        allowed: Callable[[], bool],
        pulse: FeedWatcher,
    ) -> AsyncIterator[str]:
        sent_html, last_event_at, authorized_at, since = (
            "",
            time.monotonic(),
            time.monotonic(),
            time.monotonic(),
        )
        yield "retry: 3000\n\n"
        while not pulse.ended:
            now = time.monotonic()
            if now - authorized_at >= AUTHORIZATION_SECONDS:
                if not await run_in_threadpool(allowed):
                    yield event("end", "")
                    return
                authorized_at = now
            try:
                html, pause = await self.get(key, render, since)
            # The subject was deleted, or the viewer lost access: the page shows the error.
            except PollingError:
                yield event("end", "")
                return
            if html != sent_html:
                yield event("live", html)
                sent_html, last_event_at = html, now
            elif now - last_event_at >= KEEPALIVE_SECONDS:
                yield ": still here\n\n"
                last_event_at = now
            await pulse.pause(pause)


def event(name: str, data: str) -> str:
    """Return one event.

    A carriage return also ends a line; without the split, untrusted text could start an event.
    """
    lines = "".join(f"data: {line}\n" for line in LINE_END.split(data))
    return f"event: {name}\n{lines}\n"
