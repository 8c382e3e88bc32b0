"""Prepared statements on tables that grow."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from core import TaskOutput
from core.content import store
from core.db.pool import Conn, Database
from core.results.outputs import output_row

FILL = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    digest, content_seq, metadata_seq)
SELECT %s, 'shop', 'old-' || n, 'item', '', 1, 1 FROM generate_series(1, 20000) AS n
"""
FETCHED = (
    "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'user_integration_content'"
)


@pytest.fixture
def database(desk, database_url: str):
    """Return a database with one connection, which makes new plans whenever it is borrowed."""
    desk.conn.execute("TRUNCATE user_integration_content CASCADE")
    made = Database(database_url, size=1, plan_uses=1)
    yield made
    made.close()


def keep(conn: Conn, account: str, name: str) -> None:
    outputs = [TaskOutput(f"{name}-{number}", "text") for number in range(10)]
    writer = store.Writer(account, "shop", "run", task=1, seq=2)
    store.upsert(conn, [(writer, output_row(output, blobs=None)[0]) for output in outputs])


def fetched(conn: Conn) -> int:
    return conn.execute(FETCHED).fetchall()[0][0]


def test_the_plan_for_an_empty_table_is_not_used_for_a_large_one(database: Database) -> None:
    account = str(uuid4())
    with database.connection() as conn:
        for number in range(10):  # enough executions for PostgreSQL to choose one plan
            keep(conn, account, f"first-{number}")
        conn.execute(FILL, (account,))
    with database.connection() as conn, conn.transaction():
        # Reads of earlier transactions may be reported late, and count here as well.
        before = fetched(conn)
        keep(conn, account, "last")
        assert fetched(conn) - before < 1_000


def test_the_cost_of_deleting_rows_is_not_quadratic(database: Database) -> None:
    account, count = str(uuid4()), 1_500
    rows = [{"account": account, "id": f"old-{number}", "seq": 2} for number in range(1, count + 1)]
    with database.connection() as conn, conn.transaction(force_rollback=True):
        conn.execute(FILL, (account,))
        explain = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
        (plan,) = conn.execute(explain + store.MARK_DELETED, (json.dumps(rows),)).fetchone()
        deleted = conn.execute(
            "SELECT count(*) FROM user_integration_content WHERE deleted_at IS NOT NULL"
        ).fetchone()
        assert deleted == (count,)
    met = sum(
        node["Actual Loops"] * (node["Actual Rows"] + dropped(node))
        for node in nodes(plan[0]["Plan"])
    )
    assert met < 50 * count


def nodes(plan: dict) -> list[dict]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes(below))]


def dropped(node: dict) -> float:
    return node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
