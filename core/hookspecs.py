"""The pluggy hooks. Hooks register and observe; classes behave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

from core.integration.base import BaseIntegration

PROJECT = "integration_polling"
"""The project's name for pluggy, and the entry point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """What a distribution may implement. A failing observer is logged and fails no task."""

    @hookspec
    def integrations(self) -> Sequence[type[BaseIntegration[Any, Any]]]:  # type: ignore[empty-body]
        """The integrations that this distribution brings."""

    @hookspec
    def content_saved(self, domain: str, account_id: str, external_ids: Sequence[str]) -> None:
        """Items were created, changed or deleted.

        Called after the commit, unless the process dies in between.
        """

    @hookspec
    def run_finished(self, run: Mapping[str, Any]) -> None:
        """A run has ended; `run` has the columns of `sync_run`.

        Called after the commit, by the process that ended it.
        """

    @hookspec
    def task_parked(self, task: Mapping[str, Any]) -> None:
        """A task was parked: `id`, `run_id`, `account_id`, `domain`, `type`, `error`.

        Called after the commit.
        """
