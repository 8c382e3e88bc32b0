"""The listeners of a worker process: it takes free ones, and runs each in a thread of its own.

Two threads belong to the engine. One renews the leases of the listeners that this process holds,
and takes free ones. The other asks plugins for their listeners, when it is this process's turn; a
plugin with many accounts may take long. Plugin code never runs in the first one.

A listener that ignores `stopping` delays nothing. Its lease ends, and another process listens. Two
holders do no harm, because hints are coalesced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from core.accounts.redaction import error_text
from core.backoff import growing_pause
from core.content.stored import READ_STATE
from core.db.clocks import LISTEN_SECONDS
from core.db.errors import describe
from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database
from core.egress import Egress, any_host
from core.errors import NotFound
from core.integration.base import BaseIntegration, Integration, has_own
from core.integration.listening import ListenableAccount, Listener
from core.integration.operator import load_settings
from core.integration.stored import state_value
from core.known_secrets import KNOWN
from core.ledger import hints as ledger_hints
from core.ledger import listeners
from core.plugins import Registry
from core.results.listeners import named_listeners
from core.results.text import is_storable
from core.transport.queues import REDIS_UNAVAILABLE, Queues
from core.worker.accounts import Accounts

TRY_SECONDS = 5.0
"""Seconds between two attempts to take free listeners, which also renew the leases."""

MAX_PAUSE_SECONDS = 60.0
"""The longest pause before a listener that failed is called again. The first one is a second."""

CLOSE_SECONDS = 2.0
"""Seconds for which a process that stops waits for its listeners."""

MAX_ADDRESSED = 20
"""Accounts with the same address whose runs a hint opens itself. The leader opens those of more."""

MAX_SAME_ADDRESS = 100_000

CONFIG = "SELECT config FROM user_integration WHERE id = %s"

M = TypeVar("M", bound=BaseModel)

log = logging.getLogger(__name__)

Place = tuple[str, str]
"""The domain and key of a listener."""


def add(
    database: Database,
    queues: Queues,
    integration: Integration,
    address: str,
    part: str | None,
) -> int:
    """Store a hint for the accounts with this address. Returns the number of accounts."""
    if not is_storable(address):
        return 0
    domain, opened = integration.manifest.domain, False
    with database.connection() as conn:
        ids = listeners.addressed(conn, domain, address, MAX_SAME_ADDRESS)
        if len(ids) > MAX_ADDRESSED:
            for number in range(0, len(ids), listeners.PORTION):
                ledger_hints.add_all(conn, ids[number : number + listeners.PORTION])
        else:
            for id in _followers(conn, integration, ids, part):
                try:
                    opened |= ledger_hints.add(conn, id, part)
                except NotFound:  # erased in the meantime
                    continue
    if opened:
        try:
            queues.wake()
        except REDIS_UNAVAILABLE as error:
            log.debug("Redis is unavailable; the leader finds the run within a second: %s", error)
    return len(ids)


@dataclass(frozen=True, slots=True)
class _Hinted:
    """An account for which a hint has arrived. It implements `core.HintedAccount`."""

    id: str
    config: Mapping[str, Any]
    _conn: Conn

    def state(self, partition: str, model: type[M], /) -> M | None:
        row = self._conn.execute(READ_STATE, (self.id, partition)).fetchone()
        return state_value(partition, row[0] if row is not None else None, model)


def _followers(
    conn: Conn, integration: Integration, ids: Sequence[UUID], part: str | None
) -> Iterator[UUID]:
    """Yield the accounts that follow a part, and those for which a hint of it waits already."""
    if part is None or not has_own(integration, "follows"):
        yield from ids
        return
    for id in ids:
        if ledger_hints.is_waiting(conn, id, part) or _follows(conn, integration, id, part):
            yield id


def _follows(conn: Conn, integration: Integration, id: UUID, part: str) -> bool:
    row = conn.execute(CONFIG, (id,)).fetchone()
    if row is None:  # erased in the meantime
        return False
    try:
        return integration.follows(part, _Hinted(str(id), row[0], conn)) is not False
    except DATABASE_UNAVAILABLE:
        raise
    except Exception as error:  # noqa: BLE001  plugin code
        log.warning("follows() of %s failed: %s", integration.manifest.domain, operator_text(error))
        return True


class Listening:
    """The listeners of one worker process.

    Args:
      database: The process's database. Each call of `Hints` borrows a connection.
      queues: The queues in Redis.
      registry: The installed integrations.
      egress: The check of outgoing connections.
      accounts: The accounts of the process.
    """

    def __init__(
        self,
        database: Database,
        queues: Queues,
        registry: Registry,
        egress: Egress,
        accounts: Accounts,
    ) -> None:
        self._accounts = accounts
        self._database = database
        self._queues = queues
        self._registry = registry
        self._egress = egress
        self._me: UUID | None = None
        self._stopping = threading.Event()
        self._taking = threading.Lock()
        self._held: dict[Place, _Held] = {}
        self._stuck: dict[Place, _Held] = {}
        self._threads: list[threading.Thread] = []
        self._renewed = 0.0
        self._domains: list[str] = []
        self._paused: Callable[[], bool] = lambda: False

    def open(self, me: UUID, serves: Sequence[str], paused: Callable[[], bool]) -> None:
        """Start to listen, if an integration that this process serves has listeners.

        Args:
          me: The id of the process.
          serves: The queues that it consumes.
          paused: Returns True while the process takes no new work, such as when it drains.
        """
        self._me, self._paused = me, paused
        self._domains = [
            domain
            for domain in serves
            if domain in self._registry.integrations
            and has_own(self._registry.integrations[domain], "listeners")
        ]
        for work in (self._keep_holding, self._keep_naming) if self._domains else ():
            thread = threading.Thread(target=work, name="listening", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop all listeners, and release their leases. A listener may ignore it."""
        # A listener that is being taken either stops here, or does not start.
        with self._taking:
            self._stopping.set()
            self._stop(list(self._held))
        if not self._threads:
            return
        until = time.monotonic() + CLOSE_SECONDS
        for thread in (*self._threads, *(held.thread for held in self._stuck.values())):
            thread.join(max(0.0, until - time.monotonic()))
        assert self._me is not None
        try:
            with self._database.connection(CLOSE_SECONDS) as conn:
                listeners.release(conn, self._me)
        except DATABASE_UNAVAILABLE as error:
            log.warning("could not release listeners; their leases expire: %s", error)

    def _keep_holding(self) -> None:
        while not self._stopping.is_set():
            try:
                self._hold()
            except DATABASE_UNAVAILABLE as error:
                log.warning("cannot renew the leases of listeners: %s", error)
                if time.monotonic() - self._renewed >= LISTEN_SECONDS - TRY_SECONDS:
                    self._stop(list(self._held))
            except Exception:
                log.exception("could not take listeners; retrying")
            self._stopping.wait(TRY_SECONDS)

    def _hold(self) -> None:
        assert self._me is not None
        self._stuck = {place: held for place, held in self._stuck.items() if held.thread.is_alive()}
        if self._paused():
            if self._held:
                self._stop(list(self._held))
                with self._database.connection() as conn:
                    listeners.release(conn, self._me)
            return
        began = time.monotonic()
        with self._database.connection() as conn:
            places = listeners.hold(conn, self._me, self._domains, list(self._stuck))
        self._renewed = began
        with self._taking:
            self._stop([place for place in self._held if place not in places])
            for place in () if self._stopping.is_set() else places - self._held.keys():
                self._held[place] = _Held(self, place, self._registry.integrations[place[0]])

    def _stop(self, places: Sequence[Place]) -> None:
        for place in places:
            held = self._held.pop(place, None)
            if held is not None:
                held.stopping.set()
                self._stuck[place] = held

    def _keep_naming(self) -> None:
        while not self._stopping.is_set():
            for domain in self._domains:
                try:
                    self._name(domain)
                except DATABASE_UNAVAILABLE as error:
                    log.warning("cannot ask %s for its listeners: %s", domain, describe(error))
                except Exception as error:  # noqa: BLE001  plugin code
                    log.error("listeners() of %s failed: %s", domain, operator_text(error))
            self._stopping.wait(TRY_SECONDS)

    def _name(self, domain: str) -> None:
        if self._paused():
            return
        integration, began = self._registry.integrations[domain], time.monotonic()
        with self._database.connection() as conn:
            if not listeners.claim_naming(conn, domain):
                return
            try:
                settings, read = load_settings(integration.manifest.settings), set[str]()
                # Most plugins without settings return before they read an account.
                with (
                    self._egress.for_account(public_only=False),
                    closing(_listenable(conn, domain, read)) as accounts,
                ):
                    named = named_listeners(integration.listeners(settings, accounts), read)
                fresh = listeners.name_listeners(conn, domain, named)
                for number in range(0, len(fresh), listeners.PORTION):
                    ledger_hints.add_all(conn, fresh[number : number + listeners.PORTION])
            finally:
                listeners.name_later(conn, domain, time.monotonic() - began)


def _listenable(conn: Conn, domain: str, read: set[str]) -> Generator[ListenableAccount]:
    """Yield the active accounts of an integration, and note the ids of those that were read."""
    with closing(listeners.accounts(conn, domain)) as accounts:
        for account in accounts:
            read.add(account.id)
            yield account


class _Held:
    """A listener that this process holds, with its thread. It implements `core.Hints`."""

    def __init__(self, owner: Listening, place: Place, integration: Integration) -> None:
        self._owner = owner
        self._domain, self._key = place
        self._integration = integration
        self.stopping = threading.Event()
        self._failures = 0
        self.thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=f"listener {self._key}", daemon=True
        )
        self.thread.start()

    def add(self, account: str, part: str | None = None) -> None:
        add(self._owner._database, self._owner._queues, self._integration, account, part)

    def connected(self) -> None:
        owner = self._owner
        assert owner._me is not None
        with owner._database.connection() as conn:
            if not listeners.connected(conn, owner._me, self._domain, self._key):
                return
            log.info("listener %s of %s is connected", self._key, self._domain)
            for ids in listeners.pages(conn, self._domain, self._key):
                ledger_hints.add_all(conn, ids)
        self._failures = 0

    def disconnected(self, reason: str) -> None:
        self._record(operator_text(RuntimeError(reason)).removeprefix("RuntimeError: "))

    def instance(self, id: str) -> BaseIntegration[Any, Any]:
        # The cache is current only while the process holds tasks of the account.
        self._owner._accounts.invalidate([id])
        account = self._owner._accounts.get(id)
        if account.integration is not self._integration:
            raise NotFound("account-not-found", account=id)
        return self._integration(account.config, account.credentials)

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                self._listen()
                error = "listen() returned"
            except BaseException as raised:  # noqa: BLE001  plugin code
                error = operator_text(raised)
            if self.stopping.is_set():
                return
            self._failures += 1
            pause = pause_after(self._failures)
            log.warning(
                "listener %s of %s failed; trying again in %.0f s: %s",
                self._key, self._domain, pause, error,
            )  # fmt: skip
            self._record(error)
            self.stopping.wait(pause)

    def _listen(self) -> None:
        with self._owner._database.connection() as conn:
            accounts, limited = listeners.of_listener(conn, self._domain, self._key)
        hosts = self._owner._egress.for_account(public_only=True) if limited else any_host()
        with hosts:
            self._integration.listen(Listener(self._key, accounts), self, self.stopping)

    def _record(self, error: str) -> None:
        assert self._owner._me is not None
        try:
            with self._owner._database.connection() as conn:
                listeners.failed(conn, self._owner._me, self._domain, self._key, error)
        except Exception as problem:  # noqa: BLE001  the thread has to call `listen` again
            if not self.stopping.is_set():
                log.warning("could not record the failure of a listener: %s", describe(problem))


def pause_after(failures: int) -> float:
    """Return the seconds until a listener that failed this many times in a row is called again."""
    return growing_pause(1.0, MAX_PAUSE_SECONDS, failures - 1, jitter=0.2)


def operator_text(error: BaseException) -> str:
    """Describe an exception of a listener, without the secrets that this process knows."""
    return error_text(error, KNOWN.redact_all)
