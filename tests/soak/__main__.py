"""`python -m soak --minutes 30`: exits with 1 if anything was lost, done twice, ended early,
over its budget, or grew.
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
from soak.faults import Injector, mend
from soak.memory import Memory
from soak.metered import UNITS, most_in_a_window
from soak.report import SHOWN, Result, progress, write
from soak.world import World

FAULT_SECONDS = 6.5
"""From one fault to the next: more than 250 in half an hour."""

STEP_SECONDS = 0.5
LINE_SECONDS = 10.0

QUIET_SECONDS = 240.0
"""How long the last work may take once nothing more is done to it."""

AWAY = (psycopg.Error, redis.RedisError)


def main() -> int:
    """Soak, and tell."""
    given = _arguments()
    # Also where it was started with one of them ignored.
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
    """End what was started, wherever we are."""
    raise SystemExit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults are injected")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the work and of the faults"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write the table there, between the marks of a page if it has them",
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
        mend(self.world)
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
        """What is open ends by itself; then everything that is left is looked at once more."""
        print("no more faults; what is open ends by itself")
        deadline = time.monotonic() + QUIET_SECONDS
        while self.accounts.open and time.monotonic() < deadline:
            self._step(begin=False)
            time.sleep(STEP_SECONDS)
        try:
            oracle.wait_for_quiet(self.world.fleet, 60)
        except AssertionError as error:
            self.accounts.wrong.append(f"not quiet: {error}")
        for account in self.accounts.open:
            self.accounts.wrong.append(f"account {account} did not come to its end")
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
            # A call that has its units may wait in a process that is stopped, one in each thread.
            calls_allowed=UNITS + self.world.threads,
            memory=self.memory.growth(self.minutes * 60),
            memory_judged=self.minutes * 60 / 4 >= 10 * LINE_SECONDS,
            wrong=a.wrong,
        )


if __name__ == "__main__":
    sys.exit(main())
