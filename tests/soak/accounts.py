"""The work: accounts that are connected, synced, judged twice, and deleted.

The disk holds only the latest of them.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from integration_polling_hello_world import HelloWorld, expected
from integration_polling_hostile import Hostile
from integration_polling_hostile.deeds import GARBAGE
from support import oracle
from support.accounts import connect, sync

from core.ledger.scheduling import request_run
from soak.metered import Metered
from soak.world import World

OPEN = 10
"""The number of accounts that have work at any time."""

KEPT = 60
"""The number of judged accounts that stay, to be judged again: late messages may still arrive."""

PARKING = sorted({*GARBAGE, "permanent", "system_exit"} - {"return_endless_outputs"})
"""Deeds after which a task is parked, without the one that uses much memory on purpose."""

RUNS = """
SELECT trigger, state, joined, poll_due, started_at, finished_at FROM sync_run
WHERE user_integration_id = %s ORDER BY started_at
"""
LOCK = "SELECT FROM user_integration WHERE id = %s FOR NO KEY UPDATE"
NUMBER_OF_RUNS = "SELECT count(*) FROM sync_run WHERE user_integration_id = %s"
DUE = "UPDATE user_integration SET next_sync_at = now() WHERE id = %s"
STATES = """
SELECT a.id, count(r.id), count(r.id) FILTER (WHERE r.state = 'running') FROM user_integration a
LEFT JOIN sync_run r ON r.user_integration_id = a.id WHERE a.id = ANY (%s) GROUP BY a.id
"""
RARELY_DUE = "UPDATE user_integration SET poll_interval_minutes = 525600 WHERE id = %s"
NOT_DUE = "UPDATE user_integration SET next_sync_at = now() + interval '100 days' WHERE id = %s"
DONE_OF = "SELECT count(*) FROM sync_task WHERE state = 'done' AND user_integration_id = %s"
OF_ACCOUNTS = ("sync_task", "sync_state", "user_integration_content", "sync_run")


@dataclass
class Job:
    """An account and its expected result.

    Attributes:
      wanted: Returns the content after a number of runs: the hash of each item, or None for any.
      tasks: The number of tasks of a run by final state.
      ends: The final state of its runs.
      runs: The minimum number of runs.
      look: A further check, for an account with one run only.
      by_request: True if its first run is requested; otherwise the scheduler makes it.
      amiss: The numbers lost and duplicated when it was last judged.
      done: The number of done tasks when it was judged for the last time.
    """

    account: UUID
    wanted: Callable[[int], dict[str, str | None]]
    tasks: dict[str, int]
    ends: str = "succeeded"
    runs: int = 1
    look: Callable[[], None] | None = None
    by_request: bool = True
    amiss: tuple[int, int] = (0, 0)
    done: int | None = None


class Accounts:
    """Starts jobs, and judges them.

    Attributes:
      lost: The number of lost items and tasks of all judged accounts.
      duplicated: The number of duplicated items and tasks of all judged accounts.
      wrong: Descriptions of all other errors.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._deployment = world, world.deployment
        self._dice = random.Random(seed)
        self.open: dict[UUID, Job] = {}
        self._kept: deque[Job] = deque()
        self._forgotten = 0
        self.judged = self.runs = self.lost = self.duplicated = 0
        self.wrong: list[str] = []

    def step(self, *, begin: bool = True) -> None:
        """Check the open jobs, and start as many as have ended.

        Raises:
          psycopg.OperationalError: The server is unavailable; the next step does the rest.
        """
        for account, runs, running in self._deployment.rows(STATES, list(self.open)):
            job = self.open[account]
            if running:
                continue
            if not runs:
                self._ask_for(job)
            elif runs < job.runs:
                self._again(account, runs, by_tick=begin and self._dice.random() < 0.5)
            else:
                self.judge(job)
                self._kept.append(self.open.pop(account))
        while len(self._kept) > KEPT:
            self._forget(self._kept[0])
            self._kept.popleft()
        while begin and len(self.open) < OPEN:
            self._begin()

    def judge_kept(self) -> None:
        """Judge all remaining accounts once more."""
        for job in self._kept:
            self.judge(job, again=True)

    @property
    def tasks_done(self) -> int:
        """The number of tasks done since the start of the soak."""
        return self._forgotten + int(self._deployment.value(oracle.DONE))

    # Starting jobs
    # ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        kinds = {
            self._tree: 6,
            self._large: 1,
            self._growing: 2,
            self._hostile: 2,
            self._metered: 1,
        }
        [make] = self._dice.choices(list(kinds), list(kinds.values()))
        job = make()
        self.open[job.account] = job
        # Two of the plugins rely on a single run: the scheduler must not make a second one.
        job.by_request = job.runs == 1 or self._dice.random() < 0.5
        self._ask_for(job)

    def _ask_for(self, job: Job) -> None:
        """Request a run, or leave it to the scheduler's next tick.

        The next step repeats this if a server was unavailable.
        """
        self._deployment.rows(RARELY_DUE, job.account)
        if job.by_request:
            self._deployment.rows(NOT_DUE, job.account)
            sync(self._deployment, job.account)

    def _again(self, account: UUID, runs: int, *, by_tick: bool) -> None:
        """Ask for the next run, unless the one that an earlier step asked for has begun."""
        with self._deployment.connection() as connection, connection.transaction():
            connection.execute(LOCK, (account,))
            if connection.execute(NUMBER_OF_RUNS, (account,)).fetchone() != (runs,):
                return
            if by_tick:
                connection.execute(DUE, (account,))
            else:
                request_run(connection, account)
        self._deployment.queues.wake()

    def _tree(self, **given: int) -> Job:
        config: dict[str, Any] = {
            "pages": self._dice.randint(2, 8),
            "items": self._dice.randint(4, 10),
            "fanout_depth": self._dice.randint(0, 1),
            "delay_ms": self._dice.choice([0, 5, 20]),
            "fail_rate": {"transient": 0.01, "crash": 0.005, "rate_limited": 0.002},
            "seed": self._dice.randrange(1_000_000),
            **given,
        }
        account = connect(self._deployment, HelloWorld, config)
        job = Job(
            account, lambda runs: dict(expected(config, runs)), {"done": oracle.hello_tasks(config)}
        )
        job.look = lambda: oracle.assert_synced(self._world.fleet, account, config)
        return job

    def _large(self) -> Job:
        """Create a tree whose items go to the blob store."""
        return self._tree(pages=2, items=3, fanout_depth=0, item_bytes=1_100_000)

    def _growing(self) -> Job:
        job = self._tree(grow=self._dice.randint(1, 5))
        job.runs, job.look = 3, None
        return job

    def _hostile(self) -> Job:
        deeds = self._dice.choices([*PARKING, "skip", "sleep"], k=4)
        neighbours = self._dice.randint(10, 60)
        account = connect(self._deployment, Hostile, {"deeds": deeds, "neighbours": neighbours})
        parked = sum(deed in PARKING for deed in deeds)
        tasks = {"done": 1 + neighbours + len(deeds) - parked, "parked": parked}
        wanted: dict[str, str | None] = {
            f"neighbour-{number}": None for number in range(neighbours)
        }
        return Job(
            account,
            lambda runs: wanted,
            {k: v for k, v in tasks.items() if v},
            "partial" if parked else "succeeded",
        )

    def _metered(self) -> Job:
        calls = self._dice.randint(10, 60)
        wanted: dict[str, str | None] = {f"call-{number}": None for number in range(calls)}
        return Job(
            connect(self._deployment, Metered, {"calls": calls}),
            lambda runs: wanted,
            {"done": 1 + calls},
        )

    # Judging
    # ----------------------------------------------------------------------------------------------

    def judge(self, job: Job, *, again: bool = False) -> None:
        """Compare the content, tasks and runs of an account with the expected ones."""
        rows = self._deployment.rows
        runs = len(rows(oracle.RUNS, job.account))
        wanted, found = job.wanted(runs), dict(rows(oracle.CONTENT, job.account))
        tasks: Counter[str] = Counter(dict(rows(oracle.BY_STATE, job.account)))
        due = Counter({state: count * runs for state, count in job.tasks.items()})
        lost = len(wanted.keys() - found.keys()) + (due - tasks).total()
        other = [
            key
            for key, value in wanted.items()
            if value is not None and found.get(key, value) != value
        ]
        duplicated = len(found.keys() - wanted.keys()) + len(other) + (tasks - due).total()
        duplicated += len(rows(oracle.REWRITTEN, job.account))
        self.lost += max(lost - job.amiss[0], 0)
        self.duplicated += max(duplicated - job.amiss[1], 0)
        job.amiss = lost, duplicated
        if not again:
            self.judged, self.runs = self.judged + 1, self.runs + runs
        if lost or duplicated:
            self.wrong.append(
                f"account {job.account}: {lost} lost, {duplicated} duplicated; tasks {dict(tasks)}"
                f" of {dict(due)}; runs {rows(RUNS, job.account)}"
            )
        try:
            if job.look is not None and runs == 1:
                job.look()
            else:
                oracle.assert_runs(self._world.fleet, job.account, [job.ends] * runs)
        except AssertionError as error:
            self.wrong.append(f"account {job.account}: {error}")

    def _forget(self, job: Job) -> None:
        """Judge the account once more, and delete it.

        If a server became unavailable during the deletion, the next call deletes without judging.
        """
        if job.done is None:
            self.judge(job, again=True)
            job.done = self._deployment.value(DONE_OF, job.account)
            self._forgotten += job.done
            self._world.fleet.forget(str(job.account))
        for table in OF_ACCOUNTS:
            self._deployment.rows(
                f"DELETE FROM {table} WHERE user_integration_id = %s", job.account
            )
        self._deployment.rows("DELETE FROM user_integration WHERE id = %s", job.account)
