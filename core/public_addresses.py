"""The addresses that the public internet can reach, as a table of the engine.

Python's `ipaddress.is_global` differs between versions, and calls some addresses global that a
gateway of the internal network translates. This table is the same everywhere. Its sources are
IANA's registries:

* https://www.iana.org/assignments/iana-ipv4-special-registry
* https://www.iana.org/assignments/iana-ipv6-special-registry
* https://www.iana.org/assignments/multicast-addresses
* https://www.iana.org/assignments/ipv6-address-space
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

UPDATED = "2026-11"
"""The month in which the table was last compared with the registries."""

NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # This network (RFC 791).
            "10.0.0.0/8",  # Private use (RFC 1918).
            "100.64.0.0/10",  # Shared address space of carriers (RFC 6598).
            "127.0.0.0/8",  # Loopback (RFC 1122).
            "169.254.0.0/16",  # Link-local, with the metadata services of clouds (RFC 3927).
            "172.16.0.0/12",  # Private use (RFC 1918).
            "192.0.0.0/24",  # IETF protocol assignments (RFC 6890).
            "192.0.2.0/24",  # Documentation (RFC 5737).
            "192.31.196.0/24",  # AS112, answered by the nearest network (RFC 7535).
            "192.52.193.0/24",  # AMT, answered by the nearest network (RFC 7450).
            "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526).
            "192.168.0.0/16",  # Private use (RFC 1918).
            "192.175.48.0/24",  # AS112, answered by the nearest network (RFC 7534).
            "198.18.0.0/15",  # Benchmarks (RFC 2544).
            "198.51.100.0/24",  # Documentation (RFC 5737).
            "203.0.113.0/24",  # Documentation (RFC 5737).
            "224.0.0.0/4",  # Multicast (RFC 5771).
            "240.0.0.0/4",  # Reserved, and the broadcast address (RFC 1112, RFC 8190).
            # Azure's host answers at this address on every machine there, with its settings. The
            # registries do not list it.
            "168.63.129.16/32",
        ),
    )
)

PUBLIC_V6 = IPv6Network("2000::/3")
"""All IPv6 unicast addresses assigned so far, with the exceptions of `NOT_PUBLIC_V6`.

Outside of it are loopback, unique local, link-local, site-local and multicast addresses. So are
the discard prefix, segment routing, IPv4 in the forms `::127.0.0.1` and `::ffff:0:127.0.0.1`, and
the NAT64 prefix for local use (RFC 8215).
"""

NOT_PUBLIC_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocol assignments, with Teredo and ORCHID (RFC 2928).
            "2001:db8::/32",  # Documentation (RFC 3849).
            # 6to4 (RFC 3056): a relay in the internal network forwards it to the IPv4 address
            # within. RFC 7526 deprecates it.
            "2002::/16",
            "2620:4f:8000::/48",  # AS112, answered by the nearest network (RFC 7534).
            "3fff::/20",  # Documentation (RFC 9637).
        ),
    )
)

NAT64 = IPv6Network("64:ff9b::/96")
"""Addresses that a gateway translates to the IPv4 address in the last 32 bits (RFC 6052).

Networks without IPv4 reach every IPv4 host through it, so the IPv4 address decides.
"""


def is_public(host: str) -> bool:
    """Return true if this is the address of a host on the public internet.

    A name is not accepted: it could resolve to another address when it is used.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = embedded(address)
        if inner is None:
            return address in PUBLIC_V6 and not any(address in network for network in NOT_PUBLIC_V6)
        address = inner
    return not any(address in network for network in NOT_PUBLIC_V4)


def embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a connection to this address would reach, if there is one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None


def is_loopback_name(host: str) -> bool:
    """Return True for `localhost`, a name below it, and a loopback address.

    Browsers resolve these names to the own machine (RFC 6761, section 6.3).
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_confidential(url: str) -> bool:
    """Return True for a URL of HTTPS, or of HTTP at a loopback address.

    A URL with a user, a password, a fragment, a space or other unusual characters is refused.
    """
    if not url.isascii() or not url.isprintable() or any(sign in url for sign in " \\@#"):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback_name(host))
