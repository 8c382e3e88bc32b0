"""From what a person types to an id: the UUID, a unique beginning of it, or an account's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row
from core.errors import InvalidInput
from core.results.text import is_storable
from core.service.missing import not_found
from core.service.pagination import PLURALS

SHORTEST = 4
"""Characters of a UUID that may stand for it."""

# A beginning is a range of the primary key.
ACCOUNTS = """
SELECT id, concat_ws(', ', name, integration_domain, user_id) FROM user_integration
WHERE id BETWEEN %(low)s AND %(high)s ORDER BY id LIMIT 6
"""
NAMED = """
SELECT id, concat_ws(', ', name, integration_domain, user_id) FROM user_integration
WHERE name = %s ORDER BY created_at, id LIMIT 6
"""
# By the index on names and the primary key.
SEEN = """
SELECT id, concat_ws(', ', name, integration_domain, user_id) FROM user_integration
WHERE (name = %(text)s OR id = %(id)s) AND (%(user)s::text IS NULL OR user_id = %(user)s)
ORDER BY created_at, id LIMIT 6
"""
RUNS = """
SELECT id, concat_ws(', ', integration_domain, state) FROM sync_run
WHERE id BETWEEN %(low)s AND %(high)s ORDER BY id LIMIT 6
"""

NAMES = "SELECT id, name FROM user_integration WHERE id = ANY(%s)"

_HEX = re.compile(r"[0-9a-f]{1,32}")


def account_id(conn: Conn, text: str) -> UUID:
    """The account a person means: by its name, its UUID, or a unique beginning of that.

    Raises:
      NotFound: There is none.
      InvalidInput: There are several; they are listed.
    """
    found = conn.execute(NAMED, (text,)).fetchall() if "\0" not in text else []
    if not found:
        found = _beginning(conn, ACCOUNTS, text)
    return _only(found, text, "account")


def account_of(conn: Conn, user: str | None, text: str) -> UUID:
    """The account that somebody means who sees only this user's: by its name or its UUID.

    Parameters:
      user: None sees all.

    Raises:
      NotFound: They see none of it.
      InvalidInput: There are several; they are listed.
    """
    try:
        id = UUID(text)
    except ValueError:
        id = None
    names = {"text": text, "id": id, "user": user}
    found = conn.execute(SEEN, names).fetchall() if is_storable(text) else []
    return _only(found, text, "account")


def run_id(conn: Conn, text: str) -> UUID:
    """The run a person means.

    Raises:
      NotFound, InvalidInput: As for accounts.
    """
    return _only(_beginning(conn, RUNS, text), text, "run")


def with_account_names(conn: Conn, rows: Sequence[Row]) -> list[Row]:
    """Rows of accounts, each with its account's name."""
    names: dict[UUID, str] = dict(
        conn.execute(NAMES, ([row["user_integration_id"] for row in rows],)).fetchall()
    )
    return [row | {"account_name": names.get(row["user_integration_id"], "")} for row in rows]


def number(text: str, what: str) -> int:
    """The id of a task or of content.

    Raises:
      InvalidInput: It is no number.
    """
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise InvalidInput("id-not-a-number", text=text, kind=what, listing=PLURALS[what])
    return int(text)


def _beginning(conn: Conn, statement: str, text: str) -> list[tuple[Any, ...]]:
    digits = text.replace("-", "").lower()
    if len(digits) < SHORTEST or not _HEX.fullmatch(digits):
        return []
    names = {"low": UUID(digits.ljust(32, "0")), "high": UUID(digits.ljust(32, "f"))}
    return conn.execute(statement, names).fetchall()


def _only(found: Sequence[tuple[Any, ...]], text: str, what: str) -> UUID:
    if not found:
        raise not_found(what, text)
    if len(found) > 1:
        named = "; ".join(f"{one} ({about})" for one, about in found[:5])
        more = "; …" if len(found) > 5 else ""
        if what == "account":
            raise InvalidInput("account-ambiguous", text=text, matches=named + more)
        raise InvalidInput("run-ambiguous", text=text, matches=named + more)
    only: UUID = found[0][0]
    return only
