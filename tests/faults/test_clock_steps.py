"""The clock of PostgreSQL steps a day ahead and back, and every process dies in between."""

from __future__ import annotations

from collections.abc import Callable

from integration_polling_hello_world import HelloWorld, expected
from sqlalchemy import DateTime
from support import oracle
from support.accounts import connect, sync, tick
from support.deployment import Deployment
from support.fleet import Fleet

from core.db.clocks import RULES, Chosen
from core.db.schema import metadata

SLOW = {"pages": 6, "items": 4, "delay_ms": 1000}
RUNNING = "SELECT count(*) FROM sync_task WHERE state = 'queued' AND type <> 'start'"
DUE = "SELECT next_sync_at <= now() FROM user_integration WHERE id = %s"
RUNS = "SELECT count(*) FROM sync_run WHERE user_integration_id = %s"


def step_back(deployment: Deployment) -> None:
    """Leave everything as a clock that was a day ahead has written it."""
    with deployment.connection() as conn, conn.transaction():
        for table in metadata.tables.values():
            columns = [
                column.name
                for column in table.columns
                if isinstance(column.type, DateTime)
                and not isinstance(RULES[f"{table.name}.{column.name}"], Chosen)
            ]
            if columns:
                moved = ", ".join(f'"{name}" = "{name}" + interval \'1 day\'' for name in columns)
                conn.execute(f"UPDATE {table.name} SET {moved}")


def test_nothing_waits_for_a_day_after_the_clock_was_set_back(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """All processes died while the clock was ahead: leadership, leases and polls are in the future.

    An account that was due, one whose tasks ran, and one with an open breaker and a block continue.
    """
    fleet = make_fleet()
    program = fleet.workers(processes=1)
    fleet.ready()
    due, running = (connect(deployment, HelloWorld, SLOW) for _ in range(2))
    deployment.rows("UPDATE user_integration SET next_sync_at = now() + interval '15 minutes'")
    sync(deployment, running)
    fleet.until(lambda: deployment.value(RUNNING) >= 3, "tasks run")
    program.kill()
    step_back(deployment)
    program.start()
    fleet.ready(30)
    fleet.until(lambda: deployment.value(DUE, due), "the other account is due")
    tick(deployment)
    fleet.until(lambda: deployment.value(RUNS, due) == 1, "it is polled")
    oracle.wait_for_quiet(fleet, 60)
    oracle.assert_synced(fleet, due, SLOW)
    oracle.assert_content(deployment, running, expected(SLOW))
    oracle.assert_nobody_convicted(deployment)
