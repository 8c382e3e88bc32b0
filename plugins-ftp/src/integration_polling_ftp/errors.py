"""The engine's exceptions for the replies of an FTP server (RFC 959, section 4.2)."""

from __future__ import annotations

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
from integration_polling_ftp.replies import NOT_IMPLEMENTED, Meaning, classify, readable

__all__ = [
    "CONNECTIONS",
    "NOT_IMPLEMENTED",
    "Dropped",
    "Empty",
    "Missing",
    "Unsupported",
    "meaning",
    "network_errors",
]

CONNECTIONS = "connections"
"""The name of the limit that the reply "too many connections" blocks."""


class Missing(PermanentError):
    """550: the path does not exist, or access is not permitted."""


class Empty(Missing):
    """450 or 550: the directory has no entries."""


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
      reply: The code and the text, such as `530 Login incorrect.`, decoded as latin-1.
      command: The command that it answers. Default: unknown.
    """
    found = classify(reply, command)
    text = readable(reply)
    if found is Meaning.LIMIT:
        return RateLimited(text, limit=CONNECTIONS)
    return _ERRORS.get(found, PermanentError)(text)


_ERRORS: dict[Meaning, type[IntegrationError]] = {
    Meaning.EMPTY: Empty,
    Meaning.GONE: Missing,
    Meaning.REFUSED: Missing,
    Meaning.BUSY: TransientError,
    Meaning.RETRY: TransientError,
    Meaning.LOST: Dropped,
    Meaning.TLS_REQUIRED: ConfigurationError,
    Meaning.SETUP: ConfigurationError,
    Meaning.CREDENTIALS: CredentialsInvalid,
    Meaning.UNSUPPORTED: Unsupported,
}
