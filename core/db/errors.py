"""What an error of PostgreSQL may say: its cause, and nothing from a row.

PostgreSQL quotes values in DETAIL and CONTEXT, and in some primary messages too, such as `invalid
input syntax for type integer: "…"`. Which ones do is a matter of the SQLSTATE; the text itself may
be in any language (https://www.postgresql.org/docs/current/errcodes-appendix.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg

MAX_CHARS = 200

_QUOTING_NO_VALUE = {"08", "23", "25", "28", "3D", "40", "53", "55", "57", "58"}
"""Classes of SQLSTATEs whose primary message names servers, files and constraints at most."""
_NAMING_OBJECTS = {"42501", "42703", "42P01"}
"""The same for single ones: no permission, no such column, no such table."""


def describe(error: BaseException) -> str:
    """One line about an error, at most 200 characters long.

    An error of PostgreSQL is described by its primary message. If such a message may quote a value,
    the name of the condition takes its place, such as `invalid_text_representation`. Of any other
    error, this is the first line.
    """
    cause = database_error(error)
    text = _first_line(error) if cause is None else _cause(cause)
    return (text or type(error).__name__)[:MAX_CHARS]


def database_error(error: BaseException) -> psycopg.Error | None:
    """The error of psycopg that this one is, or that SQLAlchemy has wrapped in it."""
    inner = getattr(error, "orig", error)
    return inner if isinstance(inner, psycopg.Error) else None


def remove_values(error: BaseException) -> None:
    """Replace the text of an error, and of the errors that it came from, by what `describe` says.

    Class and SQLSTATE stay as they are, so the error can still be handled.
    """
    for link in _chain(error):
        if isinstance(link, psycopg.Error):
            link.args = (describe(link),)


def _cause(error: psycopg.Error) -> str:
    if error.sqlstate is None:
        # libpq's own words about a connection; those of adapters and parsers may quote anything.
        about_connection = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return _first_line(error) if about_connection else ""
    if error.sqlstate[:2] in _QUOTING_NO_VALUE or error.sqlstate in _NAMING_OBJECTS:
        return error.diag.message_primary or _condition(error.sqlstate)
    return _condition(error.sqlstate)


def _condition(sqlstate: str) -> str:
    """`22P02` is `invalid_text_representation`."""
    try:
        name = psycopg.errors.lookup(sqlstate).__name__
    except KeyError:
        return f"SQLSTATE {sqlstate}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rstrip("_")).lower()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all those that it came from, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__]
