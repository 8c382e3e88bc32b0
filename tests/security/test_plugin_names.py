"""Texts name no package that anyone may own, and commands name each plugin that is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from typing import Any

import pytest

from core.error_catalog import ADVICE, CATALOG
from core.errors import NotFound
from core.plugins import Registry, discover
from core.service.fleet.doctor import local

COMMAND = [sys.executable, "-c", "from core.cli import main; main()"]
GOOD = """
from core import BaseIntegration, Manifest, TaskResult, hookimpl, task

class Good(BaseIntegration):
    manifest = Manifest("my-crm", "My CRM")

    @task
    def step(self, ctx): return TaskResult()
"""
SILENT = {
    "a forgotten @hookimpl": (
        f"{GOOD}\ndef integrations(): return [Good]",
        "its function integrations() is not marked with @hookimpl",
    ),
    "a hook of another project": (
        f"{GOOD}\nimport pluggy\nhookimpl = pluggy.HookimplMarker('other')\n"
        "@hookimpl\ndef integrations(): return [Good]",
        "its function integrations() is not marked with @hookimpl",
    ),
    "a misnamed hook": (
        f"{GOOD}\n@hookimpl\ndef integration(): return [Good]",
        "the engine has no hook integration(); its hooks are content_saved, integrations,",
    ),
    "no hook": (GOOD, "no function is marked with @hookimpl; add integrations()"),
    "an empty module": ("", "no function is marked with @hookimpl; add integrations()"),
    "no classes": (f"{GOOD}\n@hookimpl\ndef integrations(): return []", "returned no integration"),
    "nothing": (f"{GOOD}\n@hookimpl\ndef integrations(): pass", "returned no integration"),
}
OBSERVER = "from core import hookimpl\n@hookimpl\ndef run_finished(run): pass"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """Return `modules(name="text")`, which writes modules and returns their entry points."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**texts: str) -> list[EntryPoint]:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        return [EntryPoint(name, name, "integration_polling") for name in texts]

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


# Suggestions


def test_no_message_names_a_package_made_of_the_typed_text() -> None:
    steps = {code: entry.steps for code, entry in CATALOG.items()} | dict(ADVICE)
    for code, each in steps.items():
        for surface in ("cli", "rest", "dashboard"):
            text = each.on(surface)  # type: ignore[arg-type]
            assert "integration-polling-{" not in text, code
    assert not [code for code, one in CATALOG.items() if "integration-polling-" in one.message]


def test_an_unknown_domain_leads_to_what_is_installed_and_to_the_docs(modules: Any) -> None:
    registry = discover(modules(crm=f"{GOOD}\n@hookimpl\ndef integrations(): return [Good]"))
    with pytest.raises(NotFound) as caught:
        registry.get("mycrm")
    assert str(caught.value).endswith("installed: my-crm; did you mean 'my-crm'?")
    step = caught.value.next_step("cli")
    assert "docs/how-to/install-plugins.md" in step
    assert "mycrm" not in step
    with pytest.raises(NotFound) as caught:
        registry.get("evil; rm -rf")
    assert "did you mean" not in str(caught.value)


# Plugins that register nothing


@pytest.mark.parametrize("kind", SILENT)
def test_a_module_that_registers_nothing_is_quarantined_with_the_reason(
    modules: Any, kind: str
) -> None:
    text, reason = SILENT[kind]
    registry = discover(modules(my_plugin=text))
    assert registry.integrations == {}
    [plugin] = registry.quarantined
    assert plugin.name == "my_plugin"
    assert reason in plugin.error
    with pytest.raises(NotFound) as caught:
        registry.get("my-crm")
    assert "These plugins are not loaded: my_plugin." in caught.value.next_step("cli")


def test_a_plugin_that_only_observes_is_no_fault(modules: Any) -> None:
    assert discover(modules(observer=OBSERVER)).quarantined == []


def test_a_plugin_that_observes_beside_no_integrations_is_no_fault(modules: Any) -> None:
    text = f"{OBSERVER}\n@hookimpl\ndef integrations(): return []"
    assert discover(modules(observer=text)).quarantined == []


def test_a_quarantined_plugin_is_found_by_its_domain(modules: Any) -> None:
    text = f"{GOOD}\n@hookimpl\ndef integrations(): return [Good]"
    registry = discover(modules(a_first=text, b_second=text))
    [plugin] = registry.quarantined
    assert (plugin.name, plugin.domains) == ("b_second", ("my-crm",))
    del registry.integrations["my-crm"]
    with pytest.raises(NotFound, match="cannot be loaded"):
        registry.get("my-crm")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["integrations"], "my_plugin"),
        (["integrations", "--json"], '"name": "my_plugin"'),
        (["doctor"], "plugin my_plugin"),
        (["dry-run", "my-crm"], "These plugins are not loaded: my_plugin"),
        (["dry-run", "my_plugin"], "is not marked with @hookimpl"),
    ],
)
def test_commands_name_a_plugin_that_registers_nothing(
    tmp_path: Path, words: list[str], found: str
) -> None:
    (tmp_path / "my_plugin.py").write_text(SILENT["a forgotten @hookimpl"][0])
    settings = {"POLLING_PLUGINS": "my_plugin", "PYTHONPATH": str(tmp_path)}
    # Nothing listens there: these commands need no database.
    servers = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    environment = {name: text for name, text in os.environ.items() if "POLLING" not in name}
    done = subprocess.run(
        [*COMMAND, *words],
        env=environment | settings | servers | {"POLLING_HOME": str(tmp_path), "COLUMNS": "300"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found in done.stdout + done.stderr


# Allowed distributions


def installed(folder: Path, distribution: str, module: str, text: str) -> EntryPoint:
    """Install a distribution with one module, and return its entry point."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[integration_polling]\n{module} = {module}\n")
    [entry] = PathDistribution(info).entry_points
    return entry


@pytest.mark.parametrize("name", ["Good.Plugin", "good_plugin", "good-plugin"])
def test_only_allowed_distributions_are_loaded_and_no_code_of_others_runs(
    modules: Any, tmp_path: Path, name: str
) -> None:
    modules()
    ran = tmp_path / "ran"
    good = f"{GOOD}\n@hookimpl\ndef integrations(): return [Good]"
    entries = [
        installed(tmp_path, name, "good", good),
        installed(tmp_path, "good-plugin-too", "evil", f"open({str(ran)!r}, 'w').close()"),
        EntryPoint("nameless", "nameless", "integration_polling"),
    ]
    registry = discover(entries, allowed=["good-plugin", "not-here"])
    assert list(registry.integrations) == ["my-crm"]
    assert not ran.exists()
    assert [(plugin.name, plugin.is_allowed) for plugin in registry.quarantined] == [
        ("evil", False),
        ("nameless", False),
    ]
    assert "POLLING_PLUGINS_ALLOWED does not name its distribution good-plugin-too" in (
        registry.quarantined[0].error
    )
    checks = [(check.name, check.status, check.message) for check in local._plugins(registry)]
    assert ("plugin evil", "warn", f"quarantined: {registry.quarantined[0].error}") in checks
    missing = "POLLING_PLUGINS_ALLOWED names not-here, which has no plugin here"
    assert ("integrations", "warn", missing) in checks


def test_without_the_setting_every_plugin_is_loaded(modules: Any, tmp_path: Path) -> None:
    modules()
    good = f"{GOOD}\n@hookimpl\ndef integrations(): return [Good]"
    registry = discover([installed(tmp_path, "x", "good", good)])
    assert list(registry.integrations) == ["my-crm"]


def test_the_setting_restricts_the_plugins_of_a_process(tmp_path: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if "POLLING" not in name}
    done = subprocess.run(
        [*COMMAND, "dry-run", "hello-world"],
        env=environment | {"POLLING_PLUGINS_ALLOWED": " Integration_Polling.FTP "},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "POLLING_PLUGINS_ALLOWED does not name its distribution" in done.stderr


def test_an_empty_registry_still_explains_itself() -> None:
    with pytest.raises(NotFound, match="installed: none"):
        Registry().get("gmail")
