"""Subscriptions: their list, the form that adds one, and their actions."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response

from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, Form, OperatingViewer, Viewer
from core.dashboard.wording import sentences
from core.errors import PollingError
from core.scopes import Scope
from core.service import subscriptions
from core.service.backend import Backend
from core.service.subscriptions import NewSubscription
from core.states import SubscriptionChannel, SubscriptionKind, SubscriptionState
from core.web.dependencies import After, Engine

router = APIRouter(prefix="/subscriptions")

SubscriptionId = Annotated[UUID, Path(alias="subscription_id")]


@router.get("")
def list_subscriptions(
    engine: Engine, viewer: OperatingViewer, renderer: Renderer, after: After = None
) -> Response:
    """Show subscriptions, and the form that adds one."""
    return _page(engine, viewer, renderer, after=after)


@router.post("")
def add_subscription(
    engine: Engine, viewer: OperatingViewer, renderer: Renderer, form: ActionForm
) -> Response:
    """Add a subscription, and show its secret once."""
    try:
        _, secret = subscriptions.add(
            engine, viewer.principal, _new(viewer, form), authorize=viewer.still_valid
        )
    except PollingError as error:
        return _page(engine, viewer, renderer, form, wrong=sentences(error))
    if secret is None:
        return redirect("/subscriptions", "subscription-added")
    return _page(engine, viewer, renderer, secret=secret)


# `ActionForm` checks the CSRF token of these actions.
@router.post("/{subscription_id}/test")
def test_subscription(
    engine: Engine, viewer: OperatingViewer, subscription: SubscriptionId, form: ActionForm
) -> Response:
    """Send a test message."""
    with engine.database.connection() as conn:
        subscriptions.test(conn, viewer.principal, subscription)
    return redirect("/subscriptions", "subscription-tested")


@router.post("/{subscription_id}/pause")
def pause_subscription(
    engine: Engine, viewer: OperatingViewer, subscription: SubscriptionId, form: ActionForm
) -> Response:
    """Pause a subscription."""
    with engine.database.connection() as conn:
        subscriptions.pause(conn, viewer.principal, subscription)
    return redirect("/subscriptions", "subscription-paused")


@router.post("/{subscription_id}/resume")
def resume_subscription(
    engine: Engine, viewer: OperatingViewer, subscription: SubscriptionId, form: ActionForm
) -> Response:
    """Resume a subscription."""
    with engine.database.connection() as conn:
        subscriptions.resume(conn, viewer.principal, subscription)
    return redirect("/subscriptions", "subscription-resumed")


@router.post("/{subscription_id}/remove")
def remove_subscription(
    engine: Engine, viewer: OperatingViewer, subscription: SubscriptionId, form: ActionForm
) -> Response:
    """Remove a subscription."""
    with engine.database.connection() as conn:
        subscriptions.remove(conn, viewer.principal, subscription)
    return redirect("/subscriptions", "subscription-removed")


def _kinds(viewer: Viewer) -> list[SubscriptionKind]:
    """Return the kinds of subscriptions that the viewer may add."""
    reads_content = viewer.principal.may(Scope.CONTENT_READ)
    return [kind for kind in SubscriptionKind if reads_content or kind != SubscriptionKind.CONTENT]


def _new(viewer: Viewer, form: Form) -> NewSubscription:
    kind, channel = form.get("kind"), form.get("channel")
    return NewSubscription(
        SubscriptionKind(kind) if kind in set(SubscriptionKind) else _kinds(viewer)[0],
        SubscriptionChannel(channel)
        if channel in set(SubscriptionChannel)
        else SubscriptionChannel.WEBHOOK,
        form.get("address").strip(),
        name=form.get("name").strip(),
        user_id=form.get("user").strip() or None,
        only_kind=form.get("only_kind").strip() or None,
    )


def _page(
    engine: Backend,
    viewer: Viewer,
    renderer: Renderer,
    form: Form | None = None,
    *,
    secret: str | None = None,
    wrong: str | None = None,
    after: str | None = None,
) -> Response:
    with engine.database.connection() as conn:
        page = subscriptions.page(conn, viewer.principal, after=after)
    values: dict[str, Any] = {
        "rows": [row | {"sentence": subscriptions.sentence(row)} for row in page.rows],
        "cursor": page.cursor,
        "kinds": _kinds(viewer),
        "channels": list(subscriptions.RECEIVERS),
        "states": SubscriptionState,
        "form": form or Form([]),
        "secret": secret,
        "wrong": wrong,
    }
    return renderer.page("subscriptions.html", values, 422 if wrong else 200)
