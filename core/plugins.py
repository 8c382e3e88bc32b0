"""Finding the installed integrations.

One that cannot be loaded is quarantined with its error, and the others go on.
"""

from __future__ import annotations

import importlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any

import pluggy
from pydantic import ValidationError

from core.egress import any_host
from core.errors import NotFound
from core.hookspecs import PROJECT, Hooks
from core.integration.base import BaseIntegration, Integration
from core.logs import place
from core.settings import get_settings

SPEC_VERSION = 1
"""The version of the plugin API that this engine speaks."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A plugin that was left out, and why."""

    name: str
    distribution: str | None
    error: str


class Observers:
    """A thread that calls observers one after the other.

    A call is dropped and logged while a thousand others wait.
    """

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[pluggy.PluginManager, str, Mapping[str, Any]]] = queue.Queue(
            maxsize=1000
        )
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def notify(
        self, manager: pluggy.PluginManager, hook: str, arguments: Mapping[str, Any]
    ) -> None:
        """Queue a call of a hook's observers."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
                self._thread.start()
        try:
            self._calls.put_nowait((manager, hook, arguments))
        except queue.Full:
            log.error("the observers are too slow: a call of %s is dropped", hook)

    def _run(self) -> None:
        while True:
            manager, hook, arguments = self._calls.get()
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                try:
                    # Observers work for the operator, not for an account.
                    with any_host():
                        implementation.function(
                            *(arguments[name] for name in implementation.argnames)
                        )
                except BaseException as error:  # noqa: BLE001  plugin code
                    # Its text may quote its arguments, or rows of a database of its own.
                    log.error(
                        "the observer %s of %s failed: %s",
                        implementation.plugin_name,
                        hook,
                        place(error),
                    )
            self._calls.task_done()

    def drain(self, seconds: float) -> None:
        """Wait until all queued calls are done, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        while self._calls.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)


@dataclass(slots=True)
class Registry:
    """What is installed here.

    Attributes:
      integrations: Classes by domain.
      versions: The version of the distribution that brought each domain; None for modules of
        `POLLING_PLUGINS`.
      quarantined: What could not be loaded.
    """

    integrations: dict[str, Integration] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    _observers: Observers = field(default_factory=Observers)
    # Defined below.
    manager: pluggy.PluginManager = field(default_factory=lambda: _manager())  # noqa: PLW0108

    def get(self, domain: str) -> Integration:
        """The class of a domain.

        Raises:
          NotFound: It is not installed here, or quarantined.
        """
        if domain in self.integrations:
            return self.integrations[domain]
        for plugin in self.quarantined:
            if plugin.name == domain:
                raise NotFound("integration-quarantined", domain=domain, reason=plugin.error)
        known = ", ".join(sorted(self.integrations)) or "none"
        raise NotFound("integration-not-found", domain=domain, installed=known)

    def observe(self, hook: str, **arguments: Any) -> None:
        """Notify every observer in a thread of its own; one that fails or hangs changes nothing."""
        if getattr(self.manager.hook, hook).get_hookimpls():
            self._observers.notify(self.manager, hook, arguments)

    def _add(
        self, name: str, distribution: str | None, version: str | None, load: Callable[[], object]
    ) -> None:
        try:
            plugin = load()
            classes = list(_integrations_of(plugin, name))
            self._check(classes)
            self.manager.register(plugin, name=f"{distribution or 'module'}:{name}")
        except (KeyboardInterrupt, _Interrupted):
            raise
        # Even a plugin that calls sys.exit() on import must not stop the others.
        except BaseException as error:  # noqa: BLE001
            text = _text(error)
            log.error("the plugin %s cannot be loaded and is left out: %s", name, text)
            self.quarantined.append(Quarantined(name, distribution, text))
            return
        for integration in classes:
            self.integrations[integration.manifest.domain] = integration
            self.versions[integration.manifest.domain] = version

    def _check(self, classes: Iterable[Integration]) -> None:
        taken = dict(self.integrations)
        for integration in classes:
            manifest = integration.manifest
            if manifest.domain in taken:
                raise ValueError(
                    f"the domain {manifest.domain!r} is taken by"
                    f" {taken[manifest.domain].__module__}"
                )
            if manifest.spec_version > SPEC_VERSION:
                raise ValueError(
                    f"it needs version {manifest.spec_version} of the plugin API, this engine"
                    f" speaks {SPEC_VERSION}"
                )
            taken[manifest.domain] = integration


def _text(error: BaseException) -> str:
    """What went wrong; an exception whose text cannot be made has its name alone."""
    try:
        message = _without_input(error) if isinstance(error, ValidationError) else str(error)
        return f"{type(error).__name__}: {message}"[:500]
    except Exception:  # noqa: BLE001  plugin code
        return type(error).__name__


def _without_input(error: ValidationError) -> str:
    """The first problem of settings or a manifest; what was given may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{error.title}: {'.'.join(map(str, first['loc']))}: {first['msg']}"


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    return manager


def _integrations_of(plugin: object, name: str) -> Iterator[Integration]:
    """The classes one plugin registers: by its hook, or because the entry point names a class."""
    if isinstance(plugin, type) and issubclass(plugin, BaseIntegration):
        yield plugin
        return
    alone = _manager()
    alone.register(plugin, name=name)
    for classes in alone.hook.integrations():
        for integration in classes:
            if not (isinstance(integration, type) and issubclass(integration, BaseIntegration)):
                raise TypeError(
                    f"integrations() returned {integration!r}, which is no BaseIntegration class"
                )
            yield integration


def discover(entries: Iterable[EntryPoint], modules: Iterable[str] = ()) -> Registry:
    """Load these plugins, sorted by name so that every process sees the same."""
    registry = Registry()
    with _interruptible():
        for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
            distribution = entry.dist
            name, version = (
                (distribution.name, distribution.version) if distribution else (None, None)
            )
            registry._add(entry.name, name, version, entry.load)
        for module in modules:
            registry._add(module, None, None, partial(importlib.import_module, module))
    return registry


class _Interrupted(BaseException):
    """A signal's handler has raised while a plugin's code ran."""


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a signal end the process while plugins load.

    What the handler raises, mostly SystemExit, is not attributed to the plugin.

    Where it was, a dispatcher went on for ever, and the program that waited for it with it.
    """
    raised: list[BaseException] = []

    def hear(
        handler: Callable[[int, FrameType | None], object], number: int, frame: FrameType | None
    ) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            raised.append(error)
            raise _Interrupted from error

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {
            number: signal.getsignal(number)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
    before = {number: handler for number, handler in before.items() if callable(handler)}
    for number, handler in before.items():
        signal.signal(number, partial(hear, handler))
    try:
        yield
    except _Interrupted:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if raised:
        raise raised[0]


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """The plugins of this process, loaded once.

    They come from the entry points of the group `integration_polling`, and from `POLLING_PLUGINS`.
    """
    return discover(entry_points(group=PROJECT), get_settings().plugins)


def catalog(registry: Registry) -> list[Mapping[str, Any]]:
    """Task costs and bounds of the installed integrations, for dispatchers."""
    return [catalog_entry(registry, domain) for domain in sorted(registry.integrations)]


def catalog_entry(registry: Registry, domain: str) -> Mapping[str, Any]:
    """The same for one integration."""
    integration = registry.integrations[domain]
    return {
        "domain": domain,
        "name": integration.manifest.name,
        "version": registry.versions[domain],
        "tasks": {name: {"cost": dict(spec.cost)} for name, spec in integration.task_specs.items()},
        "max_tasks": integration.manifest.max_tasks,
    }
