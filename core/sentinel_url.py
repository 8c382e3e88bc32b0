"""The URL of a Redis whose master Sentinels name: `redis+sentinel://HOST:26379,HOST:26379/NAME/0`.

The problems that this module reports never repeat a part of the URL: it may be the password.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

SCHEMES = ("redis+sentinel", "rediss+sentinel")

DEFAULT_PORT = 26_379
"""The port of a Sentinel: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/"""

FORM = "use redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/NAME/0, or rediss+sentinel://"
NAME = "it has no name of a master after the hosts; write redis+sentinel://HOST:26379/NAME"
DATABASE = "what follows the name of the master is not the number of a database, such as /0"

OF_SENTINEL = {"sentinel_user": "username", "sentinel_password": "password"}
"""Parameters of the query that only the connections to Sentinels have."""


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """A parsed URL. `repr()` shows no password.

    Attributes:
      sentinels: The (host, port) of each Sentinel.
      name: The name of the master.
      options: The options of connections to Redis.
      sentinel_options: The options of connections to Sentinels.
    """

    sentinels: list[tuple[str, int]]
    name: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]

    def __repr__(self) -> str:
        return f"SentinelUrl(name={self.name!r})"


def is_sentinel(url: str) -> bool:
    """Return True if a URL has one of the schemes of this module."""
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> SentinelUrl:
    """Parse a URL: `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/NAME[/DATABASE]`.

    User and password belong to Redis. `?sentinel_user=…&sentinel_password=…` belong to the
    Sentinels. Other parameters are redis-py's. With `rediss+sentinel://`, all connections use TLS.

    Raises:
      ValueError: The URL is not valid.
    """
    try:
        parts = urlsplit(url)
        hosts = [_address(host) for host in parts.netloc.rpartition("@")[2].split(",")]
        name, _, database = parts.path.strip("/").partition("/")
        query = parse_qsl(parts.query, keep_blank_values=True)
        options = _options(parts, [each for each in query if each[0] not in OF_SENTINEL])
    except ValueError:
        raise ValueError(FORM) from None
    if not name:
        raise ValueError(NAME)
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError(DATABASE)
    tls = {key: value for key, value in options.items() if key.startswith("ssl")}
    own = {OF_SENTINEL[key]: value for key, value in query if key in OF_SENTINEL}
    return SentinelUrl(hosts, unquote(name), options | {"db": int(database or 0)}, tls | own)


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(FORM)
    return parts.hostname, DEFAULT_PORT if parts.port is None else parts.port


def _options(parts: SplitResult, query: list[tuple[str, str]]) -> dict[str, Any]:
    """Return redis-py's options, which it reads from the same URL with one host."""
    from redis.connection import parse_url

    place, at, _ = parts.netloc.rpartition("@")
    scheme = parts.scheme.partition("+")[0]
    options = parse_url(f"{scheme}://{place}{at}host?{urlencode(query)}")  # type: ignore[no-untyped-call]
    tls = {"ssl": True} if scheme == "rediss" else {}
    return {
        key: value for key, value in options.items() if key not in ("host", "connection_class")
    } | tls
