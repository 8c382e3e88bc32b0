"""An event loop that runs in the caller's thread, and only while an operation runs.

There is no other thread. Time limits and shutdown work as for a blocking call, and the engine's
guard on addresses sees each connection in its task's context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CANCELLATIONS = 4
CANCELLATION_SECONDS = 0.5
"""The number of times that tasks are cancelled at the end, and the time to wait each time.

The cleanup of a task may wait for a lost connection.
"""


class Loop:
    """Runs operations as long as the server answers.

    Args:
      timeout: Seconds without an answer until an operation fails.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._loop = asyncio.new_event_loop()
        self._deadline = 0.0

    def run(self, operation: Awaitable[T]) -> T:
        """Run an operation to its end.

        After any exception that is not the operation's own, the loop can only be closed.

        Raises:
          TimeoutError: The server did not answer in time.
        """
        return self._loop.run_until_complete(self._timed(operation))

    def start(self, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task that runs while other operations run."""
        return self._loop.create_task(operation)

    def answered(self) -> None:
        """Extend the deadline: the server has answered."""
        self._deadline = self._loop.time() + self._timeout

    def close(self) -> None:
        """Cancel all tasks, and close the loop. Connections must be closed before."""
        try:
            for _ in range(CANCELLATIONS):
                if not (tasks := asyncio.all_tasks(self._loop)):
                    break
                self._loop.run_until_complete(_cancel(tasks))
            self._loop.run_until_complete(_closed())
        finally:
            self._loop.close()

    async def _timed(self, operation: Awaitable[T]) -> T:
        """Wait for an operation, without its cleanup after a timeout: that may never end."""
        task = asyncio.ensure_future(operation)
        self.answered()
        while not task.done():
            remaining = self._deadline - self._loop.time()
            if remaining <= 0:
                raise TimeoutError
            await asyncio.wait({task}, timeout=remaining)
        return task.result()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    ended, _ = await asyncio.wait(tasks, timeout=CANCELLATION_SECONDS)
    for task in ended:
        if not task.cancelled():
            task.exception()  # it is expected here


async def _closed() -> None:
    """Wait until the loop has closed the sockets of the connections that were aborted."""
    for _ in range(2):
        await asyncio.sleep(0)
