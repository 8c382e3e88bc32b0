"""The pages that change the settings and credentials of an account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from core.dashboard.account_form import AccountForm
from core.dashboard.pages.connect import callback_url, http_url, redirect_page
from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, ConnectingViewer, Viewer
from core.errors import AccountPart, NotFound
from core.integration.base import Integration
from core.service import authorization
from core.service.accounts import actions as account_actions
from core.service.accounts import oauth, oauth_client
from core.service.accounts import queries as account_queries
from core.service.backend import Backend
from core.states import AccountState
from core.web.dependencies import AccountId, Engine
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/accounts/{user_integration_id}")


@dataclass(frozen=True, slots=True)
class EditedAccount:
    """An account that the viewer may change, with its integration."""

    row: dict[str, Any]
    integration: Integration


def _load(engine: Backend, viewer: Viewer, account: UUID) -> EditedAccount:
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "account", account)
        row = account_queries.accounts.one(conn, "account", account)
    return EditedAccount(row, engine.registry.get(row["integration_domain"]))


@router.get("/settings")
def settings_page(
    engine: Engine, viewer: ConnectingViewer, renderer: Renderer, account: AccountId
) -> Response:
    """Show the settings form with the current values."""
    return _settings(renderer, _load(engine, viewer, account))


@router.post("/settings")
def change_settings(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Change the name, interval and treatment of deletions of an account, or its config."""
    edited = _load(engine, viewer, account)
    if form.get("part") == "config":
        return _change_config(engine, viewer, renderer, edited, form)
    account_form = AccountForm(edited.integration, form)
    with account_form.recording_errors():
        name, minutes = account_form.name(), account_form.minutes()
        account_actions.configure(
            engine,
            account,
            name=name,
            interval_minutes=minutes,
            deletions=account_form.deletions(),
            public_only=not viewer.is_admin,
        )
    return (
        _settings(renderer, edited, general=account_form)
        if account_form.failed
        else redirect(f"/accounts/{account}", "changed")
    )


def _change_config(
    engine: Backend, viewer: Viewer, renderer: Renderer, edited: EditedAccount, form: ActionForm
) -> Response:
    account, resync = edited.row["id"], False
    account_form = AccountForm(edited.integration, form, config=edited.row["config"])
    with account_form.recording_errors():
        parts: Sequence[AccountPart] = (
            ("config", "credentials") if form.get("with_credentials") == "on" else ("config",)
        )
        config, *credentials = account_form.values(*parts)
        with provider_slot(engine, viewer.user_id):
            resync = account_actions.configure(
                engine,
                account,
                config=config,
                credentials=credentials[0] if credentials else None,
                public_only=not viewer.is_admin,
                authorize=viewer.still_valid,
            )
    if account_form.failed:
        return _settings(renderer, edited, config=account_form)
    return redirect(f"/accounts/{account}", "changed-lists-again" if resync else "changed")


def _settings(
    renderer: Renderer,
    edited: EditedAccount,
    *,
    general: AccountForm | None = None,
    config: AccountForm | None = None,
) -> Response:
    row, integration = edited.row, edited.integration
    values = {
        "account": row,
        "integration": integration.manifest,
        "general_form": (
            general
            or AccountForm(
                integration,
                name=row["name"],
                interval=row["poll_interval_minutes"],
                deletions=row["deletions"],
            )
        ),
        "config_form": config or AccountForm(integration, config=row["config"]),
    }
    submitted = general or config
    return renderer.page(
        "account-settings.html", values, submitted.status if submitted is not None else 200
    )


@router.get("/credentials")
def credentials_page(
    engine: Engine, viewer: ConnectingViewer, renderer: Renderer, account: AccountId
) -> Response:
    """Show the form for new credentials."""
    edited = _load(engine, viewer, account)
    return _credentials(engine, renderer, edited, AccountForm(edited.integration))


@router.post("/credentials")
def reconnect(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Replace the credentials of an account; it resumes where it stopped."""
    edited = _load(engine, viewer, account)
    account_form = AccountForm(edited.integration, form)
    with account_form.recording_errors():
        (credentials,) = account_form.values("credentials")
        with provider_slot(engine, viewer.user_id):
            account_actions.reconnect(
                engine,
                account,
                credentials=credentials,
                public_only=not viewer.is_admin,
                authorize=viewer.still_valid,
            )
    if account_form.failed:
        return _credentials(engine, renderer, edited, account_form)
    return redirect(f"/accounts/{account}", "reconnected")


@router.post("/authorize")
def authorize(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Start to reconnect an account in the browser."""
    edited = _load(engine, viewer, account)
    account_form = AccountForm(edited.integration)
    with account_form.recording_errors():
        authorization = oauth.start(
            engine,
            edited.row["integration_domain"],
            user_id=edited.row["user_id"],
            account=account,
            redirect_to=callback_url(engine, account=account),
            public_only=not viewer.is_admin,
            session=viewer.session.digest,
        )
    if account_form.failed:
        return _credentials(engine, renderer, edited, account_form)
    return redirect_page(renderer, edited.integration, authorization.url)


def _credentials(
    engine: Backend, renderer: Renderer, edited: EditedAccount, account_form: AccountForm
) -> Response:
    missing = oauth_client.missing_settings(engine.settings, edited.integration)
    if (
        not account_form.credentials
        and missing is None
        and edited.row["sync_status"] in (AccountState.ACTIVE, AccountState.PAUSED)
    ):
        raise NotFound("account-takes-no-credentials", integration=edited.integration.manifest.name)
    values = {
        "account": edited.row,
        "integration": edited.integration.manifest,
        "docs": http_url(edited.integration.manifest.docs),
        "form": account_form,
        "missing": missing,
    }
    return renderer.page("account-credentials.html", values, account_form.status)
