"""What a reply of the server means for a task."""

from __future__ import annotations

import ftplib
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
)

CONNECTIONS = "connections"
"""The limit that a server's "too many connections" is about."""

NOT_IMPLEMENTED = ("500", "501", "502", "504")

_TOO_MANY = re.compile(r"too many|maximum", re.IGNORECASE)
_NEEDS_TLS = re.compile(r"encrypt|\btls\b|\bssl\b", re.IGNORECASE)


class Missing(PermanentError):
    """550: it is not there, or may not be read."""


class Unsupported(PermanentError):
    """The server does not know the command."""


class Dropped(TransientError):
    """The connection is gone."""


@contextmanager
def translated(secret: str = "") -> Iterator[None]:
    """Raise what the engine understands, with the server's words but without the secret."""
    try:
        yield
    except ftplib.Error as error:
        text = str(error).strip()
        raise meaning(text.replace(secret, "***") if secret else text) from None
    except EOFError:
        raise Dropped("the server closed the connection") from None
    except TimeoutError:
        raise Dropped("the server is silent") from None
    except OSError as error:
        raise Dropped(f"no connection: {error.strerror or error}") from None


def meaning(reply: str) -> IntegrationError:
    """The error for a reply."""
    code = reply[:3]
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
