"""Scopes, the permissions of tokens and sessions, and roles. This is their only definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from core.states import Word

MAX_TOKEN_DAYS = 36_500
"""The maximum lifetime of a token in days."""


class Scope(Word):
    """One permission.

    A user's token has it for the accounts of that user only. An operator's token has it for all
    accounts.
    """

    CONTENT_READ = (
        "content:read",
        "Read content and the change feed, and look at tasks and held deletions.",
    )
    ACCOUNTS_CONNECT = (
        "accounts:connect",
        "Connect, reconnect, change, check, disconnect and erase accounts.",
    )
    FLEET_OPERATE = (
        "fleet:operate",
        "Start and cancel runs, pause and resume accounts, retry and discard tasks, accept or"
        " refuse held deletions, and manage subscriptions.",
    )
    METRICS_READ = (
        "metrics:read",
        "Read the states of accounts and runs, without texts that may quote the source. With an"
        " operator's token: also read the overview and metrics.",
    )
    AUDIT_READ = (
        "audit:read",
        "Read the audit trail. With a user's token: the acts on that user's data.",
    )
    TOKENS_ADMIN = "tokens:admin", "Create, list and revoke tokens."


ALL = tuple(Scope)

DEFAULT = (
    Scope.CONTENT_READ,
    Scope.ACCOUNTS_CONNECT,
    Scope.FLEET_OPERATE,
    Scope.METRICS_READ,
)
"""The scopes of a token that names none: everything except tokens and the audit trail.

Tokens from before scopes existed have them, too.
"""

STATUS = DEFAULT
"""Any of these scopes allows a request for the states of integrations, accounts and runs."""

DETAILS = (Scope.CONTENT_READ, Scope.FLEET_OPERATE)
"""Any of these scopes allows a request for tasks and held deletions, which name items."""

TEXTS = (Scope.CONTENT_READ, Scope.ACCOUNTS_CONNECT, Scope.FLEET_OPERATE)
"""Any of these scopes shows configs and the texts of errors. They may quote the source."""


class Role(Word):
    """A named set of scopes."""

    ADMIN = "admin", "May do everything."
    OPERATOR = (
        "operator",
        "Keeps the engine running: accounts, runs, tasks and held deletions. Sees the names of"
        " items, and not their content.",
    )
    VIEWER = "viewer", "May see that the engine runs, and no content."


SCOPES_OF_ROLES: Mapping[Role, tuple[Scope, ...]] = {
    Role.ADMIN: ALL,
    Role.OPERATOR: (Scope.ACCOUNTS_CONNECT, Scope.FLEET_OPERATE, Scope.METRICS_READ),
    Role.VIEWER: (Scope.METRICS_READ,),
}
"""The scopes of each role. A role that is listed earlier has all scopes of the later ones."""


def array(scopes: Sequence[Scope]) -> str:
    """Return scopes as the text of a PostgreSQL array."""
    return "{" + ",".join(scopes) + "}"


def in_order(scopes: Iterable[str]) -> tuple[Scope, ...]:
    """Return the scopes with these names, each once, in the order of their definition.

    Names that this version does not know are omitted: a newer version may have stored them.
    """
    names = set(scopes)
    return tuple(scope for scope in Scope if scope in names)


def scopes_of(role: Role | None) -> tuple[Scope, ...]:
    """Return the scopes of a role; without a role, none."""
    return () if role is None else SCOPES_OF_ROLES[role]


def role_named(name: str) -> Role | None:
    """Return the role with a name; None for a role that this version does not know."""
    return Role(name) if name in set(Role) else None
