"""Failures that may pass: the provider or the network is away, and the same call may work later."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator

from core.errors import TransientError

CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    EOFError,
    ssl.SSLError,
    http.client.HTTPException,
)

NETWORK_ERRNOS = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
"""`OSError`s of a missing network; Python has no class of its own for them."""

MAX_CAUSES = 10
"""Causes of an exception that are read."""


def may_pass(error: BaseException, passing: tuple[type[BaseException], ...] = ()) -> bool:
    """Return True if a later attempt may succeed, judged by an exception or one of its causes.

    Args:
      error: The exception that a task raised.
      passing: The classes that the plugin names in `Manifest.passing`. Default: none.
    """
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError) and not isinstance(each, passing):
            return False
        if isinstance(each, (TransientError, *CONNECTION_ERRORS, *passing)):
            return True
        if isinstance(each, OSError) and each.errno in NETWORK_ERRNOS:
            return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    current: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__
