"""Forms from schemas: each field has its input, and a submitted form gives the typed values.

A form never contains a secret.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import IntEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from core.dashboard import forms

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
WORDS = LINE.filter(lambda text: text.strip() == text and text)


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Inner(BaseModel):
    """A nested model."""

    key: SecretStr
    name: str = ""


class Plain(BaseModel):
    value: int = 0


class Everything(BaseModel):
    host: str = Field(min_length=1, max_length=80, description="Where it is")
    port: int = Field(21, ge=1, le=65535)
    over: int = Field(5, gt=0, lt=10)
    ratio: float | None = Field(None, ge=0)
    root: str = "/"
    code: str = Field("ab", pattern=r"^[a-z]+$")
    either: str = Field("a", pattern=r"^a$|^b$")
    is_on: bool = True
    maybe: bool | None = None
    mood: Literal["good", "bad"] = "good"
    must: Literal["x", "y"] = Field(title="What it must be")
    level: Level = Level.LOW
    kinds: list[Literal["a", "b", "c"]] = ["a", "b"]
    names: list[str] = []
    labels: tuple[str, ...] | None = None
    since: date | None = None
    at: datetime | None = None
    rates: dict[str, float] = Field(default_factory=dict)
    plain: Plain | None = None
    union: int | str = 3
    password: SecretStr
    token: SecretStr | None = None
    secrets: list[SecretStr] = []
    inner: Inner | None = None
    several: list[Inner] = []


FIELDS = forms.fields_of(Everything)
BY_NAME = {one.name: one for one in FIELDS}


def typed(drawn: list[forms.RenderedField]) -> dict[str, list[str]]:
    """Return the values that a browser submits for an unchanged form."""
    sent = {}
    for one in drawn:
        name = one.name.partition(".")[2]
        if one.spec.kind in ("flag", "several"):
            sent[name] = sorted(one.chosen)
        elif one.spec.kind == "choice":
            chosen = [text for text, is_chosen in one.options if is_chosen]
            sent[name] = chosen or ([""] if one.allows_empty else [one.options[0][0]])
        else:
            sent[name] = [one.text.replace("\n", "\r\n")]
    return sent


def test_each_field_has_the_input_of_its_type() -> None:
    assert {one.name: one.kind for one in FIELDS} == {
        "host": "text", "port": "number", "over": "number", "ratio": "number", "root": "text",
        "code": "text", "either": "text", "is_on": "flag", "maybe": "choice", "mood": "choice",
        "must": "choice", "level": "choice", "kinds": "several", "names": "lines",
        "labels": "lines", "since": "date", "at": "text", "rates": "json", "plain": "json",
        "union": "json", "password": "secret", "token": "secret", "secrets": "json",
        "inner": "json", "several": "json",
    }  # fmt: skip
    assert {one.name for one in FIELDS if one.secret} == {
        "password",
        "token",
        "secrets",
        "inner",
        "several",
    }
    assert {one.name for one in FIELDS if one.required} == {"host", "must", "password"}


def test_constraints_become_attributes_that_a_browser_checks() -> None:
    assert BY_NAME["host"].attributes == {"minlength": "1", "maxlength": "80"}
    assert BY_NAME["port"].attributes == {"min": "1", "max": "65535", "step": "1"}
    assert BY_NAME["over"].attributes == {"min": "1", "max": "9", "step": "1"}
    assert (
        BY_NAME["ratio"].attributes == {"min": "0", "step": "any"}
        or BY_NAME["ratio"].attributes["min"] == "0.0"
    )
    assert BY_NAME["code"].attributes == {"pattern": "[a-z]+"}
    # The pattern has anchors inside, which a browser would interpret in another way.
    assert BY_NAME["either"].attributes == {}


def test_labels_and_hints_come_from_the_schema() -> None:
    assert (BY_NAME["is_on"].label, BY_NAME["must"].label) == ("Is on", "What it must be")
    assert BY_NAME["host"].hint == "Where it is"
    (names,) = [one for one in forms.render_fields(FIELDS, "config") if one.spec.name == "names"]
    assert (names.note, names.described_by) == ("One per line.", f"{names.id}-hint")


def test_an_unchanged_form_submits_the_defaults() -> None:
    values, problems = forms.read(FIELDS, typed(forms.render_fields(FIELDS, "config")))
    assert problems == {}
    assert values == {
        "port": 21, "over": 5, "root": "/", "code": "ab", "either": "a", "is_on": True,
        "mood": "good", "level": 1, "kinds": ["a", "b"], "names": [], "union": 3,
    }  # fmt: skip
    (must,) = [one for one in forms.render_fields(FIELDS, "config") if one.spec.name == "must"]
    assert must.allows_empty  # without it, a browser would submit the first choice


CONFIGS = st.fixed_dictionaries(
    {
        "host": WORDS,
        "port": st.integers(1, 65535),
        "ratio": st.none() | st.floats(0, 1e6, allow_subnormal=False),
        "root": WORDS,
        "is_on": st.booleans(),
        "maybe": st.none() | st.booleans(),
        "mood": st.sampled_from(["good", "bad"]),
        "must": st.sampled_from(["x", "y"]),
        "level": st.sampled_from([1, 2]),
        "kinds": st.sets(st.sampled_from("abc")).map(sorted),
        "names": st.lists(WORDS, max_size=4),
        "labels": st.none() | st.lists(WORDS, min_size=1, max_size=3).map(tuple),
        "since": st.none() | st.dates(),
        "rates": st.dictionaries(LINE, st.floats(0, 1, allow_subnormal=False), max_size=3),
        "plain": st.none() | st.builds(dict, value=st.integers(-9, 9)),
        "union": st.integers() | LINE,
    }
)


@given(CONFIGS)
def test_an_unchanged_form_submits_the_stored_values(config: dict[str, Any]) -> None:
    stored = Everything.model_validate(config | {"password": "p"}).model_dump(mode="json")
    sent = typed(forms.render_fields(FIELDS, "config", values=stored)) | {"password": ["p"]}
    values, problems = forms.read(FIELDS, sent)
    assert problems == {}
    assert Everything.model_validate(values).model_dump(mode="json") == stored


def test_line_breaks_in_a_text_are_kept() -> None:
    values, _ = forms.read(FIELDS, {"root": ["a\r\nb"]})
    assert values["root"] == "a\nb"


def test_an_emptied_field_is_null_or_has_its_default() -> None:
    class Model(BaseModel):
        limit: int | None = 5
        since: date | None = date(2020, 1, 1)
        names: list[str] | None = ["a"]
        root: str = "/"
        size: int = 3

    values, _ = forms.read(forms.fields_of(Model), {name: [""] for name in Model.model_fields})
    assert values == {"limit": None, "since": None, "names": None}


@pytest.mark.parametrize("text", ["{", "nonsense", "NaN", "[" * 100_000])
def test_invalid_json_is_reported_beside_its_field(text: str) -> None:
    values, problems = forms.read(FIELDS, {"rates": [text]})
    assert problems == {"rates": forms.NO_JSON}
    assert "rates" not in values


@pytest.mark.parametrize("text", ["x", "1e", "--1", "01", "9" * 5_000, "1_000", "0x10"])
def test_an_invalid_number_is_left_to_the_model(text: str) -> None:
    values, problems = forms.read(FIELDS, {"port": [text]})
    assert (values["port"], problems) == (text, {})


def test_an_invalid_choice_is_left_to_the_model() -> None:
    values, _ = forms.read(
        FIELDS, {"mood": ["worse"], "level": ["2"], "maybe": ["false"], "kinds": ["c", "z"]}
    )
    assert (values["mood"], values["level"], values["maybe"], values["kinds"]) == (
        "worse",
        2,
        False,
        ["c"],
    )


def test_a_form_never_contains_a_secret() -> None:
    hidden = "never-shown-again"
    inner = {"key": hidden, "name": hidden}
    everything = {
        "password": hidden,
        "token": hidden,
        "secrets": [hidden],
        "inner": inner,
        "several": [inner],
    }
    sent = {name: [hidden] for name in everything}
    for drawn in (
        forms.render_fields(FIELDS, "x", values=everything),
        forms.render_fields(FIELDS, "x", typed=sent),
    ):
        assert hidden not in repr(drawn)


def test_a_form_contains_no_default_of_a_secret() -> None:
    class Login(BaseModel):
        password: SecretStr = SecretStr("anonymous@")
        key: Annotated[SecretStr, Field(json_schema_extra={"default": "leaked"})] = SecretStr("x")

    assert [one.text for one in forms.render_fields(forms.fields_of(Login), "c")] == ["", ""]


def test_typed_values_replace_stored_ones_in_the_form() -> None:
    drawn = forms.render_fields(
        FIELDS,
        "config",
        values={"root": "/stored"},
        typed={"root": ["/typed"]},
        problems={"root": "no"},
    )
    (root,) = [one for one in drawn if one.spec.name == "root"]
    assert (root.text, root.error, root.described_by) == ("/typed", "no", f"{root.id}-error")
    (is_on,) = [one for one in drawn if one.spec.name == "is_on"]
    assert not is_on.chosen  # a browser does not submit an unchecked box


def test_recursive_models_are_edited_as_json() -> None:
    assert [(one.kind, one.secret) for one in forms.fields_of(Tree)] == [
        ("text", False),
        ("json", False),
    ]
    assert [(one.kind, one.secret) for one in forms.fields_of(Hidden)] == [
        ("secret", True),
        ("json", True),
    ]


class Tree(BaseModel):
    name: str = ""
    below: list[Tree] = []


class Hidden(BaseModel):
    key: SecretStr
    below: list[Hidden] = []
