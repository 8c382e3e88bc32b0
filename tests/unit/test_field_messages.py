"""Messages about the fields of a form."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, ValidationError

from core.dashboard import rendering
from core.service.accounts import validation


class Model(BaseModel):
    """Fields with the most frequent problems."""

    host: str
    port: int
    kinds: list[str] = Field(min_length=1)


def test_the_most_frequent_problems_have_plain_messages() -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"port": "x", "kinds": []})
    assert validation.problems(caught.value) == {
        "host": "This field is required.",
        "port": "Enter an integer.",
        "kinds": "Choose at least one.",
    }


def test_a_hint_shows_code_and_escapes_everything() -> None:
    assert rendering.code("`all` or <b>`<i>`") == (
        "<code>all</code> or &lt;b&gt;<code>&lt;i&gt;</code>"
    )
