"""The loop of the dispatcher: lead, refresh the workers, dispatch, maintain, wait for work.

The module `domain` decides which domains a round scans.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import psycopg

from core.accounts.redaction import message_of
from core.backoff import growing_pause
from core.db.clocks import DAY, LEAD_SECONDS
from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database
from core.dispatcher.ages import DispatchAges
from core.dispatcher.allocation import (
    AGED_SECONDS,
    Held,
    Places,
    Rules,
    allocate,
    beyond_share,
    full_users,
    held_by_user,
)
from core.dispatcher.domain import Domain, Phase
from core.dispatcher.maintenance import Maintenance
from core.dispatcher.rate_headroom import RateHeadroom, retry_in
from core.dispatcher.rate_use import LimitUse
from core.dispatcher.rations import Rationing
from core.environment import Environment
from core.errors import ServerUnavailable, SettingsError
from core.ledger import dispatching, leadership, leases, limit_overrides, pauses, processes
from core.ledger.dispatching import InFlight, RingLook, TaskPortion, Waiting
from core.ledger.monotonic import trusted
from core.ledger.outcomes import Dispatch, LeaseKey
from core.limits.budgets import Budgets
from core.middleware.time_limit import CHECK_SECONDS, RETURN_SECONDS
from core.plugins import get_registry
from core.settings import Settings
from core.transport.messages import OWN_QUEUES, dispatch_message
from core.transport.queues import NONCE_SECONDS, REDIS_UNAVAILABLE, Queues

LEAD_AGAIN_SECONDS = 3.0
"""Seconds between two renewals, or attempts to lead."""

OCCUPY_SECONDS = 2.0
"""Seconds between two renewals of the mark that keeps other fleets from Redis."""

AWAY_PAUSE_SECONDS = 0.5
"""Seconds between two attempts to reach Redis."""

POLL_SECONDS = 1.0
"""Seconds between two refreshes of the leader's view of workers and work."""

REFRESH_AFTER_WAKEUP_SECONDS = 0.1
"""Seconds between a refresh and one that a wake-up causes: work may be for new workers."""

RESTART_SECONDS = (0.1, 2.0)
"""Bounds of the pause after a failure of the dispatcher."""

MIN_PAUSE_SECONDS = 0.002
MAX_PAUSE_SECONDS = 0.05

HELD_BACK_SECONDS = 0.02
"""Seconds until the next scan of accounts whose concurrency limits are reached."""

FULL_SECONDS = 0.05
"""Seconds until the next scan of accounts whose users hold their share of the threads."""

TURNS_IN_VAIN = 4
"""The number of claims in one scan, while none brings a task."""

NEXT_TURN_SECONDS = 0.25
"""Seconds until the next scan, if accounts without a turn may have a task that can run."""

FRESH_SECONDS = 0.02
"""Seconds between two looks for users that hold no place, while the window has little room."""

TAKE_BACK_SECONDS = 0.25
"""Seconds between two searches for messages that no thread will start soon."""

STUCK_SECONDS = 60.0
"""Seconds after which a task that no thread has started is reported."""

HANG_SECONDS = RETURN_SECONDS + CHECK_SECONDS
"""Seconds past its time limit after which the thread of a task was replaced."""

COUNTED_SECONDS = 0.1
"""Seconds for which a count of the queued tasks of another domain is used."""

LATEST = 256
"""The number of tasks that became available last, among which a large domain is searched."""

WAKEUP_CHECK_SECONDS = 0.05
"""Seconds between two checks for a wake-up while a busy domain keeps the leader from listening."""

MAX_ACCOUNTS_PER_LOOK = 128
"""The number of accounts in one scan; the next scan starts behind them."""

LIMITS_SECONDS = 3.0
"""The seconds between two reads of the operator's figures of limits."""

CATALOG_SECONDS = 30.0
"""Seconds between two reads of the plugins' costs."""

MISTAKEN_SECONDS = 10.0
"""Seconds until the leader retries a domain that an invalid setting holds back."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """Accounts with ready tasks.

    Attributes:
      complete: True if the scan has seen all accounts of the domain.
      full: True if users that hold their share were passed over.
    """

    accounts: list[Waiting]
    complete: bool
    full: bool


class Dispatcher:
    """A dispatcher: it leads while no other process does, and dispatches while it leads.

    Args:
      settings: The operator's settings.
      environment: The URLs of the servers.
      stop: The event that ends `run`.
    """

    def __init__(self, settings: Settings, environment: Environment, stop: threading.Event) -> None:
        self.id = uuid4()
        self._settings = settings
        self._stop = stop
        self._database = Database(environment.database_url, size=2)
        self._queues = Queues(environment.redis_url, settings.redis_namespace)
        self._maintenance = Maintenance(
            self.id, settings, self._database, self._queues, get_registry()
        )
        self._maintenance.on_disk_full = self._disk_is_full
        self._disk_full_at = float("-inf")
        self._domains: dict[str, Domain] = defaultdict(Domain)
        self._costs: dict[str, dispatching.Catalog] = {}
        self._limits: limit_overrides.Overrides = self._settings.limits
        self._limits_due = 0.0
        self._ages = DispatchAges()
        self._stuck: list[str] | None = None
        self._take_back_due = 0.0
        budgets = Budgets(
            self._queues.client, self._queues.key, lambda: False, self._queues.run_first
        )
        self._headroom = RateHeadroom(budgets)
        self._leading = self._began = False
        self._away_since: float | None = None
        self._away_reason = ""
        self._nonce = secrets.randbits(63)
        self._occupy_due = self._patient_until = 0.0
        self._foreign = False
        self._led_at = self._refreshed_at = self._wakeup_checked_at = 0.0
        self._refresh_due = self._catalogs_due = 0.0
        self._pause = MIN_PAUSE_SECONDS

    def run(self) -> None:
        """Dispatch until the event `stop` is set. While a server is unavailable, wait and retry."""
        failures = 0
        self._report_permissions()
        while not self._stop.is_set():
            try:
                with self._database.connection() as conn:
                    self._register(conn)
                    while not self._stop.is_set():
                        self._step(conn)
                        failures = 0
            except (*DATABASE_UNAVAILABLE, *REDIS_UNAVAILABLE) as error:
                log.warning(
                    "dispatching paused because a server is unavailable: %s", message_of(error)
                )
            except Exception:
                log.exception("the dispatcher failed; restarting it")
            # Start as a new leader: the database may have been replaced or restored.
            self._leading = False
            self._maintenance.after_gap()
            self._stop.wait(growing_pause(*RESTART_SECONDS, failures))
            failures += 1

    def _report_permissions(self) -> None:
        """Name the commands that the Redis user may not run: it seems as if Redis were away."""
        with suppress(ServerUnavailable):
            if commands := self._queues.forbidden():
                log.error(
                    "the user in REDIS_URL may not run %s; allow it on the keys %s:*",
                    ", ".join(commands),
                    self._queues.namespace,
                )

    def _register(self, conn: Conn) -> None:
        """Record this process. A dispatcher may lead without its row, if the disk is full."""
        try:
            self._maintenance.register(conn)
        except psycopg.errors.DiskFull as error:
            self._disk_is_full(error)

    def _disk_is_full(self, error: Exception) -> None:
        """Report that PostgreSQL's disk is full. Workers cannot renew their leases either."""
        now = time.monotonic()
        if now - self._disk_full_at > MISTAKEN_SECONDS:
            log.warning(
                "PostgreSQL's disk is full; the leader stays, and retries what needs space: %s",
                message_of(error),
            )
        self._disk_full_at = now
        self._queues.note_disk_full()
        self._maintenance.after_gap()

    def close(self) -> None:
        """Resign, so that another process can lead immediately."""
        try:
            with self._database.connection() as conn:
                leadership.resign(conn, self.id)
                self._maintenance.deregister(conn)
        except DATABASE_UNAVAILABLE as error:
            log.warning(
                "could not give up leadership; it expires within %.0f s: %s",
                LEAD_SECONDS,
                error,
            )
        self._database.close()
        self._queues.close()

    def _step(self, conn: Conn) -> None:
        """Run one round: lead, refresh, dispatch, maintain, wait."""
        if not self._lead(conn):
            self._stop.wait(LEAD_AGAIN_SECONDS)
            return
        now = time.monotonic()
        if now >= self._refresh_due:
            self._refresh_workers(conn)
            self._refreshed_at, self._refresh_due = now, now + POLL_SECONDS
        if self._away_since is not None and not self._redis_is_back():
            self._lead_without_redis(conn, now - self._away_since)
            return
        try:
            self._lead_with_redis(conn)
        except REDIS_UNAVAILABLE as error:
            log.warning(
                "Redis is unavailable; the leader dispatches nothing, and does the work that needs"
                " PostgreSQL alone: %s",
                message_of(error),
            )
            self._away_reason = message_of(error)
            self._away_since = time.monotonic()
            self._maintenance.redis_is_away()

    def _lead_with_redis(self, conn: Conn) -> None:
        """Dispatch, maintain and wait."""
        if not self._occupies(conn):
            self._maintenance.redis_is_away()
            self._maintenance.run_due(conn)
            self._stop.wait(AWAY_PAUSE_SECONDS)
            return
        if not self._began:
            self._maintenance.check_epoch(conn)
            self._ages.note(leadership.last_sequence(conn))
            self._stuck = None
            self._began = True
        self._take_back(conn)
        sent = sum(self._dispatch_domain(conn, name, domain) for name, domain in self._served())
        self._maintenance.run_due(conn)
        self._wait(conn, sent)

    def _occupies(self, conn: Conn) -> bool:
        """Keep Redis for this fleet. Returns False while another fleet uses it.

        A copy of the database has the same tasks and the same epoch. Both leaders would delete each
        other's messages.
        """
        now = time.monotonic()
        if now < self._occupy_due:
            return not self._foreign
        self._occupy_due = now + OCCUPY_SECONDS
        was, self._foreign = self._foreign, self._other_fleet(conn, now)
        if self._foreign and not was:
            log.error(
                "another deployment uses this Redis with the same POLLING_REDIS_NAMESPACE; this one"
                " dispatches nothing until %.0f s after the other has stopped",
                2 * NONCE_SECONDS,
            )
        if was and not self._foreign:
            log.info("the other deployment has stopped; this one dispatches tasks")
            self._maintenance.redis_is_back()
        return not self._foreign

    def _other_fleet(self, conn: Conn, now: float) -> bool:
        """Renew the mark of this fleet, unless the mark of another one is there.

        A fleet that waits does not take over a Redis whose mark was lost in a flush.
        """
        if now < self._patient_until and self._queues.number("nonce") is None:
            return True
        other = self._queues.occupy(self._nonce)
        if other is not None and other in (known := leadership.nonces(conn)):
            other = self._queues.occupy(self._nonce, known)
        if other is not None:
            self._patient_until = now + NONCE_SECONDS
        return other is not None

    def _redis_is_back(self) -> bool:
        """Resume dispatching if Redis accepts a write."""
        if (error := self._queues.refusal()) is not None:
            if (reason := message_of(error)) != self._away_reason:
                log.warning("Redis is still unavailable: %s", reason)
                self._away_reason = reason
            return False
        log.info("Redis is available again; the leader dispatches tasks")
        self._away_since = None
        self._maintenance.redis_is_back()
        return True

    def _lead_without_redis(self, conn: Conn, seconds: float) -> None:
        """Do what needs PostgreSQL alone; hand over if another dispatcher can send."""
        self._maintenance.run_due(conn)
        if leadership.hand_over(conn, self.id, seconds):
            log.warning("this process cannot reach Redis; another dispatcher leads")
            self._leading = False
        self._stop.wait(AWAY_PAUSE_SECONDS)

    def _served(self) -> list[tuple[str, Domain]]:
        """Return the domains that live workers serve."""
        return [(name, domain) for name, domain in self._domains.items() if domain.threads]

    def _lead(self, conn: Conn) -> bool:
        """Become or remain the leader; renew leadership every `LEAD_AGAIN_SECONDS`."""
        now = time.monotonic()
        if self._leading and now - self._led_at < LEAD_AGAIN_SECONDS:
            return True
        if now - self._led_at > max(self._maintenance.leases.shortest / 2, 2 * LEAD_AGAIN_SECONDS):
            # This process was stopped or cut off. Others may have been too, and could not renew
            # their leases.
            self._maintenance.after_gap()
        if not self._leading and self._queues.disk_is_full():
            # The leader cannot renew its row either, and stays.
            return False
        can_send = self._away_since is None if self._leading else self._queues.can_send()
        if not self._leading:
            self._nonce, self._occupy_due = secrets.randbits(63), 0.0
        was, self._led_at = self._leading, now
        try:
            self._leading = leadership.lead(conn, self.id, can_send=can_send, nonce=self._nonce)
        except psycopg.errors.DiskFull as error:
            # No other dispatcher can write the row either.
            self._disk_is_full(error)
            self._led_at = now - LEAD_AGAIN_SECONDS + AWAY_PAUSE_SECONDS
        if self._leading and not was:
            log.info("this process is now the leader and dispatches tasks")
            self._maintenance.after_gap()
            self._began = False
        return self._leading

    def _refresh_workers(self, conn: Conn) -> None:
        """Read which workers serve which domain, and wake the domains that have work.

        A paused integration counts as served by no worker.
        """
        serving = processes.serving(conn)
        own = self._settings.lease_seconds
        self._maintenance.leases = processes.lease_lengths(conn, own)
        unknown = serving.keys() - self._costs.keys() - {*OWN_QUEUES}
        if unknown or time.monotonic() >= self._catalogs_due:
            self._costs = dispatching.catalogs(conn)
            self._catalogs_due = time.monotonic() + CATALOG_SECONDS
        if time.monotonic() >= self._limits_due:
            self._limits = limit_overrides.settled(conn, self._settings.limits, self._limits)
            self._limits_due = time.monotonic() + LIMITS_SECONDS
        paused = pauses.lasting(conn)
        served = processes.neighbours(conn)
        for name in self._domains.keys() | (serving.keys() & self._costs.keys()):
            found = (0, 0) if name in paused else serving.get(name, (0, 0))
            domain = self._domains[name]
            domain.threads, domain.processes = found
            around = served.get(name, set()) & self._costs.keys()
            domain.neighbours = frozenset(around - {name})
        self._report_stuck(conn)
        self._wake(conn, self._served())

    def _wake(self, conn: Conn, domains: Sequence[tuple[str, Domain]]) -> None:
        """Wake those of these domains that have open runs; the others can have no ready task."""
        for name in dispatching.domains_with_work(conn, [name for name, _ in domains]):
            self._domains[name].wake()

    def _report_stuck(self, conn: Conn) -> None:
        """Record the domains in which tasks have waited for a thread for too long."""
        old = {
            name: sum(flight.old for flight in self._count(conn, name, domain))
            for name, domain in self._served()
            if domain.flying
        }
        stuck = []
        for name, domain in self._served():
            since = domain.stuck_since
            waits = since is not None and time.monotonic() - since > STUCK_SECONDS
            around = sum(old.get(neighbour, 0) for neighbour in domain.neighbours)
            if waits or (old.get(name, 0) and old[name] + around > domain.threads):
                stuck.append(name)
        if stuck == self._stuck:
            return
        try:
            leadership.record_stuck(conn, self.id, stuck)
        except psycopg.errors.DiskFull as error:
            self._disk_is_full(error)
        self._stuck = stuck

    def _dispatch_domain(self, conn: Conn, name: str, domain: Domain) -> int:
        """Dispatch as many tasks as the domain's window has room for. Returns their number.

        An invalid setting of one domain does not stop other domains.
        """
        if not domain.due():
            return 0
        window = domain.window()
        free = window - self._queues.length(name)
        crowded = free < max(window // 3, 1)
        if crowded and (free <= 0 or time.monotonic() - domain.fresh_look_at < FRESH_SECONDS):
            domain.is_stuck()
            return 0
        domain.begin_scan()
        try:
            return self._dispatch(conn, name, domain, free, _places(domain, window), crowded)
        except SettingsError as error:
            log.error(
                "cannot dispatch tasks of %s; retrying in %.0f s: %s", name, MISTAKEN_SECONDS, error
            )
            domain.hold_back(MISTAKEN_SECONDS)
            return 0
        except psycopg.errors.DiskFull as error:
            self._disk_is_full(error)
            domain.hold_back(AWAY_PAUSE_SECONDS)
            return 0

    def _dispatch(
        self, conn: Conn, name: str, domain: Domain, free: int, places: Places, crowded: bool
    ) -> int:
        """Scan for accounts with ready tasks, claim a portion of each, and send the tasks.

        Args:
          conn: A connection.
          name: The name of the domain.
          domain: The domain.
          free: The number of free places.
          places: The places of the domain.
          crowded: True if the free places are too few for a scan. They serve users that hold none.
        """
        flying, elsewhere = self._in_flight(conn, name, domain)
        user_rate = partial(self._user_rate, name, domain)
        held = held_by_user([*flying, *elsewhere], user_rate)
        found = (
            self._find_fresh(conn, name, domain, free, held)
            if crowded
            else self._find(conn, name, domain, free, places, held)
        )
        if found is None:
            return 0
        waiting, complete = domain.in_turn(found.accounts, held), found.complete
        rules = Rules(
            name,
            self._costs[name].costs,
            self._limits.get(name, {}),
            dispatching.blocks(conn, [account.account for account in waiting]),
        )
        rates = rules.rates(waiting)
        rules, uses = self._headroom.apply(rules, waiting, rates)
        dispatches, rest = list[Dispatch](), waiting
        for _ in range(TURNS_IN_VAIN):
            portions = allocate(
                free,
                places,
                flying,
                rest,
                rules,
                elsewhere,
                user_rate,
                domain.accounts.per_second,
            )
            have_turn = {portion.account for portion in portions}
            domain.had_turn(have_turn)
            portions = self._ration(conn, name, portions, rules, uses, waiting)
            if portions:
                lease = self._maintenance.leases.longest
                dispatches = dispatching.claim(conn, self.id, name, portions, lease)
            if dispatches or not have_turn:
                break
            rest = [account for account in rest if account.account not in have_turn]
        if not dispatches:
            pause = HELD_BACK_SECONDS if flying else retry_in(rules, rates)
            if have_turn and rest:
                pause = min(pause, NEXT_TURN_SECONDS)
            domain.pass_over(len(waiting), pause, more=not complete)
            return 0
        dispatches = trusted(conn, dispatches, self._settings.give_up_after_days * DAY)
        exhausted = complete and not found.full and _exhausted(waiting, portions, dispatches)
        domain.sent(len(dispatches), more=not exhausted or domain.passed > 0)
        domain.users.add(Counter(dispatch.user for dispatch in dispatches))
        domain.accounts.add(Counter(dispatch.account_id for dispatch in dispatches))
        self._send(name, dispatches)
        self._headroom.note(rules, waiting, dispatches, rates)
        return len(dispatches)

    def _ration(
        self,
        conn: Conn,
        name: str,
        portions: list[TaskPortion],
        rules: Rules,
        uses: Mapping[str, LimitUse],
        waiting: Sequence[Waiting],
    ) -> list[TaskPortion]:
        """Choose the tasks that take scarce units of rate limits."""
        if not any(portion.metered_types for portion in portions):
            return portions
        rationing = Rationing(rules, uses, waiting)
        portions = rationing.choose(portions, dispatching.candidates(conn, name, portions))
        self._headroom.reserve(rationing.reservations)
        return portions

    def _find_fresh(
        self, conn: Conn, name: str, domain: Domain, free: int, held: Mapping[str, Held]
    ) -> _Found | None:
        """Find accounts of users that hold no place, for the last places of a window.

        Returns:
          The accounts; None if there is none.
        """
        look = self._look(conn, name, domain, free, held, list(held))
        domain.fresh_look_at, domain.fresh_after = time.monotonic(), look.fresh_end
        if not look.accounts:
            domain.is_stuck()
            return None
        return _Found(look.accounts, complete=False, full=True)

    def _find(
        self,
        conn: Conn,
        name: str,
        domain: Domain,
        free: int,
        places: Places,
        held: Mapping[str, Held],
    ) -> _Found | None:
        """Find accounts with ready tasks whose users hold less than their share.

        Returns:
          The accounts; None if there is none. Then the domain has its next phase.
        """
        begins = domain.is_large and domain.began_at is None
        idle = begins and not dispatching.any_available(conn, name)
        if idle and not domain.may_search():
            domain.found_nothing()
            return None
        full = full_users(places, held, compete=len(held) > 1)
        look = self._look(conn, name, domain, free, held, full)
        if not look.accounts and len(held) > 1:
            # Nobody else is ready: those that would be above their share have no rival.
            full = full_users(places, held, compete=False)
            look = self._look(conn, name, domain, free, held, full)
        complete = domain.looked(look)
        if look.accounts:
            return _Found(look.accounts, complete, bool(full))
        if idle or (complete and not full and not domain.passed):
            domain.found_nothing()
        else:
            domain.pass_over(0, FULL_SECONDS if full else float("inf"), more=not complete)
        return None

    def _look(
        self,
        conn: Conn,
        name: str,
        domain: Domain,
        free: int,
        held: Mapping[str, Held],
        full: Sequence[str],
    ) -> RingLook:
        """Look for accounts with ready tasks, those of users that hold no place first."""
        return dispatching.look(
            conn,
            name,
            min(free, MAX_ACCOUNTS_PER_LOOK),
            after=domain.after,
            fresh_after=domain.fresh_after,
            busy=[user for user, its in held.items() if its.tasks],
            full=full,
            latest=LATEST if domain.is_large else 0,
        )

    def _in_flight(
        self, conn: Conn, name: str, domain: Domain
    ) -> tuple[list[InFlight], list[InFlight]]:
        """Count the queued tasks of a domain, and of the domains with the same threads."""
        now = time.monotonic()
        elsewhere: list[InFlight] = []
        for neighbour in domain.neighbours:
            other = self._domains[neighbour]
            if now - other.counted_at > COUNTED_SECONDS:
                self._count(conn, neighbour, other)
            elsewhere += other.flying
        return self._count(conn, name, domain), elsewhere

    def _count(self, conn: Conn, name: str, domain: Domain) -> list[InFlight]:
        """Count the queued tasks of a domain."""
        hung = {}
        for type, seconds in self._costs[name].time_limits.items():
            limit = self._settings.task_timeout_seconds if seconds is None else seconds
            hung[type] = self._ages.before(limit + HANG_SECONDS)
        domain.flying = dispatching.in_flight(
            conn, name, self._ages.before(AGED_SECONDS), hung, self._ages.before(STUCK_SECONDS)
        )
        domain.counted_at = time.monotonic()
        return domain.flying

    def _user_rate(self, name: str, domain: Domain, user: str) -> float:
        """Return the rate of a user in all domains that the same threads serve."""
        around = (name, *domain.neighbours)
        return sum(self._domains[each].users.per_second(user) for each in around)

    def _take_back(self, conn: Conn) -> None:
        """Return messages of users with slow tasks that exceed their share to the ledger.

        Such messages were sent while the tasks of these users were quick. Without this search, all
        other users would wait behind them.
        """
        now = time.monotonic()
        if now < self._take_back_due:
            return
        self._take_back_due = now + TAKE_BACK_SECONDS
        for name, domain in self._served():
            if not self._queues.backlog(name):
                continue
            flying, elsewhere = self._in_flight(conn, name, domain)
            user_rate = partial(self._user_rate, name, domain)
            held = held_by_user([*flying, *elsewhere], user_rate)
            beyond = beyond_share(_places(domain, domain.window()), held)
            if beyond:
                self._take_back_messages(conn, name, beyond)

    def _take_back_messages(self, conn: Conn, name: str, beyond: Mapping[str, int]) -> None:
        """Return the latest messages of some users that no process has fetched.

        Args:
          conn: A connection.
          name: The domain.
          beyond: The number of messages, by user.
        """
        waiting = set(self._queues.waiting(name))
        chosen: dict[str, LeaseKey] = {}
        counts = Counter[str]()
        for user, *lease in dispatching.queued_of(conn, name, list(beyond)):
            task, number, token = lease
            id = f"{task}-{number}"
            if id in waiting and counts[user] < beyond[user]:
                counts[user] += 1
                chosen[id] = (task, number, token)
        # A message that a process fetches now stays with it.
        taken = self._queues.take_back(name, list(chosen))
        leases.release(conn, [chosen[id] for id in taken])

    def _send(self, name: str, dispatches: Sequence[Dispatch]) -> None:
        """Send the messages of claimed tasks, and mark the latest dispatch in Redis."""
        messages = {dispatch.id: dispatch_message(dispatch) for dispatch in dispatches}
        latest = max(dispatch.dispatch_seq for dispatch in dispatches)
        self._ages.note(latest)
        self._queues.send(name, messages, {"seq": latest})

    def _wait(self, conn: Conn, sent: int) -> None:
        """Wait for the next round.

        If tasks were sent, wait 2 ms. If domains scan without result, back off from 2 to 50 ms.
        Otherwise, wait until a wake-up, the retry of a held-back domain, or the next poll.
        """
        if sent:
            self._pause = MIN_PAUSE_SECONDS
            self._sleep(conn, self._pause)
            return
        scans = [domain.next_scan_in(self._pause) for _, domain in self._served()]
        seconds = max(min([POLL_SECONDS, *scans]), MIN_PAUSE_SECONDS)
        if self._maintenance.asking or self._maintenance.is_pruning:
            seconds = min(seconds, MAX_PAUSE_SECONDS)
        self._pause = min(self._pause * 1.5, MAX_PAUSE_SECONDS)
        if seconds <= MAX_PAUSE_SECONDS:
            self._sleep(conn, seconds)
        else:
            self._listen(conn, seconds)

    def _sleep(self, conn: Conn, seconds: float) -> None:
        """Pause for a time that is too short for a blocking Redis command.

        Redis checks the timeouts of blocked clients only ten times a second.
        """
        self._stop.wait(seconds)
        self._check_wakeup(conn)

    def _listen(self, conn: Conn, seconds: float) -> None:
        """Block in Redis until a wake-up, for at most `seconds` or until the refresh is due.

        The leader listens even if the refresh is almost due: a late refresh does no harm, but a
        missed wake-up delays work.
        """
        until_refresh = self._refresh_due - time.monotonic()
        if self._queues.wait_for_work(max(min(seconds, until_refresh), MIN_PAUSE_SECONDS)):
            soon = self._refreshed_at + REFRESH_AFTER_WAKEUP_SECONDS
            self._refresh_due = min(self._refresh_due, soon)
            self._wake(conn, self._served())

    def _check_wakeup(self, conn: Conn) -> None:
        """Wake idle domains after a wake-up while other domains keep the leader from listening.

        Without this check, each step of their runs would wait for the next poll.
        """
        idle = [each for each in self._served() if each[1].phase is Phase.IDLE]
        now = time.monotonic()
        if not idle or now - self._wakeup_checked_at < WAKEUP_CHECK_SECONDS:
            return
        self._wakeup_checked_at = now
        if self._queues.woken():
            self._wake(conn, idle)


def _exhausted(
    waiting: Sequence[Waiting], portions: Sequence[TaskPortion], dispatches: Sequence[Dispatch]
) -> bool:
    """Return True if every ready task is dispatched now.

    Then each lane with ready tasks had a portion, and no portion was filled.
    """
    claimed = Counter((dispatch.account_id, dispatch.lane) for dispatch in dispatches)
    return len(portions) == sum(account.live + account.backfill for account in waiting) and not any(
        portion.capped_types
        or portion.without_types
        or portion.metered_types
        or claimed[portion.account, portion.lane] >= portion.most
        for portion in portions
    )


def _places(domain: Domain, window: int) -> Places:
    return Places(window, domain.threads, domain.processes)
