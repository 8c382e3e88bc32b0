"""A deadline for checks, independent of the plugin, and one answer for hosts without an answer.

A check runs in a thread of its own. At the deadline, the request is answered, and the connections
of the check are closed, which ends most calls that wait for a server. The engine knows these
connections after the first account limited to public addresses, or the first reread. A thread that
continues nevertheless counts until it ends: for the process, and for the user whose request began
it.

With a user's token, the user decides where a check connects to. A name that does not exist, a
private address, a closed port and a silent one give the same answer, after the same time. Otherwise
the user could explore the network of the engine.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Generic, TypeVar

from core.egress import ConnectionLog, EgressRefused, logged_connections
from core.error_catalog import CATALOG
from core.errors import InvalidFields, PollingError, ServerUnavailable, chain
from core.service.provider_slots import current_call

T = TypeVar("T")

CHECK_SECONDS = 30.0
"""Seconds after which a check is answered, even if the plugin has not finished."""

UNREACHABLE_SECONDS = 5.0
"""Seconds in which a host must send something to a check with a user's token.

All failures to reach a host are answered after this time.
"""

LOOK_SECONDS = 0.05
"""The pause between two looks at the connections of a check, in seconds."""

MAX_CHECK_THREADS = 32
"""Threads of checks in one process, also after their deadline. Beyond, nothing is checked."""

UNREACHABLE = frozenset(
    {
        errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EHOSTDOWN,
        errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.EACCES, errno.EPERM,
        errno.EADDRNOTAVAIL, errno.EBADF,
    }
)  # fmt: skip
"""The errors of a connection that tell something about the network."""

_threads = threading.BoundedSemaphore(MAX_CHECK_THREADS)


class BoundedCheck(Generic[T]):
    """One check, with its thread.

    Args:
      work: The check. It gets a function that protects a block from being cut off.
      limited: True for a check with a user's token.
      destinations: The fields of the config that name the host, the host first.
    """

    def __init__(
        self, work: Callable[[], T], *, limited: bool, destinations: Sequence[str]
    ) -> None:
        self._work = work
        self._limited = limited
        self._destinations = destinations
        self._call = current_call()
        self._done = threading.Event()
        self._result: T
        self._error: BaseException | None = None
        self.renewing = False
        """True while the plugin renews credentials. The provider may not issue them twice, so
        the connections are not closed then."""
        self.rehearsing = False
        """True once the plugin has passed the check, and rehearses the connection."""

    def run(self, name: str) -> T:
        """Run the check, and return its result.

        Args:
          name: The name of the integration, for errors.

        Raises:
          InvalidInput: A user's token, and the host cannot be reached.
          PollingError: The check takes too long, or the check's own error.
        """
        started = time.monotonic()
        with logged_connections() as log:
            self._start()
            finished = self._wait(log, started)
        if not finished and not self.renewing:
            log.cut()
        if self._limited and (not finished or self._error) and self._is_unreachable(log, finished):
            time.sleep(max(0.0, started + UNREACHABLE_SECONDS - time.monotonic()))
            text = CATALOG["host-unreachable"].message
            problems = dict.fromkeys(self._destinations[:1], text)
            raise InvalidFields("host-unreachable", part="config", problems=problems) from None
        if not finished:
            seconds = int(CHECK_SECONDS)
            if self.rehearsing:
                raise PollingError("rehearsal-timed-out", integration=name, seconds=seconds)
            raise PollingError("check-timed-out", integration=name, seconds=seconds)
        if self._error is not None:
            raise self._error
        return self._result

    def _start(self) -> None:
        if not _threads.acquire(blocking=False):
            raise ServerUnavailable("checks-busy")
        if self._call is not None:
            self._call.hold()
        try:
            threading.Thread(target=copy_context().run, args=(self._main,), daemon=True).start()
        except RuntimeError:  # the system has no more threads
            self._leave()
            raise

    def _leave(self) -> None:
        """Count the thread of the check no longer."""
        _threads.release()
        if self._call is not None:
            self._call.leave()

    def _main(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001  raised again in the request's thread
            self._error = error
        finally:
            self._leave()
            self._done.set()

    def _wait(self, log: ConnectionLog, started: float) -> bool:
        """Wait for the end of the check. Return False if it takes too long."""
        while self._limited and not log.answered():
            if self._done.wait(LOOK_SECONDS):
                return True
            if time.monotonic() >= started + UNREACHABLE_SECONDS:
                if log.pending():
                    return False
                break
        return self._done.wait(max(0.0, started + CHECK_SECONDS - time.monotonic()))

    def _is_unreachable(self, log: ConnectionLog, finished: bool) -> bool:
        if not finished:
            return not log.answered()
        return log.refused or log.unresolved() or any(map(_tells, chain(self._error)))


def _tells(error: BaseException) -> bool:
    if isinstance(error, EgressRefused | socket.gaierror | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in UNREACHABLE
