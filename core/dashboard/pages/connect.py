"""Integrations, and connecting accounts by forms made from their schemas."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from core.dashboard import rendering
from core.dashboard.account_form import AccountForm
from core.dashboard.responses import Show, redirect
from core.dashboard.session import Acted, Signed
from core.errors import NotFound
from core.integration.base import Integration
from core.service import authorization
from core.service.accounts import actions as account_actions
from core.service.accounts import oauth
from core.service.backend import Backend
from core.web.dependencies import NO_NUL, Engine
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/integrations")

Domain = Annotated[str, Path(max_length=63, pattern=NO_NUL)]

CAME_BACK = "/integrations/connected"

REASONS = {
    "access_denied": "You, or the provider, did not allow it.",
    "refused": "What the provider gave did not open the account, or opened another one.",
    "unavailable": (
        "The provider does not answer now, or answers what we cannot read. Try again later."
    ),
    "not_found": "The account, or its integration, is not here any more.",
}


@router.get("")
def integrations(engine: Engine, principal: Signed, show: Show) -> Response:
    """What can be connected, and what could not be loaded."""
    found = engine.registry
    cards = [
        {
            "domain": domain,
            "name": one.manifest.name,
            "version": found.versions[domain],
            "docs": http_url(one.manifest.docs),
        }
        for domain, one in sorted(
            found.integrations.items(), key=lambda item: item[1].manifest.name.lower()
        )
    ]
    return show.show(
        "integrations.html",
        {"cards": cards, "quarantined": found.quarantined if principal.is_admin else []},
    )


@router.get("/connected")
def connected(
    engine: Engine,
    principal: Signed,
    show: Show,
    user_integration_id: UUID | None = None,
    error: Annotated[str, Query(max_length=60, pattern=NO_NUL)] = "failed",
    domain: Annotated[str, Query(max_length=63, pattern=NO_NUL)] = "",
    account: UUID | None = None,
) -> Response:
    """Back from the provider.

    What came of it stands in the address, which anybody can write: it only decides what is shown.
    """
    if user_integration_id is not None:
        with engine.database.connection() as conn:
            authorization.require(conn, principal.principal, "account", user_integration_id)
        return redirect(
            f"/accounts/{user_integration_id}",
            "reconnected" if account is not None else "connected",
        )
    again = f"/accounts/{account}/credentials" if account is not None else "/integrations"
    if account is None and domain in engine.registry.integrations:
        again = f"/integrations/{domain}/connect"
    values = {"reason": REASONS.get(error, "It did not work."), "code": error, "again": again}
    return show.show("not-connected.html", values)


@router.get("/{domain}/connect")
def connect_page(engine: Engine, show: Show, domain: Domain) -> Response:
    """Asks for what an account of this integration needs."""
    asked = AccountForm(engine.registry.get(domain), user="default")
    return _page(engine, show, asked)


@router.post("/{domain}/connect")
def connect(engine: Engine, principal: Signed, show: Show, domain: Domain, form: Acted) -> Response:
    """Check the account with its provider, and store it."""
    asked = AccountForm(engine.registry.get(domain), form)
    with asked.trying():
        config, credentials = asked.values("config", "credentials")
        name, user, minutes = asked.name(), principal.user_id or asked.user(), asked.minutes()
        with provider_slot():
            made = account_actions.connect(
                engine,
                domain,
                config=config,
                credentials=credentials,
                user_id=user,
                name=name,
                interval_minutes=minutes,
                public_only=not principal.is_admin,
            )
    if asked.failed:
        return _page(engine, show, asked)
    engine.wake()
    return redirect(f"/accounts/{made.id}", "connected" if made.is_new else "connected-again")


@router.post("/{domain}/authorize")
def authorize(
    engine: Engine, principal: Signed, show: Show, domain: Domain, form: Acted
) -> Response:
    """Begin connecting in the browser."""
    asked = AccountForm(engine.registry.get(domain), form)
    with asked.trying():
        (config,) = asked.values("config")
        begun = oauth.start(
            engine,
            domain,
            user_id=principal.user_id or asked.user(),
            name=asked.name(),
            config=config,
            interval_minutes=asked.minutes(),
            redirect_to=callback_url(engine, domain=domain),
            public_only=not principal.is_admin,
        )
    if asked.failed:
        return _page(engine, show, asked)
    return redirect_page(show, asked.integration, begun.url)


def _page(engine: Backend, show: Show, asked: AccountForm) -> Response:
    missing = oauth.missing_settings(engine.settings, asked.integration)
    values = {
        "asked": asked,
        "integration": asked.integration.manifest,
        "docs": http_url(asked.integration.manifest.docs),
        "missing": missing,
    }
    return show.show("connect.html", values, asked.status)


def callback_url(engine: Backend, **noted: object) -> str | None:
    """The address to which the provider returns the browser.

    It is a page of the dashboard, if the dashboard's public address is known.
    """
    public = engine.settings.public_url
    wanted = (
        public.rstrip("/") + CAME_BACK + rendering.query(**noted) if public is not None else None
    )
    return wanted if wanted is not None and oauth.may_redirect(engine.settings, wanted) else None


def redirect_page(show: Show, integration: Integration, url: str) -> Response:
    """Show a page with the link to the provider.

    After a form, a browser follows no redirect to another site (`form-action`).

    Raises:
      NotFound: The provider's address is none that a browser goes to.
    """
    if http_url(url) is None:
        raise NotFound("sign-in-address-invalid", integration=integration.manifest.name)
    return show.show(
        "onward.html",
        {"name": integration.manifest.name, "url": url, "host": urlsplit(url).hostname},
    )


def http_url(text: str | None) -> str | None:
    """An address that may be linked to."""
    return text if text is not None and text.lower().startswith(("https://", "http://")) else None
