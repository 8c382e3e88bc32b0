"""What is run on this repository; `nox -l` lists it.

Each session makes its own environment by pip.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types", "contracts"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PLUGINS = sorted(str(path.parent) for path in Path().glob("plugins-*/pyproject.toml"))
SHOWN = ["plugins-hello-world", "plugins-ftp"]
FAULTS = ["tests/faults", "plugins-slack/tests/test_fleet.py"]
FORMS = Path(".github/ISSUE_TEMPLATE")
GITHUB = {
    "workflows": [".github/workflows/ci.yml"],
    "issue-config": [str(FORMS / "config.yml")],
    "issue-forms": sorted(str(path) for path in FORMS.glob("*.yml") if path.stem != "config"),
}
"""Files by the schema that check-jsonschema has for them."""
LONG = 60
"""Seconds that the demo gets after Ctrl-C to end its servers and workers; nox kills after 0.3 by
itself.
"""


def _install(
    session: nox.Session, *groups: str, core: str = ".", plugins: list[str] = PLUGINS
) -> None:
    """The engine and plugins as they lie here, and dependency groups of `pyproject.toml`.

    The groups are read by nox: a pip as old as that of Python 3.11 knows no `--group`.
    """
    editable = [word for path in (core, *plugins) for word in ("-e", path)]
    session.install(*editable, *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session
def demo(session: nox.Session) -> None:
    """Sync real files end to end; a directory may follow: `nox -s demo -- /usr/share/doc`."""
    _install(session, core=".[demo]", plugins=SHOWN)
    session.run("polling", "demo", *session.posargs, interrupt_timeout=LONG, terminate_timeout=LONG)
    session.log(f"For these commands: . {Path(session.bin, 'activate')}")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, two at a time, or those that pytest's own arguments name: `nox -s tests -- -k
    ledger`.
    """
    _install(session, "test", core=".[demo,serve,sentry,otel]")
    session.run("pytest", "-n", "2", *session.posargs, interrupt_timeout=LONG)


@nox.session
def faults(session: nox.Session) -> None:
    """Every fault against real processes, the long forms too; what CI runs of it is in `tests`."""
    _install(session, "test", core=".[demo,serve,sentry,otel]")
    session.run(
        "pytest", "-m", "long or not long", *FAULTS, *session.posargs, interrupt_timeout=LONG
    )


@nox.session
def soak(session: nox.Session) -> None:
    """Random faults all the time, and nothing lost: `nox -s soak -- --minutes 30 --report FILE`."""
    _install(session, "test", core=".[demo,serve,sentry,otel]")
    path = os.pathsep.join(
        str(Path(folder).resolve()) for folder in ("tests", "tests/support/hostile-plugin/src")
    )
    session.run(
        "python", "-m", "soak", *session.posargs, env={"PYTHONPATH": path}, interrupt_timeout=LONG
    )


@nox.session
def mutations(session: nox.Session) -> None:
    """Switch off one mechanism of the engine at a time, and print which tests notice: all, or
    `-- fence sweeper`.
    """
    _install(session, "test", core=".[demo,serve,sentry,otel]")
    session.run("python", "tests/mutations.py", *session.posargs, interrupt_timeout=LONG)


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark against its peer, then the page of all that was measured: `nox -s bench --
    chain` for one of them.
    """
    _install(session, "bench", core=".[embedded]", plugins=SHOWN)
    words = session.posargs or ["all"]
    keep = [] if "--quick" in words else ["--keep"]
    session.run("python", "-m", "benchmarks", *words, *keep, interrupt_timeout=LONG)
    session.run("python", "-m", "benchmarks", "page")


@nox.session
def pictures(session: nox.Session) -> None:
    """Take the tutorial's pictures again, from the dashboard as it is now; needs Chromium."""
    _install(session, "test", core=".[embedded,serve]", plugins=SHOWN)
    session.run("python", "docs/tutorial/pictures.py", interrupt_timeout=LONG)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, prose and GitHub's files."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "tools/prose.py")
    for schema, files in GITHUB.items():
        session.run("check-jsonschema", "--builtin-schema", f"vendor.github-{schema}", *files)
    if shutil.which("actionlint"):
        session.run("actionlint", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Types, by mypy in strict mode."""
    _install(session, "lint", "test", core=".[serve,sentry,otel]")
    session.run("mypy", *session.posargs)


@nox.session
def contracts(session: nox.Session) -> None:
    """Which part may import which, by import-linter: see `.importlinter`."""
    _install(session, "lint", "test")
    session.run("lint-imports")
