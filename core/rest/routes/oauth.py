"""`/v1/oauth`: connections in a browser."""

from __future__ import annotations

from fastapi import APIRouter

from core.rest.routes import problems
from core.rest.routes.integrations import Domain
from core.rest.routes.user_integrations import owner
from core.rest.schemas.accounts import UserIntegration
from core.rest.schemas.sign_in import Authorization, ConnectCode, NewAuthorization
from core.service import authorization
from core.service.accounts import oauth
from core.service.accounts import queries as account_queries
from core.web.dependencies import Engine
from core.web.permissions import Connector, still_valid
from core.web.provider_slots import provider_slot

router = APIRouter(prefix="/v1/oauth", tags=["oauth"])


@router.post(
    "/{integration_domain}/authorize",
    status_code=201,
    responses=problems(401, 403, 404, 409, 413, 422),
)
def start_authorization(
    engine: Engine,
    principal: Connector,
    domain: Domain,
    new: NewAuthorization,
) -> Authorization:
    """Start a connection in a browser: open the returned `url` in the user's browser.

    The link expires in ten minutes and works once. The provider's consent alone stores nothing. The
    browser then opens `redirect_to` with a `connect_code`, which your backend sends to
    `/v1/oauth/redeem`. Without `redirect_to`, the person confirms on a page that names the account
    and this user.
    """
    if new.user_integration_id is not None:
        with engine.database.connection() as conn:
            authorization.require(conn, principal, "account", new.user_integration_id)
            row = account_queries.accounts.one(conn, "account", new.user_integration_id)
    user = owner(
        principal, new.user_id or (row["user_id"] if new.user_integration_id is not None else None)
    )
    begun = oauth.start(
        engine,
        domain,
        user_id=user,
        account=new.user_integration_id,
        name=new.name,
        config=new.config,
        interval_minutes=new.poll_interval_minutes,
        deletions=new.deletions,
        redirect_to=new.redirect_to,
        public_only=not principal.is_admin,
    )
    return Authorization(url=begun.url, expires_at=begun.expires_at)


@router.post("/redeem", status_code=201, responses=problems(401, 403, 404, 409, 413, 422, 429, 502))
def redeem_connect_code(engine: Engine, principal: Connector, body: ConnectCode) -> UserIntegration:
    """Store the account of a connection, after the browser has brought the `connect_code`.

    Send the user who is signed in to your product in that browser. If the connection was started
    for another user, the response is 403 and nothing is stored: somebody has passed the link on.
    """
    user = owner(principal, body.user_id)
    with provider_slot(engine, user):
        account = oauth.redeem(
            engine, code=body.connect_code, user_id=user, authorize=still_valid(principal)
        )
    with engine.database.connection() as conn:
        row = account_queries.accounts.one(conn, "account", account)
    return UserIntegration.model_validate(row)
