"""The engine has a table of public addresses that does not depend on the running Python."""

from __future__ import annotations

import ipaddress
import random
import subprocess
import sys

import pytest

from core.public_addresses import NOT_PUBLIC_V4, NOT_PUBLIC_V6, is_public

SPECIAL = [
    *("0.0.0.1", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254"),
    *("172.31.255.255", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.192"),
    *("192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.88.99.2", "192.168.0.1"),
    *("192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.251", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b:1::808:808", "100::1", "100:0:0:1::1"),
    *("2001::1", "2001:0:808:808::808:808", "2001:1::1", "2001:1::2", "2001:1::3", "2001:2::1"),
    *("2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1", "2001:db8::1"),
    *("2002:808:808::1", "2002:7f00:1::1", "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1"),
    *("fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1", "e000::1"),
]
"""An address of each special-purpose network of IANA, and of the services of clouds."""

WRAPPED = ["::ffff:{}", "64:ff9b::{}"]
"""IPv6 addresses that reach an IPv4 address: mapped, and through NAT64."""


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("address", [address for address in SPECIAL if ":" not in address])
def test_special_ipv4_addresses_within_ipv6_are_not_public(form: str, address: str) -> None:
    assert not is_public(form.format(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "9.255.255.255", "100.63.255.255", "100.128.0.0", "172.32.0.0"),
        *("192.0.1.1", "192.0.3.1", "198.17.255.255", "198.20.0.0", "223.255.255.255"),
        *("168.63.129.15", "168.63.129.17", "2606:4700:4700::1111", "2001:200::1", "2003::1"),
        *("2a00:1450:4001:80b::200e", "2620:4f:7fff::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"),
    ],
)
def test_neighbours_of_reserved_networks_are_public(address: str) -> None:
    assert is_public(address)


def test_nothing_is_public_that_python_calls_special() -> None:
    """Python's table differs between versions; ours is at least as strict as each of them."""
    chance = random.Random(16)
    samples = [ipaddress.IPv4Address(chance.getrandbits(32)) for _ in range(20_000)]
    samples += [network[0] for network in NOT_PUBLIC_V4]
    wide = [ipaddress.IPv6Address(chance.getrandbits(128)) for _ in range(20_000)]
    wide += [network[1] for network in NOT_PUBLIC_V6]
    wrong = [one for one in (*samples, *wide) if is_public(str(one)) and not one.is_global]
    assert wrong == []


def test_a_python_that_calls_every_address_global_changes_nothing() -> None:
    program = (
        "import ipaddress;"
        "ipaddress.IPv4Address.is_global = ipaddress.IPv6Address.is_global = True;"
        "from core import egress;"
        "import sys; sys.exit(any(map(egress.is_public, sys.argv[1:])))"
    )
    assert subprocess.run([sys.executable, "-c", program, *SPECIAL], check=False).returncode == 0
