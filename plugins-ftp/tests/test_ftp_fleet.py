"""Trees synced by real workers, which are killed: complete, and within the limit of connections."""

from __future__ import annotations

import hashlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest
from integration_polling_ftp import Credentials, Ftp
from real_servers import RealServer, serve
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet, send

from core.plugins import get_registry
from core.settings import get_settings

FILES = """
SELECT external_id, hash FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'file' AND deleted_at IS NULL
"""
RUN = """
SELECT state, tasks_parked, outputs_saved, outputs_unchanged, skipped FROM sync_run WHERE id = %s
"""

MakeFleet = Callable[..., Fleet]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Clear the caches of settings and plugins after each test."""
    yield
    get_settings.cache_clear()
    get_registry.cache_clear()


def fill(home: Path, files: int, directories: int) -> dict[str, str]:
    """Write small files, and return their hashes by path."""
    random.seed(1)
    wanted = {}
    for number in range(files):
        directory = f"d{number % directories % 17}/e{number % directories}"
        path = home / directory / f"file {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = f"{path}".encode() * random.randint(0, 40)
        path.write_bytes(content)
        wanted[f"/{directory}/file {number}.txt"] = hashlib.sha256(content).hexdigest()
    return wanted


def account_of(deployment: Deployment, server: RealServer, **config: Any) -> UUID:
    return connect(deployment, Ftp, {**server.config, **config}, Credentials(**server.credentials))


@dataclass
class Watcher:
    """Counts the connections to a server, from outside."""

    port: int
    peak: int = 0
    logins: int = 0

    def __enter__(self) -> Self:
        self._seen: set[tuple[str, str]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        port = f":{self.port:04X}"
        while not self._stop.wait(0.002):
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            # The client's side of established connections.
            open_ = {(line[1], line[2]) for line in lines if line[2].endswith(port)
                and line[3] == "01"}  # fmt: skip
            self.peak = max(self.peak, len(open_))
            self._seen |= open_
            self.logins = len(self._seen)


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("name", ["vsftpd", "proftpd", "pure-ftpd"])
def test_a_limit_holds_at_every_moment_and_costs_no_further_logins(
    name: str, limit: int, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """Two processes share the connections that `max_connections` allows."""
    with serve(name) as server:
        wanted = fill(server.home, 2_000, 40)
        fleet = make_fleet()
        fleet.workers(threads=4)
        fleet.ready(60)
        account = account_of(deployment, server, max_connections=limit)
        with Watcher(server.port) as watcher:
            run = sync(deployment, account)
            oracle.wait_for_quiet(fleet, 120)
        assert dict(deployment.rows(FILES, account)) == wanted
        assert (watcher.peak, watcher.logins) <= (limit, limit), watcher
        state, parked, *_, skipped = deployment.rows(RUN, run)[0]
        assert (state, parked, skipped) == ("succeeded", 0, None)


@pytest.mark.acceptance
@pytest.mark.timeout(300)
def test_a_limit_of_the_server_lowers_that_of_the_account(
    deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """The account allows four connections, and the server two."""
    with serve("proftpd", 2) as server:
        wanted = fill(server.home, 3_000, 60)
        fleet = make_fleet()
        fleet.workers(threads=4)
        fleet.ready(60)
        account = account_of(deployment, server, max_connections=4)
        began = time.monotonic()
        run = sync(deployment, account)
        oracle.wait_for_quiet(fleet, 120)
        assert time.monotonic() - began < 60
        assert dict(deployment.rows(FILES, account)) == wanted
        assert deployment.rows(RUN, run)[0][:2] == ("succeeded", 0)
        assert not deployment.rows("SELECT key FROM limit_block")


@pytest.mark.acceptance
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["vsftpd", "proftpd", "pure-ftpd"])
def test_a_tree_is_complete_when_workers_are_killed(
    name: str, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    with serve(name) as server:
        wanted = fill(server.home, 6_000, 100)
        fleet = make_fleet()
        fleet.workers(threads=4)
        fleet.ready(60)
        account = account_of(deployment, server, max_connections=2)
        with Watcher(server.port) as watcher:
            sync(deployment, account)
            for kills in range(1, 4):

                def progressed(done: int = kills) -> bool:
                    is_open = deployment.rows("SELECT FROM sync_run WHERE state = 'running'")
                    return not is_open or deployment.value(oracle.DONE) > done

                fleet.until(progressed, "a task is done", 60, replace=True)
                fleet.until(fleet.worker_pids, "a worker runs", 60, replace=True)
                send(signal.SIGKILL, fleet.worker_pids()[0])
            oracle.wait_for_quiet(fleet, 180)
        assert dict(deployment.rows(FILES, account)) == wanted
        assert watcher.peak <= 2
        states = {state for (state,) in deployment.rows("SELECT state FROM sync_run")}
        assert states == {"succeeded"}
