"""A row factory for psycopg that maps columns to fields by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg.rows import no_result

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from psycopg import Cursor
    from psycopg.rows import RowMaker

T = TypeVar("T", bound="DataclassInstance")


def dataclass_row(cls: type[T]) -> Callable[[Cursor[Any]], RowMaker[T]]:
    """Return a row factory for a dataclass with at least two fields.

    Each field takes the column of its name. The order of columns does not matter, and other columns
    are ignored. Names are looked up once for each statement, not for each row.

    When a statement runs, the factory raises `ValueError` if a field has no column.
    """
    field_names = [field.name.encode() for field in fields(cls)]

    def factory(cursor: Cursor[Any]) -> RowMaker[T]:
        result = cursor.pgresult
        if result is None or not result.nfields:
            return no_result
        # This is faster than `cursor.description`, which costs as much as ten rows.
        columns = [result.fname(index) for index in range(result.nfields)]
        in_order = itemgetter(*map(columns.index, field_names))

        def make(values: Sequence[Any]) -> T:
            return cls(*in_order(values))

        return make

    return factory
