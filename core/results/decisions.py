"""What an exception does to the task that raised it: `RULES`, a row for each kind.

The worker turns a decision into the ledger's next state (`core.middleware.retries`), and the
harness of `core.testing` applies it in memory.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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
    TaskUnfit,
    VaultError,
)
from core.results.parking import MAX_CRASHES, Cause
from core.results.result import partition_fits
from core.results.signals import AccountStopped, LeftToOthers, TimeLimitExceeded
from core.results.text import sanitize
from core.states import AccountStateReason, Trigger

FIRST_BACKOFF_SECONDS = 2.0
MAX_BACKOFF_SECONDS = 3_600.0

MIN_SNOOZE_SECONDS = 1.0
MAX_SNOOZE_SECONDS = 86_400.0
FIRST_BLIND_SNOOZE_SECONDS = 10.0
MAX_DEFAULT_SNOOZE_SECONDS = 900.0
"""When the provider does not say how long to wait."""

OUTAGE_SECONDS = (1.0, 3.0)
PAUSED_SECONDS = 5.0
KEY_SECONDS = 60.0
"""How soon a task is tried again whose account cannot be opened with the keys of this process."""

CONFLICT_SECONDS = 0.2
"""How soon a task runs again whose result was dropped, as another one changed the state that it had
read.
"""

MAX_REASON_CHARS = 500
MAX_LIMIT_CHARS = 200

Draw = Callable[[float, float], float]
"""A number between two others: `random.uniform`, or `max` for the longest wait."""


# Decisions


@dataclass(frozen=True, slots=True)
class Done:
    """The task ends as done; nothing of it is kept."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """The task ends as done, the partition is dropped, and a resync is due."""

    reason: str
    partition: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The task runs again. Counts an attempt."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Crashed:
    """The task runs again, as a suspect. Counts a crash."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """The task runs again, through no fault of its own.

    Attributes:
      snoozes: Whether the time counts against `MAX_SNOOZED_SECONDS`.
      keeps_suspicion: Whether a suspect stays one.
    """

    reason: str
    seconds: float
    snoozes: bool = False
    keeps_suspicion: bool = True


@dataclass(frozen=True, slots=True)
class Snooze:
    """The provider asks for a pause: the task runs again after it, and so does everything else that
    uses the limit. The time counts against `MAX_SNOOZED_SECONDS`.

    Attributes:
      limit: The limit that is exhausted; None for the complete account.
    """

    reason: str
    seconds: float
    limit: str | None


@dataclass(frozen=True, slots=True)
class StopAccount:
    """The account stops until a person corrects what `what` names; the task waits for that."""

    reason: str
    what: AccountStateReason


@dataclass(frozen=True, slots=True)
class Park:
    """The task is parked.

    Attributes:
      cause: Its line in `core.results.parking`. `CRASHES` counts a crash, all others an attempt.
    """

    reason: str
    cause: Cause


Decision = Done | Expired | Retry | Crashed | Wait | Snooze | StopAccount | Park


# Rules


class Tries(Protocol):
    """What is known of a task's earlier tries."""

    @property
    def attempts(self) -> int: ...
    @property
    def crashes(self) -> int: ...
    @property
    def snoozes(self) -> int: ...
    @property
    def trigger(self) -> str:
        """The trigger of its run."""
        ...


class Case(NamedTuple):
    """An exception, and all that a rule may ask about it."""

    error: Any
    reason: str
    tries: Tries
    max_attempts: int
    draw: Draw


def _done(case: Case) -> Decision:
    return Done(case.reason)


def _outage(case: Case) -> Decision:
    return Wait(case.reason, case.draw(*OUTAGE_SECONDS))


def _stopped(case: Case) -> Decision:  # noqa: ARG001  all rules are called alike
    return Wait("the account is not active", PAUSED_SECONDS, keeps_suspicion=False)


def _left_to_others(case: Case) -> Decision:
    seconds = min(FIRST_BACKOFF_SECONDS * 1.3 ** min(case.tries.snoozes, 100), KEY_SECONDS)
    return Wait(case.reason, seconds * case.draw(0.5, 1), snoozes=True)


def _no_key(case: Case) -> Decision:
    # The fault of this process's keys, maybe, and not of the account: others may open it.
    return Wait(case.reason, KEY_SECONDS, snoozes=True)


def _rate_limited(case: Case) -> Decision:
    seconds = snooze(case.error.retry_after, case.tries.snoozes, case.draw)
    named = case.error.limit
    limit = None if named is None else sanitize(str(named)[:MAX_LIMIT_CHARS])
    return Snooze(case.reason, seconds, limit or None)


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


def _retried(case: Case) -> Decision:
    attempt = case.tries.attempts + 1
    if attempt >= case.max_attempts:
        return Park(f"after {attempt} attempts: {case.reason}", Cause.ATTEMPTS)
    return Retry(case.reason, backoff(attempt, case.draw))


Kinds = type[BaseException] | tuple[type[BaseException], ...]

# The first row that fits holds.
RULES: tuple[tuple[Kinds, Callable[[Case], Decision]], ...] = (
    (SkipItem, _done),
    (ServerUnavailable, _outage),  # and Redis's own errors: PostgreSQL or Redis is away
    (AccountStopped, _stopped),
    (LeftToOthers, _left_to_others),
    (RateLimited, _rate_limited),
    (VaultError, _no_key),
    (CredentialsInvalid, _bad_credentials),
    (ConfigurationError, _bad_configuration),
    (CursorExpired, _cursor_expired),
    ((ResultInvalid, TaskUnfit), _invalid),
    ((PermanentError, NotFound), _refused),
    (TimeLimitExceeded, _crashed),
    (BaseException, _retried),  # TransientError, and whatever the engine does not know
)


def decide(
    error: BaseException,
    tries: Tries,
    max_attempts: int,
    *,
    redact: Callable[[str], str] = str,
    describe: Callable[[BaseException], str] = str,
    draw: Draw = random.uniform,
) -> Decision:
    """What happens to a task that raised this. An exception whose text or attributes cannot be read
    is retried, whatever its class.

    Parameters:
      max_attempts: Attempts before a task is parked.
      redact: Removes the account's secrets from a text.
      describe: The text of an exception. Default: `str`.
      draw: Makes the jitter. Default: `random.uniform`.
    """
    kind = ServerUnavailable if _is_redis_error(error) else type(error)
    try:
        reason = (sanitize(redact(describe(error))) or type(error).__name__)[:MAX_REASON_CHARS]
        rule = next(rule for kinds, rule in RULES if issubclass(kind, kinds))
        return rule(Case(error, reason, tries, max_attempts, draw))
    except Exception as unreadable:  # noqa: BLE001  without a decision the task would be held for ever
        reason = f"{type(error).__name__}; reading it raised {type(unreadable).__name__}"
        return _retried(Case(error, reason, tries, max_attempts, draw))


def _is_redis_error(error: BaseException) -> bool:
    """Without loading Redis's client: where nobody has, no error is Redis's."""
    redis = sys.modules.get("redis")
    return isinstance(error, getattr(redis, "RedisError", ()))


def backoff(attempt: int, draw: Draw = random.uniform) -> float:
    """Seconds before the next attempt: exponential, with full jitter so that failures do not
    return in step.
    """
    ceiling = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempt, 40))
    return draw(0, ceiling)


def snooze(retry_after: object, snoozes: int, draw: Draw = random.uniform) -> float:
    """Seconds to leave a provider alone: what it says, between a second and a day.

    Where it says nothing, or nothing that is a finite number, the pause grows each time.
    """
    if isinstance(retry_after, int | float) and -math.inf < retry_after < math.inf:
        return float(min(max(retry_after, MIN_SNOOZE_SECONDS), MAX_SNOOZE_SECONDS))
    ceiling = min(MAX_DEFAULT_SNOOZE_SECONDS, FIRST_BLIND_SNOOZE_SECONDS * 2.0 ** min(snoozes, 10))
    return ceiling * draw(0.5, 1)
