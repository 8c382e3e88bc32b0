"""Forms from the JSON schemas of an integration's config and credentials.

They turn a schema into fields, and fields into values.

What a schema says may be odd, and what a form sends hostile: a field that is none of the plain ones
is a text of JSON, and the plugin's model has the last word about every value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Kind = Literal["text", "secret", "number", "flag", "choice", "several", "lines", "date", "json"]
Schema = Mapping[str, Any]
Typed = Mapping[str, Sequence[str]]

DEEPEST = 12
"""References followed one after the other."""

NO_JSON = "this is no JSON"

_ABSENT = object()
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?")
# A browser takes a pattern for the whole value, JavaScript's way; where that might differ, the
# server says it.
_PORTABLE = re.compile(r"\^[^\\|()$^]*\$")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form.

    Attributes:
      nullable: Whether it may be null, which an empty input stands for.
      default: What the model takes where nothing is given.
      secret: What was typed, or is stored, is never put back into the page.
      choices: The values to choose from.
      attributes: What a browser checks by itself.
    """

    name: str
    label: str
    kind: Kind
    hint: str | None = None
    required: bool = False
    nullable: bool = False
    default: Any = None
    secret: bool = False
    choices: Sequence[Any] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RenderedField:
    """A field as a page shows it.

    Attributes:
      id, name: The input's.
      text: What stands in it; for `several`, nothing.
      chosen: Which choices are made, as their texts.
      blank: Whether a choice may be left open.
    """

    field: Field
    id: str
    name: str
    text: str
    chosen: frozenset[str]
    error: str | None

    @property
    def blank(self) -> bool:
        """Whether no choice is one, too: or else a browser would choose the first by itself."""
        return self.field.nullable or self.text not in {as_text(one) for one in self.field.choices}

    @property
    def options(self) -> list[tuple[str, bool]]:
        """Texts of the choices, and whether they are made."""
        return [(text, text in self.chosen) for text in map(as_text, self.field.choices)]

    @property
    def described(self) -> str:
        """The ids of what says more about it."""
        parts = (f"{self.id}-hint" if self.note else "", f"{self.id}-error" if self.error else "")
        return " ".join(filter(None, parts))

    @property
    def note(self) -> str:
        """The hint, and what its kind needs to be said."""
        more = {"lines": "One a line.", "json": "As JSON."}.get(self.field.kind, "")
        hint = (self.field.hint or "").strip()
        return (
            f"{hint}{'' if not hint or hint[-1] in '.!?' else '.'} {more}".strip() if more else hint
        )


def fields_of(model: type[BaseModel]) -> list[Field]:
    """The fields of a model."""
    whole = model.model_json_schema()
    top, _ = _plain(whole, whole)
    required = top.get("required", ())
    return [
        _field(whole, name, part, name in required)
        for name, part in top.get("properties", {}).items()
    ]


def render_fields(
    fields: Sequence[Field],
    prefix: str,
    *,
    values: Mapping[str, Any] | None = None,
    typed: Typed | None = None,
    problems: Mapping[str, str] = {},
) -> list[RenderedField]:
    """Fields as a page shows them.

    Parameters:
      prefix: Of the inputs' names and ids.
      values: What is stored. Default: each field's own default.
      typed: What was sent, which goes before.
      problems: What is wrong with each, by its name.
    """
    drawn = []
    for index, one in enumerate(fields):
        texts = [] if one.secret else _texts(one, values, typed)
        text = texts[-1] if texts and one.kind != "several" else ""
        error = problems.get(one.name)
        drawn.append(
            RenderedField(
                one, f"{prefix}-{index}", f"{prefix}.{one.name}", text, frozenset(texts), error
            )
        )
    return drawn


def read(fields: Sequence[Field], typed: Typed) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a submitted form, for a model to validate, and the problems of unreadable ones.

    What was left empty is left out, and so has its default; unless that is to take a default away.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for one in fields:
        try:
            value = _value(one, [text.replace("\r\n", "\n") for text in typed.get(one.name, ())])
        except (ValueError, RecursionError):
            problems[one.name] = NO_JSON
            continue
        if value is not _ABSENT:
            values[one.name] = value
    return values, problems


def as_text(value: Any) -> str:
    """A value as it stands in an input."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# From a schema to fields
# ----------------------------------------------------------------------------------------------


def _field(whole: Schema, name: str, part: Schema, required: bool) -> Field:
    plain, nullable = _plain(whole, part)
    kind, choices = _kind(whole, plain, nullable)
    secret = kind == "secret" or (kind == "json" and _holds_secret(whole, plain))
    return Field(
        name=name,
        label=_label(name, part),
        kind=kind,
        hint=part.get("description") or plain.get("description"),
        required=required,
        nullable=nullable,
        default=None if secret else part.get("default"),
        secret=secret,
        choices=choices,
        attributes=_attributes(kind, plain),
    )


def _plain(whole: Schema, part: Schema) -> tuple[dict[str, Any], bool]:
    """A part with its references followed, and without the null that it may also be."""
    plain, nullable = dict(part), False
    for _ in range(DEEPEST):
        options = plain.get("anyOf") or plain.get("oneOf") or plain.get("allOf") or ()
        several = [one for one in options if one.get("type") != "null"]
        nullable = nullable or len(several) < len(options)
        if "$ref" in plain:
            name = str(plain.pop("$ref")).removeprefix("#/$defs/")
            plain = {**whole.get("$defs", {}).get(name, {}), **plain}
        elif len(several) == 1:
            rest = {
                name: value
                for name, value in plain.items()
                if name not in ("anyOf", "oneOf", "allOf")
            }
            plain = {**several[0], **rest}
        else:
            break
    return plain, nullable


def _kind(whole: Schema, plain: Schema, nullable: bool) -> tuple[Kind, Sequence[Any]]:
    if (choices := _choices(plain)) is not None:
        return "choice", choices
    if plain.get("type") == "array":
        items, _ = _plain(whole, plain.get("items") or {})
        return _kind_of_list(items) if "prefixItems" not in plain else ("json", ())
    match plain.get("type"), plain.get("format"):
        case "string", _ if plain.get("writeOnly"):
            return "secret", ()
        case "string", "password":
            return "secret", ()
        case "string", "date":
            return "date", ()
        case "string", _:
            return "text", ()
        case (("integer" | "number"), _):
            return "number", ()
        case "boolean", _:
            return ("choice", (True, False)) if nullable else ("flag", ())
    return "json", ()


def _kind_of_list(items: Schema) -> tuple[Kind, Sequence[Any]]:
    if (choices := _choices(items)) is not None:
        return "several", choices
    return (
        ("lines", ())
        if items.get("type") == "string" and not items.get("writeOnly")
        else ("json", ())
    )


def _choices(plain: Schema) -> Sequence[Any] | None:
    choices = [plain["const"]] if "const" in plain else plain.get("enum")
    scalar = choices and all(
        isinstance(one, str | int | float | bool) and one != "" for one in choices
    )
    return choices if scalar else None


def _holds_secret(whole: Schema, part: Schema, seen: frozenset[str] = frozenset()) -> bool:
    """Whether a secret may be anywhere in it."""
    if part.get("writeOnly") or part.get("format") == "password":
        return True
    name = str(part.get("$ref", "")).removeprefix("#/$defs/")
    inner = [whole.get("$defs", {}).get(name, {})] if name and name not in seen else []
    return any(_holds_secret(whole, one, seen | {name}) for one in (*_below(part), *inner))


def _below(part: Schema) -> Iterator[Schema]:
    yield from (one for one in part.get("properties", {}).values() if isinstance(one, Mapping))
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        yield from part.get(word, ())
    yield from (
        part[word]
        for word in ("items", "additionalProperties")
        if isinstance(part.get(word), Mapping)
    )


def _label(name: str, part: Schema) -> str:
    """The author's title; pydantic's title of the name is set in sentence case."""
    title = part.get("title")
    own = title and title != name.title().replace("_", " ")
    return str(title) if own else (name.replace("_", " ").strip() or name).capitalize()


def _attributes(kind: Kind, plain: Schema) -> dict[str, str]:
    if kind == "number":
        whole = plain.get("type") == "integer"
        found: dict[str, Any] = {
            "min": plain.get("minimum"),
            "max": plain.get("maximum"),
            "step": 1 if whole else "any",
        }
        if whole and "exclusiveMinimum" in plain:
            found["min"] = int(plain["exclusiveMinimum"]) + 1
        if whole and "exclusiveMaximum" in plain:
            found["max"] = int(plain["exclusiveMaximum"]) - 1
    elif kind == "text":
        pattern = str(plain.get("pattern", ""))
        found = {"minlength": plain.get("minLength"), "maxlength": plain.get("maxLength")}
        found["pattern"] = pattern[1:-1] if _PORTABLE.fullmatch(pattern) else None
        found["placeholder"] = (
            "2026-01-31T12:00:00Z" if plain.get("format") == "date-time" else None
        )
    else:
        found = {}
    return {name: str(value) for name, value in found.items() if value is not None}


# From values to texts and back
# ----------------------------------------------------------------------------------------


def _texts(one: Field, values: Mapping[str, Any] | None, typed: Typed | None) -> list[str]:
    if typed is not None:
        return list(typed.get(one.name, ()))
    value = one.default if values is None else values.get(one.name, one.default)
    match one.kind:
        case "several":
            return [as_text(part) for part in value or ()]
        case "lines":
            return ["\n".join(map(str, value or ()))]
        case "flag":
            return ["on"] if value else []
        case "json" if value is not None:
            return [json.dumps(value, indent=2, ensure_ascii=False)]
    return [as_text(value)]


def _value(one: Field, texts: Sequence[str]) -> Any:
    """What was typed, as a value; raises ValueError for what is no JSON."""
    text = texts[-1] if texts else ""
    match one.kind:
        case "flag":
            return text == "on"
        case "several":
            return [choice for choice in one.choices if as_text(choice) in texts] or _nothing(
                one, []
            )
        case "lines":
            return [line.strip() for line in text.split("\n") if line.strip()] or _nothing(one, [])
    if text == "" or (one.kind not in ("text", "secret") and not text.strip()):
        return _nothing(one, _ABSENT)
    match one.kind:
        case "choice":
            return next((choice for choice in one.choices if as_text(choice) == text), text)
        case "number":
            return _number(text.strip())
        case "json":
            return json.loads(text, parse_constant=_refuse)
    return text


def _nothing(one: Field, otherwise: Any) -> Any:
    """What an empty input means: null, where a field may be that."""
    if not one.nullable:
        return otherwise
    return None if one.default is not None else _ABSENT


def _number(text: str) -> Any:
    """A number; what is none is left for the model to refuse."""
    return json.loads(text) if _NUMBER.fullmatch(text) and not re.match(r"-?0[0-9]", text) else text


def _refuse(name: str) -> Any:
    raise ValueError(name)
