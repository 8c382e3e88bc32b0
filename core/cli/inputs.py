"""Parse config and credentials from the options of a command."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import BaseModel

    from core.integration.base import Integration

Values = dict[str, Any]
Schema = Mapping[str, Any]


def config(
    integration: Integration,
    assignments: Sequence[str],
    document: str | None,
    base: Mapping[str, Any],
) -> Values:
    """Return the config: the document or the stored config, with single fields changed.

    Args:
      integration: The integration that defines the fields.
      assignments: `key=value`; `a.b=value` sets a nested field.
      document: JSON, or `@FILE`. None: use `base`.
      base: The stored config.

    Raises:
      InvalidInput: A field is unknown or secret, or the JSON is invalid.
    """
    values = dict(base) if document is None else json_object(document, "--config")
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise InvalidInput("set-without-value")
        _set(integration, values, key, text)
    for name in values:
        _require_field(integration, name)
    return values


def credentials(integration: Integration, argument: str | None) -> Values | None:
    """Return the credentials from a file or from standard input.

    Raises:
      InvalidInput: The credentials are on the command line, where every user of this machine can
        read them, or are not valid JSON.
    """
    if argument is None:
        return None
    if argument != "-" and not argument.startswith("@"):
        raise InvalidInput("secret-on-command-line")
    values = json_object(argument, "--credentials")
    if not integration.credentials_model.model_fields and values:
        raise InvalidInput(
            "integration-takes-no-credentials", integration=integration.manifest.domain
        )
    return values


def _set(integration: Integration, values: Values, key: str, text: str) -> None:
    fields = properties(integration.config_model)
    first, *deeper = [key] if key in fields else key.split(".")
    _require_field(integration, first)
    schema, field = integration.config_model.model_json_schema(), fields.get(first, {})
    target, last = values, first
    for name in deeper:
        inner = target.get(last)
        target[last] = dict(inner) if isinstance(inner, dict) else {}
        target, last, field = target[last], name, _inner(resolve(schema, field), name)
    target[last] = parse_value(schema, field, text)


def _inner(field: Schema, name: str) -> Schema:
    extra = field.get("additionalProperties")
    result = field.get("properties", {}).get(name, extra if isinstance(extra, dict) else {})
    return dict(result)


def _require_field(integration: Integration, name: str) -> None:
    """Raise InvalidInput if the config has no field of this name, or the field is secret."""
    model = integration.config_model
    fields = properties(model)
    domain = integration.manifest.domain
    if name in fields and not is_secret(fields[name]):
        return
    if name in fields or name in properties(integration.credentials_model):
        raise InvalidInput("secret-in-config", field=name)
    if model.model_config.get("extra") != "allow":
        known = ", ".join(fields) or "none"
        raise InvalidInput("config-field-unknown", domain=domain, field=name, known=known)


def properties(model: type[BaseModel]) -> dict[str, Schema]:
    """Return the JSON schemas of a model's fields, by their public names."""
    result: dict[str, Schema] = model.model_json_schema().get("properties", {})
    return result


def is_secret(field: Schema) -> bool:
    """Return true if the field has one of pydantic's secret types."""
    return bool(field.get("writeOnly")) or any(is_secret(part) for part in field.get("anyOf", ()))


def parse_value(schema: Schema, field: Schema, text: str) -> Any:
    """Parse a text as the value of a field.

    The value of a text field is the text itself. All other values are JSON; a list can also be
    separated by commas.
    """
    field = resolve(schema, field)
    kinds = {
        kind
        for part in (field, *field.get("anyOf", ()))
        for kind in [resolve(schema, part).get("type")]
        if kind
    }
    if "string" in kinds and not (text == "null" and "null" in kinds):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return [part.strip() for part in text.split(",")] if "array" in kinds else text


def resolve(schema: Schema, field: Schema) -> Schema:
    """Return the schema of a field, with its reference resolved."""
    name = str(field.get("$ref", "")).removeprefix("#/$defs/")
    return dict(schema.get("$defs", {}).get(name, {})) if name else field


def json_object(argument: str, option: str) -> Values:
    """Return the JSON object of an option, from its text, a file or standard input.

    Error messages do not repeat the text, which may hold secrets.
    """
    text = _read_argument(argument, option)
    if not text.strip():
        source = {"-": "standard input", "@": "the file"}.get(argument[:1], "the value")
        raise InvalidInput("option-empty", option=option, source=source)
    try:
        value = json.loads(text)
    except ValueError:
        raise InvalidInput("option-not-json", option=option) from None
    if not isinstance(value, dict):
        raise InvalidInput("option-not-an-object", option=option)
    return value


def _read_argument(argument: str, option: str) -> str:
    if argument == "-":
        return sys.stdin.read()
    if not argument.startswith("@"):
        return argument
    path = Path(argument[1:])
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(
            "option-file-unreadable", option=option, path=path, detail=error.strerror
        ) from None
