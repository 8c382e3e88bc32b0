"""Descriptions of PostgreSQL errors that contain no values of rows.

PostgreSQL quotes values in DETAIL and CONTEXT, and in some primary messages too, such as `invalid
input syntax for type integer: "…"`. The SQLSTATE tells which messages do; their text may be in any
language (https://www.postgresql.org/docs/current/errcodes-appendix.html).
"""

from __future__ import annotations

import re

import psycopg

from core.errors import chain

MAX_CHARS = 200
"""The maximum length of a description."""

_QUOTING_NO_VALUE = {"08", "23", "25", "28", "3D", "40", "53", "55", "57", "58"}
"""Classes of SQLSTATEs whose primary messages name only servers, files and constraints."""

_NAMING_OBJECTS = {"42501", "42703", "42P01"}
"""SQLSTATEs whose messages name only objects: permission, undefined column or table."""


def describe(error: BaseException) -> str:
    """Return a description of an error in one line of at most 200 characters.

    For an error of PostgreSQL, it is the primary message. If that message may quote a value, it is
    the name of the condition, such as `invalid_text_representation`. For any other error, it is the
    first line of its text.
    """
    cause = database_error(error)
    text = _first_line(error) if cause is None else _cause(cause)
    return (text or type(error).__name__)[:MAX_CHARS]


def database_error(error: BaseException) -> psycopg.Error | None:
    """Return the psycopg error, also if SQLAlchemy has wrapped it; None for other errors."""
    inner = getattr(error, "orig", error)
    return inner if isinstance(inner, psycopg.Error) else None


def remove_values(error: BaseException) -> None:
    """Replace the texts of an error and of its causes by their descriptions.

    Class and SQLSTATE do not change, so the error can still be handled.
    """
    for link in chain(error):
        if isinstance(link, psycopg.Error):
            link.args = (describe(link),)


def _cause(error: psycopg.Error) -> str:
    if error.sqlstate is None:
        # A connection error has a text of libpq. Texts of adapters and parsers may quote values.
        about_connection = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return _first_line(error) if about_connection else ""
    if error.sqlstate[:2] in _QUOTING_NO_VALUE or error.sqlstate in _NAMING_OBJECTS:
        return error.diag.message_primary or _condition(error.sqlstate)
    return _condition(error.sqlstate)


def _condition(sqlstate: str) -> str:
    """Return the name of a condition: `invalid_text_representation` for `22P02`."""
    try:
        name = psycopg.errors.lookup(sqlstate).__name__
    except KeyError:
        return f"SQLSTATE {sqlstate}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rstrip("_")).lower()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
