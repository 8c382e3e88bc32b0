"""Gates in plugin code and in an observer: a plugin to load with `POLLING_PLUGINS`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core import BaseIntegration, Context, Manifest, hookimpl
from support.gates import Gate, go_through
from support.metered import CALLS, Metered


class Gated(Metered):
    """An integration that stops in every task except the first."""

    manifest = Manifest("gated", "Gated Hello", limits=[CALLS])

    def _work(self, ctx: Context, name: str) -> None:
        super()._work(ctx, name)
        go_through(Gate.IN_PLUGIN)


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Gated]


@hookimpl
def content_saved(domain: str, account_id: str, external_ids: Sequence[str]) -> None:
    """Stop in an observer, which the engine calls after the ack."""
    go_through(Gate.AFTER_ACK)
