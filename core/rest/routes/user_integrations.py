"""`/v1/user-integrations`: connected accounts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from core.accounts import store
from core.errors import InvalidInput
from core.ledger import listeners
from core.ledger.looks import wait_until_seen
from core.rest.routes import problems
from core.rest.routes.integrations import shown_rehearsal
from core.rest.schemas.accounts import (
    Compared,
    Identity,
    Listening,
    NewUserIntegration,
    State,
    Totals,
    UserIntegration,
    UserIntegrationChanges,
    UserIntegrationFilter,
    UserIntegrationInFull,
)
from core.rest.schemas.common import BulkAction, Page, bulk_action
from core.rest.schemas.runs import Owed, Requested, Run, Wait, Why
from core.results.text import sanitize
from core.scopes import DETAILS
from core.service import authorization
from core.service.accounts import actions as account_actions
from core.service.accounts import bulk, comparison, partitions, waiting
from core.service.accounts import disconnect as account_disconnect
from core.service.accounts import erase as account_erase
from core.service.accounts import listing as account_listing
from core.service.accounts import queries as account_queries
from core.service.accounts.listening import state_of
from core.service.accounts.owed import owed_by
from core.service.accounts.revision import revision, unchanged
from core.service.authorization import Authorize, Principal, always
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.service.runs import queries as run_queries
from core.states import AccountState, RunState
from core.web.dependencies import (
    AccountId,
    After,
    DomainFilter,
    Engine,
    Limit,
    UserFilter,
    visible_user,
)
from core.web.permissions import (
    Connector,
    DetailReader,
    FleetOperator,
    StatusReader,
    still_valid,
)
from core.web.preconditions import KnownRevisions, set_revision
from core.web.provider_slots import provider_slot
from core.web.timestamps import Timestamp

PREFIX = "/v1/user-integrations"

router = APIRouter(prefix=PREFIX, tags=["user integrations"])


def owner(principal: Principal, user_id: str | None) -> str:
    """Return the user who will own a new account.

    Raises:
      HttpProblem: A user's token names another user.
      InvalidInput: An operator's token names no user.
    """
    user = visible_user(principal, user_id)
    if user is None:
        raise InvalidInput("user-id-missing")
    return user


@router.get("", responses=problems(401, 403, 422))
def list_user_integrations(
    engine: Engine,
    principal: StatusReader,
    user_id: UserFilter = None,
    domain: DomainFilter = None,
    sync_status: Annotated[
        AccountState | None, Query(description="Return only accounts in this state")
    ] = None,
    due_before: Annotated[
        Timestamp | None,
        Query(description="Return only accounts whose next run is due by this time"),
    ] = None,
    waiting: Annotated[
        account_listing.Due | None,
        Query(
            description="Return only accounts that are due `now` or overdue (`over`), or that have"
            " such tasks, or such a limit"
        ),
    ] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[UserIntegration]:
    """List accounts, the oldest first."""
    filters: dict[str, Any] = {
        "limit": limit,
        "after": after,
        "user_id": visible_user(principal, user_id),
        "integration_domain": domain,
        "sync_status": sync_status,
        "due_before": due_before,
    }
    with engine.database.connection() as conn:
        page = (
            account_queries.accounts.page(conn, **filters)
            if waiting is None
            else account_listing.waiting(conn, engine.settings, waiting, **filters)
        )
    rows = [authorization.shown(principal, row) for row in page.rows]
    return Page[UserIntegration].model_validate({"items": rows, "cursor": page.cursor})


@router.post(
    "",
    status_code=201,
    responses=problems(401, 403, 404, 409, 413, 422, 429, 502)
    | {
        200: {
            "model": UserIntegration,
            "description": (
                "The account was connected before. Its config and credentials were replaced"
            ),
        },
        201: {"links": {
            name: {
                "operationId": operation,
                "parameters": {"user_integration_id": "$response.body#/id"},
            }
            for name, operation in (
                ("get", "get_user_integration"), ("pause", "pause_user_integration"),
                ("resume", "resume_user_integration"), ("sync", "sync_user_integration"),
                ("runs", "list_runs"), ("state", "get_state"), ("check", "check_user_integration"),
                ("delete", "delete_user_integration"),
            )
        }},
    },
)  # fmt: skip
def create_user_integration(
    response: Response, engine: Engine, principal: Connector, new: NewUserIntegration
) -> UserIntegration:
    """Check an account with its provider and store it. Its first run is due immediately.

    An account that the user has connected before is not duplicated. Its config and credentials are
    replaced, and it resumes.
    """
    user = owner(principal, new.user_id)
    with provider_slot(engine, principal.user_id):
        connected = account_actions.connect(
            engine,
            new.integration_domain,
            config=new.config,
            credentials=new.credentials,
            user_id=user,
            name=new.name,
            interval_minutes=new.poll_interval_minutes,
            deletions=new.deletions,
            public_only=not principal.is_admin,
            authorize=still_valid(principal),
        )
    engine.wake()
    response.status_code = 201 if connected.is_new else 200
    response.headers["Location"] = f"{PREFIX}/{connected.id}"
    return _changed(engine, connected.id, response).model_copy(
        update={
            "notice": sanitize(connected.identity.notice),
            "rehearsal": shown_rehearsal(connected.rehearsal)
            if connected.rehearsal or connected.rehearsal.bound
            else None,
        }
    )


@router.post("/pause", responses=problems(401, 413, 422))
def pause_user_integrations(
    engine: Engine, principal: FleetOperator, body: UserIntegrationFilter, after: After = None
) -> BulkAction:
    """Pause all matching accounts.

    The request processes at most 500 accounts, for at most 10 seconds. To continue, pass its
    `cursor` as `after`.
    """
    result = bulk.apply_to_all(
        engine,
        lambda account: account_actions.pause(engine, account, wait=False),
        _filter(principal, body),
        after,
    )
    wait_until_seen(engine.database)
    return bulk_action(result)


@router.post("/resume", responses=problems(401, 413, 422, 429))
def resume_user_integrations(
    engine: Engine, principal: FleetOperator, body: UserIntegrationFilter, after: After = None
) -> BulkAction:
    """Resume all matching accounts. The bounds are those of pausing them.

    Accounts in error are checked with their providers first, and resume if these accept them.
    """

    def resume(id: UUID) -> None:
        run_actions.count_request(engine, principal.user_id)
        account_actions.resume(engine, id, user=principal.user_id, authorize=still_valid(principal))

    return bulk_action(bulk.apply_to_all(engine, resume, _filter(principal, body), after))


@router.post("/check", responses=problems(401, 413, 422, 429, 503))
def check_user_integrations(
    engine: Engine, principal: Connector, body: UserIntegrationFilter, after: After = None
) -> BulkAction:
    """Check with the providers that the credentials of all matching accounts still work.

    The bounds are those of pausing them. `refused` is the number of accounts that failed the check.
    """

    def check(id: UUID) -> None:
        with provider_slot(engine, principal.user_id):
            account_actions.check_account(engine, id)

    return bulk_action(bulk.apply_to_all(engine, check, _filter(principal, body), after))


@router.post("/disconnect", responses=problems(401, 413, 422))
def disconnect_user_integrations(
    engine: Engine, principal: Connector, body: UserIntegrationFilter, after: After = None
) -> BulkAction:
    """Disconnect all matching accounts: delete their credentials, and keep their content.

    The bounds are those of pausing them.
    """
    authorize = still_valid(principal)
    result = bulk.apply_to_all(
        engine,
        lambda account: account_disconnect.disconnect_account(
            engine, account, authorize=authorize, wait=False
        ),
        _filter(principal, body),
        after,
    )
    wait_until_seen(engine.database)
    return bulk_action(result)


@router.post("/resync", responses=problems(401, 413, 422, 429))
def resync_user_integrations(
    engine: Engine, principal: FleetOperator, body: UserIntegrationFilter, after: After = None
) -> BulkAction:
    """Delete all cursors of each matching account, and start a run that lists everything again.

    The bounds are those of pausing them.
    """

    def resync(id: UUID) -> None:
        run_actions.count_request(engine, principal.user_id)
        run_actions.resync(engine, id)

    return bulk_action(bulk.apply_to_all(engine, resync, _filter(principal, body), after))


@router.post("/sync", responses=problems(401, 413, 422, 429))
def sync_user_integrations(
    engine: Engine, principal: FleetOperator, body: UserIntegrationFilter, after: After = None
) -> BulkAction:
    """Start a run of each matching account, unless one is open.

    The bounds are those of pausing them.
    """

    def sync(id: UUID) -> None:
        run_actions.count_request(engine, principal.user_id)
        run_actions.sync(engine, id)

    return bulk_action(bulk.apply_to_all(engine, sync, _filter(principal, body), after))


def _filter(principal: Principal, body: UserIntegrationFilter) -> bulk.AccountFilter:
    if not body.model_dump(exclude_none=True):
        raise InvalidInput("accounts-not-selected")
    return bulk.AccountFilter(
        user_id=visible_user(principal, body.user_id),
        integration_domain=body.integration_domain,
        sync_status=body.sync_status,
    )


@router.get("/{user_integration_id}", responses=problems(401, 404, 422))
def get_user_integration(
    response: Response,
    engine: Engine,
    principal: StatusReader,
    account: AccountId,
    totals: Annotated[
        bool, Query(description="Include totals. Counting a large account is slow")
    ] = False,
) -> UserIntegrationInFull:
    """Return an account with the reasons why it waits.

    To change exactly this account, send the `ETag` of the response as `If-Match`.
    """
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "account", account)
        set_revision(response, revision(conn, account))
        row = account_queries.accounts.one(conn, "account", account)
        wait = waiting.of_account(
            engine, conn, store.load(conn, account), shows_texts=principal.reads_texts
        )
        counted = account_queries.account_totals(conn, account) if totals else None
        owed = owed_by(conn, account)
        compared = comparison.latest(conn, account)
        row |= {"notice": partitions.notice(conn, account)}
        listening = listeners.of_account(conn, account)
    return UserIntegrationInFull(
        **UserIntegration.model_validate(authorization.shown(principal, row)).model_dump(),
        listener=listening
        and Listening(
            state=state_of(listening),
            since=listening.connected_at if listening.connected else listening.down_at,
            error=listening.reason(in_full=principal.is_admin) if principal.reads_texts else None,
            event_at=listening.event_at,
        ),
        owed=Owed(tasks=owed.tasks, since=owed.since),
        complete_as_of=owed.complete_as_of,
        comparison=Compared(at_source=compared.at_source, kept=compared.kept, at=compared.at)
        if compared is not None
        else None,
        waits=Wait.all_of(wait),
        why=Why.of(wait),
        totals=Totals.model_validate(counted if principal.may(*DETAILS) else counted | {"held": []})
        if counted
        else None,
    )


@router.patch("/{user_integration_id}", responses=problems(401, 404, 409, 412, 413, 422, 429, 502))
def change_user_integration(
    response: Response,
    engine: Engine,
    principal: Connector,
    account: AccountId,
    known: KnownRevisions,
    changes: UserIntegrationChanges,
) -> UserIntegration:
    """Change the name, interval, treatment of deletions, config or credentials of an account.

    A new config and new credentials are checked with the provider first.
    """
    public_only, authorize = not principal.is_admin, still_valid(principal)
    if_known = unchanged(account, known, authorize)
    _require(engine, principal, account, if_known)
    checked = changes.config is not None or changes.credentials is not None
    with provider_slot(engine, principal.user_id) if checked else nullcontext():
        if changes.config is None and changes.credentials is not None:
            account_actions.reconnect(
                engine,
                account,
                credentials=changes.credentials,
                public_only=public_only,
                authorize=if_known,
            )
            if_known = authorize  # this request has changed the account
        account_actions.configure(
            engine,
            account,
            config=changes.config,
            credentials=changes.credentials if changes.config is not None else None,
            name=changes.name,
            interval_minutes=changes.poll_interval_minutes,
            deletions=changes.deletions,
            public_only=public_only,
            authorize=if_known,
        )
    return _changed(engine, account, response)


@router.delete(
    "/{user_integration_id}",
    status_code=204,
    response_description="The account is disconnected, hidden or deleted",
    responses=problems(401, 404, 409, 412, 422),
)
def delete_user_integration(
    engine: Engine,
    principal: Connector,
    account: AccountId,
    known: KnownRevisions,
    content: Annotated[
        Literal["keep", "delete"],
        Query(
            description=(
                "`keep`: delete the credentials, and keep the account and its content. `delete`:"
                " delete the account with all its data, after a delay"
            )
        ),
    ],
    now: Annotated[
        bool, Query(description="With `content=delete`: delete it immediately, without the delay")
    ] = False,
) -> Response:
    """Disconnect an account, or delete it. Its credentials are deleted immediately.

    With `content=delete`, the account is `erasing`: nothing of it is shown any more except the
    account itself. It is deleted `POLLING_ERASE_AFTER_MINUTES` later. Until then, send new
    credentials to restore it. An account that is already `erasing` cannot keep its content in
    another way.

    After the response, no worker starts a task of the account. This may take up to 3 seconds.
    """
    _require(engine, principal, account)
    authorize = unchanged(account, known, still_valid(principal))
    if content == "delete" and now:
        account_erase.erase_account(engine, account, authorize=authorize)
    elif content == "delete":
        account_erase.hide_account(engine, account, authorize=authorize)
    else:
        account_disconnect.disconnect_account(engine, account, authorize=authorize)
    return Response(status_code=204)


@router.post("/{user_integration_id}/pause", responses=problems(401, 404, 409, 422))
def pause_user_integration(
    engine: Engine, principal: FleetOperator, account: AccountId
) -> UserIntegration:
    """Pause an account. Tasks that are already running finish, and no more tasks or runs start.

    After the response, no worker starts a task of the account. This may take up to 3 seconds.
    """
    _require(engine, principal, account)
    account_actions.pause(engine, account)
    return _read(engine, account)


@router.post("/{user_integration_id}/resume", responses=problems(401, 404, 409, 422, 429, 502))
def resume_user_integration(
    engine: Engine, principal: FleetOperator, account: AccountId
) -> UserIntegration:
    """Resume a paused account where it stopped.

    The engine checks an account in error with its provider first. It resumes if the provider
    accepts it.
    """
    _require(engine, principal, account)
    run_actions.count_request(engine, principal.user_id)
    account_actions.resume(
        engine, account, user=principal.user_id, authorize=still_valid(principal)
    )
    return _read(engine, account)


@router.post("/{user_integration_id}/check", responses=problems(401, 404, 409, 422, 429, 502))
def check_user_integration(engine: Engine, principal: Connector, account: AccountId) -> Identity:
    """Check with the provider that the credentials still work."""
    _require(engine, principal, account)
    with provider_slot(engine, principal.user_id):
        identity = account_actions.check_account(engine, account)
    return Identity(id=identity.id, name=identity.name)


_REQUESTED = problems(401, 404, 409, 413, 422, 429) | {
    200: {"model": Requested, "description": "A run was already open"},
    201: {"links": {
        name: {"operationId": operation, "parameters": {"run_id": "$response.body#/run_id"}}
        for name, operation in (
            ("get", "get_run"), ("tasks", "list_tasks"), ("cancel", "cancel_run"),
        )
    }},
}  # fmt: skip


@router.post("/{user_integration_id}/sync", status_code=201, responses=_REQUESTED)
def sync_user_integration(
    response: Response, engine: Engine, principal: FleetOperator, account: AccountId
) -> Requested:
    """Start a run now, or return the open run."""
    return _requested(response, engine, principal, account, run_actions.sync)


@router.post("/{user_integration_id}/resync", status_code=201, responses=_REQUESTED)
def resync_user_integration(
    response: Response, engine: Engine, principal: FleetOperator, account: AccountId
) -> Requested:
    """Delete all cursors and start a run that lists everything again.

    If a run is open, the response contains that run, and the resync starts after it.
    """
    return _requested(response, engine, principal, account, run_actions.resync)


@router.post("/{user_integration_id}/reread", status_code=201, responses=_REQUESTED)
def reread_user_integration(
    response: Response, engine: Engine, principal: FleetOperator, account: AccountId
) -> Requested:
    """Read the stored items of an account again, without its provider.

    The engine does this automatically after an upgrade to a plugin version that extracts more.
    Items with the same result do not change. The reread is part of the account's backfill run. If
    the same reread is open, the response contains its run.
    """
    return _requested(response, engine, principal, account, run_actions.reread)


def _requested(
    response: Response,
    engine: Backend,
    principal: Principal,
    account: UUID,
    ask: Callable[[Backend, UUID], tuple[UUID, bool]],
) -> Requested:
    _require(engine, principal, account)
    run_actions.count_request(engine, principal.user_id)
    run, new = ask(engine, account)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/runs/{run}"
    return Requested(run_id=run, new=new)


@router.get("/{user_integration_id}/runs", responses=problems(401, 404, 422))
def list_runs(
    engine: Engine,
    principal: StatusReader,
    account: AccountId,
    state: Annotated[RunState | None, Query(description="Return only runs in this state")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[Run]:
    """List the runs of an account, the newest first."""
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "account", account)
        page = run_queries.runs.page(
            conn, limit=limit, after=after, user_integration_id=account, state=state
        )
    rows = [authorization.shown(principal, row) for row in page.rows]
    return Page[Run].model_validate({"items": rows, "cursor": page.cursor})


@router.get("/{user_integration_id}/state", responses=problems(401, 404, 422))
def get_state(
    engine: Engine,
    principal: DetailReader,
    account: AccountId,
    limit: Limit = 50,
    after: After = None,
) -> Page[State]:
    """List the plugin's state for an account, by partition."""
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "account", account)
        page = account_queries.states.page(
            conn, limit=limit, after=after, user_integration_id=account, deleted=False
        )
    return Page[State].model_validate({"items": page.rows, "cursor": page.cursor})


def _require(
    engine: Backend, principal: Principal, account: UUID, authorize: Authorize = always
) -> None:
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "account", account)
        authorize(conn)


def _changed(engine: Backend, account: UUID, response: Response) -> UserIntegration:
    """Return an account that this request has changed, and name its new revision."""
    with engine.database.connection() as conn:
        set_revision(response, revision(conn, account))
    return _read(engine, account)


def _read(engine: Backend, account: UUID) -> UserIntegration:
    with engine.database.connection() as conn:
        row: dict[str, Any] = account_queries.accounts.one(conn, "account", account)
    return UserIntegration.model_validate(row)
