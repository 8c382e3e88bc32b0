"""Trees synced by real workers, which are killed: complete, and within the limit of connections."""

from __future__ import annotations

import hashlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import certificates
import pytest
from integration_polling_ftp import Credentials, Ftp
from odd_trees import write_tree
from real_servers import RealServer, Security, serve
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet, send

from benchmarks.ftp_servers import Watcher
from core.plugins import get_registry
from core.settings import get_settings

FILES = """
SELECT external_id, hash FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'file' AND deleted_at IS NULL
"""
BYTES = """
SELECT external_id, content_text, content_bytes, blob_key FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'file' AND deleted_at IS NULL
"""
RUN = """
SELECT state, tasks_parked, outputs_saved, outputs_unchanged, skipped FROM sync_run WHERE id = %s
"""

AUTHORITY = certificates.authority()
SECURITY = Security(AUTHORITY, certificates.server(AUTHORITY))

SERVERS: dict[str, tuple[str, Security | None]] = {
    **{name: (name, None) for name in ("vsftpd", "proftpd", "pure-ftpd")},
    **{f"{name}-tls": (name, SECURITY) for name in ("vsftpd", "proftpd", "pure-ftpd")},
    **{name: (name, None) for name in ("openssh", "proftpd-sftp")},
}
"""Each server with each of its protocols: FTP, FTPS and SFTP."""


def servers(*short: str) -> list[Any]:
    """Return a row for each server; the rows of the servers that are not named are long."""
    return [
        pytest.param(*row, id=id, marks=[] if id in short else pytest.mark.long)
        for id, row in SERVERS.items()
    ]


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


def below(server: RealServer, wanted: dict[str, str]) -> dict[str, str]:
    """Return the hashes by the paths that clients see."""
    return {server.prefix + path: digest for path, digest in wanted.items()}


def account_of(deployment: Deployment, server: RealServer, **config: Any) -> UUID:
    config = {"settle_seconds": 0, **config}  # the files are new, and rest
    return connect(deployment, Ftp, {**server.config, **config}, Credentials(**server.credentials))


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize("limit", [pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize(("name", "tls"), servers("vsftpd", "proftpd-tls", "openssh"))
def test_a_limit_holds_at_every_moment_and_costs_no_further_logins(
    name: str, tls: Security | None, limit: int, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """Two processes share the connections that `max_connections` allows."""
    with serve(name, tls=tls) as server:
        wanted = below(server, fill(server.home, 2_000, 40))
        fleet = make_fleet()
        fleet.workers(threads=4)
        fleet.ready(60)
        account = account_of(deployment, server, max_connections=limit)
        with Watcher(server.port) as watcher:
            run = sync(deployment, account)
            oracle.wait_for_quiet(fleet, 120)
        assert dict(deployment.rows(FILES, account)) == wanted
        assert watcher.peak <= limit
        assert watcher.connections <= limit
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


def kept_bytes(deployment: Deployment, account: UUID) -> dict[str, str]:
    """Return the hash of each kept file, computed from its stored bytes."""
    found = {}
    for path, words, data, key in deployment.rows(BYTES, account):
        if key is not None:
            [blob] = deployment.home.rglob(key)
            data = blob.read_bytes()
        elif words is not None:
            data = words.encode()
        found[path] = hashlib.sha256(data or b"").hexdigest()
    return found


def kill_until_the_run_ends(fleet: Fleet, seconds: float, kills: int | None) -> int:
    """Kill a worker process every few seconds, a supervisor replaces it. Return the number."""
    done = 0
    while kills is None or done < kills:
        due, before = time.monotonic() + seconds, fleet.deployment.value(oracle.DONE)

        def is_due(due: float = due, before: int = before) -> bool:
            has_work = kills is None or fleet.deployment.value(oracle.DONE) > before
            return not fleet.deployment.value(oracle.OPEN) or (time.monotonic() >= due and has_work)

        fleet.until(is_due, "a kill is due", 120, replace=True)
        if not fleet.deployment.value(oracle.OPEN):
            break
        if pids := fleet.worker_pids():
            send(signal.SIGKILL, pids[done % len(pids)])
            done += 1
    return done


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("files", "seconds", "kills"),
    [
        pytest.param(600, 0.0, 2, marks=pytest.mark.timeout(200)),
        pytest.param(20_000, 5.0, None, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
@pytest.mark.parametrize(("name", "tls"), servers("pure-ftpd", "vsftpd-tls", "proftpd-sftp"))
def test_an_odd_tree_is_complete_when_workers_are_killed(
    name: str, tls: Security | None, files: int, seconds: float, kills: int | None,
    deployment: Deployment, make_fleet: MakeFleet,
) -> None:  # fmt: skip
    with serve(name, tls=tls) as server:
        wanted = below(server, write_tree(server.home, name, files))
        directories = sum(1 for path in server.home.rglob("*") if path.is_dir())
        fleet = make_fleet()
        for _ in range(2 if kills else 3):  # a kill ends one command, and not the others
            fleet.workers(processes=1, threads=4)
        fleet.ready(60)
        account = account_of(deployment, server, max_connections=2)
        with Watcher(server.port) as watcher:
            run = sync(deployment, account)
            killed = kill_until_the_run_ends(fleet, seconds, kills)
            oracle.wait_for_quiet(fleet, 300)
        state, parked, saved, unchanged, skipped = deployment.rows(RUN, run)[0]
        assert (state, parked, skipped) == ("succeeded", 0, None), deployment.rows(oracle.LEFT)
        found = kept_bytes(deployment, account)
        assert {path for path in wanted if path not in found} == set()
        assert found == wanted == dict(deployment.rows(FILES, account))
        assert saved + unchanged == files + directories
        assert killed or files > 600
        assert watcher.peak <= 2
        assert watcher.connections <= 2 + 2 * killed, (watcher.connections, killed)
