"""The deployment of one test: a migrated database and a namespace on shared servers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from core.accounts.vault import Vault, new_key
from core.db.migrate import migrate
from core.db.pool import Conn
from core.plugins import get_registry
from core.transport.messages import SAVE_QUEUE
from core.transport.queues import Queues

TEMPLATE = "polling_template"

YEARLY = "0 0 1 1 *"
"""A schedule with which only the test starts runs: the leader claims nothing by itself."""


@dataclass(frozen=True)
class Deployment:
    """An installation, as its environment describes it.

    Args:
      home: A folder for its files.
      secret_key: The key of its vault. Default: a new key.
    """

    database_url: str
    redis_url: str
    home: Path
    namespace: str = "polling"
    secret_key: str = field(default_factory=new_key, repr=False)

    @cached_property
    def queues(self) -> Queues:
        """The queues of this installation."""
        return Queues(self.redis_url, self.namespace)

    @cached_property
    def vault(self) -> Vault:
        return Vault([self.secret_key])

    def environment(self) -> dict[str, str]:
        """Return the environment of its processes.

        From the environment of the tests, it has only the paths of programs, modules and folders.
        """
        ours = {
            name: os.environ[name]
            for name in ("PATH", "PYTHONPATH", "HOME", "TMPDIR")
            if name in os.environ
        }
        return ours | {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "POLLING_REDIS_NAMESPACE": self.namespace,
            "POLLING_HOME": str(self.home),
            "POLLING_SECRET_KEYS": self.secret_key,
            "POLLING_CRON_SCHEDULE": YEARLY,
            "HELLO_WORLD_TEST_BENCH": "true",
        }

    @contextmanager
    def connection(self) -> Iterator[Conn]:
        """Open a new connection in autocommit mode.

        A new connection works as soon as the server does.
        """
        with self._connect() as connection:
            yield connection

    def _connect(self) -> Conn:
        return psycopg.connect(self.database_url, autocommit=True, application_name="test")

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Execute one statement, and return its rows."""
        if statement.lstrip().startswith("SELECT"):
            return self._read(statement, arguments)
        with self.connection() as connection:
            cursor = connection.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    @cached_property
    def _kept(self) -> dict[int, Conn]:
        """A connection of each thread, for tests that wait: a new one costs more than a query."""
        return {}

    def _read(self, statement: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        thread = threading.get_ident()
        if thread in self._kept:
            try:
                return self._kept[thread].execute(statement, arguments or None).fetchall()
            except psycopg.OperationalError:  # the server has ended the session
                self._kept.pop(thread).close()
        self._kept[thread] = self._connect()
        self._kept[thread].prepare_threshold = None  # some tests replace tables
        return self._kept[thread].execute(statement, arguments or None).fetchall()

    def close(self) -> None:
        """Close the queues and the connections."""
        self.queues.close()
        for connection in self._kept.values():
            connection.close()

    def value(self, statement: str, *arguments: Any) -> Any:
        """Execute one statement, and return the first column of the first row."""
        return self.rows(statement, *arguments)[0][0]

    @property
    def queue_names(self) -> list[str]:
        """The names of all queues that this installation may use."""
        domains = {domain for (domain,) in self.rows("SELECT domain FROM integration")}
        return sorted(domains | {*get_registry().integrations, SAVE_QUEUE, "polling"})


def make_deployment(database_url: str, redis_url: str, home: Path, name: str) -> Deployment:
    """Create a deployment in a new database `name`, a copy of a database that is migrated once."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        if not connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)
        ).fetchone():
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(_at(database_url, TEMPLATE))
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE}')
    deployment = Deployment(_at(database_url, name), redis_url, home, name)
    # The copy needs an epoch of its own, so that its messages do not match those of other copies.
    deployment.rows("UPDATE engine_state SET epoch = (random() * 1e15)::bigint")
    return deployment


def _at(database_url: str, name: str) -> str:
    return urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
