"""Validate config and credentials with the models of a plugin.

An error is one line, names the field, and never repeats a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from core.accounts.vault import size_of
from core.errors import AccountPart, InvalidFields, InvalidInput
from core.field_problems import FieldProblem, field_problems
from core.integration.base import Destination, Integration, RereadOnChange, ResyncOnChange
from core.known_secrets import secrets_of
from core.results.text import is_storable

M = TypeVar("M", bound=BaseModel)

Values = Mapping[str, Any]

MAX_PROBLEM_CHARS = 500

MAX_VALUES_BYTES = 64 * 1024
"""The maximum size of a config as JSON in ASCII, and also of credentials.

A user may have a thousand accounts, and may have thousands of recorded responses, which contain the
config.
"""

PLAIN_MESSAGES = {
    "missing": "This field is required.",
    "int_parsing": "Enter an integer.",
    "int_from_float": "Enter an integer.",
    "int_type": "Enter an integer.",
}
"""Messages for form fields, by pydantic's type of error."""
DECIDES_WHERE = "this field decides where the credentials are sent; also enter the credentials"


def config_of(integration: Integration, values: Values) -> BaseModel:
    """Validate the config of an account.

    Raises:
      InvalidInput: A value is invalid, or the model of the config declares a secret, which belongs
        in the credentials.
    """
    config = _validated(integration, integration.config_model, values, "config")
    if any(secrets_of(config)):
        raise InvalidInput("config-holds-secret", domain=integration.manifest.domain)
    return config


def credentials_of(integration: Integration, values: Values) -> BaseModel:
    """Validate the credentials of an account.

    Raises:
      InvalidInput: A value is invalid. The message repeats no value.
    """
    return _validated(integration, integration.credentials_model, values, "credentials")


def _validated(integration: Integration, model: type[M], values: Values, what: AccountPart) -> M:
    try:
        valid = model.model_validate(values)
    except ValidationError as error:
        # The name of a field is not a secret: a file may have it as its `type`.
        secrets = set(_strings(values)) - model.model_fields.keys() if what == "credentials" else ()
        redacted = {
            name: _redacted(text, secrets)[:MAX_PROBLEM_CHARS]
            for name, text in problems(error).items()
        }
        raise InvalidFields(
            "config-invalid" if what == "config" else "credentials-invalid",
            part=what,
            problems=redacted,
            problem=_redacted(_first(error), secrets),
            domain=integration.manifest.domain,
        ) from None
    try:
        dumped = valid.model_dump(mode="json")
        fit = _is_storable(dumped)
    except UnicodeError:  # an unpaired surrogate in a name
        fit = False
    if not fit:
        raise InvalidInput("value-not-storable", part=what)
    try:
        json.dumps(dumped, allow_nan=False)
    except ValueError:
        raise InvalidInput("value-not-finite", part=what) from None
    if size_of(valid) > MAX_VALUES_BYTES:
        raise InvalidInput("values-too-large", part=what, most=MAX_VALUES_BYTES // 1024)
    return valid


def _first(error: ValidationError) -> str:
    """Describe the first problem with its field, and count the others."""
    first, *others = field_problems(error)
    return f"{first} (and {len(others)} more)" if others else str(first)


def problems(error: ValidationError) -> dict[str, str]:
    """Return the first problem of each field, by name."""
    messages: dict[str, str] = {}
    for problem in field_problems(error):
        name, *deeper = problem.location or ("",)
        message = _plain(problem)
        messages.setdefault(name, f"{'.'.join(deeper)}: {message}" if deeper else message)
    return messages


def _plain(problem: FieldProblem) -> str:
    if problem.kind == "too_short" and "at least 1 item " in problem.message:
        return "Choose at least one."
    return PLAIN_MESSAGES.get(problem.kind, problem.message)


def _redacted(text: str, secrets: Iterable[str]) -> str:
    """Redact the given secrets, because a validator of a plugin may repeat them."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, "***").replace(repr(secret)[1:-1], "***")
    return text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _is_storable(value: Any) -> bool:
    """Return True if PostgreSQL can store all strings of a value, keys included."""
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, Mapping):
        return all(_is_storable(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return all(map(_is_storable, value))
    return True


def stored(config: BaseModel) -> dict[str, Any]:
    """Return a config in the form of its column."""
    return config.model_dump(mode="json")


def needs_resync(model: type[BaseModel], before: Values, after: Values) -> bool:
    """Return True if a field marked `ResyncOnChange` differs.

    A field that a stored config does not have yet counts with its default.
    """
    return bool(_changed(model, before, after, ResyncOnChange))


def needs_reread(model: type[BaseModel], before: Values, after: Values) -> bool:
    """Return True if a field marked `RereadOnChange` differs."""
    return bool(_changed(model, before, after, RereadOnChange))


def require_same_destination(integration: Integration, before: Values, after: Values) -> None:
    """Raise InvalidFields if a `Destination` field differs and the account has credentials.

    The stored credentials would otherwise be sent to the new destination.
    """
    moved = _changed(integration.config_model, before, after, Destination)
    if moved and integration.credentials_model.model_fields:
        raise InvalidFields(
            "destination-changed",
            part="config",
            problems=dict.fromkeys(moved, DECIDES_WHERE),
            problem=f"{', '.join(moved)}: {DECIDES_WHERE}",
        )


def destinations(model: type[BaseModel]) -> list[str]:
    """Return the fields of a config that decide where the credentials are sent, the host first."""
    return _marked(model, Destination)


def _changed(model: type[BaseModel], before: Values, after: Values, mark: type) -> list[str]:
    try:
        before = stored(model.model_validate(before))
    except ValidationError:
        before = dict(before)
    return [name for name in _marked(model, mark) if before.get(name) != after.get(name)]


def _marked(model: type[BaseModel], mark: type) -> list[str]:
    return [
        name
        for name, field in model.model_fields.items()
        if _is(mark, field.metadata) or _within(field.annotation, mark)
    ]


def _is(mark: type, marks: Iterable[Any]) -> bool:
    return any(entry is mark or isinstance(entry, mark) for entry in marks)


def _within(annotation: Any, mark: type, seen: frozenset[Any] = frozenset()) -> bool:
    """Return True if the mark is nested: in `Annotated[str, mark] | None`, a list or a model."""
    if (
        isinstance(annotation, type)
        and issubclass(annotation, BaseModel)
        and annotation not in seen
    ):
        deeper = annotation.model_fields.values()
        return any(
            _is(mark, field.metadata) or _within(field.annotation, mark, seen | {annotation})
            for field in deeper
        )
    marks = getattr(annotation, "__metadata__", ())
    return _is(mark, marks) or any(
        _within(argument, mark, seen) for argument in get_args(annotation)
    )
