"""Plugins as the engine finds them: installed by pip into any environment, or broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from integration_polling_hello_world import HelloWorld
from integration_polling_hostile import Hostile
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import HOSTILE, Fleet

PLUGIN = Path(oracle.__file__).parent / "hostile-plugin"
INSTALLED = "SELECT domain, version FROM integration ORDER BY domain"


def test_a_broken_plugin_is_quarantined_and_the_others_run(
    fleet: Fleet, deployment: Deployment
) -> None:
    fleet.workers(**HOSTILE | {"POLLING_PLUGINS": "integration_polling_broken,no_such_module"})
    account = connect(deployment, HelloWorld)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, {})
    left_out = (
        "could not load the plugin integration_polling_broken; it is quarantined: SystemExit: this"
        " plugin needs"
    )
    assert left_out in fleet.says()
    assert (
        "could not load the plugin no_such_module; it is quarantined: ModuleNotFoundError"
        in fleet.says()
    )


def test_workers_find_a_plugin_that_pip_installed(
    fleet: Fleet, deployment: Deployment, tmp_path: Path
) -> None:
    """Build a wheel with pip and install it into another environment.

    The workers of that environment find the plugin, and no other file changes.
    """
    python = environment_beside_ours(tmp_path / "venv")
    # The build leaves files in its folder, so that it needs a copy.
    shutil.copytree(PLUGIN, tmp_path / "plugin")
    pip(
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path,
        tmp_path / "plugin",
    )
    [wheel] = tmp_path.glob("*.whl")
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    fleet.workers(processes=1, python=str(python))
    account = connect(deployment, Hostile, {"neighbours": 20})
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_tasks(deployment, account, {"done": 21})
    assert ("hostile", "0.1.0") in deployment.rows(INSTALLED)


def pip(*arguments: str | Path) -> None:
    """Run our pip, which downloads nothing here."""
    quiet = {
        **os.environ,
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def environment_beside_ours(folder: Path) -> Path:
    """Create an environment that sees the packages of ours, and return its Python."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return folder / "bin" / "python"
