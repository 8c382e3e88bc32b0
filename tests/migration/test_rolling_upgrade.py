"""A rolling upgrade: workers of the previous version and of today's on today's schema.

The previous version is the one before the newest migration. The test enforces expand-then-contract
for every migration. The schema keeps all that the previous version reads and writes. A migration
removes only what the previous version no longer uses.
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
from support import oracle, waiting
from support.accounts import connect, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet, Program

from core.db.migrate import alembic_config
from core.service.accounts import disconnect

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
CONFIG = {"pages": 5, "items": 6, "fanout_depth": 1, "delay_ms": 10}
"""The config of a tree of about 200 tasks."""
OURS = {"POLLING_PLUGINS": ""}
LOADED = "import core, integration_polling_hello_world as h; print(core.__file__, h.__file__)"


def git(*arguments: str) -> bytes:
    """Return the output of git for this checkout.

    Raises:
      OSError: Git is not installed.
      subprocess.CalledProcessError: The history is missing or too short.
    """
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def previous_version() -> str:
    """Return the commit before the one that added the newest migration.

    While the baseline is the only migration, return the commit that wrote it: before it, there was
    another schema. An uncommitted migration is newer than every commit.
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
      OSError, subprocess.CalledProcessError: See `git`.
    """
    # fail in the repository of a parent folder
    git("ls-files", "--error-unmatch", "pyproject.toml")
    with tarfile.open(fileobj=io.BytesIO(git("archive", previous_version()))) as archive:
        # Python 3.11 has the filter from its fourth release on.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder, **safe)


@pytest.fixture
def old(tmp_path: Path) -> Mapping[str, str]:
    """Return the environment for programs of the previous version."""
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


def test_workers_of_the_previous_version_work_beside_those_of_this_one(
    old: Mapping[str, str], fleet: Fleet, deployment: Deployment
) -> None:
    """Combine old and new workers in four ways, each with a new account.

    The order is: old workers only; new beside old ones; old ones beside new ones that lead; old
    workers only, as after a rollback.
    """
    accounts = []
    first = fleet.workers(processes=1, **old)
    accounts.append(synced(fleet, deployment))
    new = fleet.workers(processes=1, **OURS)
    accounts.append(synced(fleet, deployment))
    stop(fleet, first)
    fleet.ready()  # the new workers lead from here
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
    """Sync a new account with the running workers, and check it."""
    fleet.ready()
    account = connect(deployment, HelloWorld, CONFIG)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, CONFIG)
    return account


def stop(fleet: Fleet, program: Program) -> None:
    """Stop workers with SIGTERM."""
    assert program.terminate() == 0
    fleet.programs.remove(program)


def test_workers_of_the_previous_version_leave_a_hidden_account_alone(
    old: Mapping[str, str], fleet: Fleet, deployment: Deployment
) -> None:
    """They neither poll it nor save results of it, even if it has a time of its next poll."""
    fleet.workers(processes=1, **old)
    hidden = synced(fleet, deployment)
    other = synced(fleet, deployment)
    count = "SELECT count(*) FROM sync_run WHERE user_integration_id = %s"
    with deployment.connection() as conn:
        assert not disconnect.hide(conn, hidden, erases_account=True, now=False).has_begun
        before = conn.execute(count, (hidden,)).fetchone()
        conn.execute("UPDATE user_integration SET next_sync_at = now()")
        tick(deployment)
        polled = "SELECT next_sync_at > now() FROM user_integration WHERE id = %s"
        waiting.until(
            lambda: conn.execute(polled, (other,)).fetchone() == (True,), "the other is polled", 30
        )
        oracle.wait_for_quiet(fleet, replace=False)
        assert conn.execute(count, (hidden,)).fetchone() == before
        state = "SELECT sync_status FROM user_integration WHERE id = %s"
        assert conn.execute(state, (hidden,)).fetchone() == ("erasing",)
