"""The supervisor in a process of its own, with real programs, signals and deaths."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from core import supervisor

DRIVER = """
import sys
from core.supervisor import Program, Supervisor
grace, *scripts = sys.argv[1:]
programs = [
    Program(f"p{index}", ["/bin/sh", "-c", script], {"WORD": "given"})
    for index, script in enumerate(scripts)
]
echo = lambda name, line: print(f"{name}|{line}", flush=True)
sys.exit(Supervisor(programs, grace=float(grace), echo=echo).run())
"""
SLEEP = "sleep 1000 & echo pid=$!; echo pid=$$; wait"
"""A script that prints two process ids.

After SIGTERM it leaves its child running, like a master process whose workers hang.
"""
DEAF = "trap '' TERM; echo pid=$$; while :; do sleep 1000; done"


class Run:
    """A running supervisor with its output, and with every process id in it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def line(self, pattern: str) -> re.Match[str]:
        """Return the next line that matches."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"no line like {pattern!r} in {self.lines}")

    def pid(self, name: str) -> int:
        return int(self.line(rf"^{name}\|pid=(\d+)")[1])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process.stdout
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(20)

    @property
    def pids(self) -> list[int]:
        return [int(found) for line in self.lines for found in re.findall(r"pid=(\d+)", line)]


@contextmanager
def supervised(*scripts: str, grace: float = 20) -> Iterator[Run]:
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(grace), *scripts],
        cwd=Path(supervisor.__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = Run(process)
    try:
        yield run
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
        for pid in run.pids:
            if alive(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Return True if the process runs. A zombie does not run."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def test_a_killed_program_is_restarted_and_its_workers_are_ended() -> None:
    with supervised(SLEEP) as run:
        worker, first = run.pid("p0"), run.pid("p0")
        os.kill(first, signal.SIGKILL)
        run.line("p0.ended with SIGKILL")
        run.pid("p0")
        assert run.pid("p0") != first
        assert not alive(worker)


def test_the_supervisor_waits_longer_before_each_restart() -> None:
    with supervised("echo pid=$$; exit 3") as run:
        moments = []
        for _ in range(3):
            run.pid("p0")
            moments.append(time.monotonic())
            run.line("p0.ended with exit code 3")
        assert moments[1] - moments[0] > 0.4
        assert moments[2] - moments[1] > 0.9


def test_a_program_that_cannot_be_started_is_reported() -> None:
    echoed: list[tuple[str, str]] = []

    def echo(name: str, line: str) -> None:
        echoed.append((name, line))
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert (
        supervisor.Supervisor([supervisor.Program("lost", ["/no/such/program"])], echo=echo).run()
        == 0
    )
    assert echoed == [("lost", "cannot start /no/such/program: No such file or directory")]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_programs(number: signal.Signals) -> None:
    polite = "trap 'echo bye; exit 0' TERM; sleep 1000 & echo pid=$!; wait"
    with supervised(SLEEP, polite) as run:
        ids = {run.pid("p1")}
        while len(run.pids) < 3:
            run.line("pid=")
        assert run.end(number) == 0
        assert "p1|bye" in run.lines
        ids |= set(run.pids)
        until(lambda: not any(alive(pid) for pid in ids))


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    with supervised(DEAF, SLEEP, grace=1) as run:
        deaf = run.pid("p0")
        began = time.monotonic()
        assert run.end() == 1
        assert 0.9 < time.monotonic() - began < 10
        assert "p0|did not stop in time and was killed" in run.lines
        assert not alive(deaf)


def test_a_second_ctrl_c_kills_all_programs_immediately() -> None:
    with supervised(
        DEAF, "trap 'echo asked' TERM; echo pid=$$; while :; do sleep 0.01; done", grace=1000
    ) as run:
        deaf = run.pid("p0")
        while len(run.pids) < 2:
            run.line("pid=")
        run.process.send_signal(signal.SIGINT)
        run.line("p1.asked")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 1
        assert not alive(deaf)


def test_no_orphan_remains_when_the_supervisor_is_killed() -> None:
    with supervised(SLEEP, DEAF) as run:
        while len(run.pids) < 3:
            run.line("pid=")
        # The guard has to know the process group of a restarted program, too.
        os.kill(run.pids[-1], signal.SIGKILL)
        run.line("ended with SIGKILL")
        count = len(run.pids)
        while len(run.pids) == count:
            run.line("pid=")
        run.process.kill()
        run.process.wait()
        until(lambda: not any(alive(pid) for pid in run.pids))


def test_output_lines_stay_complete_and_name_their_program() -> None:
    slow = (
        'for i in 1 2 3 4 5 6 7 8 9; do printf "%s" "<slow "; sleep 0.01; echo "$WORD>"; done;'
        ' printf "no end"'
    )
    fast = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo '<fast>'; done"
    with supervised(slow, fast) as run:
        run.line(r"p0\|ended with exit code 0")
        run.end()
        first = run.lines[: run.lines.index("p0|ended with exit code 0")]
        assert [line for line in first if line.startswith("p0|")] == ["p0|<slow given>"] * 9 + [
            "p0|no end"
        ]
        assert {line for line in run.lines if line.startswith("p1|")} <= {
            "p1|<fast>",
            "p1|ended with exit code 0",
        }
        assert run.lines.count("p1|<fast>") >= 2000
