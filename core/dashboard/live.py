"""Pages that update themselves through server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html

A page that is asked for as `text/event-stream` answers with its live part, whenever that has
changed. However many look at the same page, it is rendered once; and the more a look costs, the
rarer it is.
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

SECONDS = 1.0
"""Between two looks, at the least."""

COST = 10
"""So many times longer than a look took is the pause after it."""

MAX_CONCURRENT_RENDERS = 4
"""Looks. Whoever waits for one holds none of the threads that answer requests."""

KEEPALIVE_SECONDS = 15.0
ASK_AGAIN_SECONDS = 15.0
"""How soon a token that is revoked ends the stream."""

CACHE_SECONDS = 60.0

MAX_STREAMS = 60
"""Of one token: pages that are open at once.

The server has a bound for all connections together, which nobody shall use up.
"""

LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(slots=True)
class _Kept:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    html: str = ""
    streams: int = 0
    looked: float = 0.0
    fresh_until: float = 0.0
    pause: float = SECONDS


class Live:
    """The live parts that somebody looks at just now."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], _Kept] = {}
        self._streams: Counter[UUID] = Counter()
        self._rendering = asyncio.Semaphore(MAX_CONCURRENT_RENDERS)

    async def look(
        self, key: tuple[str, ...], render: Callable[[], str], since: float = 0.0
    ) -> tuple[str, float]:
        """What this part looks like, and in how many seconds to look again.

        Parameters:
          key: The same for those who see the same.
          since: When the viewer began, by the monotonic clock: a look from before then would take
            the page back to what it was before somebody acted on it.
        """
        self._forget()
        kept = self._kept.setdefault(key, _Kept())
        async with kept.lock:
            if time.monotonic() >= kept.fresh_until or kept.looked < since:
                async with self._rendering:
                    kept.looked = begun = time.monotonic()
                    kept.html = await run_in_threadpool(render)
                kept.pause = max(SECONDS, COST * (time.monotonic() - begun))
                kept.fresh_until = time.monotonic() + kept.pause * 0.9
            return kept.html, kept.pause

    def _forget(self) -> None:
        long_ago = time.monotonic() - CACHE_SECONDS
        for key in [
            key
            for key, kept in self._kept.items()
            if 0 < kept.fresh_until < long_ago and not kept.streams
        ]:
            del self._kept[key]

    async def stream(
        self,
        key: tuple[str, ...],
        token: UUID,
        render: Callable[[], str],
        allowed: Callable[[], bool],
        pulse: FeedWatcher,
    ) -> AsyncGenerator[str, None]:
        """Yield events until the viewer leaves or loses access, or the subject or server is gone.

        Parameters:
          token: Whose stream it is.
        """
        if self._streams[token] >= MAX_STREAMS:
            yield "retry: 30000\n\n"
            return
        kept = self._kept.setdefault(key, _Kept())
        self._streams[token] += 1
        kept.streams += 1
        try:
            async for text in self._events(key, render, allowed, pulse):
                yield text
        finally:
            kept.streams -= 1
            if not kept.streams and self._kept.get(key) is kept:
                del self._kept[key]
            self._streams[token] -= 1
            self._streams += Counter()  # without those that have none

    async def _events(
        self,
        key: tuple[str, ...],
        render: Callable[[], str],
        allowed: Callable[[], bool],
        pulse: FeedWatcher,
    ) -> AsyncIterator[str]:
        sent, spoken, asked, since = "", time.monotonic(), time.monotonic(), time.monotonic()
        yield "retry: 3000\n\n"
        while not pulse.ended:
            now = time.monotonic()
            if now - asked >= ASK_AGAIN_SECONDS:
                if not await run_in_threadpool(allowed):
                    yield event("end", "")
                    return
                asked = now
            try:
                html, pause = await self.look(key, render, since)
            # It is gone, or the viewer may not see it any more: the page itself says so.
            except PollingError:
                yield event("end", "")
                return
            if html != sent:
                yield event("live", html)
                sent, spoken = html, now
            elif now - spoken >= KEEPALIVE_SECONDS:
                yield ": still here\n\n"
                spoken = now
            await pulse.pause(pause)


def event(name: str, data: str) -> str:
    """One event.

    A carriage return ends a line as well: left as it is, a text from outside could begin an event
    of its own.
    """
    lines = "".join(f"data: {line}\n" for line in LINE_END.split(data))
    return f"event: {name}\n{lines}\n"
