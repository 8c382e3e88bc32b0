"""Fixtures of `tests/acceptance` and `tests/faults`: real `dramatiq core.actors` processes on
servers that tests may kill.

Each test has a database and a namespace of its own. What the processes wrote is shown when a test
fails.
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
"""Characters of a fleet's log that a failed test shows."""

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
    """Both servers; a test may do to them what it likes, as long as they keep their data."""
    return server_pair.start()


@pytest.fixture
def deployment(own_servers: Servers, tmp_path: Path) -> Iterator[Deployment]:
    home = tmp_path / "home"
    home.mkdir()
    made = make_deployment(
        own_servers.postgres.url, own_servers.valkey.url, home, f"test-{next(_numbers)}"
    )
    yield made
    made.queues.close()


@pytest.fixture
def make_fleet(deployment: Deployment, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes the fleet of a test; takes settings for all its programs."""
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
    """The fleet of most tests; nothing of it runs yet."""
    return make_fleet()


@pytest.fixture
def hostile_fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    """One that has the hostile plugin installed."""
    return make_fleet(**HOSTILE)
