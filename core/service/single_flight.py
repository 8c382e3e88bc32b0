"""One flight of slow work for all requests that want its result at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Work in a thread of its own. Requests join it, and wait for a limited time.

    A server that does not answer therefore occupies one thread and one connection, not those of
    every request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flight: _Flight[K, V] | None = None

    def results(
        self, work: Callable[[MutableMapping[K, V]], None], seconds: float
    ) -> tuple[dict[K, V], bool]:
        """Join the work in progress, or start it.

        Args:
          work: The work. It stores each result as soon as it has it.
          seconds: The maximum time to wait.

        Returns:
          The results so far, and True if they are complete.

        Raises:
          Exception: An error of the work.
        """
        with self._lock:
            if self._flight is None or self._flight.ended.is_set():
                self._flight = _Flight(work)
            flight = self._flight
        ended = flight.ended.wait(seconds)
        if flight.error is not None:
            raise flight.error
        return dict(flight.found), ended


class _Flight(Generic[K, V]):
    def __init__(self, work: Callable[[MutableMapping[K, V]], None]) -> None:
        self.found: dict[K, V] = {}
        self.error: Exception | None = None
        self.ended = threading.Event()
        threading.Thread(target=self._main, args=(work,), daemon=True, name="flight").start()

    def _main(self, work: Callable[[MutableMapping[K, V]], None]) -> None:
        try:
            work(self.found)
        except Exception as error:  # noqa: BLE001  raised again in the threads of the requests
            self.error = error
        finally:
            self.ended.set()
