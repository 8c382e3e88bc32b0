"""Running one dispatch: calling the plugin, and converting its result into rows."""

from __future__ import annotations

import logging
import time

from core.accounts.redaction import error_text
from core.accounts.store import LOWER_LIMIT
from core.content.portions import SWEEP
from core.errors import RateLimited, TaskUnfit
from core.integration.base import REREAD
from core.integration.limits import Concurrency
from core.integration.results import Task
from core.ledger import breakers, processes
from core.ledger.outcomes import Dispatch, LeaseKey, Outcome, result_outcome
from core.plugins import Registry, catalog_entry, reader_version
from core.results.passing import may_pass
from core.results.signals import (
    AccountAway,
    LeftToOthers,
    NoFreeInstance,
    ProbeSlow,
    TimeLimitExceeded,
    UnitsSpent,
)
from core.worker.accounts import LoadedAccount
from core.worker.context import Services, TaskContext
from core.worker.instance_pool import InstancePool
from core.worker.reread import run_reread

MAX_HANDOVERS = 40
"""The number of times that a process leaves a task to others during a deploy.

The pauses between them add up to about half an hour.
"""

MAX_PROBE_SECONDS = 1.0
"""Seconds of a probe above which its task runs in a dispatch of its own, with its complete time."""

REFUSED_SECONDS = 0.25
"""The delay of a task for which the provider refused a further instance."""

log = logging.getLogger(__name__)


class Runner:
    """A runner of dispatches, with instances of the account's integration."""

    def __init__(self, services: Services, instances: InstancePool, registry: Registry) -> None:
        self.services = services
        self.instances = instances
        self.registry = registry

        # The account as a failed task used it: its credentials may have been renewed since.
        self._used: dict[LeaseKey, LoadedAccount] = {}

    def used(self, dispatch: Dispatch) -> LoadedAccount | None:
        """Return the account as a failed task used it, and forget it.

        Returns:
          The account; None if it could not be loaded.
        """
        return self._used.pop(dispatch.lease, None)

    def run(self, dispatch: Dispatch) -> Outcome:
        """Run a dispatch, and return its outcome.

        Raises:
          AccountStopped: The account is not active, or its integration is paused.
          AccountAway: The account did not answer its probe.
          ProbeSlow: The account answered its probe, which took long.
          UnitsSpent: The units of its rate limits are too old, and there are no others.
          LeftToOthers: The task is for another version of the plugin, which the fleet has.
          BaseException: The plugin raised it, in the task or while its result was read.
        """
        if dispatch.type == SWEEP:
            return Outcome(dispatch)  # the saver does the work
        if dispatch.type == REREAD and not dispatch.probe:
            loaded = self.services.accounts.for_reread(dispatch.account_id)
        else:
            loaded = self.services.accounts.get(dispatch.account_id, dispatch.account_version)
        self._used[dispatch.lease] = loaded
        with self.services.egress.for_account(public_only=loaded.account.public_hosts_only):
            return self._run(dispatch, loaded)

    def _run(self, dispatch: Dispatch, loaded: LoadedAccount) -> Outcome:
        # Checked here, because a probe and `initialize` may call the provider.
        self.services.admit(dispatch)
        if dispatch.probe:
            self._probe(loaded)
            self.services.admit(dispatch)
        if dispatch.type == REREAD:
            if self._is_outdated(dispatch, loaded):
                raise LeftToOthers("waits for a newer version of the plugin")
            outcome = run_reread(dispatch, loaded, self.services)
            self._used.pop(dispatch.lease, None)
            return outcome
        instance = self.instances.take(loaded)
        try:
            self.services.renew_units(dispatch)
        except UnitsSpent:
            self.instances.release(instance)
            raise
        context = TaskContext(self.services, dispatch, loaded, instance)
        try:
            # Checked last, because a rate limit or `initialize` may have taken seconds.
            self.services.admit(dispatch)
            result = instance.integration.run_task(Task(dispatch.type, dispatch.payload), context)
            outcome = result_outcome(
                dispatch, result, loaded.integration, self.services.blobs, context.read
            )
        except BaseException as error:
            self._used[dispatch.lease] = context.loaded
            self.instances.discard(instance)
            if isinstance(error, TaskUnfit) and self._deploying(dispatch):
                raise LeftToOthers(f"waits for another version of the plugin: {error}") from None
            if context.no_key is not None:
                # The plugin may have wrapped it in an error of its own, which would park the task.
                raise context.no_key from None
            if isinstance(error, RateLimited) and (limit := loaded.instance_limit) is not None:
                self._lower(loaded, limit, error)
            raise
        self._used.pop(dispatch.lease, None)
        self.instances.release(instance)
        return outcome

    def _probe(self, loaded: LoadedAccount) -> None:
        """Try whether the account answers, and close its breaker if it does.

        An account that rejects the call answers, too: the task then decides what follows.

        Raises:
          AccountAway: The account does not answer.
          RateLimited: The provider answers, and asks for a pause.
          ProbeSlow: The account answers, but the probe has used the time of the task.
        """
        began = time.monotonic()
        try:
            instance = self.instances.take(loaded)
            try:
                instance.integration.probe()
            except BaseException:
                self.instances.discard(instance)
                raise
            self.instances.release(instance)
        except RateLimited:
            raise
        # Plugin code: even sys.exit() says nothing about the task that carries the probe.
        except BaseException as error:  # noqa: BLE001
            if (away := _away(error, loaded)) is not None:
                raise away from None
            log.info("the probe of account %s raised %s", loaded.account.id, type(error).__name__)
        with self.services.database.connection() as conn:
            breakers.close_account(conn, loaded.account.id)
        seconds = time.monotonic() - began
        if seconds > MAX_PROBE_SECONDS:
            raise ProbeSlow(f"its account answered a probe after {seconds:.0f} s")

    def _is_outdated(self, dispatch: Dispatch, loaded: LoadedAccount) -> bool:
        """Return True if the fleet has a newer reader, which the task is for."""
        newer = dispatch.payload.get("reader", 0) > reader_version(loaded.integration)
        return newer and self._deploying(dispatch)

    def _lower(self, loaded: LoadedAccount, limit: Concurrency, error: RateLimited) -> None:
        """Lower a limit that counts instances, if the provider refused one and serves others.

        The task then runs in a process that has an instance. If the provider serves no
        other one, the limit stays, and is blocked for some seconds like any other.

        Raises:
          NoFreeInstance: The provider serves others.
        """
        others = self.instances.count(loaded) if error.limit == limit.name else 0
        if not others:
            return
        if others < limit.tasks:
            id = str(loaded.account.id)
            with self.services.database.connection() as conn:
                conn.execute(LOWER_LIMIT, {"id": id, "name": limit.name, "tasks": others})
            self.services.accounts.invalidate([id])
            log.warning(
                "account %s: the provider refused more; the limit %r is lowered to %d for an hour",
                id, limit.name, others,
            )  # fmt: skip
        raise NoFreeInstance(str(error), REFUSED_SECONDS) from None

    def _deploying(self, dispatch: Dispatch) -> bool:
        if dispatch.snoozes >= MAX_HANDOVERS:
            return False
        with self.services.database.connection() as conn:
            return processes.other_version(conn, catalog_entry(self.registry, dispatch.domain))


def _away(error: BaseException, loaded: LoadedAccount) -> AccountAway | None:
    """Return the signal of a probe that raised, if it means that the account does not answer.

    A probe that exceeds the time limit of its task got no answer. Reading a plugin's exception may
    raise, too; then it says nothing.
    """
    try:
        if isinstance(error, TimeLimitExceeded):
            return AccountAway("the probe exceeded the time limit of its task")
        if may_pass(error, tuple(loaded.integration.manifest.passing)):
            reason = error_text(error, loaded.redact)
            return AccountAway(reason, getattr(error, "retry_after", None))
    except Exception as unreadable:  # noqa: BLE001
        log.info("reading the exception of a probe raised %s", type(unreadable).__name__)
    return None
