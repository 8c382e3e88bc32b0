"""What `deploy/` says: the programs of its Compose file and of its units, as a test can start
them.
"""

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
"""Services of ours, named alike in both."""


def compose() -> Mapping[str, Any]:
    """The Compose file; anchors are resolved, variables are not."""
    loaded: Mapping[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return loaded


def service(name: str) -> Mapping[str, Any]:
    """One service of it."""
    found: Mapping[str, Any] = compose()["services"][name]
    return found


def unit(name: str) -> dict[tuple[str, str], list[str]]:
    """Settings of a unit by section and name, with those of the drop-in that holds for all of
    them.
    """
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
    """The file of a service's unit."""
    return "polling-worker@.service" if role == "worker" else f"polling-{role}.service"


def compose_command(role: str) -> list[str]:
    """What Compose starts for one of ours, by the programs of this environment."""
    return installed(shlex.split(service(role)["command"]))


def unit_command(role: str) -> list[str]:
    """What systemd starts."""
    [line] = unit(unit_name(role))["Service", "ExecStart"]
    assert line.startswith(PREFIX)
    return installed(shlex.split(line.removeprefix(PREFIX)))


def installed(words: list[str]) -> list[str]:
    """A command whose program stands beside this Python."""
    program = Path(sys.executable).with_name(words[0])
    assert program.exists(), f"{words[0]} is no program that is installed with the engine"
    return [str(program), *words[1:]]
