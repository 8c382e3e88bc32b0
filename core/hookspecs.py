"""The pluggy hooks: they register integrations and observe the engine."""

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
    """The hooks that a plugin may implement, marked with `@hookimpl`.

    The engine logs an exception from an observer, and no task fails because of it. A process that
    dies right after its commit calls no observer.
    """

    @hookspec
    def integrations(self) -> Sequence[type[BaseIntegration[Any, Any]]]:  # type: ignore[empty-body]
        """Return the integrations that this plugin provides."""

    @hookspec
    def content_saved(self, domain: str, account_id: str, external_ids: Sequence[str]) -> None:
        """Observe items that a commit created, changed or deleted.

        Args:
          domain: The integration's domain.
          account_id: The account's id.
          external_ids: The items' ids in the account.
        """

    @hookspec
    def run_finished(self, run: Mapping[str, Any]) -> None:
        """Observe the end of a run, after the commit, in the process that ended it.

        Args:
          run: The columns of `sync_run`.
        """

    @hookspec
    def task_parked(self, task: Mapping[str, Any]) -> None:
        """Observe a task that was parked, after the commit.

        Args:
          task: `id`, `run_id`, `account_id`, `domain`, `type` and `error`.
        """
