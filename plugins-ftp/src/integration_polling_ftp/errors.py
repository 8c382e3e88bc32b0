"""The engine's exceptions for the replies of an FTP server (RFC 959, section 4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from core import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    PermanentError,
    RateLimited,
    TransientError,
    Unavailable,
)

CONNECTIONS = "connections"
"""The name of the limit that the reply "too many connections" blocks."""

NOT_IMPLEMENTED = ("500", "501", "502", "504")

_EMPTY = re.compile(r"no (such )?files? (or directory )?found|no files", re.IGNORECASE)
_TOO_MANY = re.compile(r"too many|maximum", re.IGNORECASE)
_NEEDS_TLS = re.compile(r"encrypt|\btls\b|\bssl\b", re.IGNORECASE)


class Missing(PermanentError):
    """550: the path does not exist, or access is not permitted."""


class Empty(Missing):
    """An error reply to a listing that means: the directory is empty."""


class Unsupported(PermanentError):
    """500, 501, 502 or 504: the server does not support the command."""


class Dropped(Unavailable):
    """The server does not answer: no connection, a lost or silent one, or 421."""


@contextmanager
def network_errors() -> Iterator[None]:
    """Translate errors of the network.

    Raises:
      Dropped: The translated error.
    """
    try:
        yield
    except TimeoutError:
        raise Dropped("the server did not respond in time") from None
    except OSError as error:
        raise Dropped(f"connection failed: {error.strerror or error}") from None


def meaning(reply: str, command: str = "") -> IntegrationError:
    """Return the exception for an error reply.

    Args:
      reply: The code and the text, such as `530 Login incorrect.`
      command: The command that the server replied to, without its argument. Default: unknown.
    """
    code = reply[:3]
    if command in ("LIST", "NLST", "MLSD") and code in ("450", "550") and _EMPTY.search(reply):
        return Empty(reply)
    if code in ("421", "530") and _TOO_MANY.search(reply):
        return RateLimited(reply, limit=CONNECTIONS)
    if code == "421":
        return Dropped(reply)
    if code in ("530", "534") and _NEEDS_TLS.search(reply):
        return ConfigurationError(reply)
    if code in ("331", "332", "430", "530", "532"):
        return CredentialsInvalid(reply)
    if code == "550":
        return Missing(reply)
    if code in NOT_IMPLEMENTED:
        return Unsupported(reply)
    return PermanentError(reply) if code.startswith("5") else TransientError(reply)
