"""Leading, dispatching, and waiting for work."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from core.db.pool import UNAVAILABLE, Conn, Database
from core.dispatcher.allocation import Rules, allocate
from core.dispatcher.chores import Chores
from core.dispatcher.pace import Pace, patience
from core.environment import Environment
from core.errors import SettingsError
from core.ledger import dispatching, leadership, upkeep
from core.ledger.dispatching import Portion, Waiting
from core.ledger.outcomes import Dispatch
from core.messages import POLL_QUEUE, SAVE_QUEUE, dispatch_message
from core.plugins import get_registry
from core.queues import UNAVAILABLE as REDIS_UNAVAILABLE
from core.queues import Queues
from core.settings import Settings
from core.worker.budgets import Budgets

LEAD_AGAIN_SECONDS = 3.0
POLL_SECONDS = 1.0
"""How often the leader looks around for workers and work."""

LOOK_SECONDS = 0.1
"""How soon it does when it is woken: the work may be for workers that have only just come."""

SHORTEST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.05

HELD_BACK_SECONDS = 0.02
"""How soon to look again at accounts whose tasks at once are all under way."""

HEED_SECONDS = 0.05
"""Seconds until idle domains learn of new work while another one keeps the leader busy."""

WINDOW_PER_THREAD = 3
WINDOW_SECONDS = 0.25
"""A domain's window: three tasks a thread, or 0.25 s of its throughput, whichever is larger.

It must be longer than the way of a task through dispatch, run and commit, or the window itself
bounds the throughput: with a tenth of a second, a disk whose commits took 50 ms held the engine at
a sixth of its speed.
"""

MOST_ACCOUNTS = 64
"""Accounts looked at for one portion; the next portion begins behind them."""

MOST_PASSED = 5_000
"""Accounts passed over before the leader rests for a second; they may be paused or blocked."""

CATALOG_SECONDS = 30.0
"""How soon a plugin's new costs are seen."""

MISTAKEN_SECONDS = 10.0
"""How soon a domain that cannot be dispatched, for a setting that is wrong, is tried again."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Domain:
    """What the leader remembers of a domain."""

    threads: int = 0
    after: UUID | str = dispatching.RING_START
    look: bool = True
    look_at: float = float("inf")
    passed: int = 0
    sent: deque[tuple[float, int]] = field(default_factory=deque)

    def window(self) -> int:
        now = time.monotonic()
        while self.sent and self.sent[0][0] < now - 1.0:
            self.sent.popleft()
        rate = sum(count for _, count in self.sent)
        return max(WINDOW_PER_THREAD * self.threads, int(rate * WINDOW_SECONDS))


class Dispatcher:
    """Leads when it can, and dispatches while it leads.

    Parameters:
      stop: Set from outside to end `run`.
    """

    def __init__(self, settings: Settings, environment: Environment, stop: threading.Event) -> None:
        self.id = uuid4()
        self._settings = settings
        self._stop = stop
        self._database = Database(environment.database_url, size=2)
        self._queues = Queues(environment.redis_url, settings.namespace)
        self._chores = Chores(settings, self._database, self._queues, get_registry())
        self._domains: dict[str, _Domain] = defaultdict(_Domain)
        self._costs: dict[str, dispatching.Catalog] = {}
        self._pace = Pace(Budgets(self._queues, lambda: False))
        self._leading = False
        self._led_at = self._looked_at = self._look_due = self._heeded_at = (
            self._read_catalogs_at
        ) = 0.0
        self._pause = SHORTEST_PAUSE_SECONDS

    def run(self) -> None:
        """Until told to stop. While a server is away this waits, and then goes on by itself."""
        pause = 0.1
        while not self._stop.is_set():
            try:
                with self._database.connection() as conn:
                    while not self._stop.is_set():
                        self._step(conn)
                        pause = 0.1
            except (*UNAVAILABLE, *REDIS_UNAVAILABLE) as error:
                log.warning(
                    "a server is away, the dispatcher waits: %s", str(error).splitlines()[0][:200]
                )
            except Exception:
                log.exception("the dispatcher failed; it begins anew")
            # To lead again begins with what a new leader does: the database may be another one, or
            # an older one, by now.
            self._leading = False
            self._chores.after_gap()
            self._stop.wait(pause)
            pause = min(pause * 2, 2.0)

    def close(self) -> None:
        """Let the next one lead at once."""
        try:
            with self._database.connection() as conn:
                leadership.resign(conn, self.id)
                self._chores.goodbye(conn)
        except UNAVAILABLE as error:
            log.warning(
                "could not resign; the lead runs out by itself: %s",
                str(error).splitlines()[0][:200],
            )
        self._database.close()
        self._queues.close()

    def _step(self, conn: Conn) -> None:
        """One round: lead, look, dispatch, chores, wait."""
        if not self._lead(conn):
            self._stop.wait(LEAD_AGAIN_SECONDS)
            return
        now = time.monotonic()
        if now >= self._look_due:
            self._look_around(conn)
            self._looked_at, self._look_due = now, now + POLL_SECONDS
        sent = sum(
            self._fill(conn, name, domain)
            for name, domain in self._domains.items()
            if domain.threads
        )
        self._chores.do_due(conn)
        self._wait(sent)

    def _lead(self, conn: Conn) -> bool:
        now = time.monotonic()
        if self._leading and now - self._led_at < LEAD_AGAIN_SECONDS:
            return True
        if now - self._led_at > max(self._settings.lease_seconds / 2, 2 * LEAD_AGAIN_SECONDS):
            # We were stopped or cut off for a while: so may others have been, who could not renew
            # their leases.
            self._chores.after_gap()
        was, self._leading = self._leading, leadership.lead(conn, self.id)
        self._led_at = now
        if self._leading and not was:
            log.info("this process leads the dispatch now")
            self._chores.begin(conn)
        return self._leading

    def _look_around(self, conn: Conn) -> None:
        """Who serves which domain, and where there is work."""
        serving = upkeep.serving(conn)
        if time.monotonic() >= self._read_catalogs_at or serving.keys() - self._costs.keys() - {
            POLL_QUEUE,
            SAVE_QUEUE,
        }:
            self._costs, self._read_catalogs_at = (
                dispatching.catalogs(conn),
                time.monotonic() + CATALOG_SECONDS,
            )
        for name in self._domains.keys() | (serving.keys() & self._costs.keys()):
            self._domains[name].threads = serving.get(name, (0, 0))[0]
        for name in dispatching.domains_with_work(
            conn, [name for name, domain in self._domains.items() if domain.threads]
        ):
            self._domains[name].look = True

    def _fill(self, conn: Conn, name: str, domain: _Domain) -> int:
        """Dispatch what the domain's window has room for.

        What is wrong with one domain stops no other.
        """
        if not domain.look and time.monotonic() < domain.look_at:
            return 0
        domain.look, domain.look_at = True, float("inf")
        window = domain.window()
        free = window - self._queues.length(name)
        if free < max(window // 3, 1):
            return 0
        try:
            return self._dispatch(conn, name, domain, free, window)
        except SettingsError as error:
            log.error("nothing of %s can be dispatched: %s", name, error)
            domain.look, domain.look_at = False, time.monotonic() + MISTAKEN_SECONDS
            return 0

    def _dispatch(self, conn: Conn, name: str, domain: _Domain, free: int, window: int) -> int:
        """Claim portions and send them."""
        most = min(free, MOST_ACCOUNTS)
        waiting = dispatching.waiting(conn, name, domain.after, most)
        if not waiting:
            domain.look, domain.passed = False, 0
            return 0
        rules = Rules(
            name,
            self._costs[name].costs,
            self._settings.limits.get(name, {}),
            dispatching.blocked(conn),
        )
        rates = rules.rates(waiting)
        rules = replace(rules, available=self._pace.left(rates))
        flying = dispatching.in_flight(conn, name)
        portions = allocate(free, window, flying, waiting, rules)
        dispatches = (
            dispatching.claim(conn, self.id, name, portions, self._settings.lease_seconds)
            if portions
            else []
        )
        domain.after = waiting[-1].account
        if not dispatches:
            pause = HELD_BACK_SECONDS if flying else patience(rates)
            # A full page of accounts that are all held back: behind them there may be others.
            domain.passed += len(waiting)
            domain.look, domain.look_at = (
                len(waiting) == most and domain.passed < MOST_PASSED,
                time.monotonic() + pause,
            )
            domain.passed = domain.passed if domain.look else 0
            return 0
        domain.passed = 0
        domain.look = len(waiting) == most or not _exhausted(waiting, portions, dispatches)
        messages = {dispatch.id: dispatch_message(dispatch) for dispatch in dispatches}
        self._queues.send(
            name, messages, {"seq": max(dispatch.dispatch_seq for dispatch in dispatches)}
        )
        self._pace.note(rules, waiting, dispatches, rates)
        domain.sent.append((time.monotonic(), len(dispatches)))
        return len(dispatches)

    def _wait(self, sent: int) -> None:
        """Not at all busy: until someone has work.

        Otherwise for moments that grow while nothing moves.
        """
        if sent:
            self._pause = SHORTEST_PAUSE_SECONDS
            self._stop.wait(self._pause)
            self._heed()
            return
        now = time.monotonic()
        looking = any(domain.look and domain.threads for domain in self._domains.values())
        soon = min(
            (domain.look_at for domain in self._domains.values() if domain.threads),
            default=float("inf"),
        )
        seconds = max(
            min(self._pause if looking else POLL_SECONDS, soon - now), SHORTEST_PAUSE_SECONDS
        )
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE_SECONDS)
        if seconds <= LONGEST_PAUSE_SECONDS:
            # Redis looks at the clocks of those it blocks ten times a second only: too coarse for a
            # short pause.
            self._stop.wait(seconds)
            self._heed()
        # To look around a little late does no harm; to hear a little late would, so this never
        # sleeps for the sake of it.
        elif self._queues.wait_for_work(
            max(min(seconds, self._look_due - now), SHORTEST_PAUSE_SECONDS)
        ):
            self._look_due = min(self._look_due, self._looked_at + LOOK_SECONDS)
            for domain in self._domains.values():
                domain.look = True

    def _heed(self) -> None:
        """Wake idle workers for new work, even if others are busy.

        Otherwise each step would take until the next poll.
        """
        resting = [
            domain
            for domain in self._domains.values()
            if domain.threads and not domain.look and domain.look_at == float("inf")
        ]
        now = time.monotonic()
        if not resting or now - self._heeded_at < HEED_SECONDS:
            return
        self._heeded_at = now
        if self._queues.woken():
            for domain in resting:
                domain.look = True


def _exhausted(
    waiting: Sequence[Waiting], portions: Sequence[Portion], dispatches: Sequence[Dispatch]
) -> bool:
    """Return whether all ready tasks were dispatched.

    That is so if every waiting lane had a portion, and none filled it.
    """
    claimed = Counter((dispatch.account_id, dispatch.lane) for dispatch in dispatches)
    return len(portions) == sum(account.live + account.backfill for account in waiting) and not any(
        portion.capped_types
        or portion.without_types
        or claimed[portion.account, portion.lane] >= portion.most
        for portion in portions
    )
