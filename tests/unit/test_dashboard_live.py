"""A live part is rendered once for all who look, and never shows somebody what was before they
came.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count

import pytest

pytest.importorskip("fastapi", reason="the extra `serve`")

from core.dashboard.live import Live

KEY = ("/parked", "", "u", "False")


def test_who_looks_at_the_same_shares_a_look() -> None:
    async def look() -> None:
        live, numbers = Live(), count(1)
        seen = await asyncio.gather(
            *(live.get(KEY, lambda: str(next(numbers))) for _ in range(100))
        )
        assert {html for html, _ in seen} == {"1"}
        assert (await live.get(("/parked", "", "v", "False"), lambda: str(next(numbers))))[0] == "2"

    asyncio.run(look())


def test_who_comes_after_a_look_gets_a_new_one() -> None:
    """They may have acted since: the page that they loaded is newer than what others were shown."""

    async def look() -> None:
        live, numbers = Live(), count(1)
        await live.get(KEY, lambda: str(next(numbers)))
        came = time.monotonic()
        assert (await live.get(KEY, lambda: str(next(numbers)), came))[0] == "2"
        assert (await live.get(KEY, lambda: str(next(numbers)), came))[0] == "2"

    asyncio.run(look())
