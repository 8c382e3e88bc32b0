"""Updating the schema with Alembic."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from alembic import command, op
from alembic.config import Config
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

import core
from core.db.errors import describe
from core.db.pool import CONNECT, open_connection
from core.db.version import HEAD, current, refuse_newer
from core.errors import PollingError, SettingsError

_LOCK = 7_301_946_220_118
"""The key of the advisory lock that concurrent migrations wait for."""


def migrations_folder() -> Path:
    """Return the folder of the migrations: in the wheel, or next to the package in a checkout."""
    package = Path(core.__file__).parent
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration; no ini file is needed."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def engine(url: str) -> Engine:
    """Return a SQLAlchemy engine on psycopg, for migrations.

    libpq parses the URL, so every form that libpq accepts works.
    """
    return create_engine(
        "postgresql+psycopg://",
        # No deadline for statements: a migration of large tables may take hours.
        creator=lambda: psycopg.connect(url, **CONNECT),
        poolclass=NullPool,
        hide_parameters=True,
    )


def migrate(url: str, revision: str = "head") -> bool:
    """Update the schema.

    Args:
      url: A libpq URL or connection string.
      revision: The revision to update to. Default: the newest.

    Returns:
      False if the schema was up to date.

    Raises:
      ServerUnavailable: The server does not answer.
      SettingsError: The encoding of the database is not UTF-8. A database that was created on a
        host without a locale has another one.
      PollingError: A statement of a migration failed.
    """
    with open_connection(url) as lock:
        encoding = lock.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise SettingsError("database-encoding", encoding=encoding)
        # This polls, because a waiting statement would keep a snapshot open. A concurrent index
        # build would wait for that snapshot.
        while lock.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone() != (True,):
            time.sleep(0.1)
        present = current(url)
        if present == (HEAD if revision == "head" else revision):
            return False
        refuse_newer(present)
        try:
            command.upgrade(alembic_config(url), revision)
        except DBAPIError as error:
            raise PollingError("migration-failed", detail=describe(error)) from None
        return True


def build_index(name: str, table: str, columns: Sequence[Any], **options: Any) -> None:
    """Build an index without blocking writers. A migration calls this from `upgrade`.

    An earlier attempt that was killed leaves an invalid index, which is dropped first. The earlier
    steps of the migration are committed.

    Args:
      name: The name of the index.
      table: The name of the table.
      columns: The names of the columns, in the order of the index.
      **options: More arguments of Alembic's `create_index`, such as `unique` or `postgresql_where`.
    """
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)
