"""Each surface words a problem in a value in the same way, without the value."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from core.field_problems import field_problems, first_problem

CORE = Path(__file__).parents[2] / "core"


class Server(BaseModel):
    host: str
    ports: list[int] = []
    limits: dict[int, int] = {}

    @field_validator("host")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value:
            raise ValueError(f"{value!r} is not a valid name")
        return value


def problems_of(**values: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Server.model_validate(values)
    return [str(problem) for problem in field_problems(caught.value)]


def test_a_problem_names_its_place_and_what_the_value_must_be() -> None:
    assert problems_of(host=5, ports=[1, "x"]) == [
        "host: must be a valid string",
        "ports.1: must be a valid integer",
    ]


def test_a_problem_of_a_key_is_told_from_one_of_its_value() -> None:
    (problem,) = problems_of(host="a", limits={"high": 1})
    assert problem == "limits.high: this key must be a valid integer"


def test_the_text_of_a_validator_may_repeat_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Server.model_validate({"host": ""})
    problem = first_problem(caught.value)
    assert problem.message == "'' is not a valid name"
    assert problem.may_quote


def test_only_one_module_words_the_problems_of_pydantic() -> None:
    """Pydantic's own messages say "Input", and their entries may hold the value."""
    readers = {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in ("msg", "Value error, ")
    }
    assert readers == {"field_problems.py"}
