"""Building objects from named fields that another engine version may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def from_fields(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build a dataclass or a named tuple.

    Unknown fields are ignored, and missing optional fields have their defaults.

    Raises:
      TypeError: A required field is missing, or `data` has no named fields.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"a {type(data).__name__} has no named fields")
    names = getattr(cls, "_fields", None) or getattr(cls, "__dataclass_fields__")  # noqa: B009
    return cls(**{name: data[name] for name in names if name in data})
