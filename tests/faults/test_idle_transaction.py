"""A transaction that someone left open.

VACUUM cannot remove any row that dies in the meantime, and every index fills with dead entries.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment, make_deployment
from support.fleet import Fleet
from support.servers import Servers

from core.db.pool import Conn, Database
from core.ledger import completion, dispatching, leadership
from core.ledger.dispatching import RING_START, TaskPortion

DONE = 50_000
LEFT = 2_000
CLAIMED = 48

MAX_PAGES = DONE // 10
"""The bound for claims: reading ten dead rows a page is fast.

A page for each dead row, or three of them as in an early version, would exceed it.
"""

FEW_PAGES = 500
"""The bound for existence checks: they start at the end of the index that holds live rows."""

FILL = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key)
SELECT id, user_integration_id, integration_domain, lane, 'list_page', '{}',
    decode(md5(number::text), 'hex')
FROM sync_run, generate_series(1, %s) number
"""
FINISH = """
UPDATE sync_task SET state = 'done', lease_until = NULL, finished_at = clock_timestamp()
WHERE id = ANY (%s)
"""


@contextmanager
def left_open(deployment: Deployment) -> Iterator[None]:
    """Hold an idle transaction open, so that PostgreSQL keeps every row that dies from here."""
    with psycopg.connect(deployment.database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM engine_state")
        yield


def test_a_claim_reads_few_pages_among_dead_rows(deployment: Deployment) -> None:
    """The run has as many tasks as one that takes minutes, and all but the last are done.

    VACUUM could not remove any of them.
    """
    account = connect(deployment, HelloWorld)
    run = sync(deployment, account)
    deployment.rows(FILL, DONE + LEFT)
    deployment.rows("ANALYZE sync_task")
    database, me = Database(deployment.database_url), uuid4()
    with left_open(deployment), database.connection() as connection:
        for _ in range(DONE // 1_000):
            leadership.lead(connection, me)
            claimed = dispatching.claim(
                connection, me, "hello-world", [_portion(account, 1_000)], 60
            )
            connection.execute(FINISH, ([one.task_id for one in claimed],))
        claim = {
            "portions": json.dumps([asdict(_portion(account, CLAIMED))]),
            "leader": me,
            "lease": 60,
            "bits": 0,
        }
        names: dict[str, Any] = {"domain": "hello-world", "most": 64, "slice": 512, "latest": 256}
        names |= claim | {"after": RING_START, "fresh_after": RING_START, "busy": ["x"], "full": []}
        assert _pages(connection, dispatching.CLAIM_TASKS, names) < MAX_PAGES
        assert _pages(connection, dispatching.WAITING, names) < MAX_PAGES
        assert _pages(connection, completion.RUNS_TO_END, {"runs": [str(run)]}) < FEW_PAGES
    database.close()


def _portion(account: UUID, most: int) -> TaskPortion:
    return TaskPortion(str(account), "live", most)


def _pages(connection: Conn, statement: str, names: Any) -> int:
    """Execute the statement and return the number of pages that it touches."""
    row = connection.execute(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, names
    ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    pages: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages


TREE = {"pages": 16, "items": 16, "fanout_depth": 1}
"""A tree of about 4,400 tasks."""
ROUNDS = 6
SECONDS = """
SELECT extract(epoch FROM finished_at - started_at)::float FROM sync_run
WHERE user_integration_id = %s
"""
FLOOR = 0.5


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_an_open_transaction_costs_less_than_half_of_the_throughput(
    own_servers: Servers, tmp_path: Path
) -> None:
    """Two databases of one server work in turns.

    One of them has an open transaction all the time.
    """
    with ExitStack() as stack:
        fleets = [_fleet(own_servers, tmp_path, name, stack) for name in ("cleared", "held")]
        stack.enter_context(left_open(fleets[1].deployment))
        ratios = []
        for _ in range(ROUNDS):
            cleared, held = _seconds_of_a_run(fleets[0]), _seconds_of_a_run(fleets[1])
            ratios.append(cleared / held)
            print(f"cleared {cleared:.1f} s, held {held:.1f} s: {ratios[-1]:.2f}")
    assert statistics.median(ratios[ROUNDS // 2 :]) > FLOOR


def _fleet(servers: Servers, folder: Path, name: str, stack: ExitStack) -> Fleet:
    home = folder / name
    home.mkdir()
    deployment = make_deployment(servers.postgres.url, servers.valkey.url, home, f"idle-{name}")
    stack.callback(deployment.queues.close)
    fleet = Fleet(deployment, home)
    stack.callback(fleet.end)
    fleet.workers()
    fleet.ready()
    return fleet


def _seconds_of_a_run(fleet: Fleet) -> float:
    account = connect(fleet.deployment, HelloWorld, TREE)
    sync(fleet.deployment, account)
    oracle.wait_for_quiet(fleet, 300, replace=False)
    oracle.assert_synced(fleet, account, TREE)
    seconds: float = fleet.deployment.value(SECONDS, account)
    return seconds
