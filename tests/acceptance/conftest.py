"""Real `dramatiq core.actors` processes on servers of their own, which tests may kill.

Each test has a database and a namespace of its own. What the processes wrote is shown when a test fails.
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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.acceptance)
            item.add_marker(pytest.mark.timeout(120))
    # The scheduler sends at full minutes: by its turn, one has passed.
    items.sort(key=lambda item: item.name == "test_periodiq_sends_ticks")


@pytest.fixture(scope="session")
def own_servers() -> Iterator[Servers]:
    servers = Servers()
    try:
        yield servers.start()
    finally:
        servers.close()


@pytest.fixture(scope="session")
def quiet_servers() -> Iterator[Servers]:
    """Others, that no test kills or flushes."""
    servers = Servers()
    try:
        yield servers.start()
    finally:
        servers.close()


@pytest.fixture(scope="session", autouse=True)
def scheduled(quiet_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of which only the scheduler runs, since before the first test."""
    home = tmp_path_factory.mktemp("scheduled")
    deployment = make_deployment(quiet_servers.postgres.url, quiet_servers.valkey.url, home, "scheduled")
    fleet = Fleet(deployment, home)
    fleet.scheduler(POLLING_CRON_SCHEDULE="* * * * *")
    yield fleet
    fleet.end()
    print(fleet.says()[-SHOWN:])
    deployment.queues.close()


@pytest.fixture
def servers(own_servers: Servers) -> Servers:
    """Both servers; a test may do to them what it likes, as long as they keep their data."""
    return own_servers.start()


@pytest.fixture
def deployment(servers: Servers, tmp_path: Path) -> Iterator[Deployment]:
    home = tmp_path / "home"
    home.mkdir()
    made = make_deployment(servers.postgres.url, servers.valkey.url, home, f"test-{next(_numbers)}")
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
