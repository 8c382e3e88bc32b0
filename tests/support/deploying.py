"""The programs of the Compose file and of the systemd units in `deploy/`, for tests to start."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
PREFIX = "/opt/polling/bin/"

ROLES = ("migrate", "worker", "scheduler", "api")
"""The engine's services, with the same names in both."""


def compose() -> Mapping[str, Any]:
    """Load the Compose file; anchors are resolved, and variables are not."""
    loaded: Mapping[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return loaded


def service(name: str) -> Mapping[str, Any]:
    """Return one service of the Compose file."""
    found: Mapping[str, Any] = compose()["services"][name]
    return found


def unit(name: str) -> dict[tuple[str, str], list[str]]:
    """Return a unit's settings by section and name, including the common drop-in's."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in (UNITS / "polling-.service.d" / "common.conf", UNITS / name):
        for section, key, value in _settings(path):
            found.setdefault((section, key), []).append(value)
    return found


def _settings(path: Path) -> Iterator[tuple[str, str, str]]:
    section = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield section, key, value


def unit_name(role: str) -> str:
    """Return the file name of a service's unit."""
    return "polling-worker@.service" if role == "worker" else f"polling-{role}.service"


def compose_command(role: str) -> list[str]:
    """Return the command of a Compose service, with the program of this environment."""
    return installed(shlex.split(service(role)["command"]))


def unit_command(role: str) -> list[str]:
    """Return the command of a systemd unit, with the program of this environment."""
    [line] = unit(unit_name(role))["Service", "ExecStart"]
    assert line.startswith(PREFIX)
    return installed(shlex.split(line.removeprefix(PREFIX)))


def installed(words: list[str]) -> list[str]:
    """Replace the program of a command with the one beside this Python."""
    program = Path(sys.executable).with_name(words[0])
    assert program.exists(), f"{words[0]} is not installed with the engine"
    return [str(program), *words[1:]]
