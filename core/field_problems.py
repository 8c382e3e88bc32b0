"""Word the problems that pydantic finds in values, without the values.

Only a validator of a model's author may repeat a value; `FieldProblem.may_quote` names such a
problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

KEY = "[key]"
"""Pydantic's last part of the location of a wrong key."""
QUOTING = frozenset({"value_error", "assertion_error", "union_tag_invalid"})
"""The kinds whose messages may repeat the value: validators' own texts, and tags of unions."""


class FieldProblem(NamedTuple):
    """One problem of one field."""

    location: tuple[str, ...]
    """The names and indexes that lead to the value. Empty for the complete model."""
    kind: str
    """Pydantic's type of the error, such as `int_parsing`."""
    message: str
    """The condition that the value does not meet, such as `must be a valid integer`."""

    @property
    def place(self) -> str:
        """The location with dots, such as `folders.0`."""
        return ".".join(self.location)

    @property
    def may_quote(self) -> bool:
        """True if the message may repeat the value."""
        return self.kind in QUOTING

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.location else self.message


def field_problems(error: ValidationError) -> list[FieldProblem]:
    """Return all problems of a validation, in the order of the fields."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    return [field_problem(detail) for detail in details]


def first_problem(error: ValidationError) -> FieldProblem:
    """Return the first problem of a validation."""
    return field_problems(error)[0]


def field_problem(detail: Mapping[str, Any]) -> FieldProblem:
    """Return one entry of pydantic's `errors()` as a problem."""
    location: Sequence[str | int] = detail["loc"]
    # Pydantic puts its own word for the value first, and may say twice what it expects.
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    message = message.split(", unable to ", 1)[0]
    if location[-1:] == (KEY,):
        message = f"this key {message}"
    return FieldProblem(
        tuple(str(part) for part in location if part != KEY), detail["type"], message
    )


def entry_of(problem: FieldProblem) -> Mapping[str, Any]:
    """Return a problem as an entry of pydantic's `errors()`, for checks that it cannot express."""
    return {"type": problem.kind, "loc": problem.location, "msg": problem.message}
