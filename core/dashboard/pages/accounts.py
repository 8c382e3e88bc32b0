"""The list of accounts, and the page of one account."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from core.accounts import store
from core.dashboard import query_filters
from core.dashboard.responses import Renderer
from core.dashboard.session import StatusViewer
from core.db.pool import Conn
from core.ledger import listeners
from core.service import authorization
from core.service.accounts import comparison, daily, oauth_client, partitions, timeline, waiting
from core.service.accounts import listing as account_listing
from core.service.accounts import queries as account_queries
from core.service.accounts.listening import sentence
from core.service.accounts.owed import owed_by
from core.service.backend import Backend
from core.service.fleet import liveness
from core.service.runs import progress
from core.service.runs import queries as run_queries
from core.states import AccountState, RunState
from core.web.dependencies import MAX_ID, NO_NUL, AccountId, Engine

router = APIRouter(prefix="/accounts")

STATES = AccountState.used()
DAYS_SHOWN = 14

RUNS_SHOWN = 10
PARTITIONS_SHOWN = 50

FilterText = Annotated[str, Query(max_length=500, pattern=NO_NUL)]


def _filters(
    status: AccountState | Literal[""] = "",
    domain: Annotated[str, Query(max_length=63, pattern=NO_NUL)] = "",
    user: FilterText = "",
    name: FilterText = "",
    due: account_listing.Due | Literal[""] = "",
) -> dict[str, Any]:
    return {"status": status, "domain": domain, "user": user, "name": name, "due": due}


ListFilters = Annotated[dict[str, Any], Depends(_filters)]
"""The filters of the list. Empty: any value."""

Done = Literal["resumed", "paused", "synced"]
"""The result of an action on selected accounts."""

Count = Annotated[int, Query(ge=0, le=MAX_ID)]


@router.get("")
def account_list(
    engine: Engine,
    viewer: StatusViewer,
    renderer: Renderer,
    chosen: ListFilters,
    after: Annotated[str, Query(max_length=20_000, pattern=NO_NUL)] = "",
    act: Done | None = None,
    done: Count = 0,
    refused: Count = 0,
    more: bool = False,
) -> Response:
    """List accounts, the oldest first. Users see only their own accounts.

    After an action on selected accounts, the page also shows its result.
    """
    filters = chosen | ({} if viewer.is_admin else {"user": ""})
    result = {"act": act, "done": done, "refused": refused, "more": more}

    def load(conn: Conn) -> dict[str, Any]:
        rows, cursor = account_listing.page(
            engine,
            conn,
            user_id=viewer.user_id or filters["user"] or None,
            domain=filters["domain"] or None,
            status=filters["status"] or None,
            name=filters["name"].strip() or None,
            due=filters["due"] or None,
            after=after or None,
            shows_texts=viewer.reads_texts,
        )
        return {
            "rows": rows,
            "cursor": cursor,
            "filters": filters,
            "first": not after,
            "overdue_seconds": liveness.silent_after_seconds(engine.settings),
            "domains": query_filters.domains(engine, filters["domain"]),
            "states": STATES,
            "result": result,
        }

    return renderer.live("accounts.html", load)


@router.get("/{user_integration_id}")
def account_page(
    engine: Engine, viewer: StatusViewer, renderer: Renderer, account: AccountId
) -> Response:
    """Show one account."""
    return render(engine, viewer.principal, renderer, account)


@router.get("/{user_integration_id}/timeline")
def account_timeline(
    engine: Engine, viewer: StatusViewer, renderer: Renderer, account: AccountId
) -> Response:
    """Show the history of one account."""

    def load(conn: Conn) -> dict[str, Any]:
        authorization.require(conn, viewer.principal, "account", account)
        row = authorization.shown(
            viewer.principal, account_queries.accounts.one(conn, "account", account)
        )
        events = timeline.timeline(
            conn,
            engine.query_slots,
            row,
            reader=viewer.principal,
            shows_deletions=viewer.sees_details,
            shows_acts=viewer.reads_audit,
        )
        return {"account": row, "events": events}

    return renderer.live("timeline.html", load)


def render(
    engine: Backend,
    principal: authorization.Principal,
    renderer: Renderer,
    account: UUID,
    *,
    wrong: str | None = None,
    wrong_name: str | None = None,
    status: int = 200,
) -> Response:
    """Render the page of an account.

    Args:
      engine: The backend.
      principal: The owner of the token.
      renderer: The renderer of the response.
      account: The ID of the account.
      wrong: The error of a failed action. Default: no error.
      wrong_name: The name that did not match when the account was to be erased. Default: none.
      status: The HTTP status if there was an error.

    Raises:
      NotFound: The account does not exist, or belongs to another user.
    """

    def load(conn: Conn) -> dict[str, Any]:
        authorization.require(conn, principal, "account", account)
        return _collect(engine, conn, account, principal) | {
            "wrong": wrong,
            "wrong_name": wrong_name,
        }

    if wrong is None and wrong_name is None:
        return renderer.live("account.html", load)
    with engine.database.connection() as conn:
        return renderer.page("account.html", load(conn), status)


def _collect(
    engine: Backend, conn: Conn, account: UUID, principal: authorization.Principal
) -> dict[str, Any]:
    row = account_queries.shown_accounts.one(conn, "account", account)
    stored_account = store.load(conn, account)
    runs = run_queries.runs.page(conn, limit=RUNS_SHOWN, user_integration_id=account)
    open_runs = {
        run["id"]: progress.cached(conn, engine.counts, run["id"])
        for run in runs.rows
        if run["state"] == RunState.RUNNING
    }
    integration = engine.registry.integrations.get(row["integration_domain"])
    compared = comparison.latest(conn, account)
    listening = listeners.of_account(conn, account)
    name = integration.manifest.name if integration is not None else row["integration_domain"]
    return {
        "account": authorization.shown(principal, row),
        "compared": comparison.sentence(compared, name) if compared is not None else None,
        "notice": partitions.notice(conn, account) if principal.reads_texts else None,
        "listening": listening
        and sentence(
            listening,
            row["poll_interval_minutes"],
            in_full=principal.is_admin,
            shows_texts=principal.reads_texts,
        ),
        "public_only": stored_account.public_hosts_only,
        "integration": integration.manifest.name if integration is not None else None,
        "rereads": integration is not None and integration.manifest.reader is not None,
        "takes_credentials": integration is not None
        and bool(integration.credentials_model.model_fields),
        "browser": integration is not None
        and oauth_client.missing_settings(engine.settings, integration) == [],
        "wait": waiting.of_account(engine, conn, stored_account, shows_texts=principal.reads_texts),
        "owed": owed_by(conn, account),
        "next_sync": account_queries.next_sync(row).text,
        "overdue": account in account_listing.overdue_of(conn, engine.settings, [account]),
        "runs": [authorization.shown(principal, run) for run in runs.rows],
        "days": daily.latest(conn, account, DAYS_SHOWN),
        "open": open_runs,
        "more_runs": runs.cursor is not None,
        "parked": account_listing.parked_summary(conn, account),
        "totals": account_queries.shown_totals(conn, account),
        "most_counted": account_queries.MAX_COUNTED_ITEMS,
        "erase_minutes": round(engine.settings.erase_after_minutes),
        "states": account_queries.shown_states.page(
            conn, limit=PARTITIONS_SHOWN, user_integration_id=account, deleted=False
        ),
    }
