"""Plugin discovery: a plugin that cannot be loaded is quarantined, and the others work."""

from __future__ import annotations

import signal
import sys
import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from core import BaseIntegration, Manifest, hookimpl
from core.errors import NotFound
from core.plugins import Registry, catalog, discover, get_registry

GOOD = """
from core import BaseIntegration, Manifest, TaskResult, hookimpl, task

class Good(BaseIntegration):
    manifest = Manifest("{domain}", "Good", spec_version={spec})

    @task(cost={{"quota": 3}})
    def step(self, ctx): return TaskResult()

@hookimpl
def integrations(): return [Good]
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return `modules(name="text")`, which writes modules and returns their entry points."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**texts: str) -> list[EntryPoint]:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        return [EntryPoint(name, name, "integration_polling") for name in texts]

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def good(domain: str = "good", spec: int = 1) -> str:
    return GOOD.format(domain=domain, spec=spec)


BROKEN = {
    "import error": "import no_such_module",
    "syntax error": "def (",
    "SystemExit": "raise SystemExit(1)",
    "a BaseException": "class Odd(BaseException): pass\nraise Odd('no')",
    "too new": good("broken", spec=2),
    "a taken domain": good("good"),
    "no class": "from core import hookimpl\n@hookimpl\ndef integrations(): return ['text']",
    "a hook that raises": (
        "from core import hookimpl\n@hookimpl\ndef integrations(): raise KeyError('no')"
    ),
    "a hook of the wrong shape": (
        "from core import hookimpl\n@hookimpl\ndef integrations(more): return []"
    ),
    "a bad domain": good("Not A Domain"),
    "no manifest": (
        "from core import BaseIntegration as B, hookimpl\n@hookimpl\ndef integrations(): return [B]"
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_quarantined_and_the_others_work(modules: Any, kind: str) -> None:
    registry = discover(modules(a_good=good(), broken=BROKEN[kind], z_good=good("other")))
    assert sorted(registry.integrations) == ["good", "other"]
    (quarantined,) = registry.quarantined
    assert quarantined.name == "broken"
    assert quarantined.error
    with pytest.raises(NotFound, match="cannot be loaded"):
        registry.get("broken")


def test_settings_that_do_not_validate_are_not_repeated(modules: Any) -> None:
    broken = (
        "from pydantic import BaseModel, SecretStr\n"
        "class Given(BaseModel):\n    key: SecretStr\n    port: int\n"
        "Given.model_validate({'key': 'x', 'port': 'correct-horse'})\n"
    )
    (quarantined,) = discover(modules(broken=broken)).quarantined
    assert "port: must be a valid integer" in quarantined.error
    assert "correct-horse" not in quarantined.error


def test_a_plugin_that_defines_one_domain_twice_is_quarantined(modules: Any) -> None:
    twice = (
        good()
        + "\nclass Second(Good): pass\n"
        + "@hookimpl\ndef integrations(): return [Good, Second]\n"
    )
    assert discover(modules(twice=twice)).integrations == {}


def test_an_interrupt_while_loading_is_obeyed(modules: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        discover(modules(broken="raise KeyboardInterrupt"))


def test_an_entry_point_may_name_a_class(modules: Any) -> None:
    modules(one=good())
    registry = discover([EntryPoint("one", "one:Good", "integration_polling")])
    assert list(registry.integrations) == ["good"]


def test_the_result_does_not_depend_on_the_order_of_discovery(modules: Any) -> None:
    entries = modules(b=good(), a=good())
    for order in (entries, entries[::-1]):
        assert [one.name for one in discover(order).quarantined] == ["b"]


def test_modules_under_development_are_loaded_too(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules(under_development=good("new-one"))
    monkeypatch.setenv("POLLING_PLUGINS", "under_development")
    assert "new-one" in get_registry().integrations
    assert "hello-world" in get_registry().integrations


def test_the_catalog_contains_costs_and_bounds_for_dispatchers(modules: Any) -> None:
    (entry,) = catalog(discover(modules(one=good())))
    assert (entry["domain"], entry["tasks"], entry["max_tasks"]) == (
        "good",
        {"step": {"cost": {"quota": 3}, "time_limit": None}},
        5_000_000,
    )


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr
)
def test_a_failing_observer_does_not_affect_the_others(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    told: list[str] = []
    failing, listening = ModuleType("failing"), ModuleType("listening")

    @hookimpl
    def content_saved(domain: str) -> None:
        raise error

    failing.content_saved = content_saved  # type: ignore[attr-defined]

    @hookimpl
    def content_saved(account_id: str, external_ids: list[str]) -> None:
        told.append(account_id)

    listening.content_saved = content_saved  # type: ignore[attr-defined]
    for order in ((failing, listening), (listening, failing)):
        registry = Registry()
        for plugin in order:
            registry.manager.register(plugin)
        for account in ("a", "b"):
            registry.observe("content_saved", domain="d", account_id=account, external_ids=["x"])
        registry._observers.drain(10)
    assert told == ["a", "b", "a", "b"]
    assert "observer failing of content_saved failed" in caplog.text


def test_an_observer_that_hangs_does_not_block_its_caller() -> None:
    asked, go_on = threading.Event(), threading.Event()
    plugin = ModuleType("hanging")

    @hookimpl
    def content_saved(domain: str) -> None:
        asked.set()
        go_on.wait(30)

    plugin.content_saved = content_saved  # type: ignore[attr-defined]
    registry = Registry()
    registry.manager.register(plugin)
    for _ in range(1_100):  # more than the queue of observers may contain
        registry.observe("content_saved", domain="d", account_id="a", external_ids=["x"])
    assert asked.wait(10)
    assert not go_on.is_set()
    go_on.set()
    registry._observers.drain(10)


def test_a_task_cannot_be_called_start() -> None:
    from core import TaskResult, task

    with pytest.raises(TypeError, match="start"):

        class Wrong(BaseIntegration):
            manifest = Manifest("wrong", "Wrong")

            @task
            def start(self, ctx: Any) -> TaskResult:
                return TaskResult()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("swallows", [False, True])
def test_a_signal_while_plugins_load_ends_the_process(
    modules: Any, name: str, swallows: bool
) -> None:
    """A signal handler raises SystemExit at any point of the process.

    When that is inside the import of a plugin, the exception is not the plugin's.
    """
    number = signal.Signals[name]
    text = f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n    "
    entries = modules(a_told=text + ("pass" if swallows else "raise"), b_good=good())

    def end(number: int, frame: object) -> None:
        raise SystemExit(3)

    before = signal.signal(number, end)
    try:
        with pytest.raises(SystemExit) as caught:
            discover(entries)
        assert caught.value.code == 3
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_a_handler_that_does_not_raise_interrupts_no_plugin(modules: Any) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        registry = discover(
            modules(told=f"import os\nos.kill(os.getpid(), {int(signal.SIGTERM)})\n{good()}")
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]
    assert list(registry.integrations) == ["good"]
