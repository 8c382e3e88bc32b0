"""The metadata of all tables, and the columns that several of them have."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    Sequence,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from core.states import Word, literals

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

dispatch_seq = Sequence("dispatch_seq", metadata=metadata)
"""A sequence that each dispatch increments. It orders writers of the same content or state."""


def moment(name: str, *, default: bool = False, nullable: bool | None = None) -> Column[Any]:
    """Return a column with a point in time. Without a default, it may be NULL."""
    server_default = text("now()") if default else None
    return Column(
        name,
        DateTime(timezone=True),
        server_default=server_default,
        nullable=not default if nullable is None else nullable,
    )


def count_column(name: str, kind: Any = Integer) -> Column[Any]:
    """Return a column with a number that begins with 0."""
    return Column(name, kind, nullable=False, server_default="0")


def flag(name: str) -> Column[Any]:
    """Return a column that is false unless it is set."""
    return Column(name, Boolean, nullable=False, server_default=text("false"))


def text_column(name: str, *, default: str | None = None, nullable: bool = False) -> Column[Any]:
    """Return a column with a text, which is not NULL unless `nullable` says so."""
    return Column(name, Text, nullable=nullable, server_default=default)


def check_in(column: str, words: type[Word]) -> str:
    """Return the CHECK condition that a column holds one of these words."""
    return f"{column} IN ({literals(words)})"


CURRENT_TRANSACTION = "pg_current_xact_id()::text::bigint"
"""The number of the writing transaction, as bigint because clients cannot sort xid8."""


def changed_xid() -> Column[Any]:
    """Return the column with the last writing transaction. It orders the change feed (ADR 0040)."""
    return Column(
        "changed_xid", BigInteger, nullable=False, server_default=text(CURRENT_TRANSACTION)
    )


def account_column(**kwargs: Any) -> Column[Any]:
    """Return a column with the id of an account, without a foreign key, for hot tables."""
    return Column("user_integration_id", UUID, nullable=False, **kwargs)


def account_key(**kwargs: Any) -> Column[Any]:
    """Return a column that references an account, for tables that are not hot."""
    return Column(
        "user_integration_id",
        UUID,
        ForeignKey("user_integration.id", ondelete="CASCADE"),
        nullable=False,
        **kwargs,
    )


def content_key() -> Column[Any]:
    """Return a primary key that references an item."""
    item = ForeignKey("user_integration_content.id", ondelete="CASCADE")
    return Column("content_id", BigInteger, item, primary_key=True)
