"""Messages about the fields of a form."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from core.dashboard import rendering
from core.field_problems import first_problem
from core.service.accounts import validation


class Model(BaseModel):
    """Fields with the most frequent problems."""

    host: str
    port: int
    kinds: list[str] = Field(min_length=1)
    shares: dict[Literal["a"], Annotated[int, Field(le=1)]] = {}


def test_the_most_frequent_problems_have_plain_messages() -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"port": "x", "kinds": []})
    assert validation.problems(caught.value) == {
        "host": "This field is required.",
        "port": "Enter an integer.",
        "kinds": "Choose at least one.",
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"host": "x", "port": "x", "kinds": ["a"]}, "port: must be a valid integer"),
        (
            {"host": "x", "port": 1, "kinds": ["a"], "shares": {"b": 1}},
            "shares.b: this key must be 'a'",
        ),
        ({"host": "x", "port": 1, "kinds": ["a"], "shares": {"a": 2}}, "shares.a: must be less"),
        ({"port": 1, "kinds": ["a"]}, "host: Field required"),
    ],
)
def test_the_first_problem_names_the_field_in_plain_words(
    values: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(values)
    assert str(first_problem(caught.value)).startswith(said)


def test_a_hint_shows_code_and_escapes_everything() -> None:
    assert rendering.code("`all` or <b>`<i>`") == (
        "<code>all</code> or &lt;b&gt;<code>&lt;i&gt;</code>"
    )
