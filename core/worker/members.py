"""The members of organizations: a worker process lists those that are due.

Each integration has a thread of its own, so that one cannot delay the others. Plugin code runs in a
further thread for each listing. After a deadline, the engine records the reason, and ignores what
this thread returns. Until the thread ends, this process does not list the same organization again.
A process renews its claim on the organization until it has stored all accounts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from uuid import UUID

from core.accounts.vault import Vault
from core.db.clocks import HOUR
from core.db.errors import describe
from core.db.pool import DATABASE_UNAVAILABLE, Database
from core.egress import Egress
from core.errors import RateLimited, TransientError
from core.integration.base import has_own
from core.integration.members import Member
from core.known_secrets import KNOWN
from core.ledger import organizations
from core.ledger.organizations import Changes
from core.plugins import Registry
from core.worker.member_listing import Listed, MemberListing, problem_of

LOOK_SECONDS = 30.0
"""Seconds between two looks for organizations that are due."""

LISTING_SECONDS = 600.0
"""Seconds that a plugin may take to list the members of an organization."""

RETRY_SECONDS = 300.0
"""Seconds after which a listing is tried again, if the provider may answer then; else an hour."""

MAX_STUCK = 8
"""Listings of one integration that have not ended after their deadline. Beyond, this process lists
no members of this integration."""

log = logging.getLogger(__name__)


class Members:
    """The threads of one worker process that list members.

    Args:
      database: The process's database.
      vault: The vault.
      registry: The installed integrations.
      egress: The check of outgoing connections.
    """

    def __init__(
        self, database: Database, vault: Vault, registry: Registry, egress: Egress
    ) -> None:
        self._database, self._vault = database, vault
        self._registry, self._egress = registry, egress
        self._stopping = threading.Event()
        self._stuck: dict[str, dict[UUID, threading.Thread]] = {}

    def open(self, serves: Sequence[str]) -> None:
        """Start a thread for each integration that has organizations and that this process serves.

        Args:
          serves: The queues that the process consumes.
        """
        for domain in serves:
            integration = self._registry.integrations.get(domain)
            if integration is not None and has_own(integration, "members"):
                name = f"members {domain}"
                threading.Thread(target=self._keep, args=(domain,), name=name, daemon=True).start()

    def close(self) -> None:
        """Stop after the present listings, for which nothing waits."""
        self._stopping.set()

    def _keep(self, domain: str) -> None:
        while not self._stopping.is_set():
            try:
                while not self._stopping.is_set() and self.list_next(domain):
                    continue
            except DATABASE_UNAVAILABLE as error:
                log.warning("cannot list the members of organizations: %s", describe(error))
            except Exception:
                log.exception("could not list the members of an organization; retrying")
            self._stopping.wait(LOOK_SECONDS)

    def list_next(self, domain: str) -> bool:
        """List the members of an organization of this integration, if one is due.

        Returns:
          False if none is due.
        """
        stuck = self._still_stuck(domain)
        if len(stuck) >= MAX_STUCK:
            return False
        with self._database.connection() as conn:
            one = organizations.claim(conn, domain, list(stuck))
        if one is None:
            return False
        redact = KNOWN.redact_all
        try:
            listing = MemberListing(
                self._vault, self._egress, self._registry.integrations[domain], one
            )
            redact = listing.redact
            log.info("the members of %s: %s", one.name, self._list(listing, stuck))
        except DATABASE_UNAVAILABLE:
            raise
        except BaseException as error:  # noqa: BLE001  plugin code
            problem = problem_of(error, redact)
            log.warning("cannot list the members of %s: %s", one.name, problem)
            with self._database.connection() as conn:
                organizations.not_listed(conn, one.id, problem, _retry_seconds(error))
        return True

    def _still_stuck(self, domain: str) -> dict[UUID, threading.Thread]:
        before = self._stuck.get(domain, {})
        stuck = {id: thread for id, thread in before.items() if thread.is_alive()}
        self._stuck[domain] = stuck
        return stuck

    def _list(self, listing: MemberListing, stuck: dict[UUID, threading.Thread]) -> Changes:
        one, claim = listing.organization, _Claim(self._database, listing.organization.id)
        members = _bounded(listing, stuck, claim)
        with self._database.connection() as conn:
            return organizations.apply(
                conn, self._vault, listing.integration, one, claim.renewed_during(members)
            )


class _Claim:
    """The claim of this process on an organization."""

    def __init__(self, database: Database, id: UUID) -> None:
        self._database, self._id = database, id
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Renew the claim, if the latest time is long ago."""
        if time.monotonic() - self._renewed >= organizations.RENEW_SECONDS:
            with self._database.connection() as conn:
                organizations.renew(conn, self._id)
            self._renewed = time.monotonic()

    def renewed_during(self, members: Iterable[Member]) -> Iterator[Member]:
        """Yield the members, and renew the claim in between."""
        for member in members:
            self.renew()
            yield member


def _bounded(
    listing: MemberListing, stuck: dict[UUID, threading.Thread], claim: _Claim
) -> list[Member]:
    """List all members in a thread of its own, until the deadline.

    Raises:
      TransientError: The thread has not ended. It is added to the stuck ones.
    """
    result: Future[Listed] = Future()

    def work() -> None:
        try:
            result.set_result(listing.members())
        except BaseException as error:  # noqa: BLE001  raised again in the waiting thread
            result.set_exception(error)

    thread = threading.Thread(target=work, name="listing of members", daemon=True)
    thread.start()
    deadline = time.monotonic() + LISTING_SECONDS
    while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
        thread.join(min(left, organizations.RENEW_SECONDS))
        claim.renew()
    if not thread.is_alive():
        return result.result().members
    stuck[listing.organization.id] = thread
    raise TransientError(
        f"the plugin did not list the members within {LISTING_SECONDS / 60:g} minutes"
    )


def _retry_seconds(error: BaseException) -> float:
    """Return after how many seconds the members are listed again."""
    if not isinstance(error, TransientError | RateLimited | OSError):
        return HOUR
    seconds = getattr(error, "retry_after", None)
    asked = seconds if isinstance(seconds, int | float) else 0.0
    return min(max(RETRY_SECONDS, asked), HOUR)
