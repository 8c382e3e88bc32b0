"""Prompt for config and credentials on a terminal, one field of the model at a time.

Input for secret fields is hidden.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer
from pydantic import BaseModel, ValidationError

from core.cli.inputs import Schema, Values, is_secret, parse_value, properties
from core.cli.output import clean, fail, note

Ask = Callable[..., Any]


def can_ask() -> bool:
    """Return true if a person can answer: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_yes(option: str, *, yes: bool) -> None:
    """Refuse an option that deletes data, if no person can confirm it and `--yes` is missing."""
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(f"without a terminal, {option} needs --yes")


def confirm(question: str) -> None:
    """Ask for confirmation on the terminal, and end the command without it."""
    if not typer.confirm(question, err=True):
        note("Nothing was changed.")
        raise typer.Exit(1)


def config(model: type[BaseModel], known: Values) -> Values:
    """Prompt for missing fields and return the config; optional fields can keep their defaults."""
    fields = {name: field for name, field in properties(model).items() if name not in known}
    required = {name: field for name, field in fields.items() if _is_required(model, name)}
    optional = {name: field for name, field in fields.items() if name not in required}
    selected = dict(required)
    if optional and not known and typer.confirm(_offer_text(optional), default=False, err=True):
        selected |= optional
    return _ask_until_valid(model, known, selected)


def credentials(model: type[BaseModel]) -> Values:
    """Prompt for the fields of the credentials and return them.

    A plugin can exclude an optional field by `json_schema_extra={"prompt": False}`.
    """
    fields = {
        name: field
        for name, field in properties(model).items()
        if field.get("prompt", True) or _is_required(model, name)
    }
    return _ask_until_valid(model, {}, fields)


def _offer_text(optional: Mapping[str, Schema]) -> str:
    names = ", ".join(list(optional)[:4]) + (", …" if len(optional) > 4 else "")
    return f"Change any defaults ({clean(names)})?"


def _is_required(model: type[BaseModel], name: str) -> bool:
    return name in model.model_json_schema().get("required", ())


def _ask_until_valid(
    model: type[BaseModel], known: Values, selected: Mapping[str, Schema]
) -> Values:
    """Ask for all selected fields, and repeat the questions for invalid ones."""
    values, remaining = dict(known), dict(selected)
    while remaining:
        for name, field in remaining.items():
            answer = _ask(model, name, field)
            values.pop(name, None)
            if answer is not None:
                values[name] = answer
        problems = _problems(model, values)
        for name, problem in problems.items():
            fail(f"{name}: {problem}")
        remaining = {name: field for name, field in selected.items() if name in problems}
    return values


def _problems(model: type[BaseModel], values: Values) -> dict[str, str]:
    from core.service.accounts.validation import problems

    try:
        model.model_validate(values)
    except ValidationError as error:
        return {name: problem for name, problem in problems(error).items() if name}
    return {}


def _ask(model: type[BaseModel], name: str, field: Schema) -> Any:
    """Ask for one field and return the answer, or None to keep the default."""
    about = field.get("description")
    if about:
        note(f"  {about}")
    required, hidden = _is_required(model, name), is_secret(field)
    default = None if required else "" if hidden else _default_text(field.get("default"))
    text = str(
        typer.prompt(
            clean(name), default=default, hide_input=hidden, show_default=not hidden, err=True
        )
    )
    if not required and text == default:
        return None
    return text if hidden else parse_value(model.model_json_schema(), field, text)


def _default_text(default: object) -> str:
    if default is None:
        return ""
    return default if isinstance(default, str) else json.dumps(default)
