"""A continuous workload during faults: when a run ends, another account is synced."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from support import oracle
from support.accounts import connect, sync
from support.fleet import Fleet
from support.metered import Metered

AT_ONCE = 2


class Workload:
    """Accounts with the same config, each synced once.

    Attributes:
      accounts: The ids of all accounts so far.
    """

    def __init__(self, fleet: Fleet, config: Mapping[str, int], at_once: int = AT_ONCE) -> None:
        self._fleet = fleet
        self._config = config
        self._at_once = at_once
        self.accounts: list[UUID] = []

    def goes_on(self, tasks: int) -> None:
        """Wait until this number of further tasks is done."""
        self._refill()
        wanted = self._done() + tasks

        def enough() -> bool:
            self._refill()
            return self._done() >= wanted

        try:
            self._fleet.until(enough, f"{tasks} more tasks are done", 60.0, replace=True)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; left: {self._fleet.deployment.rows(oracle.LEFT)}"
            ) from None

    def comes_to_its_end(self) -> None:
        """Wait until all runs have ended, and check each account."""
        oracle.wait_for_quiet(self._fleet, 120.0)
        for account in self.accounts:
            oracle.assert_synced(self._fleet, account, self._config)

    def _done(self) -> int:
        done: int = self._fleet.deployment.value(oracle.DONE)
        return done

    def _refill(self) -> None:
        for _ in range(self._at_once - self._fleet.deployment.value(oracle.OPEN)):
            self.accounts.append(connect(self._fleet.deployment, Metered, self._config))
            sync(self._fleet.deployment, self.accounts[-1])
