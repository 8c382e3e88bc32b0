"""Retries: the exception of a task becomes its next state, which the saver commits.

`core.results.decisions` has the rule for each exception.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from dramatiq.broker import MessageProxy

from core.accounts.redaction import error_text, message_of
from core.integration.base import REREAD
from core.ledger.outcomes import Block, Dispatch, Failure, Outcome, Stop
from core.limits.keys import account_key
from core.middleware.base import TaskMiddleware
from core.observability.errors import report_task
from core.plugins import Registry
from core.results.decisions import (
    Crashed,
    Decision,
    Defer,
    Done,
    Expired,
    Park,
    PassingFailure,
    Retry,
    RetryPolicy,
    Snooze,
    StopAccount,
    Wait,
    decide,
)
from core.results.parking import Cause
from core.results.signals import NoFreeInstance
from core.states import TaskState
from core.worker.accounts import Accounts, LoadedAccount
from core.worker.inflight import InflightTasks
from core.worker.runner import Runner

STOPPED_SECONDS = 1.0
"""The delay of a task that stops its account, in seconds.

If the credentials were renewed in the meantime, the account does not stop, and the task runs again.
"""

log = logging.getLogger("core.task")


class Retries(TaskMiddleware):
    """A middleware that decides the outcome of a task that raised, and hands it to the saver.

    Without this middleware, a task that raises would stay in flight forever, with a renewed lease.

    Args:
      inflight: The in-flight tasks of the process.
      runner: The runner, which has the account as the task used it.
      accounts: The accounts; they redact secrets if the task could not load its account.
      hand_over: Saves the outcome.
      registry: The installed integrations, with the exceptions that may pass.
      policy: The bounds on the attempts of a task.
    """

    def __init__(
        self,
        inflight: InflightTasks,
        runner: Runner,
        accounts: Accounts,
        hand_over: Callable[[Outcome], None],
        registry: Registry,
        policy: RetryPolicy,
    ) -> None:
        super().__init__(inflight)
        self._runner = runner
        self._accounts = accounts
        self._hand_over = hand_over
        self._registry = registry
        self._policy = policy

    @property
    def actor_options(self) -> set[str]:
        """The option `throws` of Dramatiq's own retries, which this middleware replaces."""
        return {"throws"}

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        """Save the outcome of a task that raised, and log and report it."""
        if exception is None:
            return
        loaded = self._runner.used(dispatch)
        redact = (
            loaded.redact if loaded is not None else self._accounts.redactor(dispatch.account_id)
        )
        outcome = outcome_of(
            dispatch,
            exception,
            self._policy_of(dispatch.domain),
            loaded,
            redact,
            self._accounts.credentials_version,
        )
        log.log(
            logging.WARNING
            if outcome.state == TaskState.PARKED or outcome.stop
            else logging.DEBUG
            if isinstance(exception, NoFreeInstance)
            else logging.INFO,
            "task %s (%s of %s) %s: %s",
            dispatch.task_id,
            dispatch.type,
            dispatch.domain,
            (
                "is parked"
                if outcome.state == TaskState.PARKED
                else "waits, because its account does not answer"
                if outcome.failed_probe is not None
                else f"retries in {outcome.delay:.1f} s"
                if outcome.state in (TaskState.READY, TaskState.DEFERRED)
                else "ends"
            ),
            outcome.error or outcome.reason,
        )
        if outcome.state == TaskState.PARKED or outcome.stop:
            level = "error" if outcome.state == TaskState.PARKED else "warning"
            report_task(
                exception, outcome.error or outcome.reason or "", tags_of(dispatch), redact, level
            )
        self._hand_over(outcome)

    def _policy_of(self, domain: str) -> RetryPolicy:
        integration = self._registry.integrations.get(domain)
        if integration is None or not integration.manifest.passing:
            return self._policy
        return replace(self._policy, passing=tuple(integration.manifest.passing))


def tags_of(dispatch: Dispatch) -> dict[str, str]:
    """Return the tags that name a task in an error report."""
    tags = {
        "domain": dispatch.domain,
        "type": dispatch.type,
        "account": dispatch.account_id,
        "run": dispatch.run_id,
    }
    return tags | {"task": str(dispatch.task_id), "lane": dispatch.lane}


def outcome_of(
    dispatch: Dispatch,
    exception: BaseException,
    policy: RetryPolicy,
    loaded: LoadedAccount | None,
    redact: Callable[[str], str],
    stored_version: Callable[[str], int],
) -> Outcome:
    """Return the outcome of a task that raised.

    Args:
      dispatch: The dispatch that raised.
      exception: The exception.
      policy: The bounds on the attempts of a task.
      loaded: The account as the task used it; None if it could not be loaded.
      redact: Redacts the account's secrets in a text.
      stored_version: Reads the version of an account's credentials; called if `loaded` is None.
    """
    decision = decide(exception, dispatch, policy, redact=redact, describe=message_of)
    try:
        outcome = _outcome(dispatch, decision, loaded, stored_version)
    except Exception as error:  # noqa: BLE001  a task without an outcome would stay in flight forever
        decision = decide(error, dispatch, policy, redact=redact, describe=message_of)
        outcome = _outcome(dispatch, decision, loaded, stored_version)
    if isinstance(decision, Retry | Defer | Crashed | StopAccount | Park):
        outcome.error = _error(exception, redact, decision.reason)
    # A reread calls no provider, so its failure says nothing about the account.
    if isinstance(decision, Retry | Defer | Park) and dispatch.type != REREAD:
        outcome.failure = _failure(decision.outage, loaded)
    return outcome


def _error(exception: BaseException, redact: Callable[[str], str], reason: str) -> str:
    try:
        return error_text(exception, redact)
    except Exception:  # noqa: BLE001  a plugin's exception may raise when it is read
        return reason


def _outcome(
    dispatch: Dispatch,
    decision: Decision,
    loaded: LoadedAccount | None,
    stored_version: Callable[[str], int],
) -> Outcome:
    outcome = Outcome(dispatch, state=TaskState.READY, reason=decision.reason)
    match decision:
        case Done():
            outcome.state = TaskState.DONE
        case Expired(partition=partition):
            outcome.state, outcome.expired = TaskState.DONE, partition
        case Retry(seconds=seconds):
            outcome.delay, outcome.attempt = seconds, 1
        case Defer(seconds=seconds):
            outcome.state, outcome.delay, outcome.attempt = TaskState.DEFERRED, seconds, 1
        case Crashed(seconds=seconds):
            outcome.delay, outcome.crash, outcome.suspect = seconds, 1, True
        case Wait(seconds=seconds, snoozes=snoozes, keeps_suspicion=keeps):
            outcome.delay, outcome.snooze = seconds, int(snoozes)
            outcome.suspect = keeps and dispatch.suspect
            outcome.failed_probe = decision.failed_probe
        case Snooze(seconds=seconds, limit=limit):
            outcome.delay, outcome.snooze = seconds * (1 + random.random() / 20), 1
            outcome.block = Block(_key(dispatch, loaded, limit), seconds, decision.reason)
        case StopAccount(what=what):
            version = _credentials_version(dispatch, loaded, stored_version)
            outcome.delay, outcome.stop = STOPPED_SECONDS, Stop(what, decision.reason, version)
        case Park(cause=cause):
            outcome.state = TaskState.PARKED
            outcome.crash = int(cause == Cause.CRASHES)
            outcome.attempt = 1 - outcome.crash
        case _:
            assert_never(decision)
    return outcome


def _failure(outage: PassingFailure | None, loaded: LoadedAccount | None) -> Failure | None:
    """Return the failure as breakers count it. A limit that is unknown is the complete account."""
    if outage is None:
        return None
    types = loaded.types_of(outage.limit) if loaded is not None and outage.limit else []
    return Failure(outage.reason, outage.limit if types else None, types, outage.requested_seconds)


def _credentials_version(
    dispatch: Dispatch, loaded: LoadedAccount | None, stored_version: Callable[[str], int]
) -> int:
    """Return the version of the credentials that the task used."""
    return (
        stored_version(dispatch.account_id)
        if loaded is None
        else loaded.account.credentials_version
    )


def _key(dispatch: Dispatch, loaded: LoadedAccount | None, limit: str | None) -> str:
    """Return the key to block: that of the limit, or of the account if no limit is named."""
    if loaded is None or limit is None:
        return account_key(dispatch.account_id)
    return loaded.block_key(limit)
