"""A faulty broker: it delivers every message again, immediately and late."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from core.transport.queues import Queues

PAUSE_SECONDS = 0.001


class Redelivery:
    """A thread that sends each new message of a queue twice more, during the block.

    `again` sends all messages once more.

    Attributes:
      seen: The bodies of all messages so far, by id.
    """

    def __init__(self, queues: Queues, queue: str) -> None:
        self._queues = queues
        self._list, self._hash = queues.key(queue), queues.key(f"{queue}.msgs")
        self._queue = queue
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="redelivery")
        self.seen: dict[str, bytes] = {}

    def again(self) -> None:
        """Send all messages so far once more."""
        self._queues.send(self._queue, self.seen)

    def _watch(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            bodies = self._queues.client.hgetall(self._hash)
            new = {
                key.decode(): body for key, body in bodies.items() if key.decode() not in self.seen
            }
            self.seen |= new
            self._queues.send(self._queue, new)
            self._queues.send(self._queue, new)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
