"""Fixtures of real PostgreSQL and Valkey, with a database and a namespace for each test."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import psycopg
import pytest
from support.processes import (  # noqa: F401  fixtures
    deployment,
    fleet,
    hostile_fleet,
    make_fleet,
    own_servers,
    server_pair,
)
from support.servers import folder_for_servers, started_with
from support.waiting import PATIENCE

from core.accounts.vault import Vault, new_key
from core.db.migrate import migrate
from core.db.pool import Conn, Database, open_connection
from core.embedded import Servers, Urls
from core.environment import get_environment, leave_environment
from core.errors import PollingError, SettingsError
from core.plugins import get_registry
from core.settings import Settings, get_settings
from core.transport.queues import Queues

Until = Callable[..., Any]

# The tests of failures use accounts of Hello World that harm others.
os.environ.setdefault("HELLO_WORLD_TEST_BENCH", "true")

# No test has a deadline: a slow test on a busy machine is not an error.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def until() -> Until:
    """Return `until(lambda: …)`, which waits for a condition and returns its value.

    Tests never wait for a fixed time.
    """

    def wait(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, (
                f"the condition did not come true within {seconds:.0f} s"
            )
            time.sleep(0.005)
        return found

    return wait


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Clear all caches, so that no test gets the settings, plugins or servers of another."""
    yield
    get_settings.cache_clear()
    get_registry.cache_clear()
    leave_environment()
    get_environment.cache_clear()


# The servers
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def servers() -> Iterator[Urls]:
    """Start PostgreSQL and Valkey for the first test that needs them.

    They are the environment's servers, or those from the wheels.
    """
    given = {name: os.environ.get(name.upper()) for name in ("database_url", "redis_url")}
    home = folder_for_servers()
    embedded = Servers(Settings(_env_file=None, home=home, **given))
    try:
        with started_with():
            urls = embedded.acquire()
    except SettingsError as error:
        shutil.rmtree(home)
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL and Valkey are missing: {error}")
    yield urls
    embedded.release()
    shutil.rmtree(home, ignore_errors=True)


def on_server(servers: Urls, statement: str) -> None:
    """Run one statement outside of the tests' databases."""
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(statement)


def at(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    scheme, rest = url.split("://", 1)
    host, path = rest.split("/", 1)
    return f"{scheme}://{host}/{name}{path[len(urlsplit(url).path) - 1 :]}"


@pytest.fixture(scope="session")
def template(servers: Urls) -> Iterator[str]:
    """Create a migrated database, which the tests copy and never change."""
    name = f"polling_test_{secrets.token_hex(6)}"
    on_server(servers, f"CREATE DATABASE {name}")
    migrate(at(servers.database_url, name))
    yield name
    on_server(servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(servers: Urls) -> Iterator[str]:
    """Create a database without a schema."""
    name = f"polling_test_{secrets.token_hex(6)}"
    on_server(servers, f"CREATE DATABASE {name}")
    yield at(servers.database_url, name)
    on_server(servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(servers: Urls, template: str) -> Iterator[str]:
    """Create an empty database with the newest schema."""
    name = f"polling_test_{secrets.token_hex(6)}"
    on_server(servers, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield at(servers.database_url, name)
    on_server(servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Return the connection pool of one process."""
    database = Database(database_url, size=12)
    yield database
    database.close()


@pytest.fixture
def conn(database_url: str) -> Iterator[Conn]:
    """Return one connection in autocommit mode."""
    with open_connection(database_url) as conn:
        yield conn


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[[], Conn]]:
    """Return a function that opens further connections, for tests of several processes."""
    opened: list[Conn] = []

    def one_more() -> Conn:
        opened.append(open_connection(database_url))
        return opened[-1]

    yield one_more
    for conn in opened:
        conn.close()


@pytest.fixture
def queues(servers: Urls) -> Iterator[Queues]:
    """Return queues in a namespace of their own."""
    queues = Queues(servers.redis_url, f"test-{secrets.token_hex(6)}")
    yield queues
    forget_keys(queues)
    queues.close()


def forget_keys(queues: Queues) -> None:
    """Delete our own keys, as a flush of Redis would."""
    keys = list(queues.client.scan_iter(queues.key("*")))
    if keys:
        queues.client.delete(*keys)


@pytest.fixture
def flush(queues: Queues) -> Callable[[], None]:
    """Return a function that deletes all of our keys in Redis."""
    return lambda: forget_keys(queues)


@pytest.fixture
def secret_key() -> str:
    return new_key()


@pytest.fixture
def vault(secret_key: str) -> Vault:
    return Vault([secret_key])


@pytest.fixture
def settings(
    servers: Urls, database_url: str, queues: Queues, secret_key: str, tmp_path: Path
) -> Settings:
    """Return the settings of an operator who uses these servers."""
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=servers.redis_url,
        redis_namespace=queues.namespace,
        secret_keys=secret_key,
        home=tmp_path,
        allowed_hosts="polling.example",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"acceptance", "faults"} & set(item.path.parts):
            item.add_marker(pytest.mark.acceptance)
            item.add_marker(pytest.mark.timeout(120))
        if limit := item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(limit.args[0] * PATIENCE), append=False)


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts pytest in the background ignores SIGINT, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Without this check, no message would say clearly that the configured servers do not answer.
    if os.environ.get("CI") and os.environ.get("DATABASE_URL"):
        try:
            open_connection(os.environ["DATABASE_URL"]).close()
        except PollingError as error:
            raise pytest.UsageError(str(error)) from None
