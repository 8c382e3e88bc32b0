"""Commands that start processes: up, worker, scheduler and demo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from core.cli import session
from core.programs import command


def up(
    processes: Annotated[
        int | None, typer.Option(min=1, help="Worker processes. Default: POLLING_PROCESSES or 2.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads per worker process. Default: POLLING_THREADS or 8."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Port of the API and dashboard. Default: 8080, or a free port if 8080 is in use.",
        ),
    ] = None,
) -> None:
    """Start workers, scheduler, API and dashboard on this machine.

    The command also starts embedded servers if DATABASE_URL or REDIS_URL is not set. Press Ctrl-C
    to stop everything.

    \b
    Examples:
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


def worker(context: typer.Context) -> None:
    """Run workers, which execute tasks: the same as `dramatiq core.actors`.

    Use it where `dramatiq` is not in PATH, or in a folder with another package named `core`. It
    takes all options of Dramatiq.

    \b
    Examples:
      polling worker --processes 4 --threads 16
      polling worker --queues gmail
    """
    _replace("worker", context.args)


def scheduler(context: typer.Context) -> None:
    """Run the scheduler: the same as `periodiq core.actors`. One is enough.

    \b
    Example:
      polling scheduler
    """
    _replace("scheduler", context.args)


def _replace(program: str, arguments: list[str]) -> NoReturn:
    """Replace this process by the program, which then receives the signals."""
    words = command(program, *arguments)
    os.execv(words[0], words)  # noqa: S606  no shell is needed


def demo(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIRECTORY", help="The directory to sync. Default: generated sample files."
        ),
    ] = None,
) -> None:
    """Sync a directory through a real FTP server, and compare every byte.

    \b
    Example:
      polling demo ~/Documents
    """
    from core.demo.program import run

    session.settings()
    run(directory)
