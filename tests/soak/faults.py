"""The faults, injected one at a time and at random, again and again.

They include all faults of the tests of single faults.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress

import psycopg
import redis
from support import outages
from support.fleet import Program
from support.redelivery import Redelivery

from soak.world import LEASE_SECONDS, World

MOST_SECONDS = 4.0
"""The longest outage in seconds, except for stalls that have to outlast timeouts."""

STALL_SECONDS = 12.0

LEAD = """
UPDATE engine_state SET leader = gen_random_uuid(),
    leader_until = clock_timestamp() + interval '3 seconds'
"""

Fault = Callable[[World, random.Random], None]


# Processes
# --------------------------------------------------------------------------------------------------


def _worker(world: World, dice: random.Random) -> int | None:
    workers = set(world.fleet.worker_pids()) - world.elder.children()
    return dice.choice(sorted(workers)) if workers else None


def _send(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def worker_killed(world: World, dice: random.Random) -> None:
    """Kill a worker process with SIGKILL; Dramatiq then ends its siblings."""
    _send(_worker(world, dice), signal.SIGKILL)


def worker_stopped(world: World, dice: random.Random) -> None:
    """Stop a worker process with SIGSTOP until its leases have expired, then continue it."""
    pid = _worker(world, dice)
    _send(pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + dice.uniform(1, MOST_SECONDS))
    _send(pid, signal.SIGCONT)


def dispatcher_killed(world: World, dice: random.Random) -> None:
    """Kill a dispatcher with SIGKILL; Dramatiq does not replace it."""
    dispatchers = set(world.fleet.dispatcher_pids()) - world.elder.children()
    _send(dice.choice(sorted(dispatchers)) if dispatchers else None, signal.SIGKILL)


def program_killed(world: World, dice: random.Random) -> None:
    """Kill all processes of a program with SIGKILL."""
    _kill(dice.choice(world.victims))


def all_killed(world: World, dice: random.Random) -> None:
    """Kill all processes of all programs except the elder with SIGKILL."""
    for program in (*world.victims, world.scheduler):
        _kill(program)


def program_terminated(world: World, dice: random.Random) -> None:
    """Stop a program with SIGTERM, as a deploy does."""
    _send(dice.choice(world.victims).pid, signal.SIGTERM)


def scheduler_killed(world: World, dice: random.Random) -> None:
    """Kill `periodiq core.actors` with SIGKILL."""
    _kill(world.scheduler)


def _kill(program: Program) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)


def leader_deposed(world: World, dice: random.Random) -> None:
    """Let a leader that does nothing lead for three seconds."""
    world.deployment.rows(LEAD)


# Servers
# --------------------------------------------------------------------------------------------------


def flushed(world: World, dice: random.Random) -> None:
    """Run FLUSHALL."""
    world.deployment.queues.client.flushall()


def messages_repeated(world: World, dice: random.Random) -> None:
    """Deliver each message three times for some seconds, and then once more."""
    with Redelivery(world.deployment.queues, "hello-world") as redelivery:
        time.sleep(dice.uniform(1, MOST_SECONDS))
    redelivery.again()


def valkey_killed(world: World, dice: random.Random) -> None:
    """Kill Valkey with SIGKILL, and start a new one after some time."""
    world.servers.valkey.kill()
    time.sleep(dice.uniform(0, MOST_SECONDS))
    world.servers.valkey.start()


def postgres_killed(world: World, dice: random.Random) -> None:
    """Kill PostgreSQL with SIGKILL, and let it recover."""
    world.servers.postgres.kill()
    time.sleep(dice.uniform(0, MOST_SECONDS))
    world.servers.postgres.start()


def postgres_restarted(world: World, dice: random.Random) -> None:
    """Restart PostgreSQL with a fast shutdown."""
    world.servers.postgres.restart()


def sessions_terminated(world: World, dice: random.Random) -> None:
    """Run `pg_terminate_backend` on two sessions of the engine per second."""
    with outages.terminating(world.deployment):
        time.sleep(dice.uniform(2, MOST_SECONDS))


def _lasting(
    enter: Callable[[World], AbstractContextManager[object]], seconds: float | None = None
) -> Fault:
    def fault(world: World, dice: random.Random) -> None:
        with enter(world):
            time.sleep(seconds or dice.uniform(1, MOST_SECONDS))

    return fault


def transaction_left_open(world: World, dice: random.Random) -> None:
    """Leave a transaction idle for half a minute, while other faults are injected."""

    def idle() -> None:
        with suppress(psycopg.Error), psycopg.connect(world.deployment.database_url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT count(*) FROM engine_state")
            time.sleep(30)

    threading.Thread(target=idle, daemon=True).start()


KINDS: Mapping[str, tuple[int, Fault]] = {
    "worker killed": (4, worker_killed),
    "worker stopped beyond its lease": (2, worker_stopped),
    "dispatcher killed": (3, dispatcher_killed),
    "program killed": (2, program_killed),
    "all programs killed": (1, all_killed),
    "program terminated": (3, program_terminated),
    "scheduler killed": (1, scheduler_killed),
    "leader deposed": (2, leader_deposed),
    "Valkey flushed": (3, flushed),
    "every message again": (2, messages_repeated),
    "Valkey killed": (2, valkey_killed),
    "Valkey stalled": (
        1,
        _lasting(lambda world: outages.stalled(world.servers.valkey), STALL_SECONDS),
    ),
    "Valkey read-only": (2, _lasting(lambda world: outages.read_only(world.deployment.redis_url))),
    "Valkey out of memory": (
        2,
        _lasting(lambda world: outages.out_of_memory(world.deployment.redis_url)),
    ),
    "Valkey without replicas": (
        1,
        _lasting(lambda world: outages.too_few_replicas(world.deployment.redis_url)),
    ),
    "PostgreSQL killed": (2, postgres_killed),
    "PostgreSQL restarted": (1, postgres_restarted),
    "sessions terminated": (3, sessions_terminated),
    "connections exhausted": (1, _lasting(lambda world: outages.exhausted(world.deployment))),
    "disk full": (1, _lasting(lambda world: outages.disk_full(world.deployment))),
    "transaction left open": (1, transaction_left_open),
}
"""The weight and the function of each fault, by name."""


class Injector:
    """Injects faults from a thread of its own.

    Args:
      pause: Seconds from the start of one fault to the start of the next. At least half of a pause
        is between them.
    """

    def __init__(self, world: World, seed: int, pause: float) -> None:
        self.injected: Counter[str] = Counter()
        self.failed: list[str] = []
        self.now = ""
        self._world, self._pause = world, pause
        self._dice = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="faults")

    def _loop(self) -> None:
        due = time.monotonic()
        bag: list[str] = []
        while not self._stop.wait(max(due - time.monotonic(), self._pause / 2)):
            due = max(due + self._pause, time.monotonic() - 2 * self._pause)
            if not bag:  # each kind occurs as often as its weight, in a random order
                bag = [name for name, (often, _) in KINDS.items() for _ in range(often)]
                self._dice.shuffle(bag)
            self._inject(bag.pop())

    def _inject(self, name: str) -> None:
        self.now = name
        try:
            KINDS[name][1](self._world, self._dice)
            self.injected[name] += 1
        except (psycopg.Error, redis.RedisError) as error:
            # The server may not be ready yet for the next fault.
            self.failed.append(f"{name}: {type(error).__name__}: {error}")
        finally:
            self.now = ""

    def stop(self) -> None:
        """Let the current fault finish, and inject no more."""
        self._stop.set()
        self._thread.join()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()


def undo(world: World) -> None:
    """Undo the changes that an aborted fault may have left."""
    world.servers.start()
    with redis.Redis.from_url(world.deployment.redis_url) as client:
        client.replicaof("NO", "ONE")
        for name in ("maxmemory", "min-replicas-to-write"):
            client.config_set(name, "0")
    world.deployment.rows("DROP FUNCTION IF EXISTS disk_full CASCADE")
