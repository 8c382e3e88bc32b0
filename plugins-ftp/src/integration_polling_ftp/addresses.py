"""Addresses that people paste into the field `host`, such as `sftp://files.example.org:2222/out`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

PROTOCOLS = {
    "ftp": "ftp",
    "ftpes": "ftps",
    "ftps": "ftps",
    "sftp": "sftp",
    "ssh": "sftp",
    "scp": "sftp",
}
"""The protocols of the schemes. `ftps` with port 990 is the implicit form."""

DEFAULT_PROTOCOL = "ftp"
IMPLICIT_PORT = 990

_ADDRESS = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?"
    r"(?:(?P<user>[^/@]*)@)?"
    r"(?P<host>\[[0-9a-f:.]+(?:%[\w.-]+)?\]|[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*(?:%[\w.-]+)?"
    r"|[^/:@\[\]]*)"
    r"(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/.*)?",
    re.IGNORECASE | re.DOTALL,
)


def host_of(text: str) -> str:
    """Return a host name or IP address.

    Raises:
      ValueError: The text is something else; the message says what.
    """
    text = text.strip()
    match = _ADDRESS.fullmatch(text)
    if match is None or not match["host"]:
        raise ValueError("must be a host name or an IP address")
    if match["user"] is not None:
        raise ValueError("must not contain a user name or password: they belong to the credentials")
    if match["scheme"] and match["scheme"].lower() not in PROTOCOLS:
        raise ValueError(f"must be the address of an FTP or SFTP server, not {match['scheme']}://")
    if match["scheme"] or match["port"] or match["path"]:
        raise ValueError("differs from the protocol, port or root that is also given")
    if any(character.isspace() for character in text):
        raise ValueError("must not contain spaces")
    return match["host"].strip("[]")


def split(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return config values with protocol, port and root from an address in the field `host`.

    The host stays as it is if another field contradicts it, or if it is not a valid address.
    `host_of` then refuses it.
    """
    found = dict(values)
    host = values.get("host")
    match = _ADDRESS.fullmatch(host.strip()) if isinstance(host, str) else None
    if match is None or match["user"] is not None or not match["host"]:
        return found
    parts: dict[str, Any] = {"host": match["host"].strip("[]")}
    if match["scheme"]:
        protocol = PROTOCOLS.get(match["scheme"].lower())
        if protocol is None:
            return found
        is_implicit = protocol == "ftps" and match["port"] == str(IMPLICIT_PORT)
        parts["protocol"] = "ftps-implicit" if is_implicit else protocol
    if match["port"]:
        parts["port"] = int(match["port"])
    if (match["path"] or "/") != "/":
        parts["root"] = unquote(match["path"]).rstrip("/")
    for name, value in parts.items():
        given = values.get(name)
        if (
            name != "host"
            and given not in (None, "", value, str(value))
            and not (name == "protocol" and given in (DEFAULT_PROTOCOL, "auto"))
        ):
            return found
    return found | parts
