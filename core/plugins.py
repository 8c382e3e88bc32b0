"""Load the installed plugins.

A plugin that cannot be loaded is quarantined with its error; the others load normally.
"""

from __future__ import annotations

import importlib
import logging
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any

import pluggy
from pydantic import ValidationError

from core.egress import any_host
from core.errors import NotFound
from core.field_problems import first_problem
from core.hookspecs import PROJECT, Hooks
from core.integration.base import BaseIntegration, Integration
from core.integration.ceilings import bounded
from core.logs import place
from core.settings import get_settings

HOOKS = frozenset(name for name in vars(Hooks) if not name.startswith("_"))
"""The names of the engine's hooks."""

SPEC_VERSION = 1
"""The version of the plugin API that this engine supports."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A plugin that is not loaded, with the reason.

    Attributes:
      name: The name of its entry point or module, which may differ from its domains.
      distribution: The package that it came with; None for modules of `POLLING_PLUGINS`.
      error: The reason, in one line.
      domains: The domains of its integrations, if they are known.
      is_allowed: False if `POLLING_PLUGINS_ALLOWED` does not name its distribution.
    """

    name: str
    distribution: str | None
    error: str
    domains: tuple[str, ...] = ()
    is_allowed: bool = True


class Observers:
    """A thread that calls the observers, one at a time.

    If 1,000 calls are waiting, a new call is dropped and logged.
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
        """Queue a call to the observers of a hook."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
                self._thread.start()
        try:
            self._calls.put_nowait((manager, hook, arguments))
        except queue.Full:
            log.error("observers are too slow; dropped a call of %s", hook)

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
                    # Log only the place: the text may contain arguments or database rows.
                    log.error(
                        "observer %s of %s failed: %s",
                        implementation.plugin_name,
                        hook,
                        place(error),
                    )
            self._calls.task_done()

    def drain(self, seconds: float) -> None:
        """Wait until all queued calls are done, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        while self._calls.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)


@dataclass(slots=True)
class Registry:
    """The installed plugins.

    Attributes:
      integrations: The integration classes, by domain.
      versions: The version of each domain's distribution; None for modules of `POLLING_PLUGINS`.
      distributions: The name of each domain's distribution; None for such modules.
      quarantined: The plugins that are not loaded.
      absent: The distributions that `POLLING_PLUGINS_ALLOWED` names and that have no plugin here.
      manager: Calls the plugins' hooks.
    """

    integrations: dict[str, Integration] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    distributions: dict[str, str | None] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    _observers: Observers = field(default_factory=Observers)
    # A lambda, because `_manager` is defined below.
    manager: pluggy.PluginManager = field(default_factory=lambda: _manager())  # noqa: PLW0108

    def bound(self, ceilings: Mapping[str, Mapping[str, float]]) -> None:
        """Bound numbers in the configs of accounts, by domain and field.

        The schema of the config has the ceilings, so each place that reads a config applies them.
        """
        for domain in sorted(ceilings.keys() & self.integrations.keys()):
            integration = self.integrations[domain]
            integration.config_model = bounded(integration.config_model, ceilings[domain])

    def get(self, domain: str) -> Integration:
        """Return the integration class of a domain.

        Raises:
          NotFound: The domain is not installed, or its plugin is quarantined.
        """
        if domain in self.integrations:
            return self.integrations[domain]
        for plugin in self.quarantined:
            if domain in (plugin.name, *plugin.domains):
                raise NotFound("integration-quarantined", domain=domain, reason=plugin.error)
        similar = get_close_matches(domain, self.integrations, 1)
        broken = ", ".join(sorted(plugin.name for plugin in self.quarantined))
        raise NotFound(
            "integration-not-found",
            domain=domain,
            installed=", ".join(sorted(self.integrations)) or "none",
            suggestion=f"; did you mean {similar[0]!r}?" if similar else "",
            quarantined=f"These plugins are not loaded: {broken}. " if broken else "",
        )

    def observe(self, hook: str, **arguments: Any) -> None:
        """Notify all observers in a separate thread, where a failing one does no harm."""
        if getattr(self.manager.hook, hook).get_hookimpls():
            self._observers.notify(self.manager, hook, arguments)

    def _add(
        self, name: str, distribution: str | None, version: str | None, load: Callable[[], object]
    ) -> None:
        classes: list[Integration] = []
        try:
            plugin = load()
            classes.extend(_integrations_of(plugin, name))
            self._check(classes)
            self.manager.register(plugin, name=f"{distribution or 'module'}:{name}")
        except (KeyboardInterrupt, _Interrupted):
            raise
        # A plugin that calls sys.exit() on import must not stop the others either.
        except BaseException as error:  # noqa: BLE001
            text = _text(error)
            log.error("could not load the plugin %s; it is quarantined: %s", name, text)
            domains = tuple(filter(None, map(_domain_of, classes)))
            self.quarantined.append(Quarantined(name, distribution, text, domains))
            return
        for integration in classes:
            self.integrations[integration.manifest.domain] = integration
            self.versions[integration.manifest.domain] = version
            self.distributions[integration.manifest.domain] = distribution

    def _leave_out(self, name: str, distribution: str | None) -> None:
        reason = f"POLLING_PLUGINS_ALLOWED does not name its distribution {distribution}"
        log.warning("the plugin %s is not loaded: %s", name, reason)
        self.quarantined.append(Quarantined(name, distribution, reason, is_allowed=False))

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
                    f"it needs version {manifest.spec_version} of the plugin API; this engine"
                    f" supports version {SPEC_VERSION}"
                )
            if manifest.reader is not None and integration.reread is BaseIntegration.reread:
                raise ValueError("its manifest has a reader, and the class has no reread()")
            taken[manifest.domain] = integration


class RegistersNothing(ValueError):
    """A module whose integrations the engine cannot find."""


def _domain_of(integration: Integration) -> str | None:
    return getattr(getattr(integration, "manifest", None), "domain", None)


def _text(error: BaseException) -> str:
    """Return the class and text of an error; only the class, if `str()` of the error fails."""
    try:
        message = (
            f"{error.title}: {first_problem(error)}"
            if isinstance(error, ValidationError)
            else str(error)
        )
        return f"{type(error).__name__}: {message}"[:500]
    except Exception:  # noqa: BLE001  plugin code
        return type(error).__name__


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    return manager


def _integrations_of(plugin: object, name: str) -> Iterator[Integration]:
    """Yield a plugin's integration classes: its entry point itself, or the result of its hook."""
    if isinstance(plugin, type) and issubclass(plugin, BaseIntegration):
        yield plugin
        return
    alone = _manager()
    alone.register(plugin, name=name)
    _require_hooks(alone, plugin)
    found = [tuple(classes) for classes in alone.hook.integrations()]
    if alone.hook.integrations.get_hookimpls() and not any(found) and not _observes(alone):
        raise RegistersNothing("its integrations() returned no integration")
    for classes in found:
        for integration in classes:
            if not (isinstance(integration, type) and issubclass(integration, BaseIntegration)):
                raise TypeError(
                    f"integrations() returned {integration!r}, not a subclass of BaseIntegration"
                )
            yield integration


def _require_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """Check that a plugin implements hooks, and only those that the engine has.

    Raises:
      RegistersNothing: It implements none, or one of another name. The text says what to change.
    """
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    if unknown := sorted(implemented - HOOKS):
        raise RegistersNothing(
            f"the engine has no hook {unknown[0]}(); its hooks are {', '.join(sorted(HOOKS))}"
        )
    if implemented:
        return
    unmarked = sorted(name for name in HOOKS if callable(getattr(plugin, name, None)))
    if unmarked:
        raise RegistersNothing(f"its function {unmarked[0]}() is not marked with @hookimpl")
    raise RegistersNothing(
        "no function is marked with @hookimpl; add integrations(), which returns its classes"
    )


def _observes(manager: pluggy.PluginManager) -> bool:
    return any(getattr(manager.hook, name).get_hookimpls() for name in HOOKS - {"integrations"})


def canonical(distribution: str) -> str:
    """Return the name of a distribution as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def discover(
    entries: Iterable[EntryPoint], modules: Iterable[str] = (), allowed: Iterable[str] = ()
) -> Registry:
    """Load these plugins, sorted by name, so that all processes have the same registry.

    Args:
      entries: The entry points of installed plugins.
      modules: Modules to load besides them, which the operator names.
      allowed: The distributions that may be loaded. The others are quarantined, and no code of them
        runs. Default: all.
    """
    registry, names = Registry(), {canonical(name) for name in allowed}
    present = set()
    with _interruptible():
        for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
            distribution = entry.dist
            name, version = (
                (distribution.name, distribution.version) if distribution else (None, None)
            )
            present.add(canonical(name or ""))
            if names and canonical(name or "") not in names:
                registry._leave_out(entry.name, name)
                continue
            registry._add(entry.name, name, version, entry.load)
        for module in modules:
            registry._add(module, None, None, partial(importlib.import_module, module))
    registry.absent = sorted(names - present)
    return registry


class _Interrupted(BaseException):
    """A signal handler raised an exception while a plugin's code ran."""


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a signal end the process while plugins load.

    The handler's exception, usually SystemExit, is not attributed to the plugin. Otherwise the
    plugin would be quarantined, and the process would ignore the signal and never stop.
    """
    raised: list[BaseException] = []

    def handle(
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
        signal.signal(number, partial(handle, handler))
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
    """Return the plugins of this process, which are loaded once.

    They come from the entry points of the group `integration_polling`, and from `POLLING_PLUGINS`.
    The numbers in their configs have the ceilings of `POLLING_CEILINGS`.
    """
    settings = get_settings()
    registry = discover(entry_points(group=PROJECT), settings.plugins, settings.plugins_allowed)
    registry.bound(settings.ceilings)
    return registry


def catalog(registry: Registry) -> list[Mapping[str, Any]]:
    """Return the catalog entries of all installed integrations, for dispatchers."""
    return [catalog_entry(registry, domain) for domain in sorted(registry.integrations)]


def catalog_entry(registry: Registry, domain: str) -> Mapping[str, Any]:
    """Return the task costs, time limits and bounds of one integration."""
    integration = registry.integrations[domain]
    return {
        "domain": domain,
        "name": integration.manifest.name,
        "version": registry.versions[domain],
        "tasks": {
            name: {"cost": dict(spec.cost), "time_limit": spec.time_limit}
            for name, spec in integration.task_specs.items()
        },
        "max_tasks": integration.manifest.max_tasks,
        "reader_version": reader_version(integration),
    }


def reader_version(integration: Integration) -> int:
    """Return the version of an integration's reader; 0 if it has none."""
    return integration.manifest.reader.version if integration.manifest.reader is not None else 0
