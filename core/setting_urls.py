"""The URLs of servers in the settings: parsed before anyone connects, so that no error shows them.

libpq and other parsers quote the part of a URL that they cannot read, which may be the password.
The problems that this module reports never repeat a part of the URL.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from core import sentinel_url

BLANK = "it is blank; remove it to use an embedded server"
WHITESPACE = "it contains a space or a line break; write a space as %20"
PERCENT = "it contains a % that is not the beginning of a code such as %20; write it as %25"
AT = "it contains a second @; write an @ of the password as %40"
SLASH = "it contains an @ after the first /; write a / of the password as %2F"
PORT = "its port is not a number from 1 to 65535; write : and / of the password as %3A and %2F"
POSTGRES = "use postgresql://USER:PASSWORD@HOST/DATABASE"
REDIS = "use redis://, rediss://, unix:// or redis+sentinel://"
BLOBS = "use a directory, s3://, gs:// or az://"
CREDENTIALS = (
    "it contains a password; set the variables of the store instead, such as AWS_SECRET_ACCESS_KEY"
)

MAX_PORT = 65_535
BUCKETS = ("abfs", "abfss", "adl", "az", "azure", "file", "gs", "http", "https", "s3", "s3a")
"""The schemes of the blob store."""

_SCHEME = re.compile(r"([a-z][a-z0-9.-]*)(?:\+[a-z0-9_]+)?://(.*)", re.IGNORECASE | re.DOTALL)
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def database_url(url: str) -> str:
    """Check a URL of PostgreSQL, or a connection string of libpq (`host=… dbname=…`).

    Returns:
      The URL for libpq: without the driver that SQLAlchemy's form names (`postgresql+psycopg://`).

    Raises:
      ValueError: The URL is not valid. The text names the problem, and no part of the URL.
    """
    url = _stripped(url)
    match = _SCHEME.fullmatch(url)
    if match is not None:
        if match[1].lower() not in ("postgresql", "postgres"):
            raise ValueError(POSTGRES)
        _check_characters(url)
        _check_authority(match[2])
        url = f"postgresql://{match[2]}"
    _check_with_libpq(url)
    return url


def redis_url(url: str) -> str:
    """Check a URL of Redis or Valkey.

    Raises:
      ValueError: The URL is not valid. The text names the problem, and no part of the URL.
    """
    url = _stripped(url)
    scheme, _, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "unix", *sentinel_url.SCHEMES):
        raise ValueError(REDIS)
    _check_characters(url)
    if sentinel_url.is_sentinel(url):
        _check_authority(rest)
        sentinel_url.parse(url)
        return url
    if scheme != "unix":
        _check_path(rest)
        _check_port(rest.partition("/")[0].rpartition("@")[2].partition("?")[0])
    _check_with_redis(url)
    return url


def blob_url(url: str) -> str | None:
    """Check the URL of the blob store. A text without a scheme is a directory; None if it is blank.

    Raises:
      ValueError: The URL is not valid, or contains a password.
    """
    url = url.strip()
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return url or None
    if scheme not in BUCKETS:
        raise ValueError(BLOBS)
    _check_characters(url)
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise ValueError(CREDENTIALS)
    return url


def _stripped(url: str) -> str:
    if not url.strip():
        raise ValueError(BLANK)
    return url.strip()


def _check_characters(url: str) -> None:
    if re.search(r"\s", url):
        raise ValueError(WHITESPACE)
    if _BARE_PERCENT.search(url):
        raise ValueError(PERCENT)


def _check_authority(rest: str) -> None:
    """Check user, password, hosts and ports as libpq splits them: at the first `@`, `/` and `,`."""
    authority = rest.partition("/")[0]
    if "@" not in authority:
        authority = authority.partition("?")[0]
    if authority.count("@") > 1:
        raise ValueError(AT)
    _check_path(rest)
    for host in authority.rpartition("@")[2].partition("?")[0].split(","):
        _check_port(host)


def _check_path(rest: str) -> None:
    authority, _, path = rest.partition("/")
    # Without an @ in front of it, the path begins within the password. A query may contain an @.
    if "@" in path.partition("?")[0] or ("@" in path and "@" not in authority and ":" in authority):
        raise ValueError(SLASH)


def _check_port(host: str) -> None:
    port = host.rpartition("]")[2].partition(":")[2]
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
        raise ValueError(PORT)


def _check_with_libpq(url: str) -> None:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(url)
    except psycopg.Error:
        raise ValueError(POSTGRES) from None


def _check_with_redis(url: str) -> None:
    from redis.connection import parse_url

    try:
        urlsplit(url)
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ValueError(REDIS) from None
