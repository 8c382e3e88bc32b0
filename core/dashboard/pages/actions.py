"""The actions on an account: the buttons of its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from core.dashboard.pages.accounts import render
from core.dashboard.responses import Renderer, redirect
from core.dashboard.session import ActionForm, ConnectingViewer, OperatingViewer, Viewer
from core.dashboard.wording import sentences
from core.errors import NotFound, PollingError
from core.service import authorization
from core.service.accounts import actions as account_actions
from core.service.accounts import disconnect as account_disconnect
from core.service.accounts import erase as account_erase
from core.service.accounts import queries as account_queries
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.web.dependencies import AccountId, Engine
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/accounts/{user_integration_id}")


@router.post("/sync")
def sync(
    engine: Engine,
    viewer: OperatingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Start a run, or join the open one."""

    def act() -> str:
        run_actions.count_request(engine, viewer.user_id)
        _, is_new = run_actions.sync(engine, account)
        return "started" if is_new else "joined"

    return _act(engine, viewer, renderer, account, act)


@router.post("/resync")
def resync(
    engine: Engine,
    viewer: OperatingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Delete all cursors and start a run that lists everything again."""

    def act() -> str:
        run_actions.count_request(engine, viewer.user_id)
        _, is_new = run_actions.resync(engine, account)
        return "started" if is_new else "resync-later"

    return _act(engine, viewer, renderer, account, act)


@router.post("/reread")
def reread(
    engine: Engine,
    viewer: OperatingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Read the kept items of an account again, or join the open reread."""

    def act() -> str:
        run_actions.count_request(engine, viewer.user_id)
        _, is_new = run_actions.reread(engine, account)
        return "reread-started" if is_new else "joined"

    return _act(engine, viewer, renderer, account, act)


@router.post("/pause")
def pause(
    engine: Engine,
    viewer: OperatingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Start no more runs of the account."""
    return _act(
        engine,
        viewer,
        renderer,
        account,
        lambda: account_actions.pause(engine, account),
        "paused",
    )


@router.post("/resume")
def resume(
    engine: Engine,
    viewer: OperatingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Resume a paused account, or one in error that its provider accepts again."""

    def act() -> str:
        run_actions.count_request(engine, viewer.user_id)
        account_actions.resume(engine, account, user=viewer.user_id, authorize=viewer.still_valid)
        return "resumed"

    return _act(engine, viewer, renderer, account, act)


@router.post("/check")
def check(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Check with the provider that the credentials still work."""

    def act() -> None:
        with provider_slot(engine, viewer.user_id):
            account_actions.check_account(engine, account)

    return _act(engine, viewer, renderer, account, act, "works")


@router.post("/disconnect")
def disconnect(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Delete the credentials of an account and end its runs; keep its content."""
    return _act(
        engine,
        viewer,
        renderer,
        account,
        lambda: account_disconnect.disconnect_account(engine, account),
        "disconnected",
    )


@router.post("/erase")
def erase(
    engine: Engine,
    viewer: ConnectingViewer,
    renderer: Renderer,
    account: AccountId,
    form: ActionForm,
) -> Response:
    """Erase an account with its content, if the user entered its name.

    The deletion begins after the delay, unless the user wants it now.
    """
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "account", account)
        name = account_queries.accounts.one(conn, "account", account)["name"]
    typed = form.get("name")
    if typed.split() != name.split():
        return render(engine, viewer.principal, renderer, account, wrong_name=typed, status=422)
    if form.get("now"):
        account_erase.erase_account(engine, account)
    elif account_erase.hide_account(engine, account):
        return redirect(f"/accounts/{account}", "hidden")
    return redirect("/accounts", "erased")


def _act(
    engine: Backend,
    viewer: Viewer,
    renderer: Renderer,
    account: UUID,
    act: Callable[[], Any],
    flash: str | None = None,
) -> Response:
    """Perform an action, then show the account's page with the result or the error.

    Without `flash`, the action returns the name of its message.
    """
    with engine.database.connection() as conn:
        authorization.require(conn, viewer.principal, "account", account)
    try:
        result = act()
    except NotFound:
        raise
    except PollingError as error:
        return render(
            engine, viewer.principal, renderer, account, wrong=sentences(error), status=error.status
        )
    return redirect(f"/accounts/{account}", flash or result)
