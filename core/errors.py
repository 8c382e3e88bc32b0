"""The engine's errors.

A plugin raises an `IntegrationError` to choose how the engine continues with its task. A
`PollingError` is for people: it carries a code and fields, and the command line, REST and the
dashboard fill them into the texts of the catalogue (`core.error_catalog`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.error_catalog import ADVICE, CATALOG, Surface

AccountPart = Literal["config", "credentials"]
"""The parts of an account that a person fills in."""


class IntegrationError(Exception):
    """Base class of the errors with which a plugin chooses the next state of its task."""


class RateLimited(IntegrationError):
    """The provider's rate limit is exhausted. The engine snoozes the task; no attempt counts.

    Args:
      reason: The reason shown to people while the account waits. Default: "rate limited".
      retry_after: Seconds until the limit opens again, clamped to between 1 second and 1 day.
        Default, and for any value that is not a finite number: a pause that grows with each
        refusal, from at most 10 s to at most 15 min.
      limit: The name of the exhausted limit. Tasks that do not use it continue. Default: all tasks
        of the account wait.
    """

    def __init__(
        self, reason: str = "", *, retry_after: float | None = None, limit: str | None = None
    ) -> None:
        super().__init__(reason or "rate limited")
        self.retry_after = retry_after
        self.limit = limit


class TransientError(IntegrationError):
    """The failure may pass: the engine tries the task again.

    Quick attempts come first, with exponential backoff and full jitter. When they are used up, the
    task is deferred: its run ends without it, and the engine tries it again with pauses that grow
    to 6 hours. After `POLLING_GIVE_UP_AFTER_DAYS` since its first failure, it is parked, if it
    was deferred at least 10 times.

    Connection errors have the same effect: `ConnectionError`, `TimeoutError`, `socket.gaierror`,
    `EOFError`, `ssl.SSLError` except a failed certificate verification, an unreachable network,
    `http.client.HTTPException`, and the classes in `Manifest.passing`.
    """


class Unavailable(TransientError):
    """The provider, or the part of it that a task needs, does not answer.

    Args:
      reason: Shown to people.
      retry_after: Seconds until the next attempt at the earliest, clamped to between 1 second and
        1 day. Default, and for anything that is not a finite number: the engine's backoff.
      limit: The name of the account's limit that does not answer, such as one method of an API.
        Default, and for a name that the account's `limits` do not have: the complete account.
    """

    def __init__(
        self, reason: str = "", *, retry_after: float | None = None, limit: str | None = None
    ) -> None:
        super().__init__(reason or "the provider does not answer")
        self.retry_after = retry_after
        self.limit = limit


class PermanentError(IntegrationError):
    """A failure that no retry can fix. The engine parks the task; other tasks continue."""


class SkipItem(IntegrationError):
    """An item without content to save. The task ends as done, with this reason."""


class _WithRemedy(Exception):
    """The part of an error that stops an account: a reason, and the next step of a person."""

    def __init__(self, reason: str = "", *, remedy: str = "", field: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.field = field

    @property
    def reason(self) -> str:
        """The reason, without the remedy."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.reason.rstrip('.')}. {self.remedy}" if self.remedy else self.reason


class CredentialsInvalid(_WithRemedy, IntegrationError):
    """The credentials do not work. The account stops until someone reconnects it.

    Its tasks then resume.

    Args:
      reason: The reason, shown to people. Default: none.
      remedy: The next step of a person, as a sentence without a full stop. The engine shows it
        when an account is connected, and after the reason of a stopped account. Default: the
        engine's own text.
      field: The name of the invalid field of the credentials. When an account is connected, its
        form shows the reason at this field. Default: the reason concerns no single field.
    """


class ConfigurationError(_WithRemedy, IntegrationError):
    """The account's configuration does not work. The account stops until someone corrects it.

    Args:
      reason: The reason, shown to people. Default: none.
      remedy: The next step of a person; see `CredentialsInvalid`. Default: the engine's own text.
      field: The name of the invalid field of the config; see `CredentialsInvalid`. Default: the
        reason concerns no single field.
    """


class CursorExpired(IntegrationError):
    """The provider no longer accepts the stored cursor.

    The engine drops the partition's state, and a resync is due immediately.

    Args:
      partition: The state partition that holds the cursor.
    """

    def __init__(self, partition: str) -> None:
        super().__init__(f"the cursor of partition {partition!r} has expired")
        self.partition = partition


class PollingError(Exception):
    """An error for a person, with a message and a next step from the catalogue.

    `str()` returns the message: one line, without the next step.

    Args:
      code: A code of `core.error_catalog`.
      fields: The values that the message and the next steps of this code contain.

    Raises:
      KeyError: The catalogue does not contain this code.
    """

    def __init__(self, code: str, /, **fields: object) -> None:
        super().__init__(code)
        self._entry = CATALOG[code]
        self.code = code
        self.fields: Mapping[str, object] = fields

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """The problem: one line, lower case, without a full stop."""
        return self._entry.message.format_map(self.fields)

    @property
    def status(self) -> int:
        """The HTTP status for REST and the dashboard."""
        return self._entry.status

    @property
    def advice(self) -> Advice:
        """The next step, not yet worded for a surface."""
        return Advice(self.code, self.fields)

    def next_step(self, surface: Surface) -> str:
        """Return the next step, worded for a surface."""
        return self._entry.steps.on(surface).format_map(self.fields)


@dataclass(frozen=True, slots=True)
class Advice:
    """A next step: a code of the catalogue's errors or of its `ADVICE`, and the fields."""

    code: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def next_step(self, surface: Surface) -> str:
        """Return the next step, worded for a surface."""
        steps = ADVICE[self.code] if self.code in ADVICE else CATALOG[self.code].steps
        return steps.on(surface).format_map(self.fields)


class SettingsError(PollingError):
    """A setting is missing or invalid."""


class ServerUnavailable(PollingError):
    """PostgreSQL or Redis does not answer, or is too old."""


class StoreUnavailable(PollingError):
    """The blob store does not answer, or refuses to read or write.

    Attributes:
      seconds: Seconds after which a task may try again.
    """

    seconds: float = 2.0


class NotFound(PollingError):
    """The requested account, run, task, content or integration does not exist."""


class InvalidInput(PollingError):
    """A config, credentials, an id or a file is invalid."""


class TooManyRequests(PollingError):
    """A user has used up what one user may do at a time."""


class QuotaReached(TooManyRequests):
    """A user has as much as an operator allows."""


class InvalidFields(InvalidInput):
    """An invalid config, or invalid credentials.

    Args:
      code: A code of `core.error_catalog`.
      part: The part of the account that has the fields.
      problems: The message for each invalid field, by name. A message about the complete part has
        the empty name. Messages repeat no secret.
      fields: The values that the message and the next steps of this code contain.
    """

    def __init__(
        self,
        code: str,
        /,
        *,
        part: AccountPart,
        problems: Mapping[str, str],
        **fields: object,
    ) -> None:
        super().__init__(code, **fields)
        self.part = part
        self.problems = problems


class WrongState(InvalidInput):
    """The account, run or task is in a state that does not allow the action."""


class Refused(PollingError):
    """The caller may not do this."""


class VaultError(PollingError):
    """No configured key decrypts the credentials."""


class TaskUnfit(PermanentError):
    """The installed plugin does not have this task type, or its payload does not validate.

    While other workers have another version of the plugin, the task is left to them. Otherwise it
    is parked.
    """


class ResultInvalid(PermanentError):
    """A plugin returned a result that cannot be saved. The task is parked.

    The result has a wrong type, exceeds a bound, or is not valid JSON.
    """


class StateContended(PollingError):
    """Other tasks keep inserting the state partitions that a result writes.

    Nothing of the batch was saved. A later try can succeed.
    """


class ResultConflict(Exception):
    """Another task changed a state partition between this task's read and its write.

    The engine runs the task again.
    """


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its causes and the members of groups, each once.

    Suppressed causes are among them.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
