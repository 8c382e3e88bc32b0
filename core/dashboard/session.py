"""The signed-in user.

The cookie holds the token of the sign-in: revoking it ends every session made with it.

Forms carry a value that is derived from the cookie's, which another site can neither read nor
guess; and what a browser says to have come from another site is refused before that
(https://www.w3.org/TR/fetch-metadata/).
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
LASTS_SECONDS = 12 * 3600
MAX_FIELDS = 2_000


class SignInFirst(Exception):
    """Nobody is signed in, or no longer."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who is signed in.

    Attributes:
      csrf: What forms of this session carry.
    """

    principal: Principal
    csrf: str

    @property
    def is_admin(self) -> bool:
        """Whether it is an operator."""
        return self.principal.is_admin

    @property
    def user_id(self) -> str | None:
        """Whose rows it sees; None sees all."""
        return self.principal.user_id


def find_viewer(engine: Backend, request: Request) -> Viewer | None:
    """Who is signed in, if anybody is."""
    token = request.cookies.get(COOKIE)
    if not token:
        return None
    with engine.database.connection() as conn:
        found = tokens.authenticate(conn, token)
    return Viewer(found, csrf_of(token)) if found is not None else None


def csrf_of(token: str) -> str:
    """What a session's forms carry."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"csrf", hashlib.sha256).hexdigest()


def viewer(request: Request, engine: Engine) -> Viewer:
    """Who is signed in.

    Raises:
      SignInFirst: Nobody is.
    """
    found = find_viewer(engine, request)
    if found is None:
        raise SignInFirst
    return found


Signed = Annotated[Viewer, Depends(viewer)]


def operator(who: Signed) -> Viewer:
    """An operator.

    Raises:
      Refused: It is a user.
    """
    if not who.is_admin:
        raise HttpProblem("operator-only")
    return who


Operator = Annotated[Viewer, Depends(operator)]


class Form:
    """The fields of a form, as they were sent."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self.fields = fields

    def get(self, name: str) -> str:
        """A field's last value; empty if it is not there."""
        return next((value for key, value in reversed(self.fields) if key == name), "")

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return [value for key, value in self.fields if key == name]

    def below(self, prefix: str) -> Mapping[str, list[str]]:
        """The values of all fields that begin with this, by the rest of their names."""
        found: dict[str, list[str]] = {}
        for key, value in self.fields:
            if key.startswith(prefix):
                found.setdefault(key.removeprefix(prefix), []).append(value)
        return found


def posted(request: Request, engine: Engine, body: RawBody) -> Form:
    """What a form of ours sent.

    Raises:
      Refused: It comes from another site, or is no form.
    """
    if not _from_here(request, engine.settings.public_url):
        raise HttpProblem("form-from-another-site")
    try:
        return Form(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise HttpProblem("form-invalid") from None


def _from_here(request: Request, public_url: str | None) -> bool:
    """Whether a page of ours sent it, as far as the browser says.

    To a site without TLS it says no more than its Origin.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None or origin is None:
        return site in (None, "same-origin", "none")
    # A proxy may pass another host on, or leave out the port.
    here = [f"//{request.headers.get(name, '')}" for name in ("host", "x-forwarded-host")]
    try:
        return urlsplit(origin).hostname in {
            urlsplit(one).hostname for one in (*here, public_url or "")
        } - {None}
    except ValueError:
        return False


Posted = Annotated[Form, Depends(posted)]


def acted(who: Signed, form: Posted) -> Form:
    """A form that the one who is signed in sent from a page of ours.

    Raises:
      Refused: It was not.
    """
    if not hmac.compare_digest(form.get("csrf").encode(), who.csrf.encode()):
        raise HttpProblem("form-of-another-session")
    return form


Acted = Annotated[Form, Depends(acted)]


def sign_in(engine: Backend, answer: Response, token: str, *, secure: bool) -> bool:
    """Begin a session; returns whether the token is good."""
    with engine.database.connection() as conn:
        good = tokens.authenticate(conn, token) is not None
    if good:
        answer.set_cookie(
            COOKIE,
            token,
            max_age=LASTS_SECONDS,
            path="/",
            secure=secure,
            httponly=True,
            samesite="lax",
        )
    return good


def sign_out(answer: Response) -> None:
    """End it, in this browser."""
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")


def own_path(wanted: str) -> str:
    """A path of this site to go to; the beginning if it is anything else."""
    plain = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if plain and "\\" not in wanted else "/"
