"""Changing an account: its name, interval and config, and the credentials that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from core.dashboard.account_form import AccountForm, Part
from core.dashboard.pages.connect import callback_url, http_url, redirect_page
from core.dashboard.responses import Show, redirect
from core.dashboard.session import Acted, Signed, Viewer
from core.errors import NotFound
from core.integration.base import Integration
from core.service import authorization, listings
from core.service.accounts import actions as account_actions
from core.service.accounts import oauth
from core.service.backend import Backend
from core.states import AccountState
from core.web.dependencies import AccountId, Engine
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/accounts/{account}")


@dataclass(frozen=True, slots=True)
class Opened:
    """An account that somebody may change, and its integration."""

    row: dict[str, Any]
    integration: Integration


def _open(engine: Backend, principal: Viewer, account: UUID) -> Opened:
    with engine.database.connection() as conn:
        authorization.require(conn, principal.principal, "account", account)
        row = listings.accounts.one(conn, "account", account)
    return Opened(row, engine.registry.get(row["integration_domain"]))


@router.get("/settings")
def settings_page(engine: Engine, principal: Signed, show: Show, account: AccountId) -> Response:
    """Asks for its name, interval and config, filled with what they are."""
    return _settings(show, _open(engine, principal, account))


@router.post("/settings")
def change_settings(
    engine: Engine, principal: Signed, show: Show, account: AccountId, form: Acted
) -> Response:
    """Change its name and interval, or its config."""
    opened = _open(engine, principal, account)
    if form.get("part") == "config":
        return _change_config(engine, principal, show, opened, form)
    asked = AccountForm(opened.integration, form)
    with asked.trying():
        name, minutes = asked.name(), asked.minutes()
        account_actions.configure(
            engine, account, name=name, interval_minutes=minutes, public_only=not principal.is_admin
        )
    return (
        _settings(show, opened, plain=asked)
        if asked.failed
        else redirect(f"/accounts/{account}", "changed")
    )


def _change_config(
    engine: Backend, principal: Viewer, show: Show, opened: Opened, form: Acted
) -> Response:
    account, resync = opened.row["id"], False
    asked = AccountForm(opened.integration, form, config=opened.row["config"])
    with asked.trying():
        parts: Sequence[Part] = (
            ("config", "credentials") if form.get("with_credentials") == "on" else ("config",)
        )
        config, *credentials = asked.values(*parts)
        with provider_slot():
            resync = account_actions.configure(
                engine,
                account,
                config=config,
                credentials=credentials[0] if credentials else None,
                public_only=not principal.is_admin,
            )
    if asked.failed:
        return _settings(show, opened, config=asked)
    return redirect(f"/accounts/{account}", "changed-lists-again" if resync else "changed")


def _settings(
    show: Show,
    opened: Opened,
    *,
    plain: AccountForm | None = None,
    config: AccountForm | None = None,
) -> Response:
    row, integration = opened.row, opened.integration
    shown = {
        "account": row,
        "integration": integration.manifest,
        "plain": (
            plain
            or AccountForm(integration, name=row["name"], interval=row["poll_interval_minutes"])
        ),
        "asked": config or AccountForm(integration, config=row["config"]),
    }
    failed = plain or config
    return show.show("account-settings.html", shown, failed.status if failed is not None else 200)


@router.get("/credentials")
def credentials_page(engine: Engine, principal: Signed, show: Show, account: AccountId) -> Response:
    """Asks for new credentials."""
    opened = _open(engine, principal, account)
    return _credentials(engine, show, opened, AccountForm(opened.integration))


@router.post("/credentials")
def reconnect(
    engine: Engine, principal: Signed, show: Show, account: AccountId, form: Acted
) -> Response:
    """Give it new credentials; it goes on where it stopped."""
    opened = _open(engine, principal, account)
    asked = AccountForm(opened.integration, form)
    with asked.trying():
        (credentials,) = asked.values("credentials")
        with provider_slot():
            account_actions.reconnect(
                engine, account, credentials=credentials, public_only=not principal.is_admin
            )
    if asked.failed:
        return _credentials(engine, show, opened, asked)
    return redirect(f"/accounts/{account}", "reconnected")


@router.post("/authorize")
def authorize(
    engine: Engine, principal: Signed, show: Show, account: AccountId, form: Acted
) -> Response:
    """Begin reconnecting in the browser."""
    opened = _open(engine, principal, account)
    asked = AccountForm(opened.integration)
    with asked.trying():
        begun = oauth.start(
            engine,
            opened.row["integration_domain"],
            user_id=opened.row["user_id"],
            account=account,
            redirect_to=callback_url(engine, account=account),
            public_only=not principal.is_admin,
        )
    if asked.failed:
        return _credentials(engine, show, opened, asked)
    return redirect_page(show, opened.integration, begun.url)


def _credentials(engine: Backend, show: Show, opened: Opened, asked: AccountForm) -> Response:
    missing = oauth.missing_settings(engine.settings, opened.integration)
    if (
        not asked.credentials
        and missing is None
        and opened.row["sync_status"] not in (AccountState.DISCONNECTED, AccountState.ERROR)
    ):
        raise NotFound("account-takes-no-credentials", integration=opened.integration.manifest.name)
    values = {
        "account": opened.row,
        "integration": opened.integration.manifest,
        "docs": http_url(opened.integration.manifest.docs),
        "asked": asked,
        "missing": missing,
    }
    return show.show("account-credentials.html", values, asked.status)
