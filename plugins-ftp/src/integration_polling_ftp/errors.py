"""The engine's exceptions for the replies of an FTP server (RFC 959, section 4.2)."""

from __future__ import annotations

import socket
import ssl
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
    "Closed",
    "Dropped",
    "Empty",
    "Missing",
    "OtherProtocol",
    "Silent",
    "Truncated",
    "UnknownHost",
    "Unsupported",
    "Untrusted",
    "meaning",
    "network_errors",
    "without_secrets",
]

TLS_REFUSALS = (
    "ALERT_ACCESS_DENIED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE",
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_INSUFFICIENT_SECURITY",
    "ALERT_PROTOCOL_VERSION",
    "ALERT_UNKNOWN_CA",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "KEY_TOO_SMALL",
    "LEGACY_RENEGOTIATION",
    "NO_PROTOCOLS_AVAILABLE",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_SIGNATURE_TYPE",
    "WRONG_SSL_VERSION",
    "WRONG_VERSION_NUMBER",
)
"""Parts of OpenSSL's reasons for handshakes that fail in the same way each time."""

OTHER_NAMES = (62, 64)
"""OpenSSL's codes for a certificate with another host name or IP address (`X509_V_ERR_…`)."""

_NO_ADDRESS = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

CONNECTIONS = "connections"
"""The name of the limit that the reply "too many connections" blocks."""


class Missing(PermanentError):
    """550: the path does not exist, or access is not permitted."""


class Empty(Missing):
    """450 or 550: the directory has no entries."""


class Unsupported(PermanentError):
    """500, 501, 502 or 504: the server does not support the command."""


class Dropped(Unavailable):
    """The server does not answer: no connection, a lost or silent one, or 421.

    Attributes:
      field: The field of the config that is wrong, unless this is an outage. Empty: none is.
    """

    field = ""


class Silent(Dropped):
    """The server did not respond within the timeout."""


class UnknownHost(Dropped):
    """The name of the server has no address."""

    field = "host"


class Closed(Dropped):
    """The port accepts no connections."""

    field = "port"


class OtherProtocol(Dropped):
    """The server speaks another protocol.

    Args:
      reason: The reason, shown to people.
      field: The field of the config that is wrong.
    """

    def __init__(self, reason: str, *, field: str) -> None:
        super().__init__(reason)
        self.field = field


class Truncated(Dropped):
    """A TLS connection ended without a closing message (`close_notify`, RFC 8446, section 6.1)."""


class Untrusted(ConfigurationError):
    """The server proves no identity that the account trusts, or another one."""


MIN_SECRET_CHARS = 3
"""The length from which a password is removed from errors; a shorter one garbles every text."""


def without_secrets(text: str, *secrets: str) -> str:
    """Return a server's text without the account's secrets, which it may repeat."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARS:
            text = text.replace(secret, "***")
    return text


@contextmanager
def network_errors() -> Iterator[None]:
    """Translate errors of the network and of TLS.

    Raises:
      Dropped: The connection failed, or is lost. `UnknownHost`, `Closed`, `Silent` and `Truncated`
        say how.
      Untrusted: The server's certificate is not trusted.
      ConfigurationError: Client and server have no version or method of TLS in common.
    """
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(
            f"the server's certificate is not trusted: {error.verify_message}",
            field="host" if error.verify_code in OTHER_NAMES else "tls_fingerprint",
        ) from None
    except ssl.SSLEOFError:
        raise Truncated("the server closed the TLS connection without saying so") from None
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        if any(refusal in reason for refusal in TLS_REFUSALS):
            raise ConfigurationError(
                f"TLS with the server is not possible: {reason}", field=_field_of(reason)
            ) from None
        raise Dropped(f"the TLS connection is lost: {reason}") from None
    except socket.gaierror as error:
        kind = UnknownHost if error.errno in _NO_ADDRESS else Dropped
        raise kind(f"cannot look up the host name: {error.strerror}") from None
    except TimeoutError:
        raise Silent("the server did not respond in time") from None
    except ConnectionRefusedError as error:
        raise Closed(f"connection failed: {error.strerror}") from None
    except OSError as error:
        raise Dropped(f"connection failed: {error.strerror or error}") from None


def _field_of(reason: str) -> str:
    """Return the field of the config that decides about a handshake which failed."""
    if "WRONG_VERSION_NUMBER" in reason:
        return "protocol"  # the server does not speak TLS
    return "tls_min_version" if "PROTOCOL" in reason else ""


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
    if found is Meaning.TLS_REQUIRED:
        return ConfigurationError(text, field="protocol")
    return _ERRORS.get(found, PermanentError)(text)


_ERRORS: dict[Meaning, type[IntegrationError]] = {
    Meaning.EMPTY: Empty,
    Meaning.GONE: Missing,
    Meaning.REFUSED: Missing,
    Meaning.BUSY: TransientError,
    Meaning.RETRY: TransientError,
    Meaning.LOST: Dropped,
    Meaning.SETUP: ConfigurationError,
    Meaning.CREDENTIALS: CredentialsInvalid,
    Meaning.UNSUPPORTED: Unsupported,
}
