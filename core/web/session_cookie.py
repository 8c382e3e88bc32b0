"""The cookie that holds the id of a session, and the one of a sign-in that has begun.

Over HTTPS its name begins with the prefix `__Host-`
(https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes). A
browser accepts such a cookie from this host only, and over HTTPS only. A sibling subdomain can
therefore not plant a session. Over plain HTTP, a session is possible at a loopback address
alone, with a plain name. A server with an HTTPS address never accepts that name.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from fastapi import Request, Response

from core.public_addresses import is_loopback_name
from core.service import sessions

NAME = "polling_session"
SIGN_IN = "polling_sign_in"
"""The cookie of a sign-in that continues when the identity provider redirects the browser here."""

PREFIX = "__Host-"
HOST_NAME = f"{PREFIX}{NAME}"

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
"""Headers of a proxy: the browser's own address is not the one in `Host`."""


def read(request: Request, public_url: str | None, name: str = NAME) -> str | None:
    """Return the value of a cookie, such as the id of the session; None without one."""
    cookies = list(_cookies(request))
    if not is_loopback(request, public_url) or PREFIX + name in dict(cookies):
        name = PREFIX + name
    ids = {id for key, id in cookies if key == name}
    return ids.pop() or None if len(ids) == 1 else None


def _cookies(request: Request) -> Iterator[tuple[str, str]]:
    """Yield the names and values of all cookies, as the browser stores them.

    Starlette removes every character around a name that Python calls a space, and keeps the last of
    several cookies. A sibling subdomain may set a cookie whose name is the byte 0xA0 and our name:
    for the browser, this name has no prefix (RFC 6265bis, sections 5.7 and 8.6).
    """
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.strip(" \t").partition("=")
            yield name, value


def is_allowed(request: Request, public_url: str | None) -> bool:
    """Return True if the browser uses HTTPS or a loopback address, so that the cookie is safe."""
    return is_https(request, public_url) or is_loopback(request, public_url)


def write(
    request: Request,
    response: Response,
    value: str,
    public_url: str | None,
    name: str = NAME,
    minutes: int = sessions.HOURS * 60,
) -> None:
    """Set a cookie: by default, that of the session."""
    prefix = PREFIX if is_https(request, public_url) else ""
    _set(response, prefix + name, value, minutes * 60)


def delete(response: Response, name: str = NAME) -> None:
    """Delete a cookie of this browser, under both names: by default, that of the session."""
    for prefix in (PREFIX, ""):
        _set(response, prefix + name, "", 0)


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=name.startswith(PREFIX),
        httponly=True,
        samesite="lax",
    )


def is_https(request: Request, public_url: str | None) -> bool:
    """Return True if the browser uses HTTPS.

    If a proxy terminates TLS, only the settings and the browser's `Origin` show it.
    """
    urls = (public_url, str(request.url), request.headers.get("origin"))
    return any(url is not None and url.lower().startswith("https:") for url in urls)


def is_loopback(request: Request, public_url: str | None) -> bool:
    """Return True if the browser uses plain HTTP, at a loopback address of this machine."""
    if is_https(request, public_url) or any(name in request.headers for name in FORWARDED):
        return False
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    return is_loopback_name(host)
