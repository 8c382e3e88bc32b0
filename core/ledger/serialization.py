"""Objects as named fields, which another engine version may read or have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


def to_fields(row: NamedTuple) -> dict[str, Any]:
    """Return the named fields of a named tuple, and of the named tuples in its lists."""
    return {name: _nested(value) for name, value in row._asdict().items()}


def _nested(value: Any) -> Any:
    if isinstance(value, list):
        return [to_fields(each) if hasattr(each, "_asdict") else each for each in value]
    return value


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
