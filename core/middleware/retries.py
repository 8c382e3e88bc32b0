"""Turn a plugin's exception into the ledger's next state, and hand results to the saver."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable

from dramatiq.broker import MessageProxy
from redis import RedisError

from core.accounts.limits import account_key
from core.accounts.redaction import error_text
from core.content.text import mended
from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    CursorExpired,
    NotFound,
    PermanentError,
    RateLimited,
    ServerUnavailable,
    SkipItem,
    VaultError,
)
from core.ledger.leases import MOST_CRASHES
from core.ledger.outcomes import Block, Dispatch, Outcome, Stop
from core.middleware.closed import TaskMiddleware
from core.middleware.time_limit import TimeLimitExceeded
from core.observing.errors import report_task
from core.worker.accounts import LoadedAccount
from core.worker.process import current
from core.worker.running import AccountStopped, LeftToOthers

FIRST_BACKOFF_SECONDS = 2.0
LONGEST_BACKOFF_SECONDS = 3_600.0

SHORTEST_SNOOZE_SECONDS = 1.0
LONGEST_SNOOZE_SECONDS = 86_400.0
LONGEST_BLIND_SNOOZE_SECONDS = 900.0
"""When the provider does not say how long to wait."""

PAUSED_SECONDS = 5.0
KEY_SECONDS = 60.0
"""How soon a task is tried again whose account cannot be opened with the keys of this process."""

log = logging.getLogger("core.task")


class Retries(TaskMiddleware):
    """Without it nothing would be saved: it is where every task ends.

    Parameters:
      max_attempts: Attempts before a task is parked; an operator's `POLLING_MAX_ATTEMPTS`.
    """

    def __init__(self, max_attempts: int) -> None:
        self.max_attempts = max_attempts

    @property
    def actor_options(self) -> set[str]:
        return {"throws"}

    def after(
        self, dispatch: Dispatch, message: MessageProxy, exception: BaseException | None
    ) -> None:
        if exception is None:
            return
        process = current()
        loaded = process.runner.used(dispatch)
        strike = (
            loaded.redact if loaded is not None else process.accounts.redactor(dispatch.account_id)
        )
        try:
            outcome = decide(dispatch, exception, self.max_attempts, loaded, strike)
        # A task without an outcome would be held here for ever.
        except Exception as error:  # noqa: BLE001
            text = f"{type(exception).__name__}, which could not be read ({type(error).__name__})"
            outcome = _transient(dispatch, self.max_attempts, text, text)
        log.log(
            logging.WARNING if outcome.state == "parked" or outcome.stop else logging.INFO,
            "task %s (%s of %s) %s: %s",
            dispatch.task_id,
            dispatch.type,
            dispatch.domain,
            (
                "is parked"
                if outcome.state == "parked"
                else f"goes on in {outcome.delay:.1f} s"
                if outcome.state == "ready"
                else "ends"
            ),
            outcome.error or outcome.reason,
        )
        if outcome.state == "parked" or outcome.stop:
            level = "error" if outcome.state == "parked" else "warning"
            report_task(
                exception, outcome.error or outcome.reason or "", tags_of(dispatch), strike, level
            )
        process.hand_over(outcome)


def tags_of(dispatch: Dispatch) -> dict[str, str]:
    """Which task a report is about."""
    names = {
        "domain": dispatch.domain,
        "type": dispatch.type,
        "account": dispatch.account_id,
        "run": dispatch.run_id,
    }
    return names | {"task": str(dispatch.task_id), "lane": dispatch.lane}


def decide(  # noqa: C901  the table of what an exception does, a case a row
    dispatch: Dispatch,
    exception: BaseException,
    max_attempts: int,
    loaded: LoadedAccount | None,
    strike: Callable[[str], str],
) -> Outcome:
    """The outcome of a task that raised.

    Parameters:
      loaded: The account as the task had it; None if it could not be loaded.
      strike: Takes the account's secrets out of a text.
    """
    text = error_text(exception, strike)
    reason = (mended(strike(str(exception))) or text)[:500]
    match exception:
        case SkipItem():
            return Outcome(dispatch, reason=reason)
        case ServerUnavailable() | RedisError():
            return Outcome(
                dispatch,
                state="ready",
                delay=random.uniform(1, 3),
                suspect=dispatch.suspect,
                reason=reason,
            )
        case AccountStopped():
            return Outcome(
                dispatch, state="ready", delay=PAUSED_SECONDS, reason="the account does not run now"
            )
        case LeftToOthers():
            delay = min(
                FIRST_BACKOFF_SECONDS * 1.3**dispatch.snoozes, KEY_SECONDS
            ) * random.uniform(0.5, 1)
            return Outcome(
                dispatch,
                state="ready",
                delay=delay,
                snooze=1,
                suspect=dispatch.suspect,
                reason=reason,
            )
        case RateLimited():
            return _rate_limited(dispatch, exception, loaded, reason)
        case VaultError():
            # The fault of this process's keys, maybe, and not of the account: others may open it.
            return Outcome(
                dispatch,
                state="ready",
                delay=KEY_SECONDS,
                snooze=1,
                suspect=dispatch.suspect,
                reason=reason,
            )
        case CredentialsInvalid():
            return _stopped(dispatch, "credentials", reason, loaded, text)
        case ConfigurationError():
            return _stopped(dispatch, "configuration", reason, loaded, text)
        case CursorExpired() if dispatch.trigger == "resync":
            return _parked(dispatch, f"{reason}, in a resync", text)
        case CursorExpired():
            return Outcome(dispatch, reason=reason, expired=exception.partition)
        case PermanentError() | NotFound():
            return _parked(dispatch, reason, text)
        case TimeLimitExceeded():
            return _crashed(dispatch, reason, text)
    return _transient(dispatch, max_attempts, reason, text)


def _parked(dispatch: Dispatch, reason: str, text: str) -> Outcome:
    return Outcome(dispatch, state="parked", attempt=1, reason=reason, error=text)


def _transient(dispatch: Dispatch, max_attempts: int, reason: str, text: str) -> Outcome:
    attempt = dispatch.attempts + 1
    if attempt >= max_attempts:
        return _parked(dispatch, f"after {attempt} attempts: {reason}", text)
    return Outcome(
        dispatch, state="ready", delay=backoff(attempt), attempt=1, reason=reason, error=text
    )


def _crashed(dispatch: Dispatch, reason: str, text: str) -> Outcome:
    if dispatch.crashes + 1 >= MOST_CRASHES:
        return Outcome(
            dispatch, state="parked", crash=1, reason=f"{MOST_CRASHES} times: {reason}", error=text
        )
    return Outcome(
        dispatch, state="ready", delay=backoff(1), crash=1, suspect=True, reason=reason, error=text
    )


def _stopped(
    dispatch: Dispatch, why: str, detail: str, loaded: LoadedAccount | None, text: str
) -> Outcome:
    version = (
        loaded.account.credentials_version if loaded is not None else _stored_version(dispatch)
    )
    stop = Stop("credentials" if why == "credentials" else "configuration", detail, version)
    # If the credentials were renewed meanwhile, the account does not stop, and the task simply runs
    # again.
    return Outcome(dispatch, state="ready", delay=1.0, reason=detail, error=text, stop=stop)


def _stored_version(dispatch: Dispatch) -> int:
    with current().database.connection() as conn:
        row = conn.execute(
            "SELECT credentials_version FROM user_integration WHERE id = %s", (dispatch.account_id,)
        ).fetchone()
    return row[0] if row is not None else 0


def _rate_limited(
    dispatch: Dispatch, error: RateLimited, loaded: LoadedAccount | None, reason: str
) -> Outcome:
    seconds = snooze(error.retry_after, dispatch.snoozes)
    key = account_key(dispatch.account_id)
    if loaded is not None and error.limit is not None:
        keys = [loaded.key(limit) for limit in loaded.limits if limit.name == error.limit]
        key = keys[0] if keys else f"account/{dispatch.account_id}/{error.limit}"
    delay = seconds * (1 + random.random() / 20)
    return Outcome(
        dispatch,
        state="ready",
        delay=delay,
        snooze=1,
        reason=reason,
        block=Block(key, seconds, reason),
    )


def backoff(attempt: int) -> float:
    """Seconds before the next attempt.

    They grow exponentially, with full jitter so that failures do not return in step.
    """
    ceiling = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempt, 40))
    return random.uniform(0, ceiling)


def snooze(retry_after: float | None, snoozes: int) -> float:
    """Seconds to wait for a provider: its own figure, within bounds; otherwise longer each time."""
    if isinstance(retry_after, int | float) and -math.inf < retry_after < math.inf:
        return float(min(max(retry_after, SHORTEST_SNOOZE_SECONDS), LONGEST_SNOOZE_SECONDS))
    ceiling = min(LONGEST_BLIND_SNOOZE_SECONDS, 10.0 * 2.0 ** min(snoozes, 10))
    return ceiling * random.uniform(0.5, 1)
