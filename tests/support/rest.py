"""The API on a real server and port, and integrations to connect.

One integration has secrets, and another opens connections of its own.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr, field_validator

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    CredentialsInvalid,
    Manifest,
    TaskResult,
    TransientError,
    task,
)
from core.accounts.vault import Vault
from core.db.pool import Database
from core.egress import Egress, any_host
from core.plugins import Registry
from core.rest.app import build
from core.service import tokens
from core.service.backend import Backend
from core.settings import Settings
from core.transport.queues import Queues
from core.web.server import configured
from support.waiting import until

SECRET = "hunter2-is-no-password"


class Keys(BaseModel):
    password: SecretStr

    @field_validator("password")
    @classmethod
    def _says_too_much(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value().startswith("bad"):
            raise ValueError(f"{value.get_secret_value()} is not a valid password")
        return value


class LockedConfig(BaseModel):
    name: str = "me"
    mood: str = "fine"


class Locked(BaseIntegration[LockedConfig, Keys]):
    """An integration that checks its credentials."""

    manifest = Manifest("locked", "Locked")

    def check(self) -> AccountIdentity:
        password = self.credentials.password.get_secret_value()
        if password.startswith("wrong"):
            raise CredentialsInvalid(f"{password} is wrong")
        if password.startswith("down"):
            raise TransientError(f"no answer to {password}")
        return AccountIdentity(self.config.name, self.config.name)

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.step.task()])

    @task
    def step(self, ctx: Context, number: int = 0) -> TaskResult:
        return TaskResult()


class Address(BaseModel):
    host: str
    port: int = 80


class Caller(BaseIntegration[Address]):
    """An integration that connects to the address in its config."""

    manifest = Manifest("caller", "Caller")

    def check(self) -> AccountIdentity:
        socket.create_connection((self.config.host, self.config.port), timeout=5).close()
        return AccountIdentity("caller", "caller")

    def start(self, ctx: Context) -> TaskResult:
        self.check()
        return TaskResult()


def registry(*more: Any) -> Registry:
    """Return a registry with the integrations of these tests."""
    found = Registry()
    for integration in (Locked, Caller, *more):
        found.integrations[integration.manifest.domain] = integration
        found.versions[integration.manifest.domain] = "1.0"
    return found


@dataclass
class Api:
    """A running API and its clients."""

    backend: Backend
    url: str
    clients: list[httpx2.Client] = field(default_factory=list)

    def token(self, user: str | None = None, **more: Any) -> str:
        with self.backend.database.connection() as conn:
            return tokens.create(conn, user_id=user, **more).secret

    def client(self, token: str | None) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.clients.append(
            httpx2.Client(
                base_url=self.url, headers=headers, timeout=60, trust_env=False, verify=False
            )
        )
        return self.clients[-1]

    def user(self, name: str) -> httpx2.Client:
        return self.client(self.token(name))

    @property
    def admin(self) -> httpx2.Client:
        return self.client(self.token())


@contextmanager
def serving(
    backend: Backend, made: Callable[[FastAPI], Any] = lambda rest: rest, **options: Any
) -> Iterator[str]:
    """Serve the API of a backend, or the application that `made` returns; yield its address.

    Further options are attributes of uvicorn's configuration.
    """
    config = configured(made(build(backend)), backend.settings, "127.0.0.1")
    options |= {"port": 0, "timeout_graceful_shutdown": 1}
    for name, value in options.items():
        setattr(config, name, value)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the server has started")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


_document: dict[str, Any] = {}


def sharing(rest: FastAPI) -> FastAPI:
    """Let an application use the OpenAPI document of the first one: it depends on the code only."""
    made = rest.openapi

    def document() -> dict[str, Any]:
        if not _document:
            _document.update(made())
        return _document

    rest.openapi = document  # type: ignore[method-assign]
    return rest


@pytest.fixture
def integrations() -> Sequence[Any]:
    """Further integrations for a test module."""
    return ()


@pytest.fixture(scope="session")
def hooked() -> Egress:
    """One `Egress` for all tests, because Python cannot remove its audit hook."""
    return Egress()


@pytest.fixture
def egress(hooked: Egress) -> Iterator[Egress]:
    """The `Egress` of this process, in which the test itself may connect to the API."""
    with any_host():
        yield hooked
    hooked.close()


@pytest.fixture
def backend(
    settings: Settings,
    database_url: str,
    queues: Queues,
    vault: Vault,
    egress: Egress,
    integrations: Sequence[Any],
) -> Iterator[Backend]:
    database = Database(database_url, size=20)
    yield Backend(settings, database, queues, vault, registry(*integrations), egress)
    database.close()


@pytest.fixture
def api(backend: Backend) -> Iterator[Api]:
    with serving(backend, sharing) as url:
        running = Api(backend, url)
        yield running
        for client in running.clients:
            client.close()
