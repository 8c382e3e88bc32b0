"""The error about a row that does not exist, by what it would be."""

from __future__ import annotations

from core.errors import NotFound


def not_found(what: str, id: object) -> NotFound:
    """The error to raise.

    Parameters:
      what: `account`, `run`, `task` or `content`.
      id: The id or the name that was asked for.
    """
    match what:
        case "account":
            return NotFound("account-not-found", account=id)
        case "run":
            return NotFound("run-not-found", run=id)
        case "task":
            return NotFound("task-not-found", task=id)
    return NotFound("content-not-found", content=id)
