"""Run the programs of `polling up`: print their output, restart them, and stop them together."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Self

from core.backoff import growing_pause

Echo = Callable[[str, str], None]

_RESTART_SECONDS = (0.5, 30.0)
_SETTLED_AFTER = 60.0
_CHUNK = 65536
_CHUNKS_IN_PIPE = 2
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# The guard reads a line with all process groups each time they change. When the supervisor is gone,
# it kills the last groups that it read. A killed supervisor cannot do this itself, and workers that
# a program forks are not the supervisor's children.
_GUARD = 'while read -r line; do groups=$line; done; [ -z "$groups" ] || kill -s KILL -- $groups'


@dataclass(frozen=True)
class Program:
    """A program to keep running.

    Args:
      name: The prefix of its output lines.
      argv: The command, as a list.
      env: Variables to add to the supervisor's environment.
      fds: File descriptors that the program inherits, with the same numbers. Default: none.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    fds: Sequence[int] = ()


class Supervisor:
    """Start each program in its own session, and restart it when it exits with any code.

    The pause before a restart doubles from 0.5 to 30 seconds. It is reset after a program has run
    for 60 seconds. On SIGINT, SIGTERM or SIGHUP, the supervisor sends SIGTERM to each program, and
    later SIGKILL to process groups that remain. If the supervisor itself is killed, a guard process
    kills the groups.

    Args:
      programs: The programs to run.
      echo: Receives a program's name and one line of its output. Default: prints both.
      grace: Seconds for the programs to stop. Default: 30. A second Ctrl-C ends the wait.
    """

    def __init__(
        self, programs: Sequence[Program], *, echo: Echo | None = None, grace: float = 30.0
    ) -> None:
        self._echo = echo or print_line
        self._children = [_Child(program, self._echo) for program in programs]
        self._grace = grace
        self._kill_at: float | None = None
        self._clean = True

    def run(self) -> int:
        """Run the programs and block until all have ended. Only the main thread may call it.

        Returns:
          0 if all programs stopped after SIGTERM, 1 if one had to be killed.
        """
        with _signals() as signals, _Guard() as guard, selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            try:
                while self._kill_at is None or any(child.running for child in self._children):
                    self._step(selector, guard)
                    for number in _pending(signals):
                        self._on_signal(signal.Signals(number))
            finally:
                for child in self._children:  # kill all first: a later step may fail
                    child.kill()
                for child in self._children:
                    child.reap(selector)
        return 0 if self._clean else 1

    def _step(self, selector: selectors.BaseSelector, guard: _Guard) -> None:
        """Start programs that are due, kill overdue ones, and wait for the next event."""
        now = time.monotonic()
        if self._kill_at is None:
            for child in self._children:
                if not child.running and child.due <= now:
                    child.start(selector)
        elif self._kill_at <= now:
            self._kill()
        guard.protect([child.pid for child in self._children if child.running])
        for key, _ in selector.select(self._timeout(now)):
            if isinstance(key.data, _Child):
                key.data.read(selector)
        for child in self._children:
            if child.running and child.ended():
                child.kill()
                child.reap(selector)

    def _timeout(self, now: float) -> float | None:
        if self._kill_at is not None:
            return max(0.0, self._kill_at - now)
        waits = [child.due - now for child in self._children if not child.running]
        return max(0.0, min(waits)) if waits else None

    def _on_signal(self, number: signal.Signals) -> None:
        if number not in _ENDING:
            return
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace
            for child in self._children:
                child.terminate()
        elif number == signal.SIGINT:
            self._kill_at = time.monotonic()

    def _kill(self) -> None:
        for child in self._children:
            if child.running:
                self._clean = False
                self._echo(child.program.name, "did not stop in time and was killed")
                child.kill()
        self._kill_at = time.monotonic() + 1.0


class _Child:
    """A program with its process, if it runs, and the time of its next start."""

    def __init__(self, program: Program, echo: Echo) -> None:
        self.program = program
        self.due = 0.0
        self._echo = echo
        self._process: subprocess.Popen[bytes] | None = None
        self._born = 0.0
        self._restarts = 0
        self._partial = b""

    @property
    def running(self) -> bool:
        """True while the program has a process."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process is not None
        return self._process.pid

    def start(self, selector: selectors.BaseSelector) -> None:
        """Start the program; if that fails, schedule the next try."""
        self._born = time.monotonic()
        try:
            self._process = subprocess.Popen(
                self.program.argv,
                # Without this, Python buffers its output to a pipe.
                env={"PYTHONUNBUFFERED": "1", **os.environ, **self.program.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.program.fds,
            )
        except OSError as error:
            self._schedule(f"cannot start {self.program.argv[0]}: {error.strerror}")
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        selector.register(self._process.stdout, selectors.EVENT_READ, self)

    def read(self, selector: selectors.BaseSelector) -> None:
        """Read one chunk of output and print its lines. The next call reads the next chunk."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            chunk = os.read(self._process.stdout.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._unregister(selector)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            self._say(line)
        if not chunk or len(self._partial) > _CHUNK:
            self._flush()

    def ended(self) -> bool:
        """Return true if the process has exited and is not reaped yet."""
        return self._process is not None and self._process.poll() is not None

    def terminate(self) -> None:
        """Send SIGTERM to the program, but not to its group.

        Dramatiq's master forwards the signal to its workers, which exit immediately on a second
        signal.
        """
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill the rest of its process group, such as workers whose master has died."""
        if self._process is not None:
            # macOS: no permission for a group of zombies.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self, selector: selectors.BaseSelector) -> None:
        """Print the program's last output and schedule its restart."""
        if self._process is None:
            return
        code = self._process.wait()
        # Do not read to the end of the pipe: a process that left the group may keep it open.
        for _ in range(_CHUNKS_IN_PIPE):
            self.read(selector)
        self._flush()
        self._unregister(selector)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        self._schedule(f"ended with {_meaning(code)}")

    def _unregister(self, selector: selectors.BaseSelector) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with suppress(KeyError):  # the output may end before the program
            selector.unregister(self._process.stdout)

    def _schedule(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._born >= _SETTLED_AFTER:
            self._restarts = 0
        self.due = now + growing_pause(*_RESTART_SECONDS, self._restarts)
        self._restarts += 1
        self._echo(self.program.name, reason)

    def _flush(self) -> None:
        if self._partial:
            self._say(self._partial)
            self._partial = b""

    def _say(self, line: bytes) -> None:
        self._echo(self.program.name, line.decode("utf-8", "replace").rstrip("\r"))


class _Guard:
    """A process that kills the remaining groups if the supervisor is killed."""

    def __init__(self) -> None:
        self._protected: list[int] = []
        self._process = self._start()

    def protect(self, groups: list[int]) -> None:
        """Send the guard the process groups that run now."""
        if groups == self._protected and self._process.poll() is None:
            return
        try:
            self._send(groups)
        except BrokenPipeError:  # the guard was killed
            self._end()
            self._process = self._start()
            self._send(groups)
        self._protected = groups

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._send([])
        self._end()

    def _send(self, groups: list[int]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(f"-{group}" for group in groups).encode() + b"\n")

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", _GUARD],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@contextmanager
def _signals() -> Iterator[int]:
    """Open a descriptor that yields the numbers of arriving signals.

    The signals have no other effect inside the block.
    """

    def ignore(_number: int, _frame: FrameType | None) -> None:
        pass

    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    # A signal that the parent ignores, as nohup does, stays ignored.
    caught = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ignore) for number in (signal.SIGCHLD, *caught)}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(reader)
        os.close(writer)


def _pending(signals: int) -> bytes:
    try:
        return os.read(signals, 4096)
    except BlockingIOError:
        return b""


def _meaning(code: int) -> str:
    with suppress(ValueError):
        if code < 0:
            return signal.Signals(-code).name
    return f"exit code {code}"


def print_line(name: str, line: str) -> None:
    """Print a line of the output of a program, with the name of the program."""
    sys.stdout.write(f"{name:<10} | {line}\n")
    sys.stdout.flush()
