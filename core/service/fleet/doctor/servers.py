"""Checks of PostgreSQL and Redis: their availability, versions, schema, settings and clocks."""

from __future__ import annotations

from datetime import UTC, datetime

from core.db.pool import Conn, DiskFull, open_connection
from core.environment import Environment
from core.errors import Advice, PollingError
from core.ledger import leadership
from core.service.fleet import health
from core.service.fleet.doctor.check import Check, failed
from core.settings import Settings
from core.transport.queues import REDIS_UNAVAILABLE, Queues

MAX_CLOCK_SKEW_SECONDS = 5.0


def urls(settings: Settings, environment: Environment | PollingError) -> tuple[str, str] | None:
    """Return the URLs of PostgreSQL and Redis; None if one of them is not set.

    They are known even if the environment is not available for another reason, such as a missing
    key.
    """
    if isinstance(environment, Environment):
        return environment.database_url, environment.redis_url
    if settings.database_url is None or settings.redis_url is None:
        return None
    return settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()


def postgres(url: str) -> Check:
    """Check that PostgreSQL answers and that its version is supported."""
    try:
        with open_connection(url) as conn:
            version = conn.info.server_version // 10_000
    except PollingError as error:
        return failed("PostgreSQL", error)
    return Check("PostgreSQL", "ok", f"version {version}")


def redis(url: str, namespace: str) -> Check:
    """Check that Redis answers, that its version is supported, and that it does not evict keys."""
    try:
        queues = Queues(url, namespace)
    except ValueError:
        return Check(
            "Redis",
            "fail",
            "REDIS_URL is invalid",
            Advice("correct-redis-url"),
        )
    try:
        commands = queues.forbidden()
        info = {} if commands else queues.require()
    except PollingError as error:
        return failed("Redis", error)
    finally:
        queues.close()
    if commands:
        return Check(
            "Redis",
            "fail",
            f"the user in REDIS_URL may not run {', '.join(commands)}",
            Advice("grant-redis-commands", {"namespace": namespace}),
        )
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
        f"{name} evicts keys when its memory is full (maxmemory-policy {policy})",
        Advice("set-noeviction"),
    )


def sharing(conn: Conn, url: str, namespace: str) -> Check | None:
    """Check that no other deployment uses this Redis with the same namespace; None if none does."""
    queues = Queues(url, namespace)
    try:
        nonce = queues.number("nonce")
    except REDIS_UNAVAILABLE:
        return None  # another check reports it
    finally:
        queues.close()
    if nonce is None or nonce in leadership.nonces(conn):
        return None
    return Check(
        "Redis",
        "fail",
        f"another deployment uses the namespace {namespace!r} of this Redis; this one dispatches"
        " nothing",
        Advice("set-own-namespace"),
    )


def disk(url: str, namespace: str) -> Check | None:
    """Check that no process has lately found PostgreSQL's disk full; None if none has."""
    queues = Queues(url, namespace)
    try:
        if not queues.disk_is_full():
            return None
    finally:
        queues.close()
    return failed("PostgreSQL", DiskFull("postgres-disk-full", detail="a write has failed lately"))


def schema(url: str) -> Check:
    """Check that the schema is at the revision of this version."""
    from core.db import version

    current, required = version.current(url), version.HEAD
    status = health.schema(current)
    if status == "ok":
        return Check("schema", status, f"revision {current}")
    if status == "warn":
        message = f"revision {current} is newer than {required}, which this version uses"
        return Check("schema", status, message)
    message = (
        "the database has no schema yet"
        if current is None
        else f"revision {current}; this version needs {required}"
    )
    return Check("schema", status, message, Advice("migrate-database"))


def clock(conn: Conn) -> Check:
    """Check that the clocks of this machine and of the database agree within 5 s."""
    before = datetime.now(UTC)
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    after = datetime.now(UTC)
    assert row is not None
    skew = max((before - row[0]).total_seconds(), (row[0] - after).total_seconds(), 0.0)
    if skew > MAX_CLOCK_SKEW_SECONDS:
        return Check(
            "clock",
            "warn",
            f"the clocks of this machine and the database differ by {skew:.0f} s",
            Advice("synchronize-clocks"),
        )
    return Check("clock", "ok", "this machine and the database agree")
