"""A rolling upgrade: workers of the version before the newest migration, and today's, on the schema
that today's code has migrated.

It holds every migration to expand-then-contract: what the version before reads and writes stays,
and what a migration removes is no longer used by the version before.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
from alembic.script import ScriptDirectory
from integration_polling_hello_world import HelloWorld, expected
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet, Program

from core.db.migrate import alembic_config

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
CONFIG = {"pages": 5, "items": 6, "fanout_depth": 1, "delay_ms": 10}
"""Some 200 tasks."""
OURS = {"POLLING_PLUGINS": ""}
LOADED = "import core, integration_polling_hello_world as h; print(core.__file__, h.__file__)"


def git(*arguments: str) -> bytes:
    """What git answers about this checkout.

    Raises:
      OSError: There is no git.
      subprocess.CalledProcessError: There is no history, or not enough of it.
    """
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def previous_version() -> str:
    """The commit before the one that added the newest migration.

    While there is only the baseline, the commit that wrote it: before it, there was another schema.
    An uncommitted migration is newer than every commit.
    """
    newest = ScriptDirectory.from_config(alembic_config("")).get_revision("head")
    log = ["log", "-1", "--format=%H"]
    if newest.down_revision is None:
        return git(*log, "--", newest.path).decode().strip() or "HEAD"
    added = git(*log, "--no-renames", "--diff-filter=A", "--", newest.path).decode().strip()
    return f"{added}^" if added else "HEAD"


def unpack(folder: Path) -> None:
    """Write the tree of the previous version to `folder`.

    Raises:
      OSError, subprocess.CalledProcessError: As `git`.
    """
    git("ls-files", "--error-unmatch", "pyproject.toml")  # not the repository of a folder above
    with tarfile.open(fileobj=io.BytesIO(git("archive", previous_version()))) as archive:
        archive.extractall(folder, filter="data")


@pytest.fixture
def old(tmp_path: Path) -> Mapping[str, str]:
    """The environment of programs of the previous version."""
    folder = tmp_path / "old"
    try:
        unpack(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        problem = f"the previous version cannot be read from git; fetch all history: {error}"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    path = os.pathsep.join(map(str, [folder, *sorted(folder.glob("plugins-*/src"))]))
    variables = OURS | {"PYTHONPATH": path}
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(file.startswith(str(folder)) for file in loaded.stdout.split()), loaded.stdout
    return variables


def test_workers_of_the_previous_version_and_of_this_one_side_by_side(
    old: Mapping[str, str], fleet: Fleet, deployment: Deployment
) -> None:
    """The old ones alone, today's beside them, the old ones beside today's that lead, and the old
    ones alone again, as after a deploy that is taken back.
    """
    accounts = []
    first = fleet.workers(processes=1, **old)
    accounts.append(synced(fleet, deployment))
    new = fleet.workers(processes=1, **OURS)
    accounts.append(synced(fleet, deployment))
    stop(fleet, first)
    fleet.ready()  # today's lead from here on
    fleet.workers(processes=1, **old)
    accounts.append(synced(fleet, deployment))
    stop(fleet, new)
    accounts.append(synced(fleet, deployment))
    for account in accounts:
        sync(deployment, account)
    oracle.wait_for_quiet(fleet, replace=False)
    for account in accounts:
        oracle.assert_runs(fleet, account, ["succeeded", "succeeded"])
        assert dict(deployment.rows(oracle.CONTENT, account)) == expected(CONFIG)


def synced(fleet: Fleet, deployment: Deployment) -> UUID:
    """Sync a new account to its end by the workers that run now, and check it."""
    fleet.ready()
    account = connect(deployment, HelloWorld, CONFIG)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, CONFIG)
    return account


def stop(fleet: Fleet, program: Program) -> None:
    """End workers in order."""
    assert program.terminate() == 0
    fleet.programs.remove(program)
