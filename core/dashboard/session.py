"""The signed-in user, and the forms of the dashboard.

The session is in the database; a cookie names it (`core.web.session_cookie`).

Forms carry a CSRF token that is derived from the session. Before that is checked, a form is refused
if the browser says that another site sent it (https://www.w3.org/TR/fetch-metadata/).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from core.db.pool import Conn
from core.service import sessions
from core.service.authorization import Principal
from core.service.backend import Backend
from core.states import Channel
from core.web import permissions, session_cookie
from core.web.dependencies import Engine, RawBody, act_as
from core.web.permissions import Allowed
from core.web.problems import HttpProblem
from core.web.request_rates import caller_of

MAX_FIELDS = 2_000


class SignInRequired(Exception):
    """The request has no valid session."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A signed-in user.

    Attributes:
      session: The session of the browser.
    """

    session: sessions.Session

    @property
    def principal(self) -> Principal:
        """The person who opened the session, or the owner of the token that did."""
        return self.session.principal

    def still_valid(self, conn: Conn) -> None:
        """Raise SignInRequired if the session has ended since the request began."""
        if not sessions.hold(conn, self.session):
            raise SignInRequired

    @property
    def csrf(self) -> str:
        """The CSRF token of the session."""
        return self.session.csrf

    @property
    def is_admin(self) -> bool:
        """True if the viewer is an operator."""
        return self.principal.is_admin

    @property
    def sees_status(self) -> bool:
        """True if the viewer may see the states of accounts and runs."""
        return self.principal.may(*permissions.TO_SEE_STATUS.any_of)

    @property
    def sees_details(self) -> bool:
        """True if the viewer may see tasks and held deletions."""
        return self.principal.may(*permissions.TO_SEE_DETAILS.any_of)

    @property
    def reads_texts(self) -> bool:
        """True if the viewer may read configs and the texts of errors."""
        return self.principal.reads_texts

    @property
    def reads_content(self) -> bool:
        """True if the viewer may read content."""
        return self.principal.may(*permissions.TO_READ_CONTENT.any_of)

    @property
    def connects(self) -> bool:
        """True if the viewer may connect and change accounts."""
        return self.principal.may(*permissions.TO_CONNECT.any_of)

    @property
    def operates(self) -> bool:
        """True if the viewer may start, stop and retry work."""
        return self.principal.may(*permissions.TO_OPERATE.any_of)

    @property
    def reads_audit(self) -> bool:
        """True if the viewer may read the audit trail."""
        return self.principal.may(*permissions.TO_READ_AUDIT.any_of)

    @property
    def manages_tokens(self) -> bool:
        """True if the viewer may create and revoke tokens."""
        return self.principal.may(*permissions.TO_MANAGE_TOKENS.any_of)

    @property
    def name(self) -> str | None:
        """The name of a person or of a user; None for an operator with a token."""
        return self.principal.name or self.principal.user_id

    @property
    def user_id(self) -> str | None:
        """The user whose rows the viewer may see; None for an operator, who sees all rows."""
        return self.principal.user_id


def find_viewer(engine: Backend, request: Request) -> Viewer | None:
    """Return the signed-in user; None without a valid session."""
    id = session_cookie.read(request, engine.settings.public_url)
    if id is None:
        return None
    with engine.database.connection() as conn:
        session = sessions.find_session(conn, id, engine.settings.oidc_issuer)
    if session is None:
        return None
    act_as(Channel.DASHBOARD, session.principal, request)
    return Viewer(session)


async def require_viewer(request: Request, engine: Engine) -> Viewer:
    """Return the signed-in user.

    Raises:
      SignInRequired: The request has no valid session.
      HttpProblem: The user sends too many requests.
    """
    viewer, caller = await run_in_threadpool(find_viewer, engine, request), caller_of(request)
    if viewer is not None and caller is not None and await caller.authenticated(viewer.principal):
        viewer = await run_in_threadpool(find_viewer, engine, request)
    if viewer is None:
        if caller is not None:
            caller.rejected()
        raise SignInRequired
    act_as(Channel.DASHBOARD, viewer.principal, request)  # the thread above has its own context
    return viewer


SignedIn = Annotated[Viewer, Depends(require_viewer)]


class _AllowedViewer:
    """A dependency that returns the signed-in user, if a route of the API would allow the same.

    Args:
      allowed: The permission that the page or the action needs.
    """

    def __init__(self, allowed: Allowed) -> None:
        self.allowed = allowed

    def __call__(self, viewer: SignedIn) -> Viewer:
        """Return the signed-in user.

        Raises:
          HttpProblem: The session lacks the permission.
        """
        self.allowed.check(viewer.principal)
        return viewer


StatusViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_SEE_STATUS))]
DetailViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_SEE_DETAILS))]
ContentViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_READ_CONTENT))]
ConnectingViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_CONNECT))]
OperatingViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_OPERATE))]
FleetOperatingViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_OPERATE_ALL))]
AuditViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_READ_AUDIT))]
TokenViewer = Annotated[Viewer, Depends(_AllowedViewer(permissions.TO_MANAGE_TOKENS))]


class Form:
    """The fields of a submitted form."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self.fields = fields

    def get(self, name: str) -> str:
        """Return the last value of a field; empty if the field is missing."""
        return next((value for key, value in reversed(self.fields) if key == name), "")

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for key, value in self.fields if key == name]

    def below(self, prefix: str) -> Mapping[str, list[str]]:
        """Return the values of all fields with this prefix, by the rest of their names."""
        values: dict[str, list[str]] = {}
        for key, value in self.fields:
            if key.startswith(prefix):
                values.setdefault(key.removeprefix(prefix), []).append(value)
        return values


def posted_form(request: Request, engine: Engine, body: RawBody) -> Form:
    """Return the form in the body of a request.

    Raises:
      HttpProblem: Another site sent it, or the body is not a form.
    """
    if not _is_same_origin(request, engine.settings.public_url):
        raise HttpProblem("form-from-another-site")
    try:
        return Form(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise HttpProblem("form-invalid") from None


def _is_same_origin(request: Request, public_url: str | None) -> bool:
    """Return True if the browser does not say that another site sent the request.

    Without TLS, a browser sends the header `Origin` at most.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None or origin is None:
        return site in (None, "same-origin", "none")
    # A proxy may forward another host, or omit the port.
    own_hosts = [f"//{request.headers.get(name, '')}" for name in ("host", "x-forwarded-host")]
    try:
        return urlsplit(origin).hostname in {
            urlsplit(host).hostname for host in (*own_hosts, public_url or "")
        } - {None}
    except ValueError:
        return False


PostedForm = Annotated[Form, Depends(posted_form)]


def action_form(viewer: SignedIn, form: PostedForm) -> Form:
    """Return the form of an action after checking its CSRF token.

    Raises:
      HttpProblem: The CSRF token does not match the session.
    """
    if not hmac.compare_digest(form.get("csrf").encode(), viewer.csrf.encode()):
        raise HttpProblem("form-of-another-session")
    return form


ActionForm = Annotated[Form, Depends(action_form)]


def local_path(path: str) -> str:
    """Return `path` if it is a path of this site; otherwise `/`."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_local and "\\" not in path else "/"
