"""The list of integrations, and the forms that connect accounts."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from core.dashboard import rendering
from core.dashboard.account_form import AccountForm
from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, ConnectingViewer, FleetOperatingViewer, StatusViewer
from core.errors import NotFound
from core.integration.base import Integration
from core.integration.operator import environment_value
from core.service import authorization
from core.service.accounts import oauth, oauth_client, redirects
from core.service.backend import Backend
from core.service.fleet import pauses
from core.web.dependencies import NO_NUL, Engine
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/integrations")

Domain = Annotated[str, Path(max_length=63, pattern=NO_NUL)]

CALLBACK_PATH = "/integrations/connected"

REASONS = {
    "access_denied": "Access was denied, by you or by the provider.",
    "failed": "The connection failed.",
    "refused": "The credentials were rejected, or belong to a different account.",
    "unavailable": (
        "The provider is unavailable, or its response could not be read. Try again later."
    ),
    "not_found": "The account or its integration no longer exists.",
}
"""Reasons for a failed connection, by the `error` that the OAuth callback reports."""


@router.get("")
def integrations(engine: Engine, viewer: StatusViewer, renderer: Renderer) -> Response:
    """List the installed integrations; for operators, also the quarantined plugins."""
    registry = engine.registry
    with engine.database.connection() as conn:
        paused = pauses.lasting(conn)
    cards = [
        {
            "domain": domain,
            "pause": paused.get(domain),
            "name": integration.manifest.name,
            "version": registry.versions[domain],
            "docs": http_url(integration.manifest.docs),
        }
        for domain, integration in sorted(
            registry.integrations.items(), key=lambda item: item[1].manifest.name.lower()
        )
    ]
    return renderer.page(
        "integrations.html",
        {"cards": cards, "quarantined": registry.quarantined if viewer.is_admin else []},
    )


@router.post("/{domain}/pause")
# `ActionForm` checks the CSRF token.
def pause(
    engine: Engine, viewer: FleetOperatingViewer, form: ActionForm, domain: Domain
) -> Response:
    """Pause all accounts of an integration; for operators only."""
    pauses.pause(engine, domain)
    return redirect("/integrations", "integration-paused")


@router.post("/{domain}/resume")
def resume(
    engine: Engine, viewer: FleetOperatingViewer, form: ActionForm, domain: Domain
) -> Response:
    """Resume a paused integration; for operators only."""
    pauses.resume(engine, domain)
    return redirect("/integrations", "integration-resumed")


@router.get("/connected")
def connected(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    user_integration_id: UUID | None = None,
    error: Annotated[str, Query(max_length=60, pattern=NO_NUL)] = "failed",
    domain: Annotated[str, Query(max_length=63, pattern=NO_NUL)] = "",
    account: UUID | None = None,
) -> Response:
    """Show the result of a connection in the browser.

    The query parameters hold the result. They are untrusted, and only select what is shown.
    """
    if user_integration_id is not None:
        with engine.database.connection() as conn:
            authorization.require(conn, viewer.principal, "account", user_integration_id)
        return redirect(
            f"/accounts/{user_integration_id}",
            "reconnected" if account is not None else "connected",
        )
    again = f"/accounts/{account}/credentials" if account is not None else "/integrations"
    if account is None and domain in engine.registry.integrations:
        again = f"/integrations/{domain}/connect"
    values = {"reason": REASONS.get(error, REASONS["failed"]), "code": error, "again": again}
    return renderer.page("not-connected.html", values)


@router.get("/{domain}/connect")
# The viewer's permission is all that this page needs of them.
def connect_page(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    domain: Domain,
) -> Response:
    """Show the form that connects an account of an integration."""
    account_form = AccountForm(engine.registry.get(domain), user="default")
    return _page(engine, renderer, account_form)


@router.post("/{domain}/connect")
def connect(
    engine: Engine, viewer: ConnectingViewer, renderer: Renderer, domain: Domain, form: ActionForm
) -> Response:
    """Check an account with its provider, and store it, or show its rehearsal first."""
    account_form = AccountForm(engine.registry.get(domain), form)
    with account_form.recording_errors():
        config, credentials = account_form.values("config", "credentials")
        name, user, minutes = (
            account_form.name(),
            viewer.user_id or account_form.user(),
            account_form.minutes(),
        )
        deletions = account_form.deletions()
        with provider_slot(engine, viewer.user_id):
            connection = oauth.connect(
                engine,
                domain,
                config=config,
                credentials=credentials,
                user_id=user,
                name=name,
                interval_minutes=minutes,
                deletions=deletions,
                public_only=not viewer.is_admin,
                session=viewer.session.digest,
                authorize=viewer.still_valid,
            )
    if account_form.failed:
        return _page(engine, renderer, account_form)
    if isinstance(connection, oauth.Question):
        return renderer.page("confirm.html", {"question": connection})
    engine.wake()
    return redirect(
        f"/accounts/{connection.id}", "connected" if connection.is_new else "connected-again"
    )


@router.post("/{domain}/authorize")
def authorize(
    engine: Engine, viewer: ConnectingViewer, renderer: Renderer, domain: Domain, form: ActionForm
) -> Response:
    """Start a connection in the browser."""
    account_form = AccountForm(engine.registry.get(domain), form)
    with account_form.recording_errors():
        (config,) = account_form.values("config")
        authorization = oauth.start(
            engine,
            domain,
            user_id=viewer.user_id or account_form.user(),
            name=account_form.name(),
            config=config,
            interval_minutes=account_form.minutes(),
            deletions=account_form.deletions(),
            redirect_to=callback_url(engine, domain=domain),
            public_only=not viewer.is_admin,
            session=viewer.session.digest,
        )
    if account_form.failed:
        return _page(engine, renderer, account_form)
    return redirect_page(renderer, account_form.integration, authorization.url)


def _page(engine: Backend, renderer: Renderer, account_form: AccountForm) -> Response:
    missing = oauth_client.missing_settings(engine.settings, account_form.integration)
    client = account_form.integration.manifest.oauth
    if missing and client is not None:
        # Most providers also ask for the secret of a client that uses PKCE.
        secret = client.client_secret_setting
        if secret not in missing and environment_value(secret) is None:
            missing = [*missing, secret]
    values = {
        "form": account_form,
        "integration": account_form.integration.manifest,
        "docs": http_url(account_form.integration.manifest.docs),
        "missing": missing,
    }
    return renderer.page("connect.html", values, account_form.status)


def callback_url(engine: Backend, **params: object) -> str | None:
    """Return the dashboard page to which the browser returns from the provider.

    Returns:
      The address; None if `POLLING_PUBLIC_URL` is not set or does not allow the redirect.
    """
    public = engine.settings.public_url
    url = (
        public.rstrip("/") + CALLBACK_PATH + rendering.query(**params)
        if public is not None
        else None
    )
    return url if url is not None and redirects.may_redirect(engine.settings, url) else None


def redirect_page(renderer: Renderer, integration: Integration, url: str) -> Response:
    """Show a page with the link to the provider.

    A redirect is not possible: the policy `form-action` forbids redirects to other sites after a
    form.

    Raises:
      NotFound: The provider's address is not an HTTP address.
    """
    if http_url(url) is None:
        raise NotFound("sign-in-address-invalid", integration=integration.manifest.name)
    return renderer.page(
        "onward.html",
        {"name": integration.manifest.name, "url": url, "host": urlsplit(url).hostname},
    )


def http_url(text: str | None) -> str | None:
    """Return the text if it is an HTTP address; otherwise None."""
    return text if text is not None and text.lower().startswith(("https://", "http://")) else None
