"""Exceptions that the worker raises for a task that it cannot run, or that it interrupts."""

from __future__ import annotations


class AccountStopped(Exception):
    """The account was stopped, or its integration paused, after the dispatch of this task.

    The task waits.
    """


class AccountAway(Exception):
    """The probe of an account found that the account does not answer.

    Args:
      reason: Shown to people.
      retry_after: Seconds that the provider asks to wait. Default: None.
    """

    def __init__(self, reason: str, retry_after: object = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ProbeSlow(Exception):
    """The account has answered its probe, which has used the time of the task that carries it.

    The task runs again, with its complete time.
    """


class LeftToOthers(Exception):
    """The plugin of this process has the wrong version for this task.

    The fleet has a process with another version, so the task waits for that process.
    """


class NoFreeInstance(Exception):
    """Every place of a limit that counts instances is taken.

    The task runs in a process that has an instance of its account.

    Args:
      seconds: Seconds until the task may run.
    """

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class UnitsSpent(Exception):
    """The units that the task took are too old, and its budgets have no others.

    Args:
      seconds: Seconds until the task may run.
    """

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class TimeLimitExceeded(BaseException):
    """The task exceeded its time limit; raised in the thread of the task.

    It does not derive from `Exception`, so that plugins do not catch it.
    """
