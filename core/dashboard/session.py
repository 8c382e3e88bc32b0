"""The signed-in user.

The session cookie holds the token, so revoking the token ends all its sessions.

Forms carry a CSRF token that is derived from the cookie. Before that is checked, a form is refused
if the browser says that another site sent it (https://www.w3.org/TR/fetch-metadata/).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request, Response

from core.service import tokens
from core.service.authorization import Principal
from core.service.backend import Backend
from core.web.dependencies import Engine, RawBody
from core.web.problems import HttpProblem

COOKIE = "polling_session"
SESSION_SECONDS = 12 * 3600
MAX_FIELDS = 2_000


class SignInRequired(Exception):
    """The request has no valid session."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A signed-in user.

    Attributes:
      principal: The owner of the token.
      csrf: The CSRF token of the session.
    """

    principal: Principal
    csrf: str

    @property
    def is_admin(self) -> bool:
        """True if the viewer is an operator."""
        return self.principal.is_admin

    @property
    def user_id(self) -> str | None:
        """The user whose rows the viewer may see; None for an operator, who sees all rows."""
        return self.principal.user_id


def find_viewer(engine: Backend, request: Request) -> Viewer | None:
    """Return the signed-in user; None without a valid session."""
    token = request.cookies.get(COOKIE)
    if not token:
        return None
    with engine.database.connection() as conn:
        principal = tokens.authenticate(conn, token)
    return Viewer(principal, csrf_of(token)) if principal is not None else None


def csrf_of(token: str) -> str:
    """Return the CSRF token of a session."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"csrf", hashlib.sha256).hexdigest()


def require_viewer(request: Request, engine: Engine) -> Viewer:
    """Return the signed-in user.

    Raises:
      SignInRequired: The request has no valid session.
    """
    viewer = find_viewer(engine, request)
    if viewer is None:
        raise SignInRequired
    return viewer


SignedIn = Annotated[Viewer, Depends(require_viewer)]


def require_operator(viewer: SignedIn) -> Viewer:
    """Return the signed-in operator.

    Raises:
      HttpProblem: The viewer is not an operator.
    """
    if not viewer.is_admin:
        raise HttpProblem("operator-only")
    return viewer


Operator = Annotated[Viewer, Depends(require_operator)]


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


def sign_in(engine: Backend, response: Response, token: str, *, secure: bool) -> bool:
    """Set the session cookie; return True if the token is valid."""
    with engine.database.connection() as conn:
        is_valid = tokens.authenticate(conn, token) is not None
    if is_valid:
        response.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_SECONDS,
            path="/",
            secure=secure,
            httponly=True,
            samesite="lax",
        )
    return is_valid


def sign_out(response: Response) -> None:
    """Delete the session cookie of this browser."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")


def local_path(path: str) -> str:
    """Return `path` if it is a path of this site; otherwise `/`."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_local and "\\" not in path else "/"
