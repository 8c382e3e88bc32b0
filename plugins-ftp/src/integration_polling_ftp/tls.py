"""TLS for FTP (RFC 4217): one configuration for the control and the data connections."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from core import ConfigurationError, CredentialsInvalid
from integration_polling_ftp.account import Config, Credentials, secret
from integration_polling_ftp.errors import Untrusted, network_errors

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Tls:
    """The client side of TLS.

    With `tls_fingerprint`, exactly this certificate is trusted. Its name and its dates do not
    matter. Otherwise it must be valid, name the host, and be signed by `tls_ca` or an authority of
    the system.

    Args:
      config: The account's config.
      credentials: The account's credentials, for the client certificate.

    Raises:
      ConfigurationError: `tls_ca` cannot be read.
      CredentialsInvalid: The client certificate or its key cannot be read.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._host = config.host
        self._pin = config.tls_fingerprint
        self._context = ssl.create_default_context()
        self._context.minimum_version = VERSIONS[config.tls_min_version]
        self._context.maximum_version = VERSIONS[config.tls_max_version]
        if self._pin:
            _verify_nothing(self._context)
        elif config.tls_ca:
            self._context = _trusting(config.tls_ca, self._context)
        if credentials.certificate:
            _load_certificate(self._context, credentials)
        # Some builds of Python, such as Debian's 3.11, take a connection that was cut for its end.
        self._context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF

    def wrap(self, connection: socket.socket, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        """Make a TLS connection of a TCP connection, which is closed if this fails.

        Args:
          connection: The connected socket.
          session: The session of the control connection, for a data connection. Many servers
            accept a data connection only if it resumes that session.

        Raises:
          Untrusted: The certificate is not trusted.
          ConfigurationError: Client and server have no version or method in common.
          Dropped: The connection is lost.
        """
        try:
            with network_errors():
                wrapped = self._context.wrap_socket(
                    connection, server_hostname=self._host, session=session,
                    suppress_ragged_eofs=False,
                )  # fmt: skip
        except BaseException:
            connection.close()
            raise
        if self._pin and (found := fingerprint(wrapped)) != self._pin:
            wrapped.close()
            raise Untrusted(
                "the server has another certificate than the pinned one. Pinned SHA-256:"
                f" {self._pin}; the server's: {found}",
                field="tls_fingerprint",
            )
        return wrapped


def look(connection: socket.socket) -> str:
    """Return the fingerprint of the certificate that a server shows, trusted or not.

    The connection is closed: nothing may be sent over it.
    """
    context = ssl.create_default_context()
    _verify_nothing(context)
    with suppress(OSError), context.wrap_socket(connection) as wrapped:
        return fingerprint(wrapped)
    return ""


def fingerprint(connection: ssl.SSLSocket) -> str:
    """Return the SHA-256 of the server's certificate, as pairs of hexadecimal digits."""
    certificate = connection.getpeercert(binary_form=True) or b""
    return hashlib.sha256(certificate).digest().hex(":").upper()


def _verify_nothing(context: ssl.SSLContext) -> None:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def _trusting(authorities: str, system: ssl.SSLContext) -> ssl.SSLContext:
    """Return a context that trusts these authorities only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = system.minimum_version
    context.maximum_version = system.maximum_version
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"tls_ca is not a list of PEM certificates: {error}", field="tls_ca"
        ) from None
    return context


def _load_certificate(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Load the client certificate. Python's `ssl` reads it from a file only."""
    key, passphrase = secret(credentials.private_key), secret(credentials.passphrase)
    pem = f"{credentials.certificate}\n{key}\n".encode()
    try:
        with _as_file(pem) as path:
            context.load_cert_chain(path, password=passphrase)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "invalid, or a wrong passphrase"
        raise CredentialsInvalid(
            f"cannot use the client certificate and its key: {reason}", field="certificate"
        ) from None


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Provide a file that only this process can read: in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("certificate"), "w+b") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
