"""Organizations: connect one, list them, list the members of one, and disconnect it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    InvalidInput,
    NotFound,
    PollingError,
    WrongState,
)
from core.integration.base import Integration, has_own
from core.integration.members import Member
from core.known_secrets import KNOWN
from core.ledger import audit, endings, organizations
from core.ledger.looks import wait_until_seen
from core.ledger.organizations import Changes, Organization
from core.results.text import is_storable
from core.service.accounts.actions import MAX_TEXT_CHARS, require_text
from core.service.accounts.check import TRY_LATER, check, rejection
from core.service.accounts.deadline import BoundedCheck
from core.service.accounts.validation import (
    MAX_VALUES_BYTES,
    Values,
    config_of,
    credentials_of,
    stored,
)
from core.service.authorization import Authorize, always
from core.service.backend import Backend
from core.service.formatting import ago, counted
from core.states import AccountState, Act, AuditTarget
from core.worker.member_listing import Listed, MemberListing, problem_of

MAX_LISTED = 10_000
"""The number of members that a person can name."""

MAX_AT_ONCE = 500
"""The number of members at which a request leaves the listing to a worker process."""

LIST_SECONDS = 10.0
"""Seconds after which a request leaves the rest of a listing to a worker process."""

SHOWN = """id, user_id, integration_domain, name, listed IS NOT NULL AS is_listed, excluded,
    poll_interval_minutes, members, problem, listed_at, ending_since, created_at, updated_at"""
# An organization is a rare thing: the list has no pages.
LIST = f"SELECT {SHOWN} FROM organization ORDER BY created_at, id LIMIT 1000"
ONE = f"SELECT {SHOWN} FROM organization WHERE id = %(id)s"
FIND = f"""
SELECT {SHOWN} FROM organization
WHERE name = %(text)s OR id::text LIKE %(prefix)s ORDER BY created_at, id LIMIT 2
"""
# Served by `user_integration_organization`.
COUNT_MEMBERS = f"""
SELECT count(*) AS accounts,
    count(*) FILTER (WHERE sync_status = '{AccountState.ACTIVE}') AS active,
    count(*) FILTER (WHERE sync_status = '{AccountState.ERROR}') AS in_error,
    count(*) FILTER (WHERE left_at IS NOT NULL) AS members_left
FROM user_integration WHERE organization_id = %(id)s
"""
SAVE = """
INSERT INTO organization AS o (id, user_id, integration_domain, name, config, credentials, listed,
    excluded, poll_interval_minutes)
VALUES (%(id)s, %(user)s, %(domain)s, %(name)s, %(config)s, %(credentials)s, %(listed)s,
    %(excluded)s, %(interval)s)
ON CONFLICT (integration_domain, name) DO UPDATE SET user_id = excluded.user_id,
    config = excluded.config, credentials = excluded.credentials, listed = excluded.listed,
    excluded = excluded.excluded, poll_interval_minutes = excluded.poll_interval_minutes,
    members_due_at = now(), problem = NULL, updated_at = now()
WHERE o.ending_since IS NULL
RETURNING id, created_at = updated_at
"""


@dataclass(frozen=True, slots=True)
class Connected:
    """A stored organization, and the accounts that its members have got."""

    id: UUID
    name: str
    is_new: bool
    changes: Changes


def supporting(backend: Backend) -> list[Integration]:
    """Return the integrations that can connect an organization."""
    return [
        one for _, one in sorted(backend.registry.integrations.items()) if has_own(one, "members")
    ]


def connect(
    backend: Backend,
    domain: str,
    *,
    name: str,
    credentials: Values,
    config: Values | None = None,
    user_id: str = "default",
    listed: Sequence[str] | None = None,
    excluded: Sequence[str] = (),
    interval_minutes: int = 15,
    authorize: Authorize = always,
) -> Connected:
    """List the members of an organization, check one of them, and store an account for each.

    If there are too many for a request, a worker process lists them and stores the accounts. The
    organization of the same name gets these values, and its accounts the new credentials.

    Args:
      backend: The backend.
      domain: The domain of the integration.
      name: The name of the organization.
      credentials: The credentials that all accounts share. They are stored once.
      config: The config of new accounts. Default: the defaults.
      user_id: The owner of the accounts. `{member}` in it stands for the identity of each member.
      listed: The members. Default: the plugin lists them.
      excluded: Members, by identity, who get no account. Default: none.
      interval_minutes: Minutes between two runs of a new account.
      authorize: Raises if the request is no longer authorized after the check.

    Raises:
      NotFound: The integration does not exist.
      InvalidInput: The integration has no organizations, a value is invalid, there is no member, or
        the provider refuses the credentials.
      WrongState: An organization of this name is being disconnected.
      PollingError: The provider is unavailable.
    """
    integration = backend.registry.get(domain)
    if not has_own(integration, "members"):
        raise InvalidInput("organization-unsupported", integration=integration.manifest.name)
    require_text(name=name, user_id=user_id)
    _require_members(listed or (), excluded)
    valid = config_of(integration, config or {})
    text = json.dumps(credentials)
    if not isinstance(credentials, dict) or len(text) > MAX_VALUES_BYTES or not is_storable(text):
        raise InvalidInput("organization-credentials-invalid")
    one = Organization(
        uuid4(), user_id, domain, name, stored(valid), backend.vault.seal_json(credentials),
        None if listed is None else list(listed), list(excluded), interval_minutes,
    )  # fmt: skip
    listed_now = _listed(backend, integration, one, needs_active=True)
    _check_one(backend, integration, one, listed_now.members)
    with backend.database.connection() as conn, conn.transaction():
        authorize(conn)
        params = {
            "id": one.id, "user": user_id, "domain": domain, "name": name,
            "config": json.dumps(one.config), "credentials": one.credentials,
            "listed": None if listed is None else json.dumps(one.listed),
            "excluded": json.dumps(one.excluded), "interval": interval_minutes,
        }  # fmt: skip
        row = conn.execute(SAVE, params).fetchone()
        if row is None:
            raise WrongState("organization-ending")
        id, is_new = row
        conn.execute(organizations.RENEWED, (id,))
        detail = {"integration_domain": domain, "name": name}
        audit.record(conn, Act.ORGANIZATION_CONNECT, AuditTarget.ORGANIZATION, id, **detail)
        # The stored one also has the members whose accounts were erased.
        known = organizations.load(conn, id)
    changes = _applied(backend, integration, known or one, listed_now)
    return Connected(id, name, is_new, changes)


def sync(backend: Backend, id: UUID) -> Changes:
    """List the members of an organization now, and change its accounts.

    If there are too many for a request, a worker process does this within a minute.

    Raises:
      NotFound: It does not exist.
      WrongState: It is being disconnected.
      InvalidInput, PollingError: The provider refuses the listing. Nothing has changed.
    """
    with backend.database.connection() as conn:
        one = organizations.load(conn, id)
    if one is None:
        raise NotFound("organization-not-found", organization=id)
    if one.is_ending:
        raise WrongState("organization-ending")
    integration = backend.registry.get(one.integration_domain)
    try:
        listed = _listed(backend, integration, one, needs_active=False)
    except PollingError as error:
        with backend.database.connection() as conn:
            organizations.not_listed(conn, id, problem_of(error, KNOWN.redact_all))
        raise
    return _applied(backend, integration, one, listed)


def listing(conn: Conn) -> list[Row]:
    """Return all organizations, the oldest first, with the number of their accounts by state."""
    return [_counted(conn, row) for row in fetch(conn, LIST, {})]


def one(conn: Conn, id: UUID) -> Row:
    """Return an organization, with the number of its accounts by state.

    Raises:
      NotFound: It does not exist.
    """
    rows = fetch(conn, ONE, {"id": id})
    if not rows:
        raise NotFound("organization-not-found", organization=id)
    return _counted(conn, rows[0])


def find(conn: Conn, text: str) -> UUID:
    """Return the id of an organization by its name, its UUID, or a prefix of its UUID.

    Raises:
      NotFound: No organization matches.
      InvalidInput: Several match.
    """
    prefix = text.lower() if is_storable(text) and len(text) >= 4 else ""
    is_id = bool(prefix) and set(prefix) <= set("0123456789abcdef-")
    params = {"text": text if is_storable(text) else "", "prefix": f"{prefix}%" if is_id else ""}
    rows = fetch(conn, FIND, params)
    if not rows:
        raise NotFound("organization-not-found", organization=text)
    if len(rows) > 1:
        raise InvalidInput("organization-ambiguous", text=text)
    return UUID(str(rows[0]["id"]))


def disconnect(
    backend: Backend, id: UUID, *, hides_content: bool = False, erases_accounts: bool = False
) -> int:
    """Delete the credentials of an organization, and let the leader end its accounts.

    No worker starts a task of its accounts any more. The leader disconnects them in portions, and
    deletes the organization after the last one. A repeated request changes nothing.

    Args:
      backend: The backend.
      id: The id of the organization.
      hides_content: True to hide the content, and to delete it after the delay. Until then, new
        credentials restore an account, and so does the organization if it is connected again.
      erases_accounts: True to hide the content, and to delete the accounts, too.

    Returns:
      The number of accounts that are left.

    Raises:
      NotFound: It does not exist.
      WrongState: It ends in another way already.
    """
    hides = hides_content or erases_accounts
    with backend.database.connection() as conn:
        left = endings.begin(conn, id, hides_content=hides, erases_accounts=erases_accounts)
    wait_until_seen(backend.database)
    return left


def sentence(row: Row) -> str:
    """Describe the latest listing of an organization's members, or its end."""
    if row["ending_since"]:
        return f"Disconnecting: {counted(row['accounts'], 'account')} left."
    if row["problem"]:
        return f"The members could not be listed: {row['problem'].rstrip('.')}."
    if row["listed_at"] is None:
        return "The members are not listed yet. A worker process lists them."
    return f"{counted(row['members'], 'member')}, listed {ago(row['listed_at'])}."


def summary(changes: Changes) -> str:
    """Describe the changes of a listing."""
    if not changes.is_complete:
        return "A worker process lists the members, and adds their accounts."
    parts = [
        f"{counted(number, 'account')} {what}"
        for number, what in (
            (changes.added, "added"), (changes.returned, "resumed"), (changes.left, "paused"),
            (changes.renamed, "renamed"),
            (changes.skipped, "left out (connected already)"),
        )
        if number
    ]  # fmt: skip
    return f"{counted(changes.members, 'member')}: {', '.join(parts) or 'nothing has changed'}."


def _counted(conn: Conn, row: Row) -> Row:
    return row | fetch(conn, COUNT_MEMBERS, {"id": row["id"]})[0]


def _require_members(listed: Sequence[str], excluded: Sequence[str]) -> None:
    for each in (listed, excluded):
        if len(each) > MAX_LISTED or not all(
            text.strip() and len(text) <= MAX_TEXT_CHARS and is_storable(text) for text in each
        ):
            raise InvalidInput("organization-members-invalid", most=MAX_LISTED)


def _listed(
    backend: Backend, integration: Integration, one: Organization, *, needs_active: bool
) -> Listed:
    """List the members, or as many as a request can.

    Raises:
      InvalidInput, PollingError: The provider refuses, with a reason and a remedy.
    """
    name = integration.manifest.name
    listing = MemberListing(backend.vault, backend.egress, integration, one)
    enough = _Enough(one, needs_active=needs_active)
    bounded = BoundedCheck(lambda: listing.members(enough), limited=False, destinations=())
    try:
        return bounded.run(name)
    except PollingError:
        raise
    except IntegrationError as error:
        raise _rejected(integration, error, listing.redact) from None
    except Exception as error:  # noqa: BLE001  plugin code
        reason = problem_of(error, listing.redact)
        raise PollingError("check-failed", integration=name, reason=reason) from None


class _Enough:
    """The end of a listing in a request. A worker process lists more members.

    Args:
      one: The organization.
      needs_active: True to continue until a member can get an account.
    """

    def __init__(self, one: Organization, *, needs_active: bool) -> None:
        self._skipped = set(one.excluded)
        self._needs_active = needs_active
        self._number = 0
        self._ends = time.monotonic() + LIST_SECONDS

    def __call__(self, member: Member) -> bool:
        self._number += 1
        self._needs_active = self._needs_active and not _gets_account(member, self._skipped)
        is_over = self._number >= MAX_AT_ONCE or time.monotonic() >= self._ends
        return is_over and not self._needs_active


def _gets_account(member: Member, skipped: Container[str]) -> bool:
    return member.is_active and member.id not in skipped and member.identity not in skipped


def _applied(
    backend: Backend, integration: Integration, one: Organization, listed: Listed
) -> Changes:
    """Change the accounts, or let a worker process do it if the listing is not complete."""
    with backend.database.connection() as conn:
        if listed.is_complete:
            changes = organizations.apply(conn, backend.vault, integration, one, listed.members)
        else:
            organizations.list_soon(conn, one.id)
            changes = Changes(is_complete=False)
    backend.wake()
    return changes


def _rejected(
    integration: Integration, error: IntegrationError, redact: Callable[[str], str]
) -> PollingError:
    """Return the error for a person."""
    if isinstance(error, ConfigurationError | CredentialsInvalid):
        return rejection(integration, error, redact)
    return PollingError(
        "provider-unavailable",
        integration=integration.manifest.name,
        reason=problem_of(error, redact).rstrip("."),
        remedy=TRY_LATER,
    )


def _check_one(
    backend: Backend, integration: Integration, one: Organization, members: Sequence[Member]
) -> None:
    """Check the account of the first active member, so that a wrong key is refused now."""
    skipped = set(one.excluded)
    first = next((each for each in members if _gets_account(each, skipped)), None)
    if first is None:
        raise InvalidInput("organization-empty")
    values = backend.vault.open_json(one.credentials) | dict(first.credentials)
    config = config_of(integration, one.config)
    check(
        integration,
        config,
        credentials_of(integration, values),
        egress=backend.egress.for_account(public_only=False),
    )
