"""Forms from the JSON schemas of an integration's config and credentials.

A schema becomes fields, and a submitted form becomes values. A field of an unsupported type is
entered as JSON. The plugin's model validates every value.
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

MAX_REFERENCES = 12
"""The maximum number of references and single options to follow for one schema."""

NO_JSON = "enter valid JSON"

_ABSENT = object()
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?")
# A browser matches a pattern against the complete value, with JavaScript's syntax. Patterns that
# might mean something else there are checked by the server only.
_PORTABLE = re.compile(r"\^[^\\|()$^]*\$")


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A form field, as its schema describes it.

    Attributes:
      name: The name in the schema.
      label: The label of the input.
      kind: The kind of input.
      hint: The description from the schema; None if it has none.
      required: True if the field must be submitted.
      nullable: True if the field accepts null. An empty input stands for null.
      default: The value if the field is omitted.
      secret: True if pages must not contain typed or stored values.
      choices: The allowed values.
      attributes: HTML attributes of the input, which the browser checks.
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
    """A field with the values of its input.

    Attributes:
      id, name: The HTML id and name of the input.
      text: The value of the input; empty for `several`.
      chosen: The selected choices, as texts.
      error: The problem with the value; None if there is none.
    """

    spec: FieldSpec
    id: str
    name: str
    text: str
    chosen: frozenset[str]
    error: str | None

    @property
    def allows_empty(self) -> bool:
        """True if the choice may be empty. Otherwise a browser selects the first option."""
        return self.spec.nullable or self.text not in {
            as_text(choice) for choice in self.spec.choices
        }

    @property
    def options(self) -> list[tuple[str, bool]]:
        """The choices as texts, each with True if it is selected."""
        return [(text, text in self.chosen) for text in map(as_text, self.spec.choices)]

    @property
    def described_by(self) -> str:
        """The ids of the elements that describe the input."""
        parts = (f"{self.id}-hint" if self.note else "", f"{self.id}-error" if self.error else "")
        return " ".join(filter(None, parts))

    @property
    def note(self) -> str:
        """The hint from the schema, followed by the hint for the kind of field."""
        more = {"lines": "One per line.", "json": "Enter JSON."}.get(self.spec.kind, "")
        hint = (self.spec.hint or "").strip()
        return (
            f"{hint}{'' if not hint or hint[-1] in '.!?' else '.'} {more}".strip() if more else hint
        )


def fields_of(model: type[BaseModel]) -> list[FieldSpec]:
    """Return the fields of a model."""
    root = model.model_json_schema()
    top, _ = _resolve(root, root)
    required = top.get("required", ())
    return [
        _field(root, name, schema, name in required)
        for name, schema in top.get("properties", {}).items()
    ]


def render_fields(
    fields: Sequence[FieldSpec],
    prefix: str,
    *,
    values: Mapping[str, Any] | None = None,
    typed: Typed | None = None,
    problems: Mapping[str, str] = {},
) -> list[RenderedField]:
    """Return fields with the values of their inputs.

    Args:
      fields: The fields to render.
      prefix: The prefix of the names and ids of the inputs.
      values: Stored values. Default: the default of each field.
      typed: Submitted texts. They take precedence over `values`.
      problems: The problem of each field, by name.
    """
    rendered = []
    for index, spec in enumerate(fields):
        texts = [] if spec.secret else _input_texts(spec, values, typed)
        text = texts[-1] if texts and spec.kind != "several" else ""
        error = problems.get(spec.name)
        rendered.append(
            RenderedField(
                spec, f"{prefix}-{index}", f"{prefix}.{spec.name}", text, frozenset(texts), error
            )
        )
    return rendered


def read(fields: Sequence[FieldSpec], typed: Typed) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a submitted form, and the problems by field.

    The values are not validated yet. Empty fields are omitted and take their defaults. An empty
    nullable field that has a default is null.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for spec in fields:
        try:
            value = _parse(spec, [text.replace("\r\n", "\n") for text in typed.get(spec.name, ())])
        except (ValueError, RecursionError):
            problems[spec.name] = NO_JSON
            continue
        if value is not _ABSENT:
            values[spec.name] = value
    return values, problems


def as_text(value: Any) -> str:
    """Convert a value to the text of an input."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# From a schema to fields
# ----------------------------------------------------------------------------------------------


def _field(root: Schema, name: str, schema: Schema, required: bool) -> FieldSpec:
    resolved, nullable = _resolve(root, schema)
    kind, choices = _kind(root, resolved, nullable)
    secret = kind == "secret" or (kind == "json" and _holds_secret(root, resolved))
    return FieldSpec(
        name=name,
        label=_label(name, schema),
        kind=kind,
        hint=schema.get("description") or resolved.get("description"),
        required=required,
        nullable=nullable,
        default=None if secret else schema.get("default"),
        secret=secret,
        choices=choices,
        attributes=_attributes(kind, resolved),
    )


def _resolve(root: Schema, schema: Schema) -> tuple[dict[str, Any], bool]:
    """Return a schema with its references resolved, and True if it also allows null."""
    resolved, nullable = dict(schema), False
    for _ in range(MAX_REFERENCES):
        options = resolved.get("anyOf") or resolved.get("oneOf") or resolved.get("allOf") or ()
        non_null = [option for option in options if option.get("type") != "null"]
        nullable = nullable or len(non_null) < len(options)
        if "$ref" in resolved:
            name = str(resolved.pop("$ref")).removeprefix("#/$defs/")
            resolved = {**root.get("$defs", {}).get(name, {}), **resolved}
        elif len(non_null) == 1:
            rest = {
                name: value
                for name, value in resolved.items()
                if name not in ("anyOf", "oneOf", "allOf")
            }
            resolved = {**non_null[0], **rest}
        else:
            break
    return resolved, nullable


def _kind(root: Schema, resolved: Schema, nullable: bool) -> tuple[Kind, Sequence[Any]]:
    if (choices := _choices(resolved)) is not None:
        return "choice", choices
    if resolved.get("type") == "array":
        items, _ = _resolve(root, resolved.get("items") or {})
        return _kind_of_list(items) if "prefixItems" not in resolved else ("json", ())
    match resolved.get("type"), resolved.get("format"):
        case "string", _ if resolved.get("writeOnly"):
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


def _choices(resolved: Schema) -> Sequence[Any] | None:
    choices = [resolved["const"]] if "const" in resolved else resolved.get("enum")
    scalar = choices and all(
        isinstance(choice, str | int | float | bool) and choice != "" for choice in choices
    )
    return choices if scalar else None


def _holds_secret(root: Schema, schema: Schema, seen: frozenset[str] = frozenset()) -> bool:
    """Return True if a schema contains a secret at any depth."""
    if schema.get("writeOnly") or schema.get("format") == "password":
        return True
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    target = [root.get("$defs", {}).get(name, {})] if name and name not in seen else []
    return any(
        _holds_secret(root, inner, seen | {name}) for inner in (*_subschemas(schema), *target)
    )


def _subschemas(schema: Schema) -> Iterator[Schema]:
    yield from (
        inner for inner in schema.get("properties", {}).values() if isinstance(inner, Mapping)
    )
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        yield from schema.get(word, ())
    yield from (
        schema[word]
        for word in ("items", "additionalProperties")
        if isinstance(schema.get(word), Mapping)
    )


def _label(name: str, schema: Schema) -> str:
    """Return the title from the schema. A title derived from the name gets sentence case."""
    title = schema.get("title")
    own = title and title != name.title().replace("_", " ")
    return str(title) if own else (name.replace("_", " ").strip() or name).capitalize()


def _attributes(kind: Kind, resolved: Schema) -> dict[str, str]:
    if kind == "number":
        is_integer = resolved.get("type") == "integer"
        attributes: dict[str, Any] = {
            "min": resolved.get("minimum"),
            "max": resolved.get("maximum"),
            "step": 1 if is_integer else "any",
        }
        if is_integer and "exclusiveMinimum" in resolved:
            attributes["min"] = int(resolved["exclusiveMinimum"]) + 1
        if is_integer and "exclusiveMaximum" in resolved:
            attributes["max"] = int(resolved["exclusiveMaximum"]) - 1
    elif kind == "text":
        pattern = str(resolved.get("pattern", ""))
        attributes = {
            "minlength": resolved.get("minLength"),
            "maxlength": resolved.get("maxLength"),
        }
        attributes["pattern"] = pattern[1:-1] if _PORTABLE.fullmatch(pattern) else None
        attributes["placeholder"] = (
            "2026-01-31T12:00:00Z" if resolved.get("format") == "date-time" else None
        )
    else:
        attributes = {}
    return {name: str(value) for name, value in attributes.items() if value is not None}


# From values to texts and back
# ----------------------------------------------------------------------------------------


def _input_texts(
    spec: FieldSpec, values: Mapping[str, Any] | None, typed: Typed | None
) -> list[str]:
    if typed is not None:
        return list(typed.get(spec.name, ()))
    value = spec.default if values is None else values.get(spec.name, spec.default)
    match spec.kind:
        case "several":
            return [as_text(item) for item in value or ()]
        case "lines":
            return ["\n".join(map(str, value or ()))]
        case "flag":
            return ["on"] if value else []
        case "json" if value is not None:
            return [json.dumps(value, indent=2, ensure_ascii=False)]
    return [as_text(value)]


def _parse(spec: FieldSpec, texts: Sequence[str]) -> Any:
    """Convert submitted texts to a value; raise ValueError for invalid JSON."""
    text = texts[-1] if texts else ""
    match spec.kind:
        case "flag":
            return text == "on"
        case "several":
            return [choice for choice in spec.choices if as_text(choice) in texts] or _empty_value(
                spec, []
            )
        case "lines":
            return [line.strip() for line in text.split("\n") if line.strip()] or _empty_value(
                spec, []
            )
    if text == "" or (spec.kind not in ("text", "secret") and not text.strip()):
        return _empty_value(spec, _ABSENT)
    match spec.kind:
        case "choice":
            return next((choice for choice in spec.choices if as_text(choice) == text), text)
        case "number":
            return _number(text.strip())
        case "json":
            return json.loads(text, parse_constant=_refuse_constant)
    return text


def _empty_value(spec: FieldSpec, fallback: Any) -> Any:
    """Return the value of an empty input: null if the field is nullable and has a default."""
    if not spec.nullable:
        return fallback
    return None if spec.default is not None else _ABSENT


def _number(text: str) -> Any:
    """Convert text to a number. Other text is returned unchanged; the model rejects it."""
    return json.loads(text) if _NUMBER.fullmatch(text) and not re.match(r"-?0[0-9]", text) else text


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
