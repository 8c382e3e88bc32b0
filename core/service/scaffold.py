"""Scaffold of a new plugin: a distribution with README, integration and conformance suite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template

from core.errors import InvalidInput
from core.integration.limits import is_domain

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

Copies the data of $name accounts into integration-polling.

    pip install -e .
$commands    pytest
"""

SOURCE = '''\
"""$name for integration-polling.

This example runs without changes. Replace the example service with calls to the real one.
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

# The example service: two folders with notes. A real integration calls its provider instead.
SERVICE = {"work": {"1": "Buy paper", "2": "Call Ada"}, "home": {"3": "Water the plants"}}


class Config(BaseModel, extra="forbid"):
    """The options of an account."""

    owner: str = Field("me", description="Owner of the notes")


# If the service needs a login, add `class Credentials(BaseModel)` with `SecretStr` fields for
# secrets, and derive from `BaseIntegration[Config, Credentials]`. Raise `core.CredentialsInvalid`
# in `check` if the service rejects the credentials.


class $class_name(BaseIntegration[Config]):
    """Lists the folders and stores each note."""

    manifest = Manifest("$domain", "$name")

    def initialize(self) -> None:
        """Open a connection, if the service needs one. `self.config` is already set."""

    def check(self) -> AccountIdentity:
        """Return the identity of the account. The same id connected twice is the same account."""
        return AccountIdentity(self.config.owner, f"Notes of {self.config.owner}")

    def start(self, ctx: Context) -> TaskResult:
        """Return the first tasks of a run. Do not call the service here."""
        return TaskResult(tasks=[self.list_folders.task()])

    @task
    def list_folders(self, ctx: Context) -> TaskResult:
        """Return one task for each folder. The workers run them in parallel."""
        return TaskResult(tasks=[self.read_folder.task(folder=folder) for folder in SERVICE])

    @task
    def read_folder(self, ctx: Context, folder: str) -> TaskResult:
        """Return the notes of one folder. The id of a note must not change between runs."""
        return TaskResult([
            TaskOutput(id, text, kind="note", parent=folder, name=text)
            for id, text in SERVICE[folder].items()
        ])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [$class_name]
'''

TESTS = '''\
"""Tests of the $name integration."""

from $package import $class_name

from core.testing import Harness, IntegrationConformance


class TestConformance(IntegrationConformance):
    integration = $class_name


def test_every_note_is_stored() -> None:
    harness = Harness($class_name)
    assert harness.sync().state == "succeeded"
    texts = {item.text for item in harness.content.values()}
    assert texts == {"Buy paper", "Call Ada", "Water the plants"}
'''


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The names of a new plugin, which derive from its domain."""

    domain: str

    @property
    def package(self) -> str:
        """The name of the Python package."""
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
    """Write the files of a new plugin.

    Args:
      directory: The target directory. It is created if it does not exist.
      domain: The domain of the integration. Default: derived from the name of the directory.
      commands: Commands for the README that run the plugin. Each gets the domain as its last word.

    Raises:
      InvalidInput: The directory is not empty or not writable, or the domain is invalid.
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
    if not is_domain(domain):
        raise InvalidInput("plugin-domain-invalid", name=name)
    return domain
