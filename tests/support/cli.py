"""The command line in processes of its own, as a new user runs it, and an FTP server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # on Python 3.11, pyftpdlib uses the standard library's asyncore
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

from core.embedded.postgres import Postgres
from core.embedded.valkey import Valkey
from support import forks, waiting

PROGRAM = forks.POLLING
USERNAME, PASSWORD = "someone", "correct-horse-battery"


def stop_servers(home: Path) -> None:
    """Stop the embedded servers of a home, if they run."""
    Postgres(home / "embedded").stop()
    Valkey(home / "embedded").stop()


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until the condition returns a true value, and return that value."""
    return waiting.until(condition, "the condition is true", seconds)


@dataclass
class Done:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the last line, parsed."""
        return json.loads(self.out.splitlines()[-1])

    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs commands with one home; they never prompt.

    Args:
      folder: Their working directory, which contains the home.
      forked: True if the commands run in forks of one program, which is faster. Default: False,
        each command is started as a person starts it.
      **settings: Environment variables to add.
    """

    def __init__(self, folder: Path, *, forked: bool = False, **settings: str) -> None:
        self.folder = folder
        self.forked = forked
        self.home = folder / "home"
        self.api = ""
        drop = ("DATABASE_URL", "REDIS_URL")
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in drop and not key.startswith("POLLING_")
        }
        self.env = kept | {"POLLING_HOME": str(self.home)} | settings

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE) | {
            "stdin": subprocess.DEVNULL
        }
        return subprocess.Popen(
            [*PROGRAM, *words], cwd=self.folder, env=self.env, text=True, **(pipes | more)
        )

    def __call__(self, *words: str, given: str | None = None) -> Done:
        if self.forked:
            done = Done(*forks.polling(words, self.env, self.folder, given or ""))
        else:
            done = self._started(words, given)
        assert "Traceback" not in done.err, done.err
        return done

    def _started(self, words: Sequence[str], given: str | None) -> Done:
        stdin = {"stdin": subprocess.PIPE} if given is not None else {}
        process = self.start(*words, **stdin)
        try:
            out, err = process.communicate(given, timeout=120)
        except BaseException:
            process.kill()
            raise
        return Done(process.returncode, out, err)

    def ok(self, *words: str, given: str | None = None) -> Done:
        """Run a command that has to succeed."""
        done = self(*words, given=given)
        assert done.code == 0, done
        return done

    def fails(self, *words: str, code: int = 1, given: str | None = None) -> str:
        """Run a command that has to fail, and return its error.

        The error is one line, with an optional hint below it.
        """
        done = self(*words, given=given)
        assert done.code == code, done
        assert done.err.startswith("error: "), done
        assert 1 <= done.err.count("\n") <= 2, done
        return done.err

    def connect(self, name: str, **config: Any) -> str:
        """Connect a hello-world account, and return its id."""
        words = [
            "connect",
            "hello-world",
            "--name",
            name,
            "--config",
            json.dumps({"name": name} | config),
            "--json",
        ]
        return str(self.ok(*words).json()["id"])


@contextmanager
def up(cli: Cli) -> Iterator[list[str]]:
    """Run `polling up` from its welcome until Ctrl-C, and yield its output."""
    words = ("up", "--processes", "1", "--threads", "4")
    process = cli.start(*words, stderr=subprocess.STDOUT, start_new_session=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        until(
            lambda: (
                process.poll() is not None
                or any("Next, in another terminal" in line for line in lines)
            )
        )
        assert process.poll() is None, "".join(lines)
        yield lines
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, "".join(lines)
    finally:
        process.kill()
        reader.join(10)
        process.stdout.close()  # type: ignore[union-attr]


@contextmanager
def ftp_server(home: Path) -> Iterator[int]:
    """Serve a directory with a real FTP server, and yield its port."""
    authorizer, loop, stopping = DummyAuthorizer(), IOLoop(), threading.Event()
    authorizer.add_user(USERNAME, PASSWORD, str(home), perm="elr")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer, "auth_failed_timeout": 0})
    server = FTPServer(("127.0.0.1", 0), handler, ioloop=loop)

    def serve() -> None:
        while not stopping.is_set():
            loop.loop(timeout=0.01, blocking=False)
        server.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.address[1]
    finally:
        stopping.set()
        thread.join(10)
