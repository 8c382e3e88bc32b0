"""The verification on real workers that are killed: it continues, and heals what differs."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from integration_polling_ftp.verifying import PARTITION, Progress
from real_servers import RealServer, serve
from support import oracle
from support.accounts import set_due, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet, send
from test_ftp_fleet import (  # noqa: F401  a fixture
    FILES,
    SECURITY,
    MakeFleet,
    account_of,
    below,
    kept_bytes,
    nothing_remembered,
)

SMALL, LARGE, LARGE_BYTES = 3_000, 3, 5_000_000
KILLS = 4
MONTH = 30 * 24 * 3600

PROGRESS = f"""
SELECT value FROM sync_state WHERE user_integration_id = %s AND partition = '{PARTITION}'
"""
SAVE_UP = f"""
UPDATE sync_state SET value = jsonb_set(value, '{{at}}', to_jsonb(%s::text))
WHERE user_integration_id = %s AND partition = '{PARTITION}'
"""
"""Pretend that the last comparison was some time ago."""

VERIFYING = "SELECT count(*) FROM sync_task WHERE type = 'verify' AND state = 'queued'"
COMPARED = "SELECT count(*) FROM sync_task WHERE type = 'verify' AND state = 'done'"
LAST_RUN = """
SELECT state, trigger, tasks_parked, outputs_saved, skipped FROM sync_run
WHERE user_integration_id = %s ORDER BY started_at DESC LIMIT 1
"""


def fill(home: Path) -> dict[str, bytes]:
    """Write files that are a month old. Return their bytes by path."""
    wanted = {
        f"/d{number % 7}/e{number % 60}/{number}": b"%d " % number * (number % 50)
        for number in range(SMALL)
    } | {f"/d{number}/large": b"%d" % number * LARGE_BYTES for number in range(LARGE)}
    for number, (path, content) in enumerate(wanted.items()):
        file = home / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        at = time.time() - MONTH + number
        os.utime(file, (at, at))
    return wanted


def rewrite(home: Path, wanted: dict[str, bytes], *paths: str) -> None:
    """Change the last byte of files, and set their times back."""
    for path in paths:
        file = home / path[1:]
        before = file.stat()
        wanted[path] = wanted[path][:-1] + b"!"
        file.write_bytes(wanted[path])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def progress_of(deployment: Deployment, account: UUID) -> Progress:
    return Progress.model_validate(deployment.value(PROGRESS, account))


def connected(fleet: Fleet, server: RealServer) -> list[int]:
    """Return the worker processes that are connected to the server."""
    found = []
    for pid in fleet.worker_pids():
        with suppress(psutil.NoSuchProcess):
            connections = psutil.Process(pid).net_connections("tcp")
            if any(each.raddr and each.raddr.port == server.port for each in connections):
                found.append(pid)
    return found


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "is_encrypted"),
    [
        ("vsftpd", False),
        pytest.param("proftpd", True, marks=pytest.mark.long),
        pytest.param("openssh", False, marks=pytest.mark.long),
    ],
)
def test_a_verification_continues_and_heals_when_its_workers_are_killed(
    name: str, is_encrypted: bool, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """Each kill hits the process that compares, and each file counts once.

    A fast machine ends the pass before the last kill. At least one kill hits it.
    """
    with serve(name, tls=SECURITY if is_encrypted else None) as server:
        wanted = fill(server.home)
        fleet = make_fleet()
        for _ in range(2):  # a kill ends one command, and not the other
            fleet.workers(processes=1, threads=2)
        fleet.ready(60)
        account = account_of(deployment, server, max_connections=1, verify_percent=50)
        sync(deployment, account)
        oracle.wait_for_quiet(fleet, 120)
        set_due(deployment, account)  # the first scheduled run starts the clock
        tick(deployment)
        fleet.until(lambda: deployment.rows(PROGRESS, account), "the clock runs", 120)
        oracle.wait_for_quiet(fleet, 120)

        different = ["/d1/large", "/d0/e0/420", "/d3/e3/3", "/d3/e59/2999"]
        rewrite(server.home, wanted, *different)
        deployment.rows(SAVE_UP, (datetime.now(UTC) - timedelta(hours=1)).isoformat(), account)
        set_due(deployment, account)
        tick(deployment)
        seen = []

        def has_ended() -> bool:
            return progress_of(deployment, account).last_ended is not None

        for _ in range(KILLS):
            compared = deployment.value(COMPARED)
            pids = fleet.until(
                lambda: has_ended() or (deployment.value(VERIFYING) and connected(fleet, server)),
                "the verification runs", 60, replace=True,
            )  # fmt: skip
            if has_ended():
                break
            send(signal.SIGKILL, *pids)
            fleet.until(
                lambda compared=compared: deployment.value(COMPARED) > compared,
                "the verification continues", 60, replace=True,
            )  # fmt: skip
            seen.append(progress_of(deployment, account))
        oracle.wait_for_quiet(fleet, 120)

        progress = progress_of(deployment, account)
        assert seen, "a kill hit the pass"
        counts = [each.files or each.last_files for each in seen]
        assert counts == sorted(counts)
        began = {each.began or each.last_began for each in seen}
        assert began == {progress.last_began}, "the pass began once"
        assert (progress.last_files, progress.last_different) == (len(wanted), len(different))
        assert (progress.unreadable, progress.stops) == (0, 0)
        state, trigger, parked, saved, skipped = deployment.rows(LAST_RUN, account)[0]
        assert (state, trigger, parked, skipped) == ("succeeded", "schedule", 0, None)
        assert saved == len(different), "each file that differs is fetched once"
        hashes = {path: hashlib.sha256(content).hexdigest() for path, content in wanted.items()}
        assert kept_bytes(deployment, account) == below(server, hashes)
        assert dict(deployment.rows(FILES, account)) == below(server, hashes)
