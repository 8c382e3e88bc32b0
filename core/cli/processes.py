"""Commands that start processes: up and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli import session


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
    from core.cli.launcher import run

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
