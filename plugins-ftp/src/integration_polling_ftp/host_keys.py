"""Host keys of SSH servers: pinned by fingerprint, or by lines of `known_hosts`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import asyncssh

from core import ConfigurationError

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}(?==?(?:[\s,]|$))")
DEFAULT_PORT = 22
_KEY_TYPES = ("ssh-", "ecdsa-", "sk-")

FAMILIES: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa": ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""The algorithms of each kind of host key, by the beginning of the key's own name."""


class HostKeys:
    """The keys that an account trusts for one server.

    Args:
      text: Lines with fingerprints (`SHA256:…`, also as `ssh-keygen -l` prints them), public keys
        (`ssh-ed25519 AAAA…`), or lines of `known_hosts`.
      field: The field of the config that has them.

    Attributes:
      fingerprints: The pinned fingerprints.
      known_hosts: The other lines.

    Raises:
      ConfigurationError: A line cannot be read.
    """

    def __init__(self, text: str, field: str) -> None:
        self.fingerprints: set[str] = set()
        others: list[str] = []
        for line in filter(None, map(str.strip, text.splitlines())):
            if found := _FINGERPRINT.findall(line):
                self.fingerprints.update(found)
            elif not line.startswith("#"):
                others.append(_line(line))
        try:
            self.known_hosts = asyncssh.import_known_hosts("".join(f"{each}\n" for each in others))
        except ValueError as error:
            raise ConfigurationError(
                f"cannot read the host keys: {error}. Use a fingerprint (SHA256:…), a public key,"
                " or a line of known_hosts",
                field=field,
            ) from None

    def pinned(self, host: str, port: int) -> list[str]:
        """Return the fingerprints of all keys that are trusted for a server."""
        known = [key.get_fingerprint() for key in self._known(host, port)[0]]
        return sorted({*self.fingerprints, *known})

    def algorithms(self, host: str, port: int, family: str, *, legacy: bool) -> Sequence[str]:
        """Return the algorithms to offer to a server, the preferred one first.

        Args:
          host: The server's host.
          port: Its port.
          family: A key of `FAMILIES`. Empty: the families of the known keys, or all.
          legacy: True to offer RSA with SHA-1, too.
        """
        keys, authorities, *_ = self._known(host, port)
        if not family and (keys or authorities):
            return ()  # asyncssh offers the algorithms of the known keys
        offered = [name for each in FAMILIES if each.startswith(family) for name in FAMILIES[each]]
        return [*offered, "ssh-rsa"] if legacy and family in ("", "ssh-rsa") else offered

    def are_of_one_kind(self, host: str, port: int) -> bool:
        """Return True if asyncssh asks a server for the kinds of the known keys only.

        A server whose key is of another kind then ends the connection without showing it.
        """
        keys, authorities, *_ = self._known(host, port)
        return bool(keys) and not authorities

    def _known(self, host: str, port: int) -> Sequence[Any]:
        return self.known_hosts.match(host, "", port if port != DEFAULT_PORT else None)


def _line(text: str) -> str:
    """Return a line of `known_hosts`; a public key alone is for any host."""
    return f"* {text}" if text.startswith(_KEY_TYPES) else text
