"""Hello World whose tasks return early when `ctx.stopping` is true, with a log of both.

The fleets of the tests load it as a plugin.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from integration_polling_hello_world import HelloWorld

from core import BaseIntegration, Context, Manifest, hookimpl
from support.metered import note_call

STARTS, STOPS = "starts.log", "stops.log"


class Listening(HelloWorld):
    """Hello World's tree; each task logs its start, and its stop if it returns early."""

    manifest = Manifest("listening", "Listening Hello")

    def _work(self, ctx: Context, name: str) -> None:
        note_call(ctx.account.id, STARTS)
        deadline = time.monotonic() + self.config.delay_ms / 1000
        while time.monotonic() < deadline:
            if ctx.stopping:
                note_call(ctx.account.id, STOPS)
                return
            time.sleep(0.01)


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Listening]
