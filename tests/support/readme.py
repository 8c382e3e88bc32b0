"""The table of config fields in a plugin's README."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

UNSET = (None, "", [], ())


def config_table(readme: Path) -> list[tuple[str, str]]:
    """Return name and default of each row in the first table of the section "Config"."""
    section = readme.read_text("utf-8").split("\n## Config\n", 1)[1]
    table = section[section.index("\n|") :].strip().split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", table, re.MULTILINE)


def config_fields(model: type[BaseModel], table: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return name and default of each field, as the table must show them.

    A README may describe an unset default in its own words.
    """
    shown = dict(table)
    return [
        (name, shown.get(name, "") if _is_unset(field) else _text(field))
        for name, field in model.model_fields.items()
    ]


def _is_unset(field: FieldInfo) -> bool:
    return not field.is_required() and field.get_default(call_default_factory=True) in UNSET


def _text(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    match field.get_default(call_default_factory=True):
        case list() | tuple() as values:
            return ", ".join(f"`{value}`" for value in values)
        case (str() | dict()) as value:
            return f"`{value}`"
        case value:
            return json.dumps(value)
