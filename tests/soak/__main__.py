"""Run a soak: `python -m soak --minutes 30`.

It exits with 1 if anything was lost, done twice, ended early, exceeded its budget, or grew.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psycopg
import redis
from support import oracle

from soak.accounts import Accounts
from soak.faults import Injector, undo
from soak.memory import Memory
from soak.metered import UNITS, most_in_a_window
from soak.report import SHOWN, Result, progress, write
from soak.world import World

FAULT_SECONDS = 6.5
"""The number of seconds between two faults, for more than 250 faults in half an hour."""

STEP_SECONDS = 0.5
LINE_SECONDS = 10.0

QUIET_SECONDS = 240.0
"""The number of seconds that the last work may take after the last fault."""

AWAY = (psycopg.Error, redis.RedisError)


def main() -> int:
    """Run the soak, print its result, and return the exit code."""
    given = _arguments()
    # This also covers a start with one of the signals ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    with World(given.seed) as world:
        result = _Soak(world, given.minutes, given.seed).run()
        world.keep = bool(result.failures)
    print("\n" + result.as_markdown())
    if given.report:
        write(Path(given.report), result.as_markdown())
    for failure in result.failures[:SHOWN]:
        print(f"FAILED: {failure}")
    print(json.dumps(result.as_json()))
    return 1 if result.failures else 0


def _leave(number: int, frame: FrameType | None) -> None:
    """Exit, so that every started program is stopped."""
    raise SystemExit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults are injected")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="random seed for the work and the faults"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write the table to FILE, between its soak marks if it has any",
    )
    return parser.parse_args()


class _Soak:
    def __init__(self, world: World, minutes: float, seed: int) -> None:
        self.world, self.minutes, self.seed = world, minutes, seed
        self.accounts, self.memory = Accounts(world, seed), Memory()
        self.injector = Injector(world, seed, FAULT_SECONDS)
        self.began = time.monotonic()
        self.tasks = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def run(self) -> Result:
        self.injector.start()
        try:
            line = 0.0
            while self.seconds < self.minutes * 60:
                self._step(begin=True)
                if self.seconds >= line:
                    line = self.seconds + LINE_SECONDS
                    self._say()
                time.sleep(STEP_SECONDS)
        finally:
            self.injector.stop()
        undo(self.world)
        self._come_to_quiet()
        self._say()
        return self._result()

    def _step(self, *, begin: bool) -> None:
        self.world.fleet.supervise()
        with suppress(*AWAY):
            self.accounts.step(begin=begin)

    def _say(self) -> None:
        with suppress(*AWAY):
            self.memory.sample(self.world, self.seconds)
            self.tasks = self.accounts.tasks_done
        a, i = self.accounts, self.injector
        print(
            progress(
                self.seconds,
                self.tasks,
                a.runs,
                a.lost,
                a.duplicated,
                i.injected,
                i.now,
                self.memory.latest(),
            )
        )
        sys.stdout.flush()

    def _come_to_quiet(self) -> None:
        """Let the open work finish without faults, then judge all remaining accounts again."""
        print("no more faults; waiting for the open work")
        deadline = time.monotonic() + QUIET_SECONDS
        while self.accounts.open and time.monotonic() < deadline:
            self._step(begin=False)
            time.sleep(STEP_SECONDS)
        try:
            oracle.wait_for_quiet(self.world.fleet, 60)
        except AssertionError as error:
            self.accounts.wrong.append(f"not quiet: {error}")
        for account in self.accounts.open:
            self.accounts.wrong.append(f"account {account} was not finished")
        self.accounts.judge_kept()

    def _result(self) -> Result:
        a = self.accounts
        return Result(
            minutes=self.minutes,
            seed=self.seed,
            accounts=a.judged,
            runs=a.runs,
            tasks=self.tasks,
            faults=dict(self.injector.injected),
            not_injected=self.injector.failed,
            replaced=self.world.fleet.replaced,
            lost=a.lost,
            duplicated=a.duplicated,
            most_calls=most_in_a_window(self.world.calls_log),
            # A call that has taken its units may wait in a stopped process: at most one per thread.
            calls_allowed=UNITS + self.world.threads,
            memory=self.memory.growth(self.minutes * 60),
            memory_judged=self.minutes * 60 / 4 >= 10 * LINE_SECONDS,
            wrong=a.wrong,
        )


if __name__ == "__main__":
    sys.exit(main())
