"""Answers in the format of Google's APIs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Answer = tuple[int, dict[str, Any]]


def error(
    code: int,
    message: str,
    reason: str,
    status: str = "",
    domain: str = "global",
    details: Iterable[Any] = (),
) -> Answer:
    """Build an error in Gmail's format; see its guide "Resolve errors"."""
    body: dict[str, Any] = {
        "code": code,
        "message": message,
        "errors": [{"message": message, "domain": domain, "reason": reason}],
    }
    if status:
        body["status"] = status
    if details := list(details):
        body["details"] = details
    return code, {"error": body}
