"""The pages to which a flow may redirect a browser, and the result in their query."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from core.errors import InvalidInput
from core.settings import Settings

OUR_PARAMETERS = ("connect_code", "user_integration_id", "error")
"""Query parameters of the result. `redirect_to` must not have them."""


def with_result(url: str, **result: str) -> str:
    """Return the address of a page with the result of a flow in its query."""
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), *result.items()]
    return urlunsplit(parts._replace(query=urlencode(query)))


def require_redirect(settings: Settings, url: str) -> None:
    """Check the page that gets the result.

    Its own query must not have parameters that a reader could mistake for ours.

    Raises:
      InvalidInput: The page is not allowed, or its query has one of our parameters.
    """
    if not may_redirect(settings, url):
        raise InvalidInput("redirect-not-allowed")
    query = urlsplit(url).query
    # Some readers also separate parameters by semicolons, or write arrays as `error[]`. PHP reads a
    # space or a dot in a name as `_` (https://www.php.net/manual/language.variables.external.php).
    for field, _ in parse_qsl(query.replace(";", "&"), keep_blank_values=True):
        name = field.strip().lower().split("[")[0]
        if {name.split(".")[0], re.sub("[ .]", "_", name)} & set(OUR_PARAMETERS):
            raise InvalidInput("redirect-shadows-result", names=", ".join(OUR_PARAMETERS))


def may_redirect(settings: Settings, url: str) -> bool:
    """Return True if a redirect to this address is allowed.

    The address must have the scheme, host and port of an allowed address, and the same path or a
    path below it.
    """
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        return False
    allowed = [*settings.redirect_urls, *([settings.public_url] if settings.public_url else [])]
    return any(_below(url, base) for base in allowed)


def _below(url: str, allowed: str) -> bool:
    try:
        target, base = urlsplit(url), urlsplit(allowed)
        same = (target.scheme, target.hostname, target.port) == (
            base.scheme,
            base.hostname,
            base.port,
        )
    except ValueError:
        return False
    if (
        not same
        or target.scheme not in ("https", "http")
        or "@" in target.netloc
        or target.fragment
    ):
        return False
    path, segments = base.path.rstrip("/"), re.split(r"/|%2f", target.path, flags=re.IGNORECASE)
    dotted = any(segment.lower().replace("%2e", ".") in (".", "..") for segment in segments)
    return not dotted and (target.path == path or target.path.startswith(f"{path}/"))
