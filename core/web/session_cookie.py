"""The cookie that holds the id of a session.

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
HOST_NAME = f"__Host-{NAME}"

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
"""Headers of a proxy: the browser's own address is not the one in `Host`."""


def read(request: Request, public_url: str | None) -> str | None:
    """Return the id of the request's session; None without one."""
    cookies = list(_cookies(request))
    name = HOST_NAME
    if is_loopback(request, public_url) and HOST_NAME not in dict(cookies):
        name = NAME
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
