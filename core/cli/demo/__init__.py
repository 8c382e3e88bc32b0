"""`polling demo`: the main job, end to end, on real files.

files      what is served and what is left out
ftpd       a real FTP server, started by `server`
engine     servers, workers and accounts
watching   progress bars
comparing  every file's bytes against the table
report     the summary and what to try next
"""

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

from core.cli.demo import engine, files, server
from core.cli.demo.comparing import Comparison, compare
from core.cli.demo.report import Told, leftovers, next_steps, summary
from core.cli.demo.watching import watch
from core.content.blobs import Blobs
from core.db.pool import Database, open_connection
from core.errors import InvalidInput, PollingError
from core.queues import Queues
from core.settings import get_settings

GREETINGS = {"name": "demo", "pages": 5, "items": 10, "fanout_depth": 1}
CONNECTIONS = 8


def demo(directory: Path | None = None) -> None:
    """Sync a directory through a real FTP server, and compare every byte.

    Parameters:
      directory: What to serve. Default: some hundred files of many kinds, made for it.

    Raises: PollingError: A file's bytes are not in the content table, or something is missing to
      find out. SystemExit: It was interrupted.
    """
    console = Console(highlight=False)
    given = get_settings().model_fields_set
    home = engine.choose_home()
    is_temporary = get_settings().model_fields_set != given
    try:
        with _interruptible():
            _demo(console, directory, home)
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running.")
        if is_temporary:
            shutil.rmtree(home, ignore_errors=True)
        sys.exit(130)
    finally:
        if is_temporary:
            with suppress(OSError):
                home.rmdir()  # nothing came of it


def _demo(console: Console, directory: Path | None, home: Path) -> None:
    tree = _tree(console, directory, home)
    console.print(
        f"Below {files.shown(str(tree.root))}: files {len(tree.files):,}, directories"
        f" {tree.directories:,}"
    )
    leftovers(console, tree)
    console.print("Starting PostgreSQL and Valkey, workers, and an FTP server …")
    settings = get_settings()
    with (
        engine.environment() as found,
        server.serving(tree.root, home / "demo-ftp.log") as served,
        engine.working(settings, home / "demo-workers.log") as workers,
        open_connection(found.database_url) as conn,
    ):
        began = time.monotonic()
        ftp = engine.connect(
            conn,
            found,
            "ftp",
            str(tree.root),
            {"host": server.HOST, "port": served.port, "max_connections": CONNECTIONS},
            {"username": server.USERNAME, "password": served.password},
        )
        hello = engine.connect(conn, found, "hello-world", "demo", GREETINGS, {})
        Queues(found.redis_url, settings.namespace).wake()
        try:
            watch(
                conn,
                console,
                ftp.id,
                [ftp.run, hello.run],
                len(tree.files),
                tree.bytes,
                workers.require,
            )
        finally:
            engine.pause(conn, ftp)
        seconds = time.monotonic() - began
        database = Database(found.database_url)
        comparison = compare(
            conn, Blobs(database, settings.blob_location, home / "spool"), ftp.id, tree
        )
        database.close()
        told = Told(tree, comparison, [ftp, hello], seconds)
        summary(console, conn, told)
    _judge(comparison, len(tree.files), home)
    next_steps(console, home)


def _tree(console: Console, directory: Path | None, home: Path) -> files.Tree:
    if directory is None:
        directory = home / "demo-files"
        console.print("No directory given: making some hundred files of many kinds.")
        files.make_sample(directory)
    root = directory.expanduser().resolve()
    if not root.is_dir():
        raise InvalidInput(f"{directory} is no directory", "Try: polling demo /usr/share/doc")
    try:
        return files.scan(root)
    except PermissionError as error:
        raise InvalidInput(
            f"{error.filename!r} cannot be read", "Try another directory: polling demo DIRECTORY"
        ) from None


def _judge(comparison: Comparison, total: int, home: Path) -> None:
    if comparison.wrong:
        name, how = comparison.wrong[0]
        raise PollingError(
            f"{len(comparison.wrong):,} of {total:,} files are not kept as they are; {name!r}"
            f" {how}",
            f"The workers' log: {home / 'demo-workers.log'}",
        )


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
