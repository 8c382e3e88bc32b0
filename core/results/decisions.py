"""The decisions about tasks that raised an exception: `RULES` has one row for each kind.

`core.middleware.retries` converts a decision to the task's next state in the ledger. The harness of
`core.testing` applies it in memory.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from core.backoff import Draw, growing_pause
from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    CursorExpired,
    NotFound,
    PermanentError,
    RateLimited,
    ResultInvalid,
    ServerUnavailable,
    SkipItem,
    StoreUnavailable,
    TaskUnfit,
    VaultError,
)
from core.results.parking import MAX_CRASHES, Cause
from core.results.passing import may_pass
from core.results.result import partition_fits
from core.results.signals import (
    AccountAway,
    AccountStopped,
    LeftToOthers,
    NoFreeInstance,
    ProbeSlow,
    TimeLimitExceeded,
    UnitsSpent,
)
from core.results.text import sanitize
from core.states import AccountStateReason, Trigger

FIRST_BACKOFF_SECONDS = 2.0
MAX_BACKOFF_SECONDS = 3_600.0

MAX_QUICK_SECONDS = 60.0
"""The longest wait between two quick attempts; a provider that asks for more defers the task."""

FIRST_DEFERRAL_SECONDS = 60.0
MAX_DEFERRAL_SECONDS = 6 * 3_600.0

MIN_DEFERRALS = 10
"""The number of times that a task was deferred before it is parked.

While an account does not answer, its tasks are not tried. That time alone parks nothing.
"""

MIN_SNOOZE_SECONDS = 1.0
MAX_SNOOZE_SECONDS = 86_400.0
"""Bounds of the pause that a provider requests."""

FIRST_BLIND_SNOOZE_SECONDS = 10.0
MAX_DEFAULT_SNOOZE_SECONDS = 900.0
"""The first and the longest pause if the provider does not say how long to wait."""

SERVER_DOWN_SECONDS = (1.0, 3.0)
"""Bounds of the delay before a task runs again after PostgreSQL or Redis was unavailable."""

INACTIVE_ACCOUNT_SECONDS = 5.0
"""Delay before the task of an inactive account is tried again."""

KEY_SECONDS = 60.0
"""Delay before a task is tried again if no key of this process decrypts its credentials."""

CONFLICT_SECONDS = 0.2
"""Delay before a task runs again whose result was discarded because of a state conflict.

Another task had changed a state partition after this task had read it.
"""

MAX_REASON_CHARS = 500
MAX_LIMIT_CHARS = 200


# Decisions


@dataclass(frozen=True, slots=True)
class Done:
    """The task ends as done, without a result."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """The task ends as done, the partition is dropped, and a resync is due."""

    reason: str
    partition: str


@dataclass(frozen=True, slots=True)
class PassingFailure:
    """A failure that may pass.

    Attributes:
      reason: The text of the exception.
      limit: The limit of the account that does not answer; None for the complete account.
      requested_seconds: The pause that the provider asks for; 0 if it asks for none.
    """

    reason: str
    limit: str | None
    requested_seconds: float


@dataclass(frozen=True, slots=True)
class Retry:
    """The task runs again. The failure counts as an attempt.

    Attributes:
      outage: The provider's side of a failure that may pass; None for another failure.
    """

    reason: str
    seconds: float
    outage: PassingFailure | None = None


@dataclass(frozen=True, slots=True)
class Defer:
    """The task is closed for its run, and tried again after a pause. Counts an attempt."""

    reason: str
    seconds: float
    outage: PassingFailure


@dataclass(frozen=True, slots=True)
class Crashed:
    """The task runs again as a suspect. The failure counts as a crash."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """The task runs again later. The failure does not count, because the task did not cause it.

    Attributes:
      snoozes: True if the time counts as snoozed.
      keeps_suspicion: True if a suspect remains a suspect.
      failed_probe: Seconds that the provider asks to wait, if the account did not answer its probe;
        None otherwise.
    """

    reason: str
    seconds: float
    snoozes: bool = False
    keeps_suspicion: bool = True
    failed_probe: float | None = None


@dataclass(frozen=True, slots=True)
class Snooze:
    """The provider requests a pause. The task and all other users of the limit wait for its end.

    The wait counts as snoozed.

    Attributes:
      limit: The exhausted limit; None for the complete account.
    """

    reason: str
    seconds: float
    limit: str | None


@dataclass(frozen=True, slots=True)
class StopAccount:
    """The account stops until a person corrects its credentials or config; the task waits.

    Attributes:
      what: The part of the account that a person must correct.
    """

    reason: str
    what: AccountStateReason


@dataclass(frozen=True, slots=True)
class Park:
    """The task is parked.

    Attributes:
      cause: The cause, from `core.results.parking`. `CRASHES` counts as a crash, the other causes
        as an attempt.
      outage: The provider's side of a failure that may pass; None for another failure.
    """

    reason: str
    cause: Cause
    outage: PassingFailure | None = None


Decision = Done | Expired | Retry | Defer | Crashed | Wait | Snooze | StopAccount | Park


# Rules


class Tries(Protocol):
    """The history of a task's earlier tries."""

    @property
    def attempts(self) -> int:
        """The number of attempts that counted."""
        ...

    @property
    def crashes(self) -> int:
        """The number of crashes."""
        ...

    @property
    def snoozes(self) -> int:
        """The number of snoozes."""
        ...

    @property
    def deferrals(self) -> int:
        """The number of times that it was deferred."""
        ...

    @property
    def failing_seconds(self) -> float:
        """Seconds since its first failure; 0 if it has not failed."""
        ...

    @property
    def trigger(self) -> str:
        """The trigger of the task's run."""
        ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The bounds on the attempts of a task.

    Args:
      max_attempts: Quick attempts before a task is deferred or parked (`POLLING_MAX_ATTEMPTS`).
        Default: 3.
      give_up_seconds: Seconds since its first failure after which a task is parked instead of
        deferred (`POLLING_GIVE_UP_AFTER_DAYS`). Default: 7 days.
      passing: The exceptions that may pass, besides those of `core.results.passing`
        (`Manifest.passing`). Default: none.
    """

    max_attempts: int = 3
    give_up_seconds: float = 7 * 86_400.0
    passing: tuple[type[BaseException], ...] = ()


class Case(NamedTuple):
    """An exception and the facts that a rule needs to decide about it."""

    error: Any
    reason: str
    tries: Tries
    policy: RetryPolicy
    draw: Draw


def _done(case: Case) -> Decision:
    return Done(case.reason)


def _own_server_down(case: Case) -> Decision:
    return Wait(case.reason, case.draw(*SERVER_DOWN_SECONDS))


def _store_away(case: Case) -> Decision:
    # The account pauses, not only the task: its next tasks would call the provider for nothing.
    return Snooze(case.reason, case.error.seconds * case.draw(0.5, 1), None)


def _stopped(case: Case) -> Decision:  # noqa: ARG001  all rules have the same signature
    return Wait("the account is not active", INACTIVE_ACCOUNT_SECONDS, keeps_suspicion=False)


def _left_to_others(case: Case) -> Decision:
    seconds = growing_pause(
        FIRST_BACKOFF_SECONDS,
        KEY_SECONDS,
        case.tries.snoozes,
        factor=1.3,
        jitter=0.5,
        draw=case.draw,
    )
    return Wait(case.reason, seconds, snoozes=True)


def _no_free_instance(case: Case) -> Decision:
    return Wait(case.reason, case.error.seconds)


def _units_spent(case: Case) -> Decision:
    return Wait(case.reason, min(case.error.seconds, MAX_SNOOZE_SECONDS), snoozes=True)


def _no_key(case: Case) -> Decision:
    # The keys of this process may be wrong. Another process may be able to decrypt the credentials.
    return Wait(case.reason, KEY_SECONDS, snoozes=True)


def _rate_limited(case: Case) -> Decision:
    seconds = snooze(case.error.retry_after, case.tries.snoozes, case.draw)
    return Snooze(case.reason, seconds, _limit_of(case.error))


def _bad_credentials(case: Case) -> Decision:
    return StopAccount(case.reason, AccountStateReason.CREDENTIALS)


def _bad_configuration(case: Case) -> Decision:
    return StopAccount(case.reason, AccountStateReason.CONFIGURATION)


def _cursor_expired(case: Case) -> Decision:
    if case.tries.trigger == Trigger.RESYNC:
        return Park(f"{case.reason}, during a resync", Cause.CURSOR)
    if not partition_fits(case.error.partition):
        return Park(f"{case.reason}; invalid name of a state partition", Cause.CURSOR)
    return Expired(case.reason, case.error.partition)


def _invalid(case: Case) -> Decision:
    return Park(case.reason, Cause.INVALID)


def _refused(case: Case) -> Decision:
    return Park(case.reason, Cause.REFUSED)


def _crashed(case: Case) -> Decision:
    if case.tries.crashes + 1 >= MAX_CRASHES:
        return Park(f"crashed {MAX_CRASHES} times: {case.reason}", Cause.CRASHES)
    return Crashed(case.reason, backoff(1, case.draw))


def _failed(case: Case) -> Decision:
    if may_pass(case.error, case.policy.passing):
        return _unavailable(case)
    attempt = case.tries.attempts + 1
    if attempt >= case.policy.max_attempts:
        return Park(f"after {attempt} attempts: {case.reason}", Cause.ATTEMPTS)
    return Retry(case.reason, backoff(attempt, case.draw))


def _unavailable(case: Case) -> Decision:
    attempt = case.tries.attempts + 1
    requested = requested_seconds(getattr(case.error, "retry_after", None)) or 0.0
    outage = PassingFailure(case.reason, _limit_of(case.error), requested)
    if attempt < case.policy.max_attempts and requested <= MAX_QUICK_SECONDS:
        return Retry(case.reason, max(requested, backoff(attempt, case.draw)), outage)
    tries = case.tries
    if tries.failing_seconds >= case.policy.give_up_seconds and tries.deferrals >= MIN_DEFERRALS:
        days = tries.failing_seconds / 86_400
        return Park(f"failing for {days:.0f} days: {case.reason}", Cause.GIVEN_UP, outage)
    pause = deferral(tries.deferrals, case.draw)
    return Defer(f"deferred: {case.reason}", max(requested, pause), outage)


def _account_away(case: Case) -> Decision:
    requested = requested_seconds(case.error.retry_after) or 0.0
    return Wait(case.reason, 0.0, failed_probe=requested)


def _probe_slow(case: Case) -> Decision:
    return Wait(case.reason, 0.0)


def _limit_of(error: Any) -> str | None:
    """Return the limit that an exception names, as text that PostgreSQL can keep."""
    named = getattr(error, "limit", None)
    return None if named is None else sanitize(str(named)[:MAX_LIMIT_CHARS]) or None


Kinds = type[BaseException] | tuple[type[BaseException], ...]

# The first matching row applies.
RULES: tuple[tuple[Kinds, Callable[[Case], Decision]], ...] = (
    (SkipItem, _done),
    (ServerUnavailable, _own_server_down),  # PostgreSQL or Redis; includes errors of the client
    (StoreUnavailable, _store_away),  # the blob store is unavailable, full or read-only
    (AccountStopped, _stopped),
    (AccountAway, _account_away),
    (ProbeSlow, _probe_slow),
    (LeftToOthers, _left_to_others),
    (NoFreeInstance, _no_free_instance),
    (UnitsSpent, _units_spent),
    (RateLimited, _rate_limited),
    (VaultError, _no_key),
    (CredentialsInvalid, _bad_credentials),
    (ConfigurationError, _bad_configuration),
    (CursorExpired, _cursor_expired),
    ((ResultInvalid, TaskUnfit), _invalid),
    ((PermanentError, NotFound), _refused),
    (TimeLimitExceeded, _crashed),
    (BaseException, _failed),  # TransientError, connection errors, and all other exceptions
)


def decide(
    error: BaseException,
    tries: Tries,
    policy: RetryPolicy,
    *,
    redact: Callable[[str], str] = str,
    describe: Callable[[BaseException], str] = str,
    draw: Draw = random.uniform,
) -> Decision:
    """Decide about a task that raised an exception.

    If reading the text or the attributes of the exception fails, the task is retried, regardless of
    the class of the exception.

    Args:
      error: The exception.
      tries: The attempts, crashes and snoozes of the task so far.
      policy: The bounds on the attempts of a task.
      redact: Removes the account's secrets from a text. Default: no redaction.
      describe: Returns the text of an exception. Default: `str`.
      draw: Returns the jitter. Default: `random.uniform`.
    """
    kind = ServerUnavailable if _is_redis_error(error) else type(error)
    try:
        reason = (sanitize(redact(describe(error))) or type(error).__name__)[:MAX_REASON_CHARS]
        rule = next(rule for kinds, rule in RULES if issubclass(kind, kinds))
        return rule(Case(error, reason, tries, policy, draw))
    except Exception as unreadable:  # noqa: BLE001  a task without a decision would never end
        reason = f"{type(error).__name__}; reading it raised {type(unreadable).__name__}"
        return _failed(Case(RuntimeError(), reason, tries, policy, draw))


def _is_redis_error(error: BaseException) -> bool:
    """Return True for an error of the Redis client, without importing the client.

    If nothing has imported it, the error cannot come from it.
    """
    redis = sys.modules.get("redis")
    return isinstance(error, getattr(redis, "RedisError", ()))


def backoff(attempt: int, draw: Draw = random.uniform) -> float:
    """Return the seconds before the next attempt: exponential backoff with full jitter."""
    return growing_pause(FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, attempt, jitter=1.0, draw=draw)


def deferral(deferrals: int, draw: Draw = random.uniform) -> float:
    """Return the seconds before a deferred task is tried again: from a minute to 6 hours.

    Args:
      deferrals: The number of times that the task was deferred before.
      draw: Makes the jitter. Default: `random.uniform`.
    """
    return growing_pause(
        FIRST_DEFERRAL_SECONDS, MAX_DEFERRAL_SECONDS, deferrals, jitter=0.5, draw=draw
    )


def requested_seconds(value: object) -> float | None:
    """Return the pause that a provider requests, bounded to between one second and one day.

    Returns None if the value is not a finite number.
    """
    if isinstance(value, int | float) and -math.inf < value < math.inf:
        return float(min(max(value, MIN_SNOOZE_SECONDS), MAX_SNOOZE_SECONDS))
    return None


def snooze(retry_after: object, snoozes: int, draw: Draw = random.uniform) -> float:
    """Return the seconds to pause calls to a provider.

    The provider's own value applies, bounded to between one second and one day. Without a finite
    number from the provider, the pause grows with each snooze.

    Args:
      retry_after: The provider's value, in seconds.
      snoozes: The number of earlier snoozes.
      draw: Returns the jitter.
    """
    requested = requested_seconds(retry_after)
    if requested is not None:
        return requested
    return growing_pause(
        FIRST_BLIND_SNOOZE_SECONDS, MAX_DEFAULT_SNOOZE_SECONDS, snoozes, jitter=0.5, draw=draw
    )
