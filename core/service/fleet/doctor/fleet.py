"""Checks of workers, dispatcher and scheduler, and of the clocks of their hosts."""

from __future__ import annotations

from collections.abc import Iterator

from core.content import document_texts
from core.db.pool import Conn
from core.db.rows import fetch
from core.dispatcher.maintenance import STAND_IN_TICKS
from core.dispatcher.schedule import is_frequent, tick_seconds
from core.errors import Advice
from core.ledger import leadership, processes
from core.ledger.processes import ALIVE, IS_LIVE_WORKER
from core.plugins import Registry
from core.service.fleet import health, outages, pauses
from core.service.fleet.doctor.check import Check
from core.service.fleet.doctor.servers import MAX_CLOCK_SKEW_SECONDS
from core.service.formatting import counted, span
from core.settings import Settings
from core.states import AccountState
from core.transport.messages import EXTRACT_QUEUE

# A process writes a heartbeat every 5 s. Its clock is compared with the time of that heartbeat.
SKEWED = f"""
SELECT host, max(abs(extract(epoch FROM clock - seen_at)))::float AS skew FROM process
WHERE clock IS NOT NULL AND {ALIVE}
GROUP BY host HAVING max(abs(extract(epoch FROM clock - seen_at))) > %(largest)s ORDER BY host
"""
DRAINING_WORKERS = f"SELECT id FROM process WHERE draining AND {IS_LIVE_WORKER}"
ACTIVE_DOMAINS = f"""
SELECT DISTINCT integration_domain AS domain FROM user_integration
WHERE sync_status = '{AccountState.ACTIVE}' ORDER BY 1
"""

START = Advice("start-engine")


def examine(conn: Conn, settings: Settings, registry: Registry) -> Iterator[Check]:
    """Check the processes of the complete fleet, on all hosts."""
    serving, status = processes.serving(conn), leadership.status(conn)
    yield _workers(conn, serving)
    yield from _served(conn, serving, registry)
    yield from _texts(conn, serving)
    yield _dispatcher(status, serving)
    for sentence in outages.sentences(conn, registry):
        yield Check("outage", "warn", sentence, Advice("wait-for-provider"))
    for domain, pause in pauses.lasting(conn).items():
        text = f"an operator paused the integration {domain} {pauses.end_of(pause)}"
        yield Check("pause", "warn", text, Advice("resume-integration", {"domain": domain}))
    yield _scheduler(conn, status, settings, bool(serving))
    for row in fetch(conn, SKEWED, {"largest": MAX_CLOCK_SKEW_SECONDS}):
        message = f"the clock of {row['host']} differs by {row['skew']:.0f} s from the database's"
        yield Check("clock", "warn", message, Advice("synchronize-clocks"))


def _workers(conn: Conn, serving: dict[str, tuple[int, int]]) -> Check:
    check_status = health.workers(serving)
    if not serving and fetch(conn, DRAINING_WORKERS, {}):
        return Check(
            "workers",
            check_status,
            "all running workers are draining and take no tasks",
            Advice("restart-draining-workers"),
        )
    if not serving:
        return Check("workers", check_status, "no worker is running", START)
    threads, count = max(serving.values())
    return Check(
        "workers",
        check_status,
        f"{counted(count, 'process', 'processes')}, {counted(threads, 'thread')}",
    )


def _served(conn: Conn, serving: dict[str, tuple[int, int]], registry: Registry) -> Iterator[Check]:
    """Yield the domains of active accounts that no running worker serves."""
    for row in fetch(conn, ACTIVE_DOMAINS, {}) if serving else ():
        domain = row["domain"]
        if domain not in serving:
            advice = (
                Advice("restart-workers-for-plugin")
                if domain in registry.integrations
                else Advice("start-worker-with-plugin", {"domain": domain})
            )
            yield Check(
                "workers", "warn", f"no worker serves {domain}, which has active accounts", advice
            )


def _texts(conn: Conn, serving: dict[str, tuple[int, int]]) -> Iterator[Check]:
    """Yield the files whose text waits, if no running worker reads them."""
    if serving and EXTRACT_QUEUE not in serving and (number := document_texts.waiting(conn)):
        waits = counted(number, "file waits", "files wait")
        message = f"{waits} to be read for the search, and no worker serves {EXTRACT_QUEUE}"
        yield Check("texts", "warn", message, Advice("start-worker-for-texts"))


def _dispatcher(status: leadership.Status, serving: dict[str, tuple[int, int]]) -> Check:
    check_status = health.dispatcher(status, serving)
    if check_status == "ok":
        return Check("dispatcher", check_status, "a dispatcher is leading")
    if not serving:
        return Check("dispatcher", check_status, "not running, because no worker is running", START)
    return Check(
        "dispatcher",
        check_status,
        "no dispatcher is leading, although workers are running",
        Advice("wait-for-leader"),
    )


def _scheduler(conn: Conn, status: leadership.Status, settings: Settings, working: bool) -> Check:
    check_status = health.scheduler(conn, status, settings)
    advice = Advice("start-scheduler") if not working else Advice("check-scheduler")
    if status.last_tick_at is None and check_status == "ok":
        first = span(tick_seconds(settings.cron_schedule))
        return Check("scheduler", check_status, f"has not fired yet: it fires every {first}")
    if status.last_tick_at is None:
        return Check("scheduler", check_status, "has not fired yet", advice)
    silent = span(status.silent_seconds)
    if check_status == "ok":
        return Check("scheduler", check_status, f"last fired {silent} ago")
    stand_in = STAND_IN_TICKS * tick_seconds(settings.cron_schedule)
    stands_in = is_frequent(settings.cron_schedule) or status.silent_seconds > stand_in
    polls = "polls" if stands_in else "will poll"
    return Check(
        "scheduler", check_status, f"has not fired for {silent}; the leader {polls} instead", advice
    )
