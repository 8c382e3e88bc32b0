"""Authorization: the principal of a request, and the owner of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from core import scopes
from core.content.visible import ACCOUNT_IS_VISIBLE
from core.db.pool import Conn
from core.db.rows import Row
from core.scopes import Role, Scope
from core.service.errors import not_found

Authorize = Callable[[Conn], None]
"""A function that raises unless the request is still authorized, and keeps it so until the end of
the transaction. A request that takes long calls it in the transaction that stores its result."""

OWNERS = {
    "account": "SELECT user_id FROM user_integration WHERE id = %s",
} | {
    kind: f"""
        SELECT a.user_id FROM {table} r JOIN user_integration a ON a.id = r.user_integration_id
        WHERE r.id = %s AND {ACCOUNT_IS_VISIBLE}
    """
    for kind, table in (
        ("run", "sync_run"),
        ("task", "sync_task"),
        ("deletion", "held_deletion"),
        ("content", "user_integration_content"),
    )
}


TEXT_COLUMNS = frozenset({"config", "status_detail", "notice", "error", "skipped"})
"""Columns of accounts and runs that may quote the source: configs, and texts of plugins."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person who signed in with the identity provider.

    Attributes:
      issuer: The provider.
      subject: The provider's identifier of the person, which never changes.
      name: The person's name for people, such as a verified e-mail address.
      role: The role at the sign-in. None: this version does not know it.
    """

    issuer: str
    subject: str
    name: str
    role: Role | None


@dataclass(frozen=True, slots=True)
class Principal:
    """The user of a token, or a person. Without a user, it is an operator, who sees all rows.

    Attributes:
      token_id: The token; None for a person.
      scopes: The permissions of the principal, for the rows that it sees.
      person: The person who signed in with the identity provider; None with a token.
    """

    token_id: UUID | None
    user_id: str | None
    scopes: tuple[Scope, ...] = ()
    person: Person | None = None

    @classmethod
    def of(cls, token_id: UUID, user_id: str | None, names: Iterable[str]) -> Self:
        """Return the principal of a token with the names of its scopes."""
        return cls(token_id, user_id, scopes.in_order(names))

    @classmethod
    def of_person(cls, person: Person) -> Self:
        """Return the principal of a person, with the scopes of their role."""
        return cls(None, None, scopes.scopes_of(person.role), person)

    @property
    def is_admin(self) -> bool:
        """True if the principal is an operator."""
        return self.user_id is None

    @property
    def counted_as(self) -> str | UUID:
        """The key by which bounds count requests: all tokens of a user are one client."""
        if self.person is not None:
            return f"{self.person.issuer} {self.person.subject}"
        assert self.token_id is not None
        return self.token_id if self.user_id is None else self.user_id

    @property
    def name(self) -> str | None:
        """The name of the person; None with a token."""
        return None if self.person is None else self.person.name

    @property
    def reads_texts(self) -> bool:
        """True if the principal may read configs and the texts of errors."""
        return self.may(*scopes.TEXTS)

    def may(self, *any_of: Scope) -> bool:
        """Return True if the principal has one of these scopes."""
        return any(scope in self.scopes for scope in any_of)

    def owns(self, user_id: str) -> bool:
        """Return True if the principal may see the rows of this user."""
        return self.user_id is None or self.user_id == user_id


LOCAL_OPERATOR = Principal(UUID(int=0), None, tuple(Scope))
"""The principal of a command. People who can reach the database may do everything."""


def shown(principal: Principal, row: Row) -> Row:
    """Return a row of an account or a run without the texts that the principal may not read."""
    if principal.reads_texts:
        return row
    return {name: None if name in TEXT_COLUMNS else value for name, value in row.items()}


def always(conn: Conn) -> None:
    """Allow everything: a command, or a person who has confirmed it in the browser."""


def require(conn: Conn, principal: Principal, kind: str, id: UUID | int) -> None:
    """Check that the row exists and that the principal may see it.

    Args:
      conn: A connection.
      principal: The owner of the token.
      kind: `account`, `run`, `task`, `deletion` or `content`.
      id: The id of the row.

    Raises:
      NotFound: The row does not exist, belongs to another user, or is hidden.
    """
    owner = conn.execute(OWNERS[kind].encode(), (id,)).fetchone()
    if owner is None or not principal.owns(owner[0]):
        raise not_found(kind, id)
