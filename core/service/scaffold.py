"""The skeleton of a new plugin: a distribution with README, integration and conformance suite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template

from core.errors import InvalidInput
from core.integration.limits import RESERVED_DOMAINS

_DOMAIN = re.compile(r"[a-z][a-z0-9-]{0,62}")

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$distribution"
version = "0.1.0"
description = "$name for integration-polling"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["integration-polling>=$engine", "pydantic>=2.12"]

[project.entry-points.integration_polling]
$domain = "$package"

[dependency-groups]
test = ["pytest>=8.4"]

[tool.hatch.build.targets.wheel]
packages = ["src/$package"]
"""

README = """\
# $distribution

Keeps a copy of what people have in $name.

    pip install -e .
$commands    pytest
"""

SOURCE = '''\
"""$name for integration-polling.

Everything here works as it is: replace the made-up service by the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Manifest,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)

# The made-up service: two folders with notes. The tasks below call the real one over the network.
SERVICE = {"work": {"1": "Buy paper", "2": "Call Ada"}, "home": {"3": "Water the plants"}}


class Config(BaseModel, extra="forbid"):
    """What people choose when they connect an account."""

    owner: str = Field("me", description="Whose notes to keep")


# Where a login is needed: a second model, `class Credentials(BaseModel)`, whose secrets are
# pydantic's `SecretStr`, and `BaseIntegration[Config, Credentials]`. Then `check` raises
# `core.CredentialsInvalid` when the service refuses them.


class $class_name(BaseIntegration[Config]):
    """Lists the folders, and keeps each note."""

    manifest = Manifest("$domain", "$name")

    def initialize(self) -> None:
        """Connect, if the service needs that; `self.config` is set."""

    def check(self) -> AccountIdentity:
        """Whose account it is: connecting the same id twice is one account."""
        return AccountIdentity(self.config.owner, f"Notes of {self.config.owner}")

    def start(self, ctx: Context) -> TaskResult:
        """The first tasks of a run; asks the service nothing."""
        return TaskResult(tasks=[self.list_folders.task()])

    @task
    def list_folders(self, ctx: Context) -> TaskResult:
        """One more task for each folder: the workers share them."""
        return TaskResult(tasks=[self.read_folder.task(folder=folder) for folder in SERVICE])

    @task
    def read_folder(self, ctx: Context, folder: str) -> TaskResult:
        """The notes of one folder, kept under an id that stays the same."""
        return TaskResult([
            TaskOutput(id, text, kind="note", parent=folder, name=text)
            for id, text in SERVICE[folder].items()
        ])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [$class_name]
'''

TESTS = '''\
"""$name does what every integration has to do, and what it promises itself."""

from $package import $class_name

from core.testing import Harness, IntegrationConformance


class TestConformance(IntegrationConformance):
    integration = $class_name


def test_it_keeps_every_note() -> None:
    harness = Harness($class_name)
    assert harness.sync().state == "succeeded"
    texts = {item.text for item in harness.content.values()}
    assert texts == {"Buy paper", "Call Ada", "Water the plants"}
'''


@dataclass(frozen=True, slots=True)
class Scaffold:
    """How the parts of a new plugin are called."""

    domain: str

    @property
    def package(self) -> str:
        return f"integration_polling_{self.domain.replace('-', '_')}"

    def variables(self) -> dict[str, str]:
        """Return the variables of the templates."""
        words = [word for word in self.domain.split("-") if word]
        return {
            "domain": self.domain,
            "name": " ".join(word.capitalize() for word in words),
            "class_name": "".join(word.capitalize() for word in words),
            "package": self.package,
            "distribution": f"integration-polling-{self.domain}",
            "engine": version("integration-polling"),
        }


def scaffold(directory: Path, domain: str | None = None, commands: Sequence[str] = ()) -> Scaffold:
    """Write a new plugin.

    Parameters:
      directory: Where; made if need be.
      domain: Of the integration. Default: made from the directory's name.
      commands: For its README: what runs it. Each takes the domain as its last word.

    Raises:
      InvalidInput: There is something in the directory, or the domain cannot be one.
    """
    plugin = Scaffold(_domain(domain or directory.resolve().name))
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"src/{plugin.package}/__init__.py": SOURCE,
        f"src/{plugin.package}/py.typed": "",
        f"tests/test_{plugin.package.removeprefix('integration_polling_')}.py": TESTS,
    }
    variables = plugin.variables()
    variables["commands"] = "".join(f"    {command} {plugin.domain}\n" for command in commands)
    try:
        if directory.exists() and any(directory.iterdir()):
            raise InvalidInput("plugin-directory-not-empty", directory=directory)
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(text).substitute(variables), "utf-8")
    except OSError as error:
        raise InvalidInput(
            "plugin-directory-unwritable", directory=directory, detail=error.strerror
        ) from None
    return plugin


def _domain(name: str) -> str:
    domain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    domain = domain.removeprefix("integration-polling-").removeprefix("plugins-")
    if not _DOMAIN.fullmatch(domain) or domain in RESERVED_DOMAINS:
        raise InvalidInput("plugin-domain-invalid", name=name)
    return domain
