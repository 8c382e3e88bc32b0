"""Fixtures of a scheduler that runs before the first test, because it sends at full minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.deployment import make_deployment
from support.fleet import Fleet
from support.processes import SHOWN
from support.servers import Servers


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # When its turn comes, a full minute has passed.
    items.sort(key=lambda item: item.name == "test_periodiq_sends_a_tick_at_a_full_minute")


@pytest.fixture
def make_fleet(make_fleet: Callable[..., Fleet]) -> Callable[..., Fleet]:
    """Start programs as people start them."""

    def make(**variables: str) -> Fleet:
        fleet = make_fleet(**variables)
        fleet.forked = False
        return fleet

    return make


@pytest.fixture(scope="session")
def quiet_servers() -> Iterator[Servers]:
    """Start servers that no test kills or flushes."""
    servers = Servers()
    try:
        yield servers.start()
    finally:
        servers.close()


@pytest.fixture(scope="session", autouse=True)
def scheduled(quiet_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Start a fleet that consists of a scheduler only, before the first test."""
    home = tmp_path_factory.mktemp("scheduled")
    deployment = make_deployment(
        quiet_servers.postgres.url, quiet_servers.valkey.url, home, "scheduled"
    )
    fleet = Fleet(deployment, home)
    fleet.scheduler(POLLING_CRON_SCHEDULE="* * * * *")
    yield fleet
    fleet.end()
    print(fleet.says()[-SHOWN:])
    deployment.close()
