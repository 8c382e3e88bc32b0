"""Permissions of routes: the scopes that allow a request. Each route with a token names one."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from core.db.pool import Conn
from core.scopes import DETAILS, STATUS, Scope
from core.service import tokens
from core.service.authorization import Authorize, Principal
from core.web.dependencies import Authenticated
from core.web.problems import HttpProblem


class Allowed:
    """A dependency that returns the principal of a request that may call the route.

    Args:
      any_of: One of these scopes allows the request.
      operator: True if a user's token is refused, because the route is about all users.
    """

    def __init__(self, *any_of: Scope, operator: bool = False) -> None:
        self.any_of = any_of
        self.operator = operator

    def __call__(self, principal: Authenticated) -> Principal:
        """Return the principal.

        Raises:
          HttpProblem: It lacks the scopes, or it is a user although only operators may call.
        """
        self.check(principal)
        return principal

    def check(self, principal: Principal) -> None:
        """Raise HttpProblem unless the principal may call the route."""
        if self.operator and not principal.is_admin:
            raise HttpProblem("operator-only")
        if not principal.may(*self.any_of):
            raise HttpProblem("scope-missing", scopes=", ".join(self.any_of))


def still_valid(principal: Principal) -> Authorize:
    """Return a function that raises HttpProblem if the token of a request has ended since."""

    def authorize(conn: Conn) -> None:
        if not tokens.hold(conn, principal):
            raise HttpProblem("token-invalid")

    return authorize


TO_SEE_STATUS = Allowed(*STATUS)
TO_SEE_DETAILS = Allowed(*DETAILS)
TO_READ_CONTENT = Allowed(Scope.CONTENT_READ)
TO_CONNECT = Allowed(Scope.ACCOUNTS_CONNECT)
TO_OPERATE = Allowed(Scope.FLEET_OPERATE)
TO_OPERATE_ALL = Allowed(Scope.FLEET_OPERATE, operator=True)
TO_READ_METRICS = Allowed(Scope.METRICS_READ, operator=True)
TO_READ_AUDIT = Allowed(Scope.AUDIT_READ)
TO_MANAGE_TOKENS = Allowed(Scope.TOKENS_ADMIN)

StatusReader = Annotated[Principal, Depends(TO_SEE_STATUS)]
DetailReader = Annotated[Principal, Depends(TO_SEE_DETAILS)]
ContentReader = Annotated[Principal, Depends(TO_READ_CONTENT)]
Connector = Annotated[Principal, Depends(TO_CONNECT)]
FleetOperator = Annotated[Principal, Depends(TO_OPERATE)]
FleetAdmin = Annotated[Principal, Depends(TO_OPERATE_ALL)]
MetricsReader = Annotated[Principal, Depends(TO_READ_METRICS)]
AuditReader = Annotated[Principal, Depends(TO_READ_AUDIT)]
TokenAdmin = Annotated[Principal, Depends(TO_MANAGE_TOKENS)]
