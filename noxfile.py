"""The sessions of this repository; `nox -l` lists them.

Each session creates its own environment with pip.
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
FORMS = Path(".github/ISSUE_TEMPLATE")
GITHUB = {
    "workflows": [".github/workflows/ci.yml"],
    "issue-config": [str(FORMS / "config.yml")],
    "issue-forms": sorted(str(path) for path in FORMS.glob("*.yml") if path.stem != "config"),
}
"""Files by the schema that check-jsonschema has for them."""
TESTS_FAILED = 1
"""The exit code of pytest when all tests have run, and some failed."""
LONG = 60
"""Seconds for programs to stop their servers and workers after Ctrl-C. Nox's default is 0.3."""


def _install(
    session: nox.Session, *groups: str, core: str = ".", plugins: list[str] = PLUGINS
) -> None:
    """Install the engine and plugins in editable mode, and groups of `pyproject.toml`.

    Nox reads the groups, because the pip of Python 3.11 does not support `--group`.
    """
    editable = [word for path in (core, *plugins) for word in ("-e", path)]
    session.install(*editable, *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session
def demo(session: nox.Session) -> None:
    """Sync real files end to end. For another directory: `nox -s demo -- /usr/share/doc`."""
    _install(session, core=".[demo]", plugins=SHOWN)
    session.run("polling", "demo", *session.posargs, interrupt_timeout=LONG, terminate_timeout=LONG)
    session.log(f"To use these commands, run: . {Path(session.bin, 'activate')}")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, three at a time. With pytest's arguments: `nox -s tests -- -k ledger`.

    Most tests wait for processes, so three keep two cores busy, and each gets three times its time
    limits. A test that fails runs once more, alone and with the same seed: if it passes, it lost a
    race for the machine, and pytest's first summary names it. A fault of the engine fails twice.
    """
    _install(session, "test", core=".[demo,serve,sentry,otel,parquet]")
    patience = {"POLLING_TEST_PATIENCE": "3"}
    try:
        session.run("pytest", "-n", "3", *session.posargs, env=patience, interrupt_timeout=LONG)
    except nox.command.CommandFailed as error:
        # After any other failure, some tests may not have run. Older Nox hides the code.
        if getattr(error, "return_code", TESTS_FAILED) != TESTS_FAILED:
            raise
        session.warn("The tests that failed run once more, alone.")
        alone = (
            *("-x", "--last-failed", "--last-failed-no-failures", "none"),
            "--randomly-seed=last",
        )
        session.run("pytest", *alone, *session.posargs, env=patience, interrupt_timeout=LONG)


@nox.session
def faults(session: nox.Session) -> None:
    """Run all tests with real processes, and all long tests, which `tests` skips."""
    _install(session, "test", core=".[demo,serve,sentry,otel,parquet]")
    session.run("pytest", "-m", "long or acceptance", *session.posargs, interrupt_timeout=LONG)


@nox.session
def clients(session: nox.Session) -> None:
    """Use clients that generators make from the OpenAPI document, and lint it; needs Node.js.

    The packages of Node.js stay below the session's temporary folder.
    """
    _install(session, "test", "clients", core=".[demo,serve]")
    tools = Path(session.create_tmp()).resolve()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path("tests/support/clients", name), tools)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
    session.run("npm", "ci", *quiet, "--prefix", str(tools), external=True)
    path = "tests/integration/test_generated_clients.py"
    env = {"POLLING_NODE_TOOLS": str(tools), "CI": "true"}
    session.run("pytest", "-m", "clients", path, *session.posargs, env=env)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Search for faults of the API with schemathesis: all checks, 200 examples, five seeds."""
    _install(session, "test", core=".[demo,serve]")
    path = "tests/integration/test_fuzzed_api.py"
    session.run("pytest", "-m", "long or not long", path, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Check that random faults lose nothing: `nox -s soak -- --minutes 30 --report FILE`."""
    _install(session, "test", core=".[demo,serve,sentry,otel,parquet]")
    path = os.pathsep.join(
        str(Path(folder).resolve()) for folder in ("tests", "tests/support/hostile-plugin/src")
    )
    session.run(
        "python", "-m", "soak", *session.posargs, env={"PYTHONPATH": path}, interrupt_timeout=LONG
    )


@nox.session
def mutations(session: nox.Session) -> None:
    """Disable one mechanism of the engine at a time, and print the tests that fail.

    For some mechanisms only: `nox -s mutations -- fence sweeper`.
    """
    _install(session, "test", core=".[demo,serve,sentry,otel,parquet]")
    session.run("python", "tests/mutations.py", *session.posargs, interrupt_timeout=LONG)


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark against its peer, and write the page of results.

    For one benchmark only: `nox -s bench -- chain`.
    """
    _install(session, "bench", core=".[embedded,serve]", plugins=[*SHOWN, "plugins-slack"])
    words = session.posargs or ["all"]
    keep = [] if "--quick" in words else ["--keep"]
    session.run("python", "-m", "benchmarks", *words, *keep, interrupt_timeout=LONG)
    session.run("python", "-m", "benchmarks", "page")


@nox.session
def pictures(session: nox.Session) -> None:
    """Take new pictures of the dashboard for the tutorial; needs Chromium."""
    _install(session, "test", core=".[embedded,serve]", plugins=SHOWN)
    session.run("python", "docs/tutorial/pictures.py", interrupt_timeout=LONG)


@nox.session
def lock(session: nox.Session) -> None:
    """Pin the packages of the image with their hashes; for newer ones: `nox -s lock -- --upgrade`.

    The file names no index: pip checks the hashes, whichever mirror it downloads from.
    """
    session.install("uv")
    folders = [Path(path) for path in (".", *PLUGINS)]
    ours = [nox.project.load_toml(path / "pyproject.toml")["project"]["name"] for path in folders]
    session.run(
        *("uv", "pip", "compile", "deploy/requirements.in", "-o", "deploy/requirements.txt"),
        *("--python-version", "3.13", "--python-platform", "linux", "--generate-hashes"),
        *("--no-emit-index-url", "--no-annotate", "--custom-compile-command", "nox -s lock"),
        *(word for name in ours for word in ("--no-emit-package", name)),
        *session.posargs,
    )


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
    """Check types with mypy in strict mode."""
    _install(session, "lint", "test", core=".[serve,sentry,otel]")
    session.run("mypy", *session.posargs)


@nox.session
def contracts(session: nox.Session) -> None:
    """Check the imports between parts with import-linter; see `.importlinter`."""
    _install(session, "lint", "test")
    session.run("lint-imports")
