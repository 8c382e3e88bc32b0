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

MAX_PAUSE_SECONDS = 4.0
"""The longest outage in seconds, except for stalls that have to outlast timeouts."""

STALL_SECONDS = 12.0

CUT_SECONDS = 10.0
"""The longest time for which one side of the network is cut: longer than a lease."""

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
    time.sleep(LEASE_SECONDS + dice.uniform(1, MAX_PAUSE_SECONDS))
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
        time.sleep(dice.uniform(1, MAX_PAUSE_SECONDS))
    redelivery.again()


def valkey_killed(world: World, dice: random.Random) -> None:
    """Kill Valkey with SIGKILL, and start a new one after some time."""
    world.servers.valkey.kill()
    time.sleep(dice.uniform(0, MAX_PAUSE_SECONDS))
    world.servers.valkey.start()


def postgres_killed(world: World, dice: random.Random) -> None:
    """Kill PostgreSQL with SIGKILL, and let it recover."""
    world.servers.postgres.kill()
    time.sleep(dice.uniform(0, MAX_PAUSE_SECONDS))
    world.servers.postgres.start()


def postgres_restarted(world: World, dice: random.Random) -> None:
    """Restart PostgreSQL with a fast shutdown."""
    world.servers.postgres.restart()


def sessions_terminated(world: World, dice: random.Random) -> None:
    """Run `pg_terminate_backend` on two sessions of the engine per second."""
    with outages.terminating(world.deployment):
        time.sleep(dice.uniform(2, MAX_PAUSE_SECONDS))


def _lasting(
    enter: Callable[[World], AbstractContextManager[object]], seconds: float | None = None
) -> Fault:
    def fault(world: World, dice: random.Random) -> None:
        with enter(world):
            time.sleep(seconds or dice.uniform(1, MAX_PAUSE_SECONDS))

    return fault


def transaction_left_open(world: World, dice: random.Random) -> None:
    """Leave a transaction idle for half a minute, while other faults are injected."""

    def idle() -> None:
        with suppress(psycopg.Error), psycopg.connect(world.deployment.database_url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT count(*) FROM engine_state")
            time.sleep(30)

    threading.Thread(target=idle, daemon=True).start()


# One side only
# --------------------------------------------------------------------------------------------------

LEADER_IS = """
UPDATE engine_state SET leader = id, leader_until = clock_timestamp() + interval '10 seconds'
FROM (SELECT id FROM process WHERE kind = 'dispatcher' AND pid = ANY(%s) LIMIT 1) chosen
"""
A_DAY_AHEAD = (
    "UPDATE engine_state SET leader_until = clock_timestamp() + interval '1 day'",
    "UPDATE process SET seen_at = seen_at + interval '1 day'",
    "UPDATE sync_task SET lease_until = lease_until + interval '1 day' WHERE state = 'queued'",
    """
    UPDATE sync_task SET available_at = clock_timestamp() + interval '1 day 1 minute'
    WHERE state = 'ready' AND snoozes = 0
    """,
    """
    UPDATE limit_block SET until = until + interval '1 day',
        blocked_at = blocked_at + interval '1 day'
    """,
    """
    UPDATE breaker SET probe_at = probe_at + interval '1 day',
        paused_at = paused_at + interval '1 day'
    """,
    """
    UPDATE user_integration SET refresh_until = refresh_until + interval '1 day',
        next_sync_at = next_sync_at + interval '400 days'
    WHERE next_sync_at <= clock_timestamp()
    """,
)


def leader_without_redis(world: World, dice: random.Random) -> None:
    """Let the dispatcher of the remote program lead, and cut its way to Redis."""
    world.deployment.rows(LEADER_IS, list(world.remote.children()))
    with world.network.cut("redis", silent=dice.random() < 0.5):
        time.sleep(dice.uniform(4, CUT_SECONDS))


def without_postgres(world: World, dice: random.Random) -> None:
    """Cut the remote program off from PostgreSQL."""
    with world.network.cut("postgres", silent=dice.random() < 0.5):
        time.sleep(dice.uniform(4, CUT_SECONDS))


def half_open(world: World, dice: random.Random) -> None:
    """Silence all connections of the remote program. New ones work soon; these never will."""
    with world.network.cut("postgres", "redis", silent=True):
        time.sleep(dice.uniform(1, MAX_PAUSE_SECONDS))


def clock_set_back(world: World, dice: random.Random) -> None:
    """Leave every deadline as a clock has written it that was a day ahead."""
    for statement in A_DAY_AHEAD:
        world.deployment.rows(statement)


def blobs_away(world: World, dice: random.Random) -> None:
    """Put a file in the place of the blob store's folder."""
    away = world.blobs.with_name("away")
    world.blobs.mkdir(exist_ok=True)
    world.blobs.rename(away)
    world.blobs.touch()
    try:
        time.sleep(dice.uniform(2, CUT_SECONDS))
    finally:
        world.blobs.unlink()
        away.rename(world.blobs)


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
    "leader without Redis": (3, leader_without_redis),
    "one program without PostgreSQL": (3, without_postgres),
    "half-open connections": (3, half_open),
    "deadlines a day ahead": (3, clock_set_back),
    "blob store away": (2, blobs_away),
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
    world.network.heal()
    with redis.Redis.from_url(world.deployment.redis_url) as client:
        client.replicaof("NO", "ONE")
        for name in ("maxmemory", "min-replicas-to-write"):
            client.config_set(name, "0")
    world.deployment.rows("DROP FUNCTION IF EXISTS disk_full CASCADE")
