"""Host keys of SSH servers: pinned by fingerprint, or by lines of `known_hosts`."""

from __future__ import annotations

import asyncssh

from core import ConfigurationError


class HostKeys:
    """The keys that an account trusts for one server.

    Args:
      text: Fingerprints (`SHA256:…`), public keys (`ssh-ed25519 AAAA…`), or lines of
        `known_hosts`, one a line.

    Attributes:
      fingerprints: The pinned fingerprints.
      known_hosts: The other lines.

    Raises:
      ConfigurationError: A line cannot be read.
    """

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.replace(",SHA256:", "\nSHA256:").splitlines()]
        self.fingerprints = {line.rstrip("=") for line in lines if line.startswith("SHA256:")}
        others = [_line(each) for each in lines if each and not each.startswith(("SHA256:", "#"))]
        try:
            self.known_hosts = asyncssh.import_known_hosts("".join(f"{each}\n" for each in others))
        except ValueError as error:
            raise ConfigurationError(f"cannot read the host keys: {error}") from None

    def pinned(self, host: str, port: int) -> list[str]:
        """Return the fingerprints of all keys that are trusted for a server."""
        known = [key.get_fingerprint() for key in self.known_hosts.match(host, "", port)[0]]
        return sorted({*self.fingerprints, *known})


def _line(text: str) -> str:
    """Return a line of `known_hosts`; a public key alone is for any host."""
    first = text.split(maxsplit=1)[0]
    is_key = first.startswith(("ssh-", "ecdsa-", "sk-"))
    return f"* {text}" if is_key else text
