"""A scheduler that runs since before the first test: it sends at full minutes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.deployment import make_deployment
from support.fleet import Fleet
from support.processes import SHOWN
from support.servers import Servers


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # By its turn, a full minute has passed.
    items.sort(key=lambda item: item.name == "test_periodiq_sends_ticks")


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
    deployment = make_deployment(
        quiet_servers.postgres.url, quiet_servers.valkey.url, home, "scheduled"
    )
    fleet = Fleet(deployment, home)
    fleet.scheduler(POLLING_CRON_SCHEDULE="* * * * *")
    yield fleet
    fleet.end()
    print(fleet.says()[-SHOWN:])
    deployment.queues.close()
