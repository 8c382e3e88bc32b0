"""The dashboard on a real server and port, and people who are signed in to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import uvicorn

from core.api import access
from core.api.backend import Backend
from core.dashboard.app import Site
from core.dashboard.session import COOKIE, csrf_of
from core.rest.app import build
from support.waiting import until

Fields = Mapping[str, Any] | Sequence[tuple[str, Any]]


@dataclass
class Person:
    """Somebody's browser, without its eyes."""

    client: httpx2.Client
    token: str

    def get(self, path: str, status: int = 200, **params: Any) -> httpx2.Response:
        answer = self.client.get(path, params=params or None)
        assert answer.status_code == status, answer.text
        return answer

    def post(self, path: str, status: int = 303, **fields: Any) -> httpx2.Response:
        """A button of the form `act`; the answer itself, wherever it leads."""
        answer = self.client.post(path, data={"csrf": csrf_of(self.token), **fields})
        assert answer.status_code == status, answer.text
        return answer


@dataclass
class Dashboard:
    """A running dashboard."""

    backend: Backend
    url: str
    clients: list[httpx2.Client] = field(default_factory=list)

    def signed_in(self, user: str | None = None) -> Person:
        """A user, or, without a name, an operator."""
        with self.backend.database.connection() as conn:
            token = access.create(conn, user_id=user).secret
        self.clients.append(
            httpx2.Client(
                base_url=self.url, cookies={COOKIE: token}, timeout=60, trust_env=False, follow_redirects=False
            )
        )
        return Person(self.clients[-1], token)


@contextmanager
def serving_site(backend: Backend) -> Iterator[str]:
    """The API and the dashboard of a backend on a port of its own; its address."""
    config = uvicorn.Config(
        Site(build(backend)), host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the server has started")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def dashboard(backend: Backend) -> Iterator[Dashboard]:
    with serving_site(backend) as url:
        running = Dashboard(backend, url)
        yield running
        for client in running.clients:
            client.close()
