"""Resolve user input to an id: a UUID, a unique prefix of one, or the name of an account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row
from core.errors import InvalidInput
from core.results.text import is_storable
from core.service.errors import not_found
from core.service.pagination import PLURALS

MIN_PREFIX_CHARS = 4
"""Minimum length of a UUID prefix in characters, without dashes."""

# A prefix selects a range of the primary key.
ACCOUNTS_BY_PREFIX = """
SELECT id, concat_ws(', ', name, integration_domain, user_id) FROM user_integration
WHERE id BETWEEN %(low)s AND %(high)s ORDER BY id LIMIT 6
"""
ACCOUNTS_BY_NAME = """
SELECT id, concat_ws(', ', name, integration_domain, user_id) FROM user_integration
WHERE name = %s ORDER BY created_at, id LIMIT 6
"""
# The index on names and the primary key serve it.
VISIBLE = """
SELECT id, concat_ws(', ', name, integration_domain, user_id) FROM user_integration
WHERE (name = %(text)s OR id = %(id)s) AND (%(user)s::text IS NULL OR user_id = %(user)s)
ORDER BY created_at, id LIMIT 6
"""
RUNS_BY_PREFIX = """
SELECT id, concat_ws(', ', integration_domain, state) FROM sync_run
WHERE id BETWEEN %(low)s AND %(high)s ORDER BY id LIMIT 6
"""

ACCOUNT_NAMES = "SELECT id, name FROM user_integration WHERE id = ANY(%s)"

_HEX = re.compile(r"[0-9a-f]{1,32}")


def account_id(conn: Conn, text: str) -> UUID:
    """Find an account by its name, its UUID, or a unique prefix of its UUID.

    Raises:
      NotFound: No account matches.
      InvalidInput: Several accounts match; the message lists them.
    """
    matches = conn.execute(ACCOUNTS_BY_NAME, (text,)).fetchall() if "\0" not in text else []
    if not matches:
        matches = _by_prefix(conn, ACCOUNTS_BY_PREFIX, text)
    return _only(matches, text, "account")


def account_of(conn: Conn, user: str | None, text: str) -> UUID:
    """Find an account of a user by its name or its UUID.

    Args:
      conn: A connection.
      user: The owner of the account. None: any user.
      text: The name or the UUID.

    Raises:
      NotFound: No account matches.
      InvalidInput: Several accounts match; the message lists them.
    """
    try:
        id = UUID(text)
    except ValueError:
        id = None
    params = {"text": text, "id": id, "user": user}
    matches = conn.execute(VISIBLE, params).fetchall() if is_storable(text) else []
    return _only(matches, text, "account")


def run_id(conn: Conn, text: str) -> UUID:
    """Find a run by its UUID or a unique prefix of it.

    Raises:
      NotFound: No run matches.
      InvalidInput: Several runs match; the message lists them.
    """
    return _only(_by_prefix(conn, RUNS_BY_PREFIX, text), text, "run")


def with_account_names(conn: Conn, rows: Sequence[Row]) -> list[Row]:
    """Add the name of its account to each row."""
    names: dict[UUID, str] = dict(
        conn.execute(ACCOUNT_NAMES, ([row["user_integration_id"] for row in rows],)).fetchall()
    )
    return [row | {"account_name": names.get(row["user_integration_id"], "")} for row in rows]


def number(text: str, kind: str) -> int:
    """Parse the id of a task or of content.

    Args:
      text: The id as a person entered it.
      kind: `task` or `content`, for the error.

    Raises:
      InvalidInput: The text is not a valid id.
    """
    if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
        raise InvalidInput("id-not-a-number", text=text, kind=kind, listing=PLURALS[kind])
    return int(text)


def _by_prefix(conn: Conn, statement: str, text: str) -> list[tuple[Any, ...]]:
    digits = text.replace("-", "").lower()
    if len(digits) < MIN_PREFIX_CHARS or not _HEX.fullmatch(digits):
        return []
    params = {"low": UUID(digits.ljust(32, "0")), "high": UUID(digits.ljust(32, "f"))}
    return conn.execute(statement, params).fetchall()


def _only(matches: Sequence[tuple[Any, ...]], text: str, kind: str) -> UUID:
    if not matches:
        raise not_found(kind, text)
    if len(matches) > 1:
        shown = "; ".join(f"{id} ({about})" for id, about in matches[:5])
        more = "; …" if len(matches) > 5 else ""
        if kind == "account":
            raise InvalidInput("account-ambiguous", text=text, matches=shown + more)
        raise InvalidInput("run-ambiguous", text=text, matches=shown + more)
    id: UUID = matches[0][0]
    return id
