"""Organizations: one set of credentials for many accounts, one for each member, kept current.

The plugin lists the members. `apply` compares them with the accounts of the organization: it adds
accounts, and pauses those of members who have left. It deletes nothing. An account that a person
has disconnected stays so, and an erased one is not added again. An account that the end of an
organization has disconnected returns if the organization is connected again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from psycopg.rows import class_row

from core.accounts import store
from core.accounts.vault import Vault
from core.db.clocks import HOUR, passed
from core.db.pool import Conn
from core.errors import QuotaReached
from core.integration.base import Integration
from core.integration.members import Member
from core.ledger import quotas
from core.limits.keys import to_json
from core.results.text import is_storable, sanitize
from core.states import AccountState

MAX_MEMBERS = 100_000
CLAIM_SECONDS = 120.0
"""Seconds after which another process lists the members, if the one that began does not renew."""

RENEW_SECONDS = 30.0
"""Seconds after which a process that lists the members renews its claim."""

ACCOUNTS_PER_STATEMENT = 500
"""The number of accounts that one statement pauses or resumes."""

MAX_TEXT_CHARS = 500
MEMBER = "{member}"
"""The part of an organization's user id that stands for the identity of each member."""

LEFT = "The member has left the organization, or is suspended there."
MAX_PROBLEM_CHARS = 1_000

_COLUMNS = """id, user_id, integration_domain, name, config,
    coalesce(credentials, '') AS credentials, listed, excluded || erased AS excluded,
    poll_interval_minutes, ending_since IS NOT NULL AS is_ending"""
CLAIM = f"""
UPDATE organization
SET members_due_at = clock_timestamp() + {CLAIM_SECONDS} * interval '1 second'
WHERE id = (SELECT id FROM organization
    WHERE integration_domain = %s AND {passed("organization.members_due_at")} AND id <> ALL(%s)
      AND ending_since IS NULL
    ORDER BY members_due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING {_COLUMNS}
"""
# A person may ask for a listing, or another process may claim it, in the meantime. Then it stays.
RENEW_CLAIM = f"""
UPDATE organization SET members_due_at = clock_timestamp() + {CLAIM_SECONDS} * interval '1 second'
WHERE id = %s AND members_due_at BETWEEN clock_timestamp()
    AND clock_timestamp() + {CLAIM_SECONDS} * interval '1 second'
"""
LOAD = f"SELECT {_COLUMNS} FROM organization WHERE id = %s"
LISTED = f"""
UPDATE organization SET problem = NULL, members = %(members)s, listed_at = clock_timestamp(),
    members_due_at = clock_timestamp() + {HOUR} * interval '1 second', updated_at = now()
WHERE id = %(id)s
"""
# Without a number of seconds, the next listing stays due when it was.
NOT_LISTED = """
UPDATE organization SET problem = %(problem)s, updated_at = now(), members_due_at =
    coalesce(clock_timestamp() + %(seconds)s::float8 * interval '1 second', members_due_at)
WHERE id = %(id)s
"""
DUE = "UPDATE organization SET members_due_at = clock_timestamp(), updated_at = now() WHERE id = %s"

# Served by `user_integration_organization`.
MEMBER_ACCOUNTS = """
SELECT member, id, identity, left_at IS NOT NULL FROM user_integration WHERE organization_id = %s
"""
# The user may have connected the same account before. It keeps its own credentials.
ADD = """
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, limit_group, config,
    credentials, limits, poll_interval_minutes, next_sync_at, reader_version, organization_id,
    member)
VALUES (%(id)s, %(user)s, %(domain)s, %(name)s, %(identity)s, %(group)s, %(config)s,
    %(credentials)s, %(limits)s, %(interval)s, now(),
    coalesce((SELECT reader_version FROM integration WHERE domain = %(domain)s), 0),
    %(organization)s, %(member)s)
ON CONFLICT (user_id, integration_domain, identity) DO NOTHING
"""
# An organization has ended the account of the member. The erasure of its content has not begun.
# Another id than before is another person with the same address.
RESTORE = f"""
UPDATE user_integration SET organization_id = %(organization)s, member = %(member)s,
    limit_group = coalesce(%(group)s, limit_group), credentials = %(credentials)s,
    credentials_version = credentials_version + 1, version = version + 1, refresh_holder = NULL,
    refresh_until = NULL, {store.RETURNED}, next_sync_at = now(), updated_at = now()
WHERE user_id = %(user)s AND integration_domain = %(domain)s AND identity = %(identity)s
  AND organization_id IS NULL AND credentials IS NULL AND NOT erasure_begun
  AND (member IN (%(member)s, identity) OR member IS NOT NULL AND identity = %(member)s)
"""
# Let an erasure and the end of the organization wait until an account is added, or prevent it.
LOCK_CLAIMED = """
SELECT FROM organization WHERE id = %(organization)s AND ending_since IS NULL
  AND NOT erased ?| %(names)s::text[] FOR SHARE
"""
ADOPT = "UPDATE user_integration SET member = %s WHERE id = %s AND organization_id IS NOT NULL"
RENAME = """
UPDATE user_integration a SET identity = %(identity)s, name = %(name)s,
    credentials = %(credentials)s, credentials_version = credentials_version + 1,
    version = version + 1, refresh_holder = NULL, refresh_until = NULL, updated_at = now()
WHERE id = %(id)s AND credentials IS NOT NULL AND NOT EXISTS (
    SELECT FROM user_integration o WHERE o.user_id = a.user_id
      AND o.integration_domain = a.integration_domain AND o.identity = %(identity)s)
"""
LEAVE = f"""
UPDATE user_integration SET sync_status = '{AccountState.PAUSED}', status_reason = NULL,
    status_detail = %(detail)s, left_at = clock_timestamp(), updated_at = now()
WHERE id = ANY(%(ids)s) AND left_at IS NULL
  AND sync_status IN ('{AccountState.ACTIVE}', '{AccountState.ERROR}')
"""
RETURN = f"""
UPDATE user_integration SET sync_status = '{AccountState.ACTIVE}', status_reason = NULL,
    status_detail = NULL, left_at = NULL, consecutive_failures = 0, next_sync_at = now(),
    updated_at = now()
WHERE id = ANY(%s) AND left_at IS NOT NULL
  AND sync_status IN ('{AccountState.PAUSED}', '{AccountState.ERROR}')
"""
# A person has resumed the account of a member who had left. It can be paused again.
IS_BACK = "UPDATE user_integration SET left_at = NULL WHERE id = ANY(%s) AND left_at IS NOT NULL"
# New credentials of the organization: workers load each account again.
RENEWED = f"""
UPDATE user_integration SET credentials_version = credentials_version + 1, version = version + 1,
    refresh_holder = NULL, refresh_until = NULL, updated_at = now(),
    next_sync_at = CASE sync_status WHEN '{AccountState.ERROR}' THEN now() ELSE next_sync_at END,
    status_reason = NULL,
    status_detail = CASE sync_status WHEN '{AccountState.ERROR}' THEN NULL ELSE status_detail END,
    sync_status = CASE sync_status WHEN '{AccountState.ERROR}' THEN '{AccountState.ACTIVE}'
        ELSE sync_status END
WHERE organization_id = %s AND credentials IS NOT NULL
"""
# The next listing does not add the account of an erased member again.
EXCLUDE = """
UPDATE organization o SET erased = o.erased || jsonb_build_array(a.member), updated_at = now()
FROM user_integration a
WHERE a.id = %s AND o.id = a.organization_id AND NOT o.erased ? a.member
"""


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization. `credentials` is ciphertext.

    Attributes:
      user_id: The owner of the accounts. `{member}` in it stands for the identity of each member.
      listed: The members that a person has named; None if the plugin lists them.
      excluded: The members without an account, by id or identity: a person has named them, or has
        erased their accounts.
      is_ending: True if a person has disconnected it. It has no credentials any more.
    """

    id: UUID
    user_id: str
    integration_domain: str
    name: str
    config: dict[str, Any]
    credentials: str
    listed: list[str] | None
    excluded: list[str]
    poll_interval_minutes: int
    is_ending: bool = False

    def __repr__(self) -> str:
        return f"Organization({self.id}, {self.integration_domain}, {self.name!r})"


@dataclass(slots=True)
class Changes:
    """The changes that a listing of the members has made.

    Attributes:
      members: The number of active members.
      added, returned, left, renamed: Numbers of accounts.
      skipped: The number of members whose account exists already with other credentials, or whose
        values cannot be stored.
      problem: Why some members have no account; None if all have one.
      is_complete: False if a worker process lists the members later. Then nothing has changed.
    """

    members: int = 0
    added: int = 0
    returned: int = 0
    left: int = 0
    renamed: int = 0
    skipped: int = 0
    problem: str | None = None
    is_complete: bool = True


@dataclass(slots=True)
class _Plan:
    returned: list[UUID] = field(default_factory=list)
    present: set[str] = field(default_factory=set)


def claim(conn: Conn, domain: str, without: Sequence[UUID] = ()) -> Organization | None:
    """Return an organization whose members are due, and reserve it for `CLAIM_SECONDS`.

    Args:
      conn: A connection in autocommit mode.
      domain: The domain of the integration.
      without: Organizations to leave out.
    """
    cursor = conn.cursor(row_factory=class_row(Organization))
    return cursor.execute(CLAIM, (domain, list(without))).fetchone()


def renew(conn: Conn, id: UUID) -> None:
    """Reserve an organization that this process has claimed for another `CLAIM_SECONDS`."""
    conn.execute(RENEW_CLAIM, (id,))


def load(conn: Conn, id: UUID) -> Organization | None:
    """Return an organization; None if it does not exist."""
    return conn.cursor(row_factory=class_row(Organization)).execute(LOAD, (id,)).fetchone()


def not_listed(conn: Conn, id: UUID, problem: str, retry_seconds: float | None = None) -> None:
    """Record why the members could not be listed.

    Args:
      conn: A connection in autocommit mode.
      id: The organization.
      problem: The reason, for people.
      retry_seconds: Seconds until the next listing. Default: its time stays.
    """
    params = {"id": id, "problem": problem[:MAX_PROBLEM_CHARS], "seconds": retry_seconds}
    conn.execute(NOT_LISTED, params)


def list_soon(conn: Conn, id: UUID) -> None:
    """Let a worker process list the members, at the latest after `LOOK_SECONDS`."""
    conn.execute(DUE, (id,))


def apply(
    conn: Conn,
    vault: Vault,
    integration: Integration,
    organization: Organization,
    members: Iterable[Member],
) -> Changes:
    """Add, rename, pause and resume accounts, so that each active member has one.

    Args:
      conn: A connection in autocommit mode.
      vault: The vault.
      integration: The integration.
      organization: The organization.
      members: All members.

    Returns:
      The changes.
    """
    known = {
        member: (id, identity, has_left)
        for member, id, identity, has_left in conn.execute(MEMBER_ACCOUNTS, (organization.id,))
    }
    by_identity = {identity: member for member, (_, identity, _) in known.items()}
    changes, plan = Changes(), _Plan()
    limits = to_json(
        integration.limits(integration.config_model.model_validate(organization.config))
    )
    excluded = set(organization.excluded)
    for member in members:
        if not _is_valid(member) or member.id in plan.present:
            changes.skipped += 1
        elif member.is_active and not {member.id, member.identity} & excluded:
            changes.members += 1
            plan.present.add(member.id)
            former = by_identity.get(member.identity)
            # A plugin has only the address of a member whom a person has named. With two other ids,
            # it would be another person, who has got the address.
            is_same = former in known and member.identity in (member.id, former)
            if is_same and member.id not in known:
                known[member.id] = known.pop(former)
                conn.execute(ADOPT, (member.id, known[member.id][0]))
            if member.id not in known:
                _add(conn, vault, organization, member, limits, changes)
                continue
            id, identity, has_left = known[member.id]
            if identity != member.identity:
                changes.renamed += _rename(conn, vault, id, member)
            if has_left:
                plan.returned.append(id)
    gone = [known[member][0] for member in known.keys() - plan.present]
    _resume_and_pause(conn, plan.returned, gone, changes)
    conn.execute(LISTED, {"id": organization.id, "members": changes.members})
    if changes.problem is not None:
        not_listed(conn, organization.id, changes.problem)
    return changes


def _resume_and_pause(
    conn: Conn, returned: Sequence[UUID], gone: Sequence[UUID], changes: Changes
) -> None:
    for ids in _portions(returned):
        changes.returned += conn.execute(RETURN, (ids,)).rowcount
        conn.execute(IS_BACK, (ids,))
    for ids in _portions(gone):
        changes.left += conn.execute(LEAVE, {"ids": ids, "detail": LEFT}).rowcount


def _portions(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(ids), ACCOUNTS_PER_STATEMENT):
        yield ids[start : start + ACCOUNTS_PER_STATEMENT]


def _is_valid(member: Member) -> bool:
    """Return True if the values of a plugin can be stored. The name is shortened instead."""
    texts = [member.id, member.identity, *([] if member.group is None else [member.group])]
    try:
        json.dumps(dict(member.credentials))
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(member.name, str) and all(
        isinstance(text, str) and 0 < len(text) <= MAX_TEXT_CHARS and is_storable(text)
        for text in texts
    )


def _name(member: Member) -> str:
    return (sanitize(member.name) or member.identity)[:MAX_TEXT_CHARS]


def _add(
    conn: Conn,
    vault: Vault,
    organization: Organization,
    member: Member,
    limits: Sequence[Mapping[str, Any]],
    changes: Changes,
) -> None:
    is_full = changes.problem is not None and MEMBER not in organization.user_id
    user = organization.user_id.replace(MEMBER, member.identity)
    params = {
        "id": uuid4(),
        "user": user,
        "domain": organization.integration_domain,
        "name": _name(member),
        "identity": member.identity,
        "group": member.group,
        "config": json.dumps(organization.config),
        "credentials": vault.seal_json(member.credentials),
        "limits": json.dumps(limits),
        "interval": organization.poll_interval_minutes,
        "organization": organization.id,
        "member": member.id,
        "names": [member.id, member.identity],
    }
    try:
        with conn.transaction():
            quotas.lock_accounts(conn, user)
            if conn.execute(LOCK_CLAIMED, params).fetchone() is None:
                return  # since the listing began, a person has erased the account, or ended all
            if conn.execute(RESTORE, params).rowcount:
                changes.returned += 1
                return
            if is_full:
                return
            quotas.require_place(conn, user)
            is_new = conn.execute(ADD, params).rowcount > 0
            if is_new:
                quotas.judge(conn, [user])
    except QuotaReached:
        changes.problem = f"The user {user} has as many accounts as the quota allows."
        return
    changes.added += is_new
    changes.skipped += not is_new


def _rename(conn: Conn, vault: Vault, id: UUID, member: Member) -> int:
    params = {
        "id": id,
        "identity": member.identity,
        "name": _name(member),
        "credentials": vault.seal_json(member.credentials),
    }
    return conn.execute(RENAME, params).rowcount
