"""Workers, the dispatcher and the scheduler: do they live, and do their clocks agree?"""

from __future__ import annotations

from collections.abc import Iterator

from core.api.doctor.check import Check
from core.api.doctor.servers import LARGEST_SKEW_SECONDS
from core.api.listings import fetch
from core.db.pool import Conn
from core.dispatcher.chores import tick_seconds
from core.ledger import leadership, upkeep
from core.plugins import Registry
from core.settings import Settings

# Heartbeats of one process are 5 s apart, so its clock is compared with the moment it was written.
SKEWED = """
SELECT host, max(abs(extract(epoch FROM clock - seen_at)))::float AS skew FROM process
WHERE clock IS NOT NULL AND seen_at > clock_timestamp() - %(alive)s * interval '1 second'
GROUP BY host HAVING max(abs(extract(epoch FROM clock - seen_at))) > %(largest)s ORDER BY host
"""
DRAINING = """
SELECT id FROM process
WHERE draining AND kind = 'worker' AND seen_at > clock_timestamp() - %(alive)s * interval '1 second'
"""
WANTED = """
SELECT DISTINCT integration_domain AS domain FROM user_integration
WHERE sync_status = 'active' ORDER BY 1
"""

START = "Run: polling up"


def examine(conn: Conn, settings: Settings, registry: Registry) -> Iterator[Check]:
    """What runs anywhere in the fleet."""
    serving = upkeep.serving(conn)
    yield _workers(conn, serving)
    yield from _served(conn, serving, registry)
    yield _dispatcher(leadership.status(conn), bool(serving))
    yield _scheduler(leadership.status(conn), settings, bool(serving))
    names = {"alive": upkeep.ALIVE_SECONDS, "largest": LARGEST_SKEW_SECONDS}
    for row in fetch(conn, SKEWED, names):
        message = f"the clock of {row['host']} differs by {row['skew']:.0f} s from the database's"
        yield Check("clock", "warn", message, "Synchronize them (NTP)")


def _workers(conn: Conn, serving: dict[str, tuple[int, int]]) -> Check:
    if not serving and fetch(conn, DRAINING, {"alive": upkeep.ALIVE_SECONDS}):
        return Check(
            "workers",
            "warn",
            "those that run were told to drain, and take no tasks",
            "Restart them",
        )
    if not serving:
        return Check("workers", "warn", "none runs", START)
    threads, processes = max(serving.values())
    return Check("workers", "ok", f"{processes} processes, {threads} threads")


def _served(conn: Conn, serving: dict[str, tuple[int, int]], registry: Registry) -> Iterator[Check]:
    """Domains of accounts that nobody works for, although somebody works."""
    for row in fetch(conn, WANTED, {}) if serving else ():
        domain = row["domain"]
        if domain not in serving:
            advice = (
                "Restart the workers: they began before it was installed"
                if domain in registry.integrations
                else f"Start a worker where integration-polling-{domain} is installed"
            )
            yield Check(
                "workers", "warn", f"none serves {domain}, which has active accounts", advice
            )


def _dispatcher(status: leadership.Status, working: bool) -> Check:
    if status.leader_until is not None and status.leader_until > status.now:
        return Check("dispatcher", "ok", "leads")
    if not working:
        return Check("dispatcher", "warn", "none, as no worker runs", START)
    return Check(
        "dispatcher",
        "fail",
        "no one leads, although workers run",
        "One takes over within 20 s; if not, restart them",
    )


def _scheduler(status: leadership.Status, settings: Settings, working: bool) -> Check:
    allowed = 2.5 * tick_seconds(settings.cron_schedule)
    advice = (
        "Run: polling up, or periodiq core.actors"
        if not working
        else "Is `periodiq core.actors` running?"
    )
    if status.last_tick_at is None:
        return Check("scheduler", "warn", "has not ticked yet", advice)
    silent = (status.now - status.last_tick_at).total_seconds()
    if silent > allowed:
        return Check(
            "scheduler",
            "warn",
            f"silent for {silent / 60:.0f} min; the leader polls instead",
            advice,
        )
    return Check("scheduler", "ok", f"ticked {silent:.0f} s ago")
