"""Ceilings of the numbers in configs, which the operator sets with `POLLING_CEILINGS`."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from annotated_types import Le
from pydantic import BaseModel, create_model


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The mark of a field that the operator bounds.

    Attributes:
      most: The largest value.
    """

    most: float


def numbers(model: type[BaseModel]) -> set[str]:
    """Return the fields of a config that have a number, or nothing."""
    return {name for name, info in model.model_fields.items() if _is_number(info.annotation)}


def bounded(model: type[BaseModel], ceilings: Mapping[str, float]) -> type[BaseModel]:
    """Return the model of a config with ceilings on its numbers.

    The schema shows them, so that forms, commands and the API do. A default above a ceiling is
    lowered.

    Args:
      model: The model of a plugin.
      ceilings: The largest values, by field. Other fields than numbers are ignored.
    """
    fields: dict[str, Any] = {}
    for name in sorted(ceilings.keys() & numbers(model)):
        info, most = copy(model.model_fields[name]), ceilings[name]
        info.metadata = [*info.metadata, Le(most), Ceiling(most)]
        if isinstance(info.default, int | float):
            info.default = _lowered(info.default, most)
        fields[name] = (info.annotation, info)
    if not fields:
        return model
    return create_model(model.__name__, __base__=model, __module__=model.__module__, **fields)


def within_ceilings(model: type[BaseModel], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config whose numbers do not exceed their ceilings.

    The operator may have set a ceiling since the account was connected. The account then continues
    with less, instead of stopping.
    """
    kept = dict(config)
    for name, info in model.model_fields.items():
        value = kept.get(name)
        for mark in info.metadata:
            if isinstance(mark, Ceiling) and isinstance(value, int | float):
                kept[name] = _lowered(value, mark.most)
    return kept


def _lowered(value: float, most: float) -> float:
    """Return the smaller number; an integer stays one."""
    return value if value <= most else type(value)(most)


def _is_number(annotation: Any) -> bool:
    """Return True for int, float, and both with None."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    return bool(kinds) and all(kind in (int, float) for kind in kinds)
