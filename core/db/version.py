"""The revision of the database's schema, read without Alembic because every command needs it."""

from __future__ import annotations

from psycopg.errors import UndefinedTable

from core.db.pool import open_connection
from core.errors import ServerUnavailable

HEAD = "0036"
"""The revision that this version of the code needs: the newest in `migrations/versions`."""


def current(url: str) -> str | None:
    """Return the revision of the schema; None if the database has no schema.

    Raises:
      ServerUnavailable: The server does not answer.
    """
    with open_connection(url) as conn:
        try:
            row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
        except UndefinedTable:
            return None
    return row[0] if row is not None else None


def refuse_newer(revision: str | None) -> None:
    """Refuse a schema of a newer version of the engine.

    Revisions are numbers with leading zeros.

    Raises:
      ServerUnavailable: The schema is newer.
    """
    if revision is not None and revision > HEAD:
        raise ServerUnavailable("schema-newer", found=revision, known=HEAD)


def require_schema(url: str) -> None:
    """Check the schema.

    Raises:
      ServerUnavailable: The schema is missing or has another revision; the error names the action.
    """
    revision = current(url)
    if revision is None:
        raise ServerUnavailable("schema-missing")
    refuse_newer(revision)
    if revision != HEAD:
        raise ServerUnavailable("schema-mismatch", found=revision, needed=HEAD)
