"""Production starts recover by themselves.

They are `polling up`, and a container of `deploy/compose.yaml` under its restart policy.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from support import oracle
from support.accounts import connect, sync
from support.deploying import compose_command
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.metered import Metered
from support.oracle import COSTLY
from support.ports import free_port
from support.waiting import until

from core.embedded.postgres import Postgres
from core.embedded.valkey import Valkey

UP = [
    sys.executable,
    "-c",
    "from core.cli import main; main()",
    "up",
    "--processes",
    "2",
    "--threads",
    "4",
]

LIVE = """
SELECT pid FROM process WHERE kind = 'worker'
    AND seen_at > clock_timestamp() - interval '15 seconds'
"""


def test_polling_up_replaces_dead_processes_and_leaves_the_others_alone(
    fleet: Fleet, deployment: Deployment
) -> None:
    up = fleet.start(UP)
    before = fleet.until(lambda: workers(deployment, 2), "two workers are up", 40)
    account = connect(deployment, Metered, COSTLY)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 50)
    killed, other = before
    [scheduler] = schedulers(fleet)
    send(signal.SIGKILL, killed, scheduler)
    after = fleet.until(lambda: workers(deployment, 2), "two workers run again", 40)
    assert killed not in after
    assert other in after
    fleet.until(lambda: set(schedulers(fleet)) - {scheduler}, "another scheduler runs")
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, COSTLY)
    oracle.assert_nobody_convicted(deployment)
    assert up.terminate() == 0
    assert not alive(set(after))


def test_nobody_takes_the_port_of_polling_up_and_requests_wait_for_its_api(
    fleet: Fleet, deployment: Deployment
) -> None:
    """`polling up` listens before it starts the API, and while it starts another one."""
    port = free_port()
    up = fleet.start([*UP, "--port", str(port)])
    fleet.until(lambda: f"http://127.0.0.1:{port}," in fleet.says(), "it tells its address", 40)
    [api] = children(fleet, "serve --fd")
    send(signal.SIGKILL, api)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    assert httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code == 200
    assert children(fleet, "serve --fd") != [api]
    assert up.terminate() == 0


def test_a_second_polling_up_reports_the_first(fleet: Fleet) -> None:
    first = fleet.start([*UP, "--port", str(free_port())])
    fleet.until(lambda: "All services are running" in fleet.says(), "the first one runs", 40)
    assert "Another `polling up`" not in fleet.says()
    second = fleet.start([*UP, "--port", str(free_port())])
    fleet.until(lambda: "Another `polling up`" in fleet.says(), "it reports the first one", 40)
    assert "2 worker processes" in fleet.says()
    # The signal may arrive before the programs of the second one have begun.
    assert second.terminate() in {0, 128 + signal.SIGTERM}
    assert first.terminate() == 0


@pytest.mark.parametrize(
    "victim",
    [
        "a worker process",
        pytest.param("the dispatcher", marks=pytest.mark.long),
        pytest.param("the command", marks=pytest.mark.long),
    ],
)
def test_the_documented_command_recovers_under_a_restart_policy(
    victim: str, fleet: Fleet, deployment: Deployment
) -> None:
    """The test stands in for the restart policy: it restarts programs that have ended.

    The command ends when its worker process ends.
    """
    subprocess.run(
        compose_command("migrate"), env=deployment.environment(), check=True, capture_output=True
    )
    worker = fleet.start(compose_command("worker"), processes=1)
    fleet.ready()
    account = connect(deployment, Metered, COSTLY)
    sync(deployment, account)
    oracle.wait_for_progress(fleet, 50)
    if victim == "the dispatcher":
        send(signal.SIGKILL, *fleet.dispatcher_pids())
        fleet.let_the_lead_run_out(18)
    elif victim == "the command":
        worker.kill()
    else:
        send(signal.SIGKILL, *fleet.worker_pids())
        assert fleet.until(lambda: worker.exit_code, "the command has ended")
    oracle.wait_for_quiet(fleet, 60)
    oracle.assert_synced(fleet, account, COSTLY)
    oracle.assert_nobody_convicted(deployment)


def workers(deployment: Deployment, count: int) -> list[int] | None:
    """Return the ids of the live worker processes if there are exactly `count`, otherwise None."""
    found = alive({pid for (pid,) in deployment.rows(LIVE)})
    return sorted(found) if len(found) == count else None


def alive(pids: set[int]) -> set[int]:
    return {pid for pid, _, _ in processes() if pid in pids}


def schedulers(fleet: Fleet) -> list[int]:
    """Return the ids of the schedulers that this fleet's program has started."""
    return children(fleet, "core.programs scheduler")


def children(fleet: Fleet, command: str) -> list[int]:
    """Return the ids of the programs with these words that this fleet's program has started."""
    return [
        pid
        for pid, parent, words in processes()
        if parent == fleet.programs[0].pid and command in words
    ]


def processes() -> list[tuple[int, int, str]]:
    """Return (id, parent, command) of every process, without zombies."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
    return [
        (int(pid), int(parent), words[0])
        for pid, parent, state, *words in rows
        if words and state[0] != "Z"
    ]


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("command", [("up", "--processes", "1"), ("demo",), ("psql",)])
def test_embedded_servers_end_within_a_minute_after_their_command_was_killed(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    """The commands are `polling up`, `polling demo` and a single command."""
    home = tmp_path / "home"
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_URL")}
    process = subprocess.Popen(
        [*UP[:3], *command],
        env=environment | {"POLLING_HOME": str(home)},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    servers = Postgres(home / "embedded")._daemon, Valkey(home / "embedded")._daemon
    try:
        until(lambda: all(server.alive() for server in servers), "both servers run", 60)
        process.kill()
        process.wait()
        until(lambda: not any(server.alive() for server in servers), "both servers ended", 60)
    finally:
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()
