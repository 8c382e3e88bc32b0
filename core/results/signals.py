"""What the worker itself raises for a task that it cannot run, or does not let run on."""

from __future__ import annotations


class AccountStopped(Exception):
    """The account was paused or disconnected after this task was dispatched: it waits."""


class LeftToOthers(Exception):
    """The plugin of this process is too old or too new for this task, and the fleet has another
    version: that one gets it.
    """


class TimeLimitExceeded(BaseException):
    """Raised in the thread of a task that is over its time limit.

    It does not derive from `Exception`, so that plugins do not swallow it.
    """
