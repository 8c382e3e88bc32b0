"""Starting everything, looking after it, and getting at the servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli import session
from core.cli.output import dump, note, say
from core.cli.types import Json


def up(
    processes: Annotated[
        int | None, typer.Option(min=1, help="Worker processes. Default: POLLING_PROCESSES, or 2.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each. Default: POLLING_THREADS, or 8.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Of the API. Default: 8080, or any if that is taken."),
    ] = None,
) -> None:
    """Run it all: workers, the scheduler, the API, and the embedded servers where none are given.
    Ctrl-C ends everything.

    Examples:

    \b
      polling up
      polling up --processes 4 --threads 16
    """
    from core.cli.up import run

    settings = session.settings()
    environment = session.environment()
    raise typer.Exit(
        run(
            settings,
            environment,
            processes or settings.processes,
            threads or settings.threads,
            port,
        )
    )


def demo(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIRECTORY", help="What to sync. Default: files made for it."),
    ] = None,
) -> None:
    """The main job end to end, on real files: a directory through a real FTP server.

    Every byte is compared.

    Example:

    \b
      polling demo ~/Documents
    """
    from core.demo.program import run

    session.settings()
    run(directory)


def migrate() -> None:
    """Bring the database's schema up to date. Embedded databases do that by themselves.

    Example:

    \b
      DATABASE_URL=postgresql://… polling migrate
    """
    url = session.database_url()
    from core.db import version
    from core.db.migrate import migrate as bring_up_to_date

    previous = version.current(url)
    changed = bring_up_to_date(url)
    say(
        f"The schema is at {version.HEAD}"
        + (f"; it was {previous or 'empty'}." if changed else " already.")
    )


def env(json: Json = False) -> None:
    """Print where PostgreSQL and Redis are, for other programs.

    Example:

    \b
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
        note("The embedded servers run while a command uses them: keep `polling up` running.")


def psql(context: typer.Context) -> None:
    """Open the database in psql. What follows is given to it.

    Examples:

    \b
      polling psql
      polling psql -c 'SELECT count(*) FROM user_integration_content'
    """
    url = session.database_url()
    from core.cli.database import run_psql

    raise typer.Exit(run_psql(url, context.args))
