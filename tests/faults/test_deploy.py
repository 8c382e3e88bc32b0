"""Tests that the files of `deploy/` work.

Their programs are started, used and stopped as Compose and systemd do it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from dramatiq.cli import make_argument_parser
from support.deploying import (
    DEPLOY,
    ROLES,
    ROOT,
    UNITS,
    compose,
    compose_command,
    installed,
    service,
    unit,
    unit_command,
    unit_name,
)
from support.deployment import Deployment
from support.ports import free_port
from support.waiting import until

from core.embedded import valkey
from core.transport.queues import Queues

PAGE = ROOT / "docs" / "how-to" / "deploy.md"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
STARTS: dict[str, Callable[[str], list[str]]] = {
    "compose": compose_command,
    "systemd": unit_command,
}


def polling(deployment: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*installed(["polling"]), *words],
        env=deployment.environment(),
        cwd=deployment.home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("way", ["compose", pytest.param("systemd", marks=pytest.mark.long)])
def test_the_documented_commands_start_sync_and_stop(
    way: str, deployment: Deployment, make_fleet, tmp_path: Path
) -> None:
    """Follow an installation from an empty database to SIGTERM.

    The test starts each service in the order of the file.
    """
    deployment.rows("DROP SCHEMA public CASCADE")
    deployment.rows("CREATE SCHEMA public")
    command = STARTS[way]
    port = free_port()
    fleet = make_fleet(POLLING_CRON_SCHEDULE="* * * * *")
    migrate = fleet.start(command("migrate"))
    assert until(
        lambda: migrate.exit_code is not None and [migrate.exit_code], "the migration ends", 60
    ) == [0]
    worker, scheduler = (
        fleet.start(command("worker"), processes=1),
        fleet.start(command("scheduler")),
    )
    # The only argument that the test adds: port 8080 may be in use on this machine.
    api = fleet.start([*command("api"), "--port", str(port)])
    fleet.ready(40)
    fleet.until(lambda: answers(port), "the API answers", 40)
    doctor = polling(deployment, "doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    connected = polling(
        deployment, "connect", "hello-world", "--name", "hello", "--set", "pages=2", "--json"
    )
    assert connected.returncode == 0, connected.stderr
    synced = polling(deployment, "sync", "hello", "--wait", "--timeout", "60", "--json")
    assert json.loads(synced.stdout.splitlines()[-1])["state"] == "succeeded"
    assert scheduler.exit_code is None
    assert (api.terminate(), worker.terminate()) == (143, 0)
    assert "143" in unit(unit_name("api"))["Service", "SuccessExitStatus"]
    # periodiq has no handler. Behind an init, or as an ordinary process, the signal itself ends the
    # process.
    assert scheduler.terminate() == -signal.SIGTERM


def answers(port: int) -> bool:
    """Run the health check of the API at another port, and return True if it succeeds."""
    *_, check = service("api")["healthcheck"]["test"]
    program = check.replace(":8080/", f":{port}/")
    return (
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode
        == 0
    )


def test_valkey_takes_the_options_of_the_compose_file(tmp_path: Path) -> None:
    text = compose()["configs"]["valkey"]["content"]
    (tmp_path / "valkey.conf").write_text(re.sub(r"\$\{VALKEY_PASSWORD[^}]*\}", "secret", text))
    _, *options = shlex.split(service("valkey")["command"].replace("/etc/valkey/", ""))
    at = tempfile.mkdtemp(prefix="polling-") + "/s"  # the path of a socket must be short
    command = [str(valkey._program()), *options, "--port", "0", "--unixsocket", at]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        until(lambda: Path(at).exists(), "Valkey listens")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=at).ping()
        queues = Queues(f"unix://:secret@{at}", "test")
        info = queues.require()
        queues.close()
    finally:
        server.terminate()
        assert server.wait(20) == 0
        shutil.rmtree(Path(at).parent)
    assert (info["maxmemory_policy"], info["aof_enabled"]) == ("noeviction", 1)


def test_compose_and_systemd_start_the_same_programs() -> None:
    """Only `--host` differs: a container listens on all addresses, a host on its loopback."""
    for role in ROLES:
        theirs = [word for word in compose_command(role) if word not in ("--host", "0.0.0.0")]
        assert unit_command(role) == theirs, role


@pytest.mark.parametrize("role", ROLES)
def test_a_compose_service_restarts_and_has_few_privileges(role: str) -> None:
    found = service(role)
    assert found["init"] is True
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found.get("restart") == (None if role == "migrate" else "unless-stopped")
    waits = found["depends_on"]
    assert waits["postgres"] == {"condition": "service_healthy"}
    if role != "migrate":
        assert waits["migrate"] == {"condition": "service_completed_successfully"}


def test_a_service_that_others_wait_for_has_a_health_check() -> None:
    services = compose()["services"]
    healthy = {
        name
        for one in services.values()
        for name, how in one.get("depends_on", {}).items()
        if how["condition"] == "service_healthy"
    }
    assert healthy == {"postgres", "valkey", "api"}
    assert all("healthcheck" in services[name] for name in healthy)
    # `docker compose up --wait` fails if a health check is disabled. For a service without a health
    # check it waits only until the container has started.
    assert "HEALTHCHECK" not in DOCKERFILE
    assert not any("healthcheck" in services[role] for role in ROLES if role != "api")


def test_a_worker_gets_as_long_to_stop_as_dramatiq_gives_its_tasks() -> None:
    assert make_argument_parser().get_default("worker_shutdown_timeout") == 600_000
    assert service("worker")["stop_grace_period"] == "11m"
    assert unit("polling-worker@.service")["Service", "TimeoutStopSec"] == ["11min"]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_has_a_user_and_settings_and_restarts(role: str) -> None:
    found = unit(unit_name(role))
    assert found["Service", "User"] == ["polling"]
    assert found["Service", "EnvironmentFile"] == ["/etc/polling/polling.env"]
    assert found["Service", "NoNewPrivileges"] == ["true"]
    assert found["Service", "ProtectSystem"] == ["strict"]
    assert found["Service", "Restart"] == ["on-failure" if role == "migrate" else "always"]


def test_every_variable_of_the_compose_file_is_in_the_example_or_has_a_default() -> None:
    used = re.findall(r"\$\{(\w+)(:-[^}]*)?", (DEPLOY / "compose.yaml").read_text("utf-8"))
    example = re.findall(
        r"^(\w+)=", (DEPLOY / "polling.env.example").read_text("utf-8"), re.MULTILINE
    )
    assert not {name for name, default in used if not default} - set(example)


def test_the_dockerfile_names_plugins_and_paths_that_exist() -> None:
    [plugins] = re.findall(r'^ARG PLUGINS="(.+)"$', DOCKERFILE, re.MULTILINE)
    assert all((ROOT / path / "pyproject.toml").exists() for path in plugins.split())
    assert plugins in (DEPLOY / "compose.yaml").read_text("utf-8")
    listed = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    kept = [line.removeprefix("!") for line in listed if line.startswith("!")]
    assert all(list(ROOT.glob(pattern)) for pattern in kept)


def test_the_how_to_names_units_services_and_files_that_exist() -> None:
    page = PAGE.read_text("utf-8")
    enabled = re.search(r"systemctl enable --now (.+)", page)
    assert enabled
    for name in enabled[1].split():
        file = re.sub(r"@.*", "@", name)
        assert (UNITS / (file if "." in file else f"{file}.service")).exists(), name
    # Stopping a target does not wait for its units.
    assert all("'polling-*'" in line for line in re.findall(r"systemctl stop [^`\n]+", page))
    for words in re.findall(r"docker compose (?:exec|run)(?: -\S+| --\S+)* (\w+) ", page):
        assert words in compose()["services"], words
    assert {"nginx.conf", "Caddyfile"} <= {path.name for path in DEPLOY.iterdir()}
