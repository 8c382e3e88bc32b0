"""The schema's version, and how it is brought up to date."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

import core
from core.db.pool import open_connection
from core.errors import ServerUnavailable

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
    """SQLAlchemy on psycopg, for migrations and for listings; libpq reads the URL itself, so that any form works."""
    return create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url, connect_timeout=5), poolclass=NullPool
    )


@lru_cache(maxsize=1)
def head() -> str:
    """The newest revision that this version of the code knows."""
    revision = ScriptDirectory.from_config(alembic_config("")).get_current_head()
    assert revision is not None
    return revision


def current(url: str) -> str | None:
    """The revision of the database, or None where there is no schema.

    Raises:
      ServerUnavailable: The server does not answer.
    """
    open_connection(url).close()
    with engine(url).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(url: str, revision: str = "head") -> bool:
    """Bring the schema up to date. Returns whether there was anything to do.

    Raises:
      ServerUnavailable: The server does not answer.
    """
    with open_connection(url) as lock:
        lock.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        before = current(url)
        if before == (head() if revision == "head" else revision):
            return False
        command.upgrade(alembic_config(url), revision)
        return True


def require_schema(url: str) -> None:
    """Raises ServerUnavailable, with what to do, where the schema is missing or is not this version's."""
    found = current(url)
    if found is None:
        raise ServerUnavailable("the database has no schema yet", "Run: polling migrate")
    if found != head():
        raise ServerUnavailable(
            f"the database's schema is at {found}, this version needs {head()}", "Run: polling migrate"
        )
