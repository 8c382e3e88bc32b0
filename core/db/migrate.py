"""How the schema is brought up to date."""

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
from core.db.pool import open_connection
from core.db.version import HEAD, current
from core.errors import PollingError, SettingsError

_LOCK = 7_301_946_220_118
"""Two migrations at once wait for each other on this advisory lock."""


def migrations_folder() -> Path:
    """Inside the wheel, or beside the package in a checkout."""
    package = Path(core.__file__).parent
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def alembic_config(url: str) -> Config:
    """Alembic's configuration; it needs no ini file."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def engine(url: str) -> Engine:
    """SQLAlchemy on psycopg, for migrations and listings.

    libpq reads the URL itself, so that any form works.
    """
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url, connect_timeout=5),
        poolclass=NullPool,
        hide_parameters=True,
    )


def migrate(url: str, revision: str = "head") -> bool:
    """Bring the schema up to date. Returns whether there was anything to do.

    Raises:
      ServerUnavailable: The server does not answer.
      SettingsError: The database has another encoding than UTF-8, as one made on a host without a
        locale.
      PollingError: A statement of a migration failed.
    """
    with open_connection(url) as lock:
        encoding = lock.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise SettingsError("database-encoding", encoding=encoding)
        # Asked again and again, as a statement that waits would hold a snapshot, which an index
        # built beside writers waits for.
        while lock.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone() != (True,):
            time.sleep(0.1)
        if current(url) == (HEAD if revision == "head" else revision):
            return False
        try:
            command.upgrade(alembic_config(url), revision)
        except DBAPIError as error:
            raise PollingError("migration-failed", detail=describe(error)) from None
        return True


def build_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Build an index beside writers: the step of a migration, which calls it from `upgrade`.

    An earlier attempt that was killed leaves an invalid index behind, which is dropped first. What
    the migration did before is committed.

    Parameters:
      columns: The names of columns, in the order of the index.
      options: More arguments of Alembic's `create_index`, such as `unique` or `postgresql_where`.
    """
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)
