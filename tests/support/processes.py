"""Fixtures of `tests/acceptance` and `tests/faults`: real processes and servers to kill.

Each test has a database and a namespace of its own. A failed test shows the output of its
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from support.deployment import Deployment, make_deployment
from support.fleet import HOSTILE, Fleet
from support.servers import Servers

SHOWN = 20_000
"""The number of characters of a fleet's log that a failed test shows."""

_numbers = count(1)


@pytest.fixture(scope="session")
def server_pair() -> Iterator[Servers]:
    servers = Servers()
    try:
        yield servers.start()
    finally:
        servers.close()


@pytest.fixture
def own_servers(server_pair: Servers) -> Servers:
    """Both servers; a test may stop and kill them, as long as they keep their data."""
    return server_pair.start()


@pytest.fixture
def deployment(own_servers: Servers, tmp_path: Path) -> Iterator[Deployment]:
    home = tmp_path / "home"
    home.mkdir()
    made = make_deployment(
        own_servers.postgres.url, own_servers.valkey.url, home, f"test-{next(_numbers)}"
    )
    yield made
    made.close()


@pytest.fixture
def make_fleet(deployment: Deployment, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """A function that creates a fleet of the test, with settings for all its programs."""
    made: list[Fleet] = []

    def make(**variables: str) -> Fleet:
        made.append(Fleet(deployment, tmp_path, **variables))
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()
        print(fleet.says()[-SHOWN:])


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    """The fleet of most tests, without a started program."""
    return make_fleet()


@pytest.fixture
def hostile_fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet with the hostile plugin."""
    return make_fleet(**HOSTILE)
