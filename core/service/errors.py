"""Errors that several operations raise."""

from __future__ import annotations

from core.errors import NotFound


def not_found(kind: str, id: object) -> NotFound:
    """Return the error for a row that does not exist.

    Args:
      kind: `account`, `run`, `task`, `deletion` or `content`.
      id: The requested id or name.
    """
    match kind:
        case "account":
            return NotFound("account-not-found", account=id)
        case "run":
            return NotFound("run-not-found", run=id)
        case "task":
            return NotFound("task-not-found", task=id)
        case "deletion":
            return NotFound("deletion-not-found", deletion=id)
    return NotFound("content-not-found", content=id)
