"""Connect an account in a browser, through the provider's consent screen (OAuth).

The flow is OAuth 2.0 (RFC 6749), with PKCE (RFC 7636) wherever the provider supports it.

A flow belongs to one browser. The provider's consent proves that a person owns the account at the
provider. It does not prove that this person is the user who will own the account here. Before
anything is stored, one of these does:

* A session of the dashboard started the flow. Only a browser with this session may finish it.
* The flow has a `redirect_to`. The browser takes a one-time code there. The backend of that page
  redeems it (`redeem`), and names the user who is signed in to it.
* A flow without either ends at a page that names the account and its future owner. The person
  confirms there (`confirm`).

If the plugin rehearses the connection, a person sees the rehearsal before anything is stored. A
flow of the dashboard then ends at that page too, and so does a form with credentials (`connect`).
The page of a product shows no rehearsal.

State and one-time code are 256 random bits that work once. The database holds only their digests.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.accounts import store
from core.db.rows import fetch
from core.errors import (
    InvalidInput,
    NotFound,
    PollingError,
    Refused,
    WrongState,
)
from core.integration.rehearsal import Rehearsal
from core.service.accounts import actions as account_actions
from core.service.accounts.actions import ConnectedAccount
from core.service.accounts.check import (
    DEFAULT_REMEDIES,
    CheckResult,
    require_accepted,
)
from core.service.accounts.oauth_client import (
    ERROR_CODE,
    START_AGAIN,
    authorization_url,
    exchange,
    explanation,
    oauth_of,
)
from core.service.accounts.redirects import require_redirect, with_result
from core.service.accounts.validation import Values, config_of, stored
from core.service.authorization import Authorize, always
from core.service.backend import Backend
from core.settings import Settings
from core.states import Deletions

CALLBACK = "/v1/oauth/callback"
FLOW_MINUTES = 10
CODE_MINUTES = 5
"""The number of minutes within which a one-time code must be used."""


NOT_ISSUED = "not issued"
"""The verifier of a flow whose credentials come from a form, and not from the provider."""

CREATE_FLOW = """
INSERT INTO oauth_flow (
    state_digest, integration_domain, user_id, user_integration_id, name, poll_interval_minutes,
    deletions, config, verifier, redirect_to, public_hosts_only, session_digest, answer, expires_at
)
VALUES (
    %(state)s, %(domain)s, %(user_id)s, %(account)s, %(name)s, %(interval)s,
    %(deletions)s, %(config)s, %(verifier)s, %(redirect_to)s, %(public_only)s, %(session)s,
    %(answer)s, now() + %(minutes)s * interval '1 minute'
)
RETURNING expires_at
"""
# The statement deletes the row that it reads. If two browsers return with the same OAuth state,
# only the first one continues. The primary key serves it.
CLAIM_FLOW = """
DELETE FROM oauth_flow WHERE state_digest = %(state)s AND (answer IS NOT NULL) = %(answered)s
RETURNING integration_domain AS domain, user_id, user_integration_id AS account, name,
    poll_interval_minutes AS interval, deletions, config, verifier, redirect_to,
    public_hosts_only AS public_only, session_digest AS session, answer,
    expires_at > now() AND expires_at <= now() + %(minutes)s * interval '1 minute' AS valid
"""

# The primary key serves it.
OWNER_OF_FLOW = "SELECT user_id FROM oauth_flow WHERE state_digest = %s"


@dataclass(frozen=True, slots=True)
class StartedAuthorization:
    """The address of the consent screen, and when the flow expires."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class FinishedAuthorization:
    """The next step of the browser that returned from the provider.

    Attributes:
      account: The account that was connected. None while a confirmation is missing.
      error: The code of an error; then no account was connected.
      url: The address that the browser opens next, with the result in its query, if the flow has
        a `redirect_to`.
      question: The question to the person, if the flow has neither a session nor a `redirect_to`.
      problem: The plugin's reason and remedy for `error`, for the person. None without them, and
        for the page of a product: its backend gets them from `redeem`.
      in_session: True if the flow belongs to the browser's session of the dashboard.
    """

    account: UUID | None = None
    error: str | None = None
    url: str | None = None
    question: Question | None = None
    problem: PollingError | None = None
    in_session: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """An account that waits for a person's confirmation.

    Attributes:
      code: The one-time code that confirms it.
      integration: The name of the integration.
      account: The name of the account at the provider.
      user_id: The user who will own the account.
      reconnects: True if the account exists, and gets new credentials.
      in_session: True if the flow belongs to a session of the dashboard, so that the browser is
        known.
      rehearsal: The rehearsal of the plugin, for the person.
    """

    code: str
    integration: str
    account: str
    user_id: str
    reconnects: bool
    in_session: bool
    rehearsal: Rehearsal


class _AskFirst(Exception):
    """A person has to see the rehearsal before the account is stored."""

    def __init__(self, checked: CheckResult) -> None:
        super().__init__("a person has to agree")
        self.checked = checked


def _ask_first(checked: CheckResult) -> None:
    if checked.rehearsal and checked.rehearsal.refusal is None:
        raise _AskFirst(checked)


def connect(
    backend: Backend,
    domain: str,
    *,
    config: Values,
    credentials: Values,
    user_id: str,
    name: str | None,
    interval_minutes: int | None,
    deletions: Deletions | None,
    public_only: bool,
    session: bytes,
    authorize: Authorize,
) -> ConnectedAccount | Question:
    """Connect an account with credentials from a form of the dashboard.

    Args:
      backend: The backend.
      domain: The domain of the integration.
      config: As for `account_actions.connect`, and so are the other arguments.
      credentials: The credentials of the account.
      user_id: The owner.
      name: The display name.
      interval_minutes: The poll interval.
      deletions: The treatment of content that disappears at the source.
      public_only: True for a user's session.
      session: The digest of the session, whose browser confirms the connection.
      authorize: Raises if the session ends before the account is stored.

    Returns:
      The account; or a question to the person, if the plugin rehearses the connection.
    """
    try:
        return account_actions.connect(
            backend,
            domain,
            config=config,
            credentials=credentials,
            user_id=user_id,
            name=name,
            interval_minutes=interval_minutes,
            deletions=deletions,
            public_only=public_only,
            authorize=authorize,
            accept=_ask_first,
        )
    except _AskFirst as asked:
        flow = {
            "domain": domain,
            "user_id": user_id,
            "account": None,
            "name": name,
            "interval": interval_minutes,
            "deletions": deletions,
            "config": stored(config_of(backend.registry.get(domain), config)),
            "verifier": backend.vault.seal_text(NOT_ISSUED),
            "redirect_to": None,
            "public_only": public_only,
            "session": session,
        }
        return _ask(backend, flow, asked.checked)


def start(
    backend: Backend,
    domain: str,
    *,
    user_id: str,
    account: UUID | None = None,
    name: str | None = None,
    config: Values | None = None,
    interval_minutes: int | None = None,
    deletions: Deletions | None = None,
    redirect_to: str | None = None,
    public_only: bool = False,
    session: bytes | None = None,
) -> StartedAuthorization:
    """Start a flow for a user.

    Args:
      backend: The backend.
      domain: The domain of the integration.
      user_id: The owner of the account.
      account: The only account that the flow may reconnect; its config stays. Default: any account
        that the user chooses at the provider.
      name: The display name. Default: that of `connect`.
      config: The config of the new account; None for its default.
      interval_minutes: The poll interval. Default: that of `connect`.
      deletions: The treatment of content that disappears at the source. Default: `mark`, or the
        choice of the existing account.
      redirect_to: The page that gets a one-time code, for its backend to redeem. Default: the
        person confirms on a page of this server.
      public_only: True to restrict the account to public addresses.
      session: The digest of the dashboard's session. Only its browser may finish the flow.

    Raises:
      NotFound: The integration does not exist, or the user has no such account.
      InvalidInput: The integration does not support OAuth, `redirect_to` is not allowed, or the
        config is invalid.
      WrongState: The operator has set no OAuth client, or no public URL.
      TooManyRequests: The user has started too many flows in this hour.
    """
    account_actions.require_text(user_id=user_id, name=name)
    if public_only:
        backend.provider_slots.count_sign_in(backend.queues, user_id)
    integration = backend.registry.get(domain)
    oauth = oauth_of(integration)
    kept: Values = {}  # unencrypted: the account stores its config in clear, too
    if account is None:
        asked = config_of(integration, config or {})
        kept = stored(asked)
    else:
        asked = config_of(integration, _require_account(backend, account, domain, user_id))
    if redirect_to is not None:
        require_redirect(backend.settings, redirect_to)
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    parameters = integration.oauth_parameters(asked)
    url = authorization_url(oauth, _callback(backend.settings), state, verifier, parameters)
    params: dict[str, Any] = {
        "domain": domain,
        "user_id": user_id,
        "account": account,
        "name": name,
        "interval": interval_minutes,
        "deletions": deletions,
        "config": kept,
        "verifier": backend.vault.seal_text(verifier),
        "redirect_to": redirect_to,
        "public_only": public_only,
        "session": session,
        "answer": None,
    }
    return StartedAuthorization(url, _keep(backend, params, state, FLOW_MINUTES))


def owner_of(backend: Backend, secret: str) -> str:
    """Return the user who will own the account of a flow.

    The calls to the provider count for this user, also in the browser of another person.

    Args:
      backend: The backend.
      secret: The state or the one-time code of the flow. It stays valid.

    Raises:
      InvalidInput: The secret is unknown or already used.
    """
    with backend.database.connection() as conn:
        row = conn.execute(OWNER_OF_FLOW, (_digest(secret),)).fetchone()
    if row is None:
        raise InvalidInput("sign-in-link-invalid")
    return str(row[0])


def finish(
    backend: Backend,
    *,
    state: str,
    code: str | None,
    error: str | None,
    session: bytes | None = None,
    authorize: Authorize = always,
) -> FinishedAuthorization:
    """Continue a flow in the browser that returned from the provider.

    Only a flow of the dashboard is stored now. A flow of the API waits for a confirmation.

    Args:
      backend: The backend.
      state: The state of the flow, from the provider's redirect.
      code: The provider's authorization code.
      error: The provider's error, if the person refused.
      session: The digest of the browser's session; None without one.
      authorize: Raises if the session ends before the account is stored.

    Raises:
      InvalidInput: The state is unknown, already used, or expired.
      Refused: The flow belongs to the session of another browser.
    """
    flow = _claim(backend, state, answered=False)
    if flow is None:
        raise InvalidInput("sign-in-link-invalid")
    # Somebody has passed the state on. It is deleted, so that it is worthless for both browsers.
    if flow["session"] is not None and flow["session"] != session:
        raise Refused("sign-in-of-another-browser")
    redirect_to: str | None = flow["redirect_to"]
    if code is None:
        reason = error if error and ERROR_CODE.fullmatch(error) else "failed"
        integration = backend.registry.get(flow["domain"])
        answer = {"error": reason, "redirect_uri": _callback(backend.settings)}
        explained = explanation(integration, answer)
        if reason != "access_denied" and explained is not None:
            return _finished(redirect_to, error=reason, problem=explained, flow=flow)
        return _finished(redirect_to, error=reason)
    try:
        if flow["session"] is not None:
            account = _connect(backend, flow, code, authorize, accept=_ask_first)
            return _finished(redirect_to, account=account)
        if redirect_to is not None:
            connect_code = _wait(backend, flow, backend.vault.seal_text(code))
            return FinishedAuthorization(url=with_result(redirect_to, connect_code=connect_code))
        return FinishedAuthorization(question=_question(backend, flow, code))
    except _AskFirst as asked:
        return FinishedAuthorization(question=_ask(backend, flow, asked.checked))
    except PollingError as problem:
        return _finished(redirect_to, error=_reason(problem), problem=problem, flow=flow)


def _finished(
    redirect_to: str | None,
    *,
    account: UUID | None = None,
    error: str | None = None,
    problem: PollingError | None = None,
    flow: Mapping[str, Any] | None = None,
) -> FinishedAuthorization:
    is_here = redirect_to is None or (flow is not None and flow["session"] is not None)
    if is_here and (explained := _explained(problem)) is not None:
        return FinishedAuthorization(error=error, problem=explained)
    if redirect_to is None:
        return FinishedAuthorization(account, error)
    result = {"user_integration_id": str(account)} if error is None else {"error": error}
    return FinishedAuthorization(account, error, with_result(redirect_to, **result))


def _explained(problem: PollingError | None) -> PollingError | None:
    """Return the error if its plugin has named a remedy; otherwise its code says enough."""
    remedy = problem.fields.get("remedy") if problem is not None else None
    return None if remedy is None or remedy in (START_AGAIN, *DEFAULT_REMEDIES) else problem


def redeem(backend: Backend, *, code: str, user_id: str, authorize: Authorize = always) -> UUID:
    """Store the account of a flow, for the user who is signed in to the backend.

    Args:
      backend: The backend.
      code: The one-time code that the browser took to `redirect_to`.
      user_id: The user who is signed in to the backend, in that browser.
      authorize: Raises if the backend's token ends before the account is stored.

    Raises:
      InvalidInput: The code is unknown, already used, or expired; or the provider refuses.
      Refused: The flow was started for another user. The code is used up, and nothing is stored.
      PollingError: The provider is unavailable.
    """
    flow = _claim(backend, code, answered=True)
    if flow is None or flow["redirect_to"] is None:
        raise InvalidInput("connect-code-invalid")
    if flow["user_id"] != user_id:
        raise Refused("connect-code-of-another-user")
    return _connect(backend, flow, backend.vault.open_text(flow["answer"]), authorize)


def confirm(
    backend: Backend,
    *,
    code: str,
    session: bytes | None = None,
    authorize: Authorize = always,
) -> FinishedAuthorization:
    """Store the account that a person has confirmed.

    Args:
      backend: The backend.
      code: The one-time code of the question.
      session: The digest of the browser's session; None without one.
      authorize: Raises if the session ends before the account is stored.

    Raises:
      InvalidInput: The code is unknown, already used, or expired.
      Refused: The flow belongs to the session of another browser.
    """
    flow = _claim(backend, code, answered=True)
    if flow is None or (flow["redirect_to"] is not None and flow["session"] is None):
        raise InvalidInput("sign-in-link-invalid")
    in_session = flow["session"] is not None
    if in_session and flow["session"] != session:
        raise Refused("sign-in-of-another-browser")
    try:
        credentials: Values = json.loads(backend.vault.open_text(flow["answer"]))
        account = _save(
            backend, flow, credentials, authorize if in_session else always, rehearse=False
        )
        return FinishedAuthorization(account=account, in_session=in_session)
    except PollingError as problem:
        return FinishedAuthorization(error=_reason(problem), problem=_explained(problem))


def cancel(backend: Backend, *, code: str) -> None:
    """Delete a flow that a person did not confirm, with the credentials that it held."""
    _claim(backend, code, answered=True)


def _reason(problem: PollingError) -> str:
    """Return the code of an error for the browser. It contains no text of the provider."""
    match problem:
        case NotFound():
            return "not_found"
        case InvalidInput():
            return "refused"
    return "unavailable"


def _claim(backend: Backend, secret: str, *, answered: bool) -> dict[str, Any] | None:
    """Take a flow out of the table; None if it does not exist or has expired."""
    minutes = CODE_MINUTES if answered else FLOW_MINUTES
    params = {"state": _digest(secret), "answered": answered, "minutes": minutes}
    with backend.database.connection() as conn:
        flows = fetch(conn, CLAIM_FLOW, params)
    return flows[0] if flows and flows[0]["valid"] else None


def _wait(backend: Backend, flow: Mapping[str, Any], sealed: str) -> str:
    """Keep a flow with an encrypted answer until its one-time code is used; return the code."""
    code = secrets.token_urlsafe(32)
    _keep(backend, {**flow, "answer": sealed}, code, CODE_MINUTES)
    return code


def _keep(backend: Backend, params: Mapping[str, Any], secret: str, minutes: int) -> datetime:
    row = {"state": _digest(secret), "minutes": minutes, "config": json.dumps(params["config"])}
    with backend.database.connection() as conn:
        expires_at: datetime = fetch(conn, CREATE_FLOW, {**params, **row})[0]["expires_at"]
    return expires_at


def _question(backend: Backend, flow: Mapping[str, Any], code: str) -> Question:
    """Ask the provider whose account it is, and keep the credentials until a person confirms."""
    integration = backend.registry.get(flow["domain"])
    credentials = _credentials_for(backend, flow, code)
    checked = account_actions.identify(
        backend,
        flow["domain"],
        config=_config(backend, flow),
        credentials=credentials,
        public_only=flow["public_only"],
        rehearse=flow["account"] is None,
    )
    require_accepted(integration, checked.rehearsal)
    return _ask(backend, flow, checked)


def _ask(backend: Backend, flow: Mapping[str, Any], checked: CheckResult) -> Question:
    """Keep the credentials until a person confirms the connection."""
    return Question(
        _wait(backend, flow, backend.vault.seal(checked.credentials)),
        backend.registry.get(flow["domain"]).manifest.name,
        checked.identity.name or checked.identity.id,
        flow["user_id"],
        flow["account"] is not None,
        flow["session"] is not None,
        checked.rehearsal,
    )


def _config(backend: Backend, flow: Mapping[str, Any]) -> Values:
    """Return the config of the flow, or of the account that it reconnects."""
    if flow["account"] is None:
        config: Values = flow["config"]
        return config
    with backend.database.connection() as conn:
        return store.load(conn, flow["account"]).config


def _connect(
    backend: Backend,
    flow: Mapping[str, Any],
    code: str,
    authorize: Authorize,
    accept: Callable[[CheckResult], None] = lambda _: None,
) -> UUID:
    """Exchange the authorization code, and store or reconnect the account."""
    return _save(backend, flow, _credentials_for(backend, flow, code), authorize, accept=accept)


def _credentials_for(backend: Backend, flow: Mapping[str, Any], code: str) -> Mapping[str, Any]:
    integration = backend.registry.get(flow["domain"])
    if flow["account"] is not None:
        _require_account(backend, flow["account"], flow["domain"], flow["user_id"])
    verifier = backend.vault.open_text(flow["verifier"])
    return exchange(integration, _callback(backend.settings), code, verifier)


def _save(
    backend: Backend,
    flow: Mapping[str, Any],
    credentials: Mapping[str, Any],
    authorize: Authorize,
    *,
    rehearse: bool = True,
    accept: Callable[[CheckResult], None] = lambda _: None,
) -> UUID:
    public_only = flow["public_only"]
    if flow["account"] is not None:
        account: UUID = flow["account"]
        _require_account(backend, account, flow["domain"], flow["user_id"])
        account_actions.reconnect(
            backend,
            account,
            credentials=credentials,
            public_only=public_only,
            issued=True,
            authorize=authorize,
        )
        return account
    connected = account_actions.connect(
        backend,
        flow["domain"],
        config=flow["config"],
        credentials=credentials,
        user_id=flow["user_id"],
        name=flow["name"],
        interval_minutes=flow["interval"],
        deletions=None if flow["deletions"] is None else Deletions(flow["deletions"]),
        public_only=public_only,
        issued=backend.vault.open_text(flow["verifier"]) != NOT_ISSUED,
        authorize=authorize,
        rehearse=rehearse,
        accept=accept,
    )
    backend.wake()
    return connected.id


def _callback(settings: Settings) -> str:
    """Return the address of this server to which providers redirect."""
    if settings.public_url is None:
        raise WrongState("public-url-missing")
    return settings.public_url.rstrip("/") + CALLBACK


def _require_account(backend: Backend, account: UUID, domain: str, user_id: str) -> Values:
    """Return the config of a user's account."""
    with backend.database.connection() as conn:
        existing = store.load(conn, account)
    if (existing.integration_domain, existing.user_id) != (domain, user_id):
        raise NotFound("account-not-found", account=account)
    return dict(existing.config)


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest()
