"""Listeners and webhooks in tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from core.integration.base import BaseIntegration, Integration
from core.integration.listening import Hint, Listener
from core.integration.stored import state_value

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Hinted:
    """The harness's account, for `BaseIntegration.follows`. It implements `core.HintedAccount`."""

    id: str
    config: Mapping[str, Any]
    states: Mapping[str, Any]

    def state(self, partition: str, model: type[M], /) -> M | None:
        """Return the value of a state partition, or None if it is empty."""
        return state_value(partition, self.states.get(partition), model)


@dataclass
class RecordedHints:
    """The hints of a listener, for a test to read. It implements `core.Hints`.

    Attributes:
      hints: The hints so far, in order.
      connections: The number of calls of `connected`.
      reasons: The reasons of `disconnected`.
      error: The exception that ended `listen`; None while it runs, and after a normal end.
      make: Returns the instance for an account's id. Default: there is none.
    """

    hints: list[Hint] = field(default_factory=list)
    connections: int = 0
    reasons: list[str] = field(default_factory=list)
    error: BaseException | None = None
    make: Callable[[str], BaseIntegration[Any, Any]] | None = None

    def __post_init__(self) -> None:
        self._changed = threading.Condition()

    def add(self, account: str, part: str | None = None) -> None:
        """Record a hint."""
        with self._changed:
            self.hints.append(Hint(account, part))
            self._changed.notify_all()

    def connected(self) -> None:
        """Record a connection."""
        with self._changed:
            self.connections += 1
            self._changed.notify_all()

    def disconnected(self, reason: str) -> None:
        """Record the end of a connection."""
        with self._changed:
            self.reasons.append(reason)
            self._changed.notify_all()

    def instance(self, id: str) -> BaseIntegration[Any, Any]:
        """Return an instance for an account.

        Raises:
          LookupError: The test has given none.
        """
        if self.make is None:
            raise LookupError("give `make` to listening()")
        return self.make(id)

    def wait_for(self, hints: int = 0, connections: int = 0, seconds: float = 20.0) -> None:
        """Wait until there are this many hints and connections.

        Raises:
          AssertionError: There are fewer after this time.
        """
        with self._changed:
            there = self._changed.wait_for(
                lambda: len(self.hints) >= hints and self.connections >= connections, seconds
            )
        assert there, f"after {seconds:g} s: {self.connections} connections, {self.hints}"


@contextmanager
def listening(
    integration: Integration,
    listener: Listener,
    make: Callable[[str], BaseIntegration[Any, Any]] | None = None,
) -> Iterator[RecordedHints]:
    """Run `listen` of an integration in a thread during the block.

    Args:
      integration: The integration.
      listener: One of its listeners.
      make: Returns the result of `Hints.instance` for an account's id. Default: there is none.

    Raises:
      AssertionError: `listen` does not return within 10 seconds after `stopping` was set.
    """
    hints, stopping = RecordedHints(make=make), threading.Event()

    def run() -> None:
        try:
            integration.listen(listener, hints, stopping)
        except BaseException as error:  # noqa: BLE001  for the test
            hints.error = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield hints
    finally:
        stopping.set()
        thread.join(10)
    assert not thread.is_alive(), "listen() does not return after `stopping` was set"
