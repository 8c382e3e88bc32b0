"""A thread that hashes and writes received bytes, while its caller receives the next ones."""

from __future__ import annotations

import queue
import threading
from contextvars import copy_context
from types import TracebackType
from typing import Self

from integration_polling_ftp.connection import Write

MAX_WAITING = 4
"""The number of blocks that wait for the thread. `WriterThread.write` then blocks."""


class WriterThread:
    """Passes blocks to a receiver in another thread, in their order.

    SHA-256 and the write to the disk take a third of the processor time of a transfer over SFTP,
    and Python releases its lock during both.

    Use it as a context manager. At the end of the block, also after an exception, the receiver has
    every block, and the thread has ended.

    Args:
      write: The receiver. Nothing may change a block until the receiver has it.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._blocks: queue.Queue[memoryview | None] = queue.Queue(MAX_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=copy_context().run, args=[self._run], name="sftp-writer", daemon=True
        )

    def write(self, block: memoryview) -> None:
        """Pass a block on.

        Raises:
          BaseException: The receiver raised it for an earlier block. It receives no further ones.
        """
        if self._error is not None:
            raise self._error
        self._blocks.put(block)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread.

        Raises:
          BaseException: The receiver raised it.
        """
        try:
            self._end()
        except BaseException:  # a time limit interrupts the caller, and only once
            self._end()
            raise
        if self._error is not None and self._error is not error:
            raise self._error

    def _end(self) -> None:
        self._blocks.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            if self._error is None:
                try:
                    self._write(block)
                except BaseException as error:  # noqa: BLE001  raised in the caller's thread
                    self._error = error
