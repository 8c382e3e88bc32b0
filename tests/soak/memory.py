"""Samples of the memory of Valkey and of processes that are as old as the soak."""

from __future__ import annotations

import statistics
import subprocess
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
import redis

from soak.world import World

MIB = 1024 * 1024

MAY_GROW_BY, AND_BY_MIB = 1.10, 8.0
"""The allowed growth from the second quarter to the last.

It is more than warming up takes, and less than a leak adds in half an hour.
"""

SHORTEST_JUDGED = 5
"""The minimum number of samples of a quarter; fewer show only how a process warms up."""

WORKER, DISPATCHER, VALKEY = "worker", "dispatcher", "Valkey"

REGISTERED = "SELECT pid FROM process WHERE kind = 'worker'"


@dataclass
class Memory:
    """Samples in MiB, by process.

    The process id is part of the key: a replaced process has samples of its own.
    """

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def sample(self, world: World, at: float) -> None:
        """Measure all processes now; leave out servers that are unavailable."""
        with suppress(redis.RedisError):
            used = world.deployment.queues.client.info("memory")["used_memory"]
            self.samples[VALKEY].append((at, used / MIB))
        with suppress(psycopg.Error):
            workers = {pid for (pid,) in world.deployment.rows(REGISTERED)}
            for pid, mib in _resident(world.elder.children()).items():
                self.samples[f"{WORKER if pid in workers else DISPATCHER}/{pid}"].append((at, mib))

    def latest(self) -> dict[str, float]:
        """Return the last sample of each process."""
        return {name.split("/")[0]: samples[-1][1] for name, samples in self.samples.items()}

    def growth(self, seconds: float) -> dict[str, tuple[float, float] | None]:
        """Return the medians of the second and the last quarter, by kind.

        The value is None if no process lived through both.
        """
        found: dict[str, tuple[float, float] | None] = dict.fromkeys((WORKER, DISPATCHER, VALKEY))
        for name, samples in self.samples.items():
            second = [mib for at, mib in samples if seconds / 4 <= at < seconds / 2]
            last = [mib for at, mib in samples if at >= seconds * 3 / 4]
            if min(len(second), len(last)) >= SHORTEST_JUDGED:
                found[name.split("/")[0]] = statistics.median(second), statistics.median(last)
        return found


def grows(second: float, last: float) -> bool:
    """Return True if memory grew more than allowed."""
    return last > second * MAY_GROW_BY + AND_BY_MIB


def _resident(pids: set[int]) -> dict[int, float]:
    if not pids:
        return {}
    command = ["ps", "-o", "pid=,rss=", "-p", ",".join(map(str, pids))]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return {int(pid): int(kib) / 1024 for pid, kib in (line.split() for line in lines)}
