"""The steps of the demo."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from core.demo import engine, files, server
from core.demo.comparing import Comparison, compare
from core.demo.engine import Account
from core.demo.report import leftovers, next_steps, summary
from core.demo.watching import watch
from core.errors import InvalidInput, PollingError
from core.service.backend import Backend
from core.settings import get_settings

GREETINGS = {"name": "demo", "pages": 5, "items": 10, "fanout_depth": 1}
CONNECTIONS = 8


def run(directory: Path | None = None) -> None:
    """Sync a directory through a real FTP server, and compare every byte.

    Args:
      directory: The directory to serve. Default: several hundred generated files of many kinds.

    Raises:
      PollingError: A file's bytes are not in the content table, or a package or server that the
        demo needs is missing.
      SystemExit: The demo was interrupted.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    fields_before = get_settings().model_fields_set
    home = engine.choose_home()
    is_temporary = get_settings().model_fields_set != fields_before
    try:
        with _interruptible():
            _run(console, directory, home)
    except KeyboardInterrupt:
        console.print("\nStopped. No process is left running.")
        if is_temporary:
            shutil.rmtree(home, ignore_errors=True)
        sys.exit(130)
    finally:
        if is_temporary:
            with suppress(OSError):
                home.rmdir()  # only an empty folder is deleted


def _run(console: Console, directory: Path | None, home: Path) -> None:
    tree = _tree(console, directory, home)
    console.print(
        f"{files.printable(str(tree.root))}: {len(tree.files):,} files,"
        f" {tree.directories:,} directories"
    )
    leftovers(console, tree)
    console.print("Starting PostgreSQL, Valkey, workers and an FTP server …")
    login = engine.login(tree.root)
    with (
        engine.backend(get_settings()) as backend,
        server.serving(
            tree.root, home / "demo-ftp.log", login, engine.last_port(backend, login)
        ) as served,
        engine.working(get_settings(), home / "demo-workers.log") as workers,
    ):
        began = time.monotonic()
        accounts = _connect(backend, served)
        try:
            watch(backend, console, accounts, tree, workers.require)
        finally:
            engine.pause(backend, accounts[0])
        seconds = time.monotonic() - began
        comparison = compare(backend, accounts[0].id, tree)
        summary(backend, console, accounts, seconds, comparison)
    _judge(comparison, len(tree.files), home)
    next_steps(console, home)


def _connect(backend: Backend, served: server.Served) -> list[Account]:
    """Connect both accounts and return them, the FTP account first."""
    where = {"host": server.HOST, "port": served.port, "max_connections": CONNECTIONS}
    secret = {"username": served.username, "password": served.password}
    return [
        engine.connect(backend, "ftp", where, secret),
        engine.connect(backend, "hello-world", GREETINGS, {}),
    ]


def _tree(console: Console, directory: Path | None, home: Path) -> files.Tree:
    if directory is None:
        directory = home / "demo-files"
        console.print("No directory given: generating sample files.")
        files.make_sample(directory)
    root = directory.expanduser().resolve()
    if not root.is_dir():
        raise InvalidInput("demo-not-a-directory", directory=directory)
    try:
        return files.scan(root)
    except PermissionError as error:
        raise InvalidInput("demo-file-unreadable", path=error.filename) from None


def _judge(comparison: Comparison, total: int, home: Path) -> None:
    if comparison.wrong:
        name, how = comparison.wrong[0]
        raise PollingError(
            "demo-files-differ",
            wrong=f"{len(comparison.wrong):,}",
            total=f"{total:,}",
            example=name,
            difference=how,
            log=home / "demo-workers.log",
        )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop the demo as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
