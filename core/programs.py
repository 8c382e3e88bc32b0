"""The programs that `polling` starts: Dramatiq's workers and periodiq's scheduler.

They import the engine from where it is installed: Dramatiq and periodiq alone put the current
folder first, where another package may have the name `core`. Their own log lines have the format of
the engine's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from core.errors import SettingsError

ACTORS = "core.actors"

NO_FOLDER = "--path"
"""An option of both programs: the folders to import from. As the last word, it names none."""


def command(program: str, *arguments: str) -> list[str]:
    """Return the command that runs one of the programs with this Python.

    Args:
      program: `worker` or `scheduler`.
      *arguments: Options of Dramatiq or periodiq.
    """
    return [sys.executable, "-P", "-m", __name__, program, *arguments]


def worker_command(processes: int, threads: int) -> list[str]:
    """Return the command that runs workers.

    Args:
      processes: The number of worker processes.
      threads: The number of threads in each worker process.
    """
    return command("worker", "--processes", str(processes), "--threads", str(threads))


def main(program: str, arguments: Sequence[str]) -> int:
    """Run a program in this process, and return its exit code."""
    _configure_logging()
    # Dramatiq starts this command again on SIGHUP.
    sys.argv = [str(Path(sys.executable).with_name("polling")), program, *arguments]
    return PROGRAMS[program](arguments)


def _worker(arguments: Sequence[str]) -> int:
    from dramatiq import cli

    words = [ACTORS, "--skip-logging", *arguments, NO_FOLDER]
    parser = cli.make_argument_parser()  # type: ignore[no-untyped-call]
    parser.error = _refuse
    return int(cli.main(parser.parse_args(words)) or 0)  # type: ignore[no-untyped-call]


def _scheduler(arguments: Sequence[str]) -> int:
    import periodiq

    words = [ACTORS, *arguments, NO_FOLDER]
    parser = periodiq.make_argument_parser()
    parser.error = _refuse
    try:
        return int(periodiq.main(parser.parse_args(words)) or 0)
    except KeyboardInterrupt:
        return 0


def _refuse(message: str) -> NoReturn:
    """Report wrong options as `polling` does, and not with the usage of the other program."""
    sys.stderr.write(f"error: {message}\nTry: polling {sys.argv[1]} --help\n")
    sys.exit(2)


PROGRAMS = {"worker": _worker, "scheduler": _scheduler}


def _configure_logging() -> None:
    from core.logs import configure
    from core.settings import get_settings

    try:
        settings = get_settings()
    except SettingsError:
        return  # `core.actors` reports it, and ends the process
    configure(settings.log_level, settings.log_format)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
