"""A live part is rendered once for all viewers.

A viewer never gets a part that was rendered before they arrived.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from core.dashboard.live import Live

KEY = ("/parked", "", "u", "False")


def test_concurrent_viewers_of_a_part_share_one_rendering() -> None:
    async def look() -> None:
        live, numbers = Live(), count(1)
        seen = await asyncio.gather(
            *(live.get(KEY, "ann", lambda: str(next(numbers))) for _ in range(100))
        )
        assert {html for html, _ in seen} == {"1"}
        assert (await live.get(("/parked", "", "v", "False"), "ann", lambda: str(next(numbers))))[
            0
        ] == "2"

    asyncio.run(look())


def test_a_later_viewer_gets_a_new_rendering() -> None:
    """The viewer may have acted since, so that their page is newer than the cached part."""

    async def look() -> None:
        live, numbers = Live(), count(1)
        await live.get(KEY, "ann", lambda: str(next(numbers)))
        came = time.monotonic()
        assert (await live.get(KEY, "ann", lambda: str(next(numbers)), came))[0] == "2"
        assert (await live.get(KEY, "ann", lambda: str(next(numbers)), came))[0] == "2"

    asyncio.run(look())
