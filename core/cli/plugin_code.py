"""The source files of plugins: running processes use them as they were when the processes began."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import invalidate_caches
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from threading import Event

from core.hookspecs import PROJECT

INTERVAL_SECONDS = 3.0
"""The pause between two looks at the files."""

MAX_FILES = 10_000
"""The number of files of one plugin whose changes are noticed."""

Version = frozenset[tuple[str, int, int]]
"""The path, the time and the size of each source file."""


def versions(modules: Sequence[str]) -> dict[str, Version]:
    """Return the version of each plugin by its top-level package. No plugin is imported.

    Args:
      modules: Modules to look at besides the installed plugins, as in `POLLING_PLUGINS`.
    """
    invalidate_caches()
    named = [*(entry.module for entry in entry_points(group=PROJECT)), *modules]
    packages = sorted({name.partition(".")[0] for name in named})
    return {package: frozenset(_files(package)) for package in packages}


def changed(before: Mapping[str, Version], now: Mapping[str, Version]) -> list[str]:
    """Return the plugins that were changed, installed or removed."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def watch(modules: Sequence[str], report: Callable[[str], None], ended: Event) -> None:
    """Report each plugin once, when its code changes, until `ended` is set."""
    first, reported = versions(modules), set[str]()
    while not ended.wait(INTERVAL_SECONDS):
        for name in changed(first, versions(modules)):
            if name not in reported:
                reported.add(name)
                report(name)


def _files(package: str) -> Iterator[tuple[str, int, int]]:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    folders = spec.submodule_search_locations
    paths: Iterator[Path] = (
        iter([Path(spec.origin or "")])
        if folders is None
        else (path for folder in folders for path in Path(folder).rglob("*.py"))
    )
    for path in islice(paths, MAX_FILES):
        with suppress(OSError):  # an editor replaces the file now
            found = path.stat()
            yield str(path), found.st_mtime_ns, found.st_size
