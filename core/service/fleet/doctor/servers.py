"""PostgreSQL and Redis: are they there, recent enough, and set up for us?"""

from __future__ import annotations

from datetime import UTC, datetime

from core.db.pool import Conn, open_connection
from core.environment import Environment
from core.errors import Advice, PollingError
from core.service.fleet import health
from core.service.fleet.doctor.check import Check, failed
from core.settings import Settings
from core.transport.queues import Queues

MAX_CLOCK_SKEW_SECONDS = 5.0


def urls(settings: Settings, environment: Environment | PollingError) -> tuple[str, str] | None:
    """Where the servers are, even where something else is missing."""
    if isinstance(environment, Environment):
        return environment.database_url, environment.redis_url
    if settings.database_url is None or settings.redis_url is None:
        return None
    return settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()


def postgres(url: str) -> Check:
    """Does it answer, and is it recent enough?"""
    try:
        with open_connection(url) as conn:
            version = conn.info.server_version // 10_000
    except PollingError as error:
        return failed("PostgreSQL", error)
    return Check("PostgreSQL", "ok", f"version {version}")


def redis(url: str, namespace: str) -> Check:
    """Does it answer, is it recent enough, and does it keep what it is given?"""
    try:
        queues = Queues(url, namespace)
    except ValueError:
        return Check(
            "Redis",
            "fail",
            "REDIS_URL cannot be used",
            Advice("correct-redis-url"),
        )
    try:
        info = queues.require()
    except PollingError as error:
        return failed("Redis", error)
    finally:
        queues.close()
    name = (
        f"{info.get('server_name') or 'redis'}"
        f" {info.get('valkey_version') or info['redis_version']}"
    )
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return Check("Redis", "ok", name)
    return Check(
        "Redis",
        "fail" if policy.startswith("allkeys") else "warn",
        f"{name} throws data away when memory is short (maxmemory-policy {policy})",
        Advice("set-noeviction"),
    )


def schema(url: str) -> Check:
    """Is the schema this version's?"""
    from core.db import version

    current, required = version.current(url), version.HEAD
    status = health.schema(current)
    if status == "ok":
        return Check("schema", status, f"revision {current}")
    if status == "warn":
        return Check("schema", status, f"it is at {current}, newer than this version's {required}")
    message = (
        "the database has no schema yet"
        if current is None
        else f"it is at {current}, this version needs {required}"
    )
    return Check("schema", status, message, Advice("migrate-database"))


def clock(conn: Conn) -> Check:
    """Does this machine's clock agree with the database's?"""
    before = datetime.now(UTC)
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    after = datetime.now(UTC)
    assert row is not None
    skew = max((before - row[0]).total_seconds(), (row[0] - after).total_seconds(), 0.0)
    if skew > MAX_CLOCK_SKEW_SECONDS:
        return Check(
            "clock",
            "warn",
            f"this machine and the database differ by {skew:.0f} s",
            Advice("synchronize-clocks"),
        )
    return Check("clock", "ok", "agrees with the database's")
