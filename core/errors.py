"""Every error of the engine, ordered by what happens next.

A plugin raises the first group and thereby chooses what the engine does with its task. The second
group is for people: an error carries a code and fields, and the command line, REST and the
dashboard word it from the catalogue (`core.error_catalog`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.error_catalog import ADVICE, CATALOG, Surface


class IntegrationError(Exception):
    """Base of what a plugin raises to tell the engine what to do with a task."""


class RateLimited(IntegrationError):
    """The provider asks us to wait: the task is put back for later, and no attempt is counted.

    Parameters:
      reason: Shown to people while the account waits.
      retry_after: Seconds until the limit is open again, clamped to between 1 second and 1 day.
        Default, and for anything that is not a finite number: a pause that grows with each refusal,
        from 10 s to 15 min.
      limit: The name of the exhausted limit; tasks that do not use it continue. Default: the
        complete account waits.
    """

    def __init__(
        self, reason: str = "", *, retry_after: float | None = None, limit: str | None = None
    ) -> None:
        super().__init__(reason or "rate limited")
        self.retry_after = retry_after
        self.limit = limit


class TransientError(IntegrationError):
    """A retry may help.

    It counts one attempt, waits with exponential backoff and full jitter, and parks the task after
    the last.
    """


class PermanentError(IntegrationError):
    """Trying again cannot help: the task is parked at once, and its siblings go on."""


class SkipItem(IntegrationError):
    """There is nothing to keep here, and that is fine: the task ends as done, with this reason."""


class CredentialsInvalid(IntegrationError):
    """The credentials do not work: the account stops until someone reconnects it.

    Then its tasks resume.
    """


class ConfigurationError(IntegrationError):
    """The account's configuration cannot work: the account stops until someone corrects it."""


class CursorExpired(IntegrationError):
    """The provider no longer knows our cursor.

    The engine drops the partition's state, and a resync is due immediately.

    Parameters:
      partition: The state partition that holds the cursor.
    """

    def __init__(self, partition: str) -> None:
        super().__init__(f"the cursor of partition {partition!r} has expired")
        self.partition = partition


class PollingError(Exception):
    """What a person has to know. Its code and its fields say what is wrong; each surface words it.

    `str()` gives the catalogue's message: one line, without a next step.

    Parameters:
      code: A code of `core.error_catalog`.
      fields: What the message and the next steps of this code name.

    Raises:
      KeyError: The catalogue does not have this code.
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
        """What is wrong: one line, lower case, without a full stop."""
        return self._entry.message.format_map(self.fields)

    @property
    def status(self) -> int:
        """The HTTP status that REST and the dashboard answer with."""
        return self._entry.status

    @property
    def advice(self) -> Advice:
        """What to do next, not yet worded."""
        return Advice(self.code, self.fields)

    def next_step(self, surface: Surface) -> str:
        """What to do next, worded for a surface."""
        return self._entry.steps.on(surface).format_map(self.fields)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do next: a code of the catalogue, of an error or of its `ADVICE`, and its fields."""

    code: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def next_step(self, surface: Surface) -> str:
        """What to do next, worded for a surface."""
        steps = ADVICE[self.code] if self.code in ADVICE else CATALOG[self.code].steps
        return steps.on(surface).format_map(self.fields)


class SettingsError(PollingError):
    """A setting is missing or has a value that cannot work."""


class ServerUnavailable(PollingError):
    """PostgreSQL or Redis does not answer, or is too old."""


class NotFound(PollingError):
    """The account, run, task, content or integration that was named does not exist."""


class InvalidInput(PollingError):
    """A config, credentials, an id or a file that was given does not validate."""


class WrongState(InvalidInput):
    """The account, run or task is in a state that does not allow the action."""


class VaultError(PollingError):
    """Credentials cannot be decrypted with the keys given."""


class TaskUnfit(PermanentError):
    """The installed version of a plugin has no such task, or the payload does not fit it.

    While the fleet knows another version of it, the task is left to the workers of that one;
    otherwise it is parked.
    """


class ResultInvalid(PermanentError):
    """A plugin returned what cannot be kept: wrong types, over the bounds, or no JSON.

    The task is parked.
    """


class ResultConflict(Exception):
    """Another task changed a state partition between this task's read and its write.

    The task runs again.
    """
