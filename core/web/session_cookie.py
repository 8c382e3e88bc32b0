"""The cookie that holds the id of a session.

Over HTTPS its name begins with the prefix `__Host-`
(https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes). A
browser accepts such a cookie from this host only, and over HTTPS only. A sibling subdomain can
therefore not plant a session. Over plain HTTP, a session is possible at a loopback address
alone, with a plain name. A server with an HTTPS address never accepts that name.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request, Response

from core.public_addresses import is_loopback_name
from core.service import sessions

NAME = "polling_session"
HOST_NAME = f"__Host-{NAME}"

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
"""Headers of a proxy: the browser's own address is not the one in `Host`."""


def read(request: Request, public_url: str | None) -> str | None:
    """Return the id of the request's session; None without one."""
    id = request.cookies.get(HOST_NAME)
    if id is None and is_loopback(request, public_url):
        id = request.cookies.get(NAME)
    return id or None


def is_allowed(request: Request, public_url: str | None) -> bool:
    """Return True if the browser uses HTTPS or a loopback address, so that the cookie is safe."""
    return is_https(request, public_url) or is_loopback(request, public_url)


def write(request: Request, response: Response, id: str, public_url: str | None) -> None:
    """Set the cookie."""
    name = HOST_NAME if is_https(request, public_url) else NAME
    _set(response, name, id, sessions.HOURS * 3600)


def delete(response: Response) -> None:
    """Delete the cookie of this browser, under both names."""
    for name in (HOST_NAME, NAME):
        _set(response, name, "", 0)


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=name == HOST_NAME,
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
