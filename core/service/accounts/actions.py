"""Connect accounts, and change them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from core.accounts import refresh, shared, store
from core.accounts.store import Account
from core.db.pool import Conn
from core.errors import InvalidInput, TooManyRequests, WrongState
from core.integration.base import BaseIntegration, Integration
from core.integration.ceilings import within_ceilings
from core.integration.limits import AccountIdentity
from core.integration.rehearsal import Rehearsal
from core.ledger import audit, breakers, quotas
from core.ledger.looks import wait_until_seen
from core.limits.keys import to_json
from core.results.text import is_storable, sanitize
from core.service.accounts.check import CheckResult, check, require_accepted
from core.service.accounts.check_slot import check_slot
from core.service.accounts.partitions import MAX_NOTICE_CHARS
from core.service.accounts.validation import (
    Values,
    config_of,
    credentials_of,
    needs_reread,
    needs_resync,
    require_same_destination,
    stored,
)
from core.service.authorization import Authorize, always
from core.service.backend import Backend
from core.settings import LimitOverride
from core.states import AccountState, AccountStateReason, Act, Deletions

FIND_BY_IDENTITY = """
SELECT id, name, config, poll_interval_minutes FROM user_integration
WHERE user_id = %s AND integration_domain = %s AND identity = %s
"""
RENAME_ACCOUNT = "UPDATE user_integration SET name = %s, updated_at = now() WHERE id = %s"
SET_INTERVAL = """
UPDATE user_integration SET poll_interval_minutes = %(minutes)s,
    next_sync_at = least(next_sync_at, now() + %(minutes)s * interval '1 minute'),
    updated_at = now()
WHERE id = %(id)s
"""

DEFAULT_INTERVAL_MINUTES = 15

MAX_TEXT_CHARS = 500
"""The maximum length of a name or a user id."""

MAX_KEY_BYTES = 600
"""The size of an account's key. The index on user, domain and key has 2,704 bytes for a row."""

MAX_PREFIX_CHARS = 100
"""The beginning of a longer key that stays readable."""

MAX_ACCOUNTS_PER_USER = 1_000
"""The number of accounts that one user has if the user's token adds another.

Accounts in every state count, because each is a row. Operators have no such bound.
"""


@dataclass(frozen=True, slots=True)
class ConnectedAccount:
    """A stored account. `is_new` is False if the user had already connected the same identity."""

    id: UUID
    name: str
    identity: AccountIdentity
    is_new: bool
    rehearsal: Rehearsal


def connect(
    backend: Backend,
    domain: str,
    *,
    config: Values,
    credentials: Values,
    user_id: str = "default",
    name: str | None = None,
    interval_minutes: int | None = None,
    deletions: Deletions | None = None,
    public_only: bool = False,
    issued: bool = False,
    authorize: Authorize = always,
    rehearse: bool = True,
    accept: Callable[[CheckResult], None] = lambda _: None,
) -> ConnectedAccount:
    """Check an account with its provider and store it; its first run is due immediately.

    The same identity of the same user is the same account: it gets this config and these
    credentials, and resumes.

    Args:
      backend: The backend.
      domain: The domain of the integration.
      config: The config of the account.
      credentials: The credentials of the account.
      user_id: The owner's id in the product.
      name: A display name. Default: the name that the provider returns.
      interval_minutes: Minutes between the end of a run and the next run. Default: 15, or the
        interval of the existing account.
      deletions: The treatment of content that disappears at the source. Default: `mark`, or the
        choice of the existing account.
      public_only: True for a user's token. It restricts the account to public addresses, now and in
        later runs, and bounds the number of the user's accounts.
      issued: True if the provider has just issued the credentials to the operator's client. With a
        user's token, other credentials give the account a group of that user's own.
      authorize: Raises if the request is no longer authorized after the check. Default: it is.
      rehearse: False if a person has seen the rehearsal already.
      accept: Gets the result of the check before anything is stored. It raises if the person does
        not agree. Default: the person agrees.

    Raises:
      NotFound: The integration does not exist.
      InvalidInput: A value is invalid, the provider rejects the credentials, or the plugin's
        rehearsal refuses the account.
      QuotaReached: The user has as many accounts as the quota allows.
      TooManyRequests: The user has too many accounts.
      PollingError: The provider is unavailable.
    """
    integration = backend.registry.get(domain)
    require_text(user_id=user_id, name=name)
    valid = config_of(integration, config)
    guarded = _is_public_only(backend, public_only)
    checked = check(
        integration,
        valid,
        credentials_of(integration, credentials),
        egress=guarded,
        rehearse=rehearse,
        overrides=_overrides(backend, domain),
    )
    accept(checked)
    require_accepted(integration, checked.rehearsal)
    with backend.database.connection() as conn, conn.transaction():
        authorize(conn)
        connected = _store(
            conn,
            backend,
            integration,
            checked,
            user_id,
            name,
            interval_minutes,
            public_only=public_only,
            issued=issued,
        )
        if deletions is not None:
            store.set_deletions(conn, connected.id, deletions)
        act = Act.ACCOUNT_CONNECT if connected.is_new else Act.ACCOUNT_RECONNECT
        audit.record_for_account(conn, act, connected.id)
    return connected


def identify(
    backend: Backend,
    domain: str,
    *,
    config: Values,
    credentials: Values,
    public_only: bool = False,
    rehearse: bool = True,
) -> CheckResult:
    """Check an account with its provider, rehearse its connection, and store nothing.

    Args:
      backend: The backend.
      domain: The domain of the integration.
      config: The config of the account.
      credentials: The credentials of the account.
      public_only: True to restrict the check to public addresses.
      rehearse: False for a check without a rehearsal.

    Raises:
      NotFound: The integration does not exist.
      InvalidInput: A value is invalid, or the provider rejects the credentials.
      PollingError: The provider is unavailable.
    """
    integration = backend.registry.get(domain)
    return check(
        integration,
        config_of(integration, config),
        credentials_of(integration, credentials),
        egress=_is_public_only(backend, public_only),
        rehearse=rehearse,
        overrides=_overrides(backend, domain),
    )


def _overrides(backend: Backend, domain: str) -> Mapping[str, LimitOverride]:
    with backend.database.connection() as conn:
        return backend.limits(conn).get(domain, {})


def _is_public_only(backend: Backend, public_only: bool) -> AbstractContextManager[None]:
    limited = public_only and not backend.settings.allow_private_hosts
    return backend.egress.for_account(public_only=limited)


def _store(
    conn: Conn,
    backend: Backend,
    integration: Integration,
    checked: CheckResult,
    user_id: str,
    name: str | None,
    interval_minutes: int | None,
    *,
    public_only: bool,
    issued: bool,
) -> ConnectedAccount:
    identity, config = checked.identity, checked.config
    domain, key = integration.manifest.domain, key_of(identity)
    quotas.lock_accounts(conn, user_id)
    known = conn.execute(FIND_BY_IDENTITY, (user_id, domain, key)).fetchone()
    if known is None:
        number = quotas.require_place(conn, user_id, MAX_ACCOUNTS_PER_USER)
        if public_only and number >= MAX_ACCOUNTS_PER_USER:
            raise TooManyRequests("accounts-exhausted", most=MAX_ACCOUNTS_PER_USER)
    kept_name, before, kept_interval = (
        known[1:] if known else (identity.name, {}, DEFAULT_INTERVAL_MINUTES)
    )
    name = (sanitize(name or kept_name) or key)[:MAX_TEXT_CHARS]
    account, is_new = store.connect(
        conn,
        user_id=user_id,
        domain=domain,
        name=name,
        identity=key,
        group=identity.group if issued or not public_only else _own(user_id, identity.group),
        config=stored(config),
        credentials=seal_credentials(backend, checked.credentials),
        limits=to_json(integration.limits(config)),
        poll_interval_minutes=interval_minutes or kept_interval,
        resync=known is not None and needs_resync(integration.config_model, before, stored(config)),
        reread=known is not None and needs_reread(integration.config_model, before, stored(config)),
        public_hosts_only=public_only,
    )
    _set_notice(conn, account, identity)
    breakers.probe_now(conn, account)
    if is_new:
        quotas.judge(conn, [user_id])
    return ConnectedAccount(account, name, identity, is_new, checked.rehearsal)


def _set_notice(conn: Conn, account: UUID, identity: AccountIdentity) -> None:
    """Keep the notice of the plugin, or delete an earlier one."""
    notice = (sanitize(identity.notice) or "")[:MAX_NOTICE_CHARS] or None
    conn.execute(store.SET_NOTICE, (notice, account))


def _own(user_id: str, group: str | None, before: str | None = None) -> str | None:
    """Return the group of an account whose credentials a user has given.

    A user can give credentials that do not prove their group, and would then count, and block, for
    the accounts of others.

    Args:
      user_id: The user.
      group: The group that the plugin names.
      before: The group of the account so far.
    """
    if group is None and before is None:
        return None
    return json.dumps([user_id, group])


def key_of(identity: AccountIdentity) -> str:
    """Return the id of an identity as its column stores it.

    Users choose it with some integrations, such as the folder of a file server. A long one would
    not fit into the unique index, so a hash replaces its end.
    """
    key = sanitize(identity.id) or ""
    if len(encoded := key.encode()) <= MAX_KEY_BYTES:
        return key
    return f"{key[:MAX_PREFIX_CHARS]}… {hashlib.sha256(encoded).hexdigest()}"


def seal_credentials(backend: Backend, credentials: BaseModel) -> str | None:
    """Encrypt credentials for storage; None for an integration without credentials."""
    return backend.vault.seal(credentials) if type(credentials).model_fields else None


def reconnect(
    backend: Backend,
    id: UUID,
    *,
    credentials: Values | None = None,
    public_only: bool = False,
    issued: bool = False,
    authorize: Authorize = always,
) -> AccountIdentity:
    """Replace the credentials of an account; the account resumes with its cursors.

    If its content is hidden, the content is visible again.

    Args:
      backend: The backend.
      id: The id of the account.
      credentials: The new credentials. None, if the integration needs none.
      public_only: True to restrict the account to public addresses, now and in later runs.
      issued: As for `connect`.
      authorize: As for `connect`.

    Raises:
      InvalidInput: The provider rejects the credentials, or they belong to another account.
      WrongState: The engine deletes the account's content.
    """
    account, integration, config = _load(backend, id)
    if credentials is None and integration.credentials_model.model_fields:
        raise InvalidInput("credentials-missing")
    guarded = _is_public_only(backend, public_only or account.public_hosts_only)
    with check_slot(backend, account, integration, config):
        checked = check(
            integration, config, credentials_of(integration, credentials or {}), egress=guarded
        )
    _require_same(account, checked.identity)
    group = checked.identity.group
    if public_only and not issued:
        group = _own(account.user_id, group, account.limit_group)
    params = {
        "id": id,
        "credentials": seal_credentials(backend, checked.credentials),
        "group": group,
    }
    with backend.database.connection() as conn, conn.transaction():
        authorize(conn)
        store.set_credentials(conn, {**params, "public_hosts_only": public_only})
        _set_notice(conn, id, checked.identity)
        breakers.probe_now(conn, id)
        audit.record_for_account(conn, Act.ACCOUNT_RECONNECT, id)
    backend.wake()
    return checked.identity


def check_account(backend: Backend, id: UUID) -> AccountIdentity:
    """Check the credentials and the config of an account with its provider.

    If the provider issues new credentials, they are stored. Nothing else changes.

    Raises:
      InvalidInput: The provider rejects the credentials or the config.
    """
    account, integration, config = _load(backend, id)
    return _check_same(backend, account, integration, config).identity


def _check_same(
    backend: Backend,
    account: Account,
    integration: Integration,
    config: BaseModel,
    *,
    public_only: bool = False,
) -> CheckResult:
    """Check the stored credentials; raise InvalidInput if they belong to another account."""
    guarded = _is_public_only(backend, public_only or account.public_hosts_only)
    credentials, renew = _credentials(backend, account), _renewing(backend, account)
    with check_slot(backend, account, integration, config):
        checked = check(integration, config, credentials, renew, egress=guarded)
    _require_same(account, checked.identity)
    return checked


def configure(
    backend: Backend,
    id: UUID,
    *,
    config: Values | None = None,
    credentials: Values | None = None,
    name: str | None = None,
    interval_minutes: int | None = None,
    deletions: Deletions | None = None,
    public_only: bool = False,
    authorize: Authorize = always,
) -> bool:
    """Change the config, name, interval or treatment of deletions of an account.

    Args:
      backend: The backend.
      id: The id of the account.
      config: The complete new config.
      credentials: New credentials for the new config, for example if both are for another server.
      name: The new display name.
      interval_minutes: Minutes between the end of a run and the next run.
      deletions: The treatment of content that disappears at the source.
      public_only: True if the caller has a user's token. A changed config then restricts the
        account to public addresses, and must not send stored credentials to another destination.
      authorize: As for `connect`.

    Returns:
      True if the new config requires a resync, which is then due.

    Raises:
      InvalidInput: The config is invalid, the provider rejects it, it belongs to another account,
        or it would send the stored credentials to another destination.
      WrongState: Another request changed the config at the same time.
    """
    require_text(name=name)
    change = None
    if config is not None:
        change = _checked_config(backend, id, config, credentials, public_only)
    changed = {
        "config": change is not None,
        "credentials": change is not None and change.renewed is not None,
        "name": name is not None,
        "poll_interval_minutes": interval_minutes is not None,
        "deletions": deletions is not None,
    }
    if not any(changed.values()):
        return False
    with backend.database.connection() as conn, conn.transaction():
        authorize(conn)
        if change is not None:
            change.apply(conn)
        if name is not None:
            conn.execute(RENAME_ACCOUNT, (name, id))
        if interval_minutes is not None:
            conn.execute(SET_INTERVAL, {"id": id, "minutes": interval_minutes})
        if deletions is not None:
            store.set_deletions(conn, id, deletions)
        audit.record_for_account(
            conn,
            Act.ACCOUNT_CONFIGURE,
            id,
            changed=[part for part, is_new in changed.items() if is_new],
            config_fields=change and change.fields,
        )
    if change is not None:
        backend.wake()
    return change is not None and change.needs_resync


@dataclass(frozen=True, slots=True)
class _ConfigChange:
    """A checked config, with the credentials for it.

    Attributes:
      fields: The names of the fields that it changes.
      params: The parameters of the statements.
      renewed: The parameters of new credentials; None if they stay.
      needs_resync: True if the next run has to list everything again.
    """

    id: UUID
    fields: list[str]
    params: dict[str, Any]
    renewed: Mapping[str, Any] | None
    needs_resync: bool

    def apply(self, conn: Conn) -> None:
        """Store it.

        Raises:
          WrongState: Another request changed the config since it was checked.
        """
        if conn.execute(store.SET_CONFIG, self.params).rowcount == 0:
            raise WrongState("config-changed-by-others")
        if self.renewed is not None:
            store.set_credentials(conn, self.params | dict(self.renewed))
        breakers.probe_now(conn, self.id)


def _checked_config(
    backend: Backend, id: UUID, values: Values, credentials: Values | None, public_only: bool
) -> _ConfigChange:
    with backend.database.connection() as conn:
        account = store.load(conn, id)
    integration = backend.registry.get(account.integration_domain)
    config = config_of(integration, values)
    if public_only and credentials is None:
        require_same_destination(integration, account.config, stored(config))
    renewed: Mapping[str, Any] | None = None
    if credentials is not None:
        guarded = _is_public_only(backend, public_only or account.public_hosts_only)
        with check_slot(backend, account, integration, config):
            checked = check(
                integration, config, credentials_of(integration, credentials), egress=guarded
            )
        _require_same(account, checked.identity)
        config = checked.config
        group = checked.identity.group
        if public_only:
            group = _own(account.user_id, group, account.limit_group)
        renewed = {
            "credentials": seal_credentials(backend, checked.credentials),
            "group": group,
        }
    elif account.sync_status not in (AccountState.DISCONNECTED, AccountState.ERASING):
        config = _check_same(backend, account, integration, config, public_only=public_only).config
    resync = needs_resync(integration.config_model, account.config, stored(config))
    limits: Sequence[Mapping[str, Any]] = to_json(integration.limits(config))
    params: dict[str, Any] = {"id": id, "public_hosts_only": public_only, "resync": resync}
    params["reread"] = needs_reread(integration.config_model, account.config, stored(config))
    values = {"config": json.dumps(stored(config)), "limits": json.dumps(limits)}
    # The update applies only if the stored config is still the one that was compared.
    values["instead_of"] = json.dumps(account.config) if credentials is None else None
    before, after = account.config, stored(config)
    fields = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return _ConfigChange(id, fields, params | dict(values), renewed, resync)


def pause(backend: Backend, id: UUID, *, wait: bool = True) -> None:
    """Pause an account, and wait until no worker starts a task of it any more.

    The workers ask running tasks to return early, and save their results. The remaining tasks
    resume with the account.

    Args:
      backend: The backend.
      id: The id of the account.
      wait: False if the caller pauses several accounts, and waits once after all of them.

    Raises:
      WrongState: The account is in error or disconnected.
    """
    with backend.database.connection() as conn:
        if conn.execute(store.PAUSE, (id,)).rowcount == 0:
            account = store.load(conn, id)
            raise stopped(account)
    if wait:
        wait_until_seen(backend.database)


def resume(
    backend: Backend, id: UUID, *, user: str | None = None, authorize: Authorize = always
) -> None:
    """Resume a paused account, or an account in error that its provider accepts again.

    Its next run is due immediately.

    Args:
      backend: The backend.
      id: The id of the account.
      user: The user whose token or session makes the request. None: an operator.
      authorize: As for `connect`.

    Raises:
      InvalidInput: The provider still rejects the credentials or the config.
      WrongState: The account is disconnected.
      PollingError: The provider is unavailable.
    """
    with backend.database.connection() as conn:
        is_in_error = store.load(conn, id).sync_status == AccountState.ERROR
    if is_in_error:
        with backend.provider_slots.slot(backend.queues, user):
            check_account(backend, id)
    statement = store.RESUME_STOPPED if is_in_error else store.RESUME
    with backend.database.connection() as conn, conn.transaction():
        authorize(conn)
        if conn.execute(statement, (id,)).rowcount == 0:
            raise stopped(store.load(conn, id))
        breakers.probe_now(conn, id)
    backend.wake()


def require_running(account: Account) -> None:
    """Raise WrongState if the account is in error or disconnected."""
    if account.sync_status not in (AccountState.ACTIVE, AccountState.PAUSED):
        raise stopped(account)


def stopped(account: Account) -> WrongState:
    """Return the error that describes the state of the account."""
    detail = account.status_detail or "no details available"
    match account.sync_status:
        case AccountState.ACTIVE:
            return WrongState("account-active")
        case AccountState.PAUSED:
            return WrongState("account-paused", account=account.id)
        case AccountState.DISCONNECTED:
            return WrongState("account-disconnected", account=account.id)
        case AccountState.ERASING:
            return WrongState("account-erasing", account=account.id)
    if account.status_reason == AccountStateReason.CONFIGURATION:
        return WrongState("account-stopped-configuration", account=account.id, detail=detail)
    return WrongState("account-stopped-credentials", account=account.id, detail=detail)


def _load(backend: Backend, id: UUID) -> tuple[Account, Integration, BaseModel]:
    with backend.database.connection() as conn:
        account = store.load(conn, id)
    integration = backend.registry.get(account.integration_domain)
    config = within_ceilings(integration.config_model, account.config)
    return account, integration, config_of(integration, config)


def _credentials(backend: Backend, account: Account) -> BaseModel:
    model = backend.registry.get(account.integration_domain).credentials_model
    if account.credentials is None and model.model_fields:
        raise WrongState("account-has-no-credentials", account=account.id)
    return shared.open_credentials(backend.vault, account, model)


def _renewing(backend: Backend, account: Account) -> Any:
    """Return a function that renews the stored credentials, as a task does.

    Only one caller in the fleet renews at a time. It stores the result before anyone uses it.
    """

    def renew(instance: BaseIntegration[Any, Any]) -> BaseModel:
        newer = refresh.refresh(
            backend.database,
            account.id,
            account.credentials_version,
            lambda: shared.seal_credentials(backend.vault, account, instance.refresh()),
        )
        return shared.open_credentials(
            backend.vault, account, instance.credentials_model, newer.ciphertext
        )

    return renew


def _require_same(account: Account, identity: AccountIdentity) -> None:
    if key_of(identity) != account.identity:
        raise InvalidInput(
            "account-identity-mismatch",
            identity=identity.id,
            expected=account.identity,
            domain=account.integration_domain,
        )


def require_text(**values: str | None) -> None:
    """Raise InvalidInput if a name or a user id is blank, too long, or cannot be stored."""
    for field, value in values.items():
        if value is not None and (
            not value.strip() or not is_storable(value) or len(value) > MAX_TEXT_CHARS
        ):
            raise InvalidInput("text-invalid", field=field.replace("_", " "))
