"""The operator's settings for an integration, read from the environment or `.env`.

`Manifest.settings` declares them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices, BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from core.errors import SettingsError
from core.field_problems import first_problem
from core.known_secrets import Redactor


@dataclass(frozen=True, slots=True)
class OperatorSetting:
    """One setting with its current value.

    Attributes:
      name: The name of the environment variable.
      value: The value set, or the default.
      given: True if the operator set it.
    """

    name: str
    value: Any
    given: bool

    def __repr__(self) -> str:
        return f"OperatorSetting({self.name!r}, given={self.given})"

    @property
    def is_secret(self) -> bool:
        """True if the value must not be shown."""
        return isinstance(self.value, SecretStr)


def setting_names(model: type[BaseModel]) -> dict[str, str]:
    """Return the name of the environment variable of each field of a settings model."""
    prefix = str(model.model_config.get("env_prefix", ""))
    return {field: _name(prefix + field, info) for field, info in model.model_fields.items()}


def _name(name: str, info: FieldInfo) -> str:
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
    return (alias if isinstance(alias, str) else name).upper()


def operator_settings(model: type[BaseModel] | None) -> list[OperatorSetting]:
    """Return the current settings of a model; an empty list for None.

    Raises:
      SettingsError: A value is invalid. The error does not repeat the value.
    """
    return list(_read(model)) if model is not None else []


def load_settings(model: type[BaseModel] | None) -> BaseModel | None:
    """Return the current settings as an instance of their model; None for None.

    Raises:
      SettingsError: A value is invalid. The error does not repeat the value.
    """
    return None if model is None else _load(model, setting_names(model))


def _read(model: type[BaseModel]) -> Iterator[OperatorSetting]:
    names = setting_names(model)
    found = _load(model, names)
    for field, name in names.items():
        yield OperatorSetting(name, getattr(found, field), field in found.model_fields_set)


def _load(model: type[BaseModel], names: Mapping[str, str]) -> BaseModel:
    try:
        return model()
    except ValidationError as error:
        problem = first_problem(error)
        field = problem.location[0] if problem.location else "a setting"
        name = names.get(field, field.upper())
        # A plugin's validator may repeat the value.
        redact = Redactor(filter(None, [environment_value(name)]))
        raise SettingsError(
            "setting-invalid", setting=name, problem=redact(problem.message)
        ) from None


def environment_value(name: str) -> str | None:
    """Return the value of one environment variable, from the environment or from `.env`.

    `OAuth.client_id_setting` and `OAuth.client_secret_setting` name settings this way.

    Args:
      name: The name of the variable.

    Returns:
      The value; None if it is unset or empty.
    """
    from dotenv import dotenv_values

    return os.environ.get(name) or dotenv_values(".env").get(name) or None
