"""Every error of the engine, ordered by what happens next.

A plugin raises the first group and thereby chooses what the engine does with its task. The second
group is what a person reads in a terminal or in an API answer: one line that says what is wrong,
and one that says what to do.
"""

from __future__ import annotations


class IntegrationError(Exception):
    """Base of what a plugin raises to tell the engine what to do with a task."""


class RateLimited(IntegrationError):
    """The provider asks us to wait: the task is put back for later, and no attempt is counted.

    Parameters: reason: Shown to people while the account waits. retry_after: Seconds until the
      limit is open again. Default: a backoff that grows with each refusal. Negative, absurd or
      non-finite values are clamped to between 1 second and 1 day. limit: The name of the limit that
      is exhausted; tasks that do not use it go on. Default: the whole account waits.
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
    """Something a person has to know: what is wrong, and what to do about it.

    Parameters:
      message: One line, without a trailing full stop.
      hint: One line that says what to do next, or the command to try.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class SettingsError(PollingError):
    """A setting is missing or has a value that cannot work."""


class ServerUnavailable(PollingError):
    """PostgreSQL or Redis does not answer, or is too old."""


class NotFound(PollingError):
    """No such account, run, task, content or integration."""


class InvalidInput(PollingError):
    """What somebody gave us does not validate: config, credentials, an id, a file."""


class WrongState(InvalidInput):
    """What is asked does not fit the state that the account, run or task is in."""


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
