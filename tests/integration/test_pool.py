"""Prepared statements on tables that grow."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from core import TaskOutput
from core.content import guard, store
from core.db.pool import Conn, Database
from core.results.outputs import output_row

FILL = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    digest, content_seq, metadata_seq)
SELECT %s, 'shop', 'old-' || n, 'item', '', 1, 1 FROM generate_series(1, 20000) AS n
"""
# Makes the first item the parent of the next ones.
PUT_INTO = """
UPDATE user_integration_content SET
    external_id = CASE WHEN external_id = 'old-1' THEN %(parent)s ELSE external_id END,
    parent = CASE WHEN external_id <> 'old-1' THEN %(parent)s END
WHERE %(parent)s::text IS NOT NULL AND user_integration_id = %(account)s
  AND substr(external_id, 5)::int <= %(count)s
"""
TOMBSTONES = "SELECT count(*) FROM user_integration_content WHERE deleted_at IS NOT NULL"
EXPLAIN = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
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


PLANS = """
SELECT sum(custom_plans), sum(generic_plans) FROM pg_prepared_statements
WHERE statement LIKE '%INSERT INTO user_integration_content%'
"""


def test_a_statement_keeps_its_plan_while_its_table_grows(database: Database) -> None:
    """The average cost of plans for single values is that of the smaller table."""
    account = str(uuid4())
    with database.connection(generic_plans=True) as conn:
        for number in range(3):
            keep(conn, account, f"first-{number}")
        conn.execute(FILL, (account,))
        conn.execute("ANALYZE user_integration_content")
        for number in range(7):
            keep(conn, account, f"last-{number}")
        # The first execution of a connection prepares the statement.
        assert conn.execute(PLANS).fetchone() == (0, 9)


def test_each_use_of_a_connection_has_the_plans_that_it_needs(database: Database) -> None:
    modes = []
    for generic_plans in (False, True, True, False):
        with database.connection(generic_plans=generic_plans) as conn:
            modes += conn.execute("SHOW plan_cache_mode").fetchone()
    assert modes == ["auto", "force_generic_plan", "force_generic_plan", "auto"]


@pytest.mark.parametrize("parent", [None, "folder"])
def test_the_cost_of_deleting_rows_is_not_quadratic(
    database: Database, desk, parent: str | None
) -> None:
    """Delete items by their names, or by that of their parent."""
    account, count = str(desk.account()), 1_500
    named = [f"old-{number}" for number in range(1, count + 1)] if parent is None else [parent]
    rows = [{"account": account, "id": id, "seq": 2, "alone": False} for id in named]
    params = {"account": account, "items": json.dumps(rows), "most": None}
    params |= {"run": str(uuid4()), "began": "infinity"}
    with database.connection() as conn, conn.transaction(force_rollback=True):
        conn.execute(FILL, (account,))
        conn.execute(PUT_INTO, {"parent": parent, "account": account, "count": count})
        (lost,) = conn.execute(EXPLAIN + guard.LOST, params).fetchone()
        (deleted,) = conn.execute(EXPLAIN + store.MARK_DELETED, (json.dumps(rows),)).fetchone()
        assert conn.execute(TOMBSTONES).fetchone() == (count,)
    for plan in (lost, deleted):
        met = sum(
            node["Actual Loops"] * (node["Actual Rows"] + dropped(node))
            for node in nodes(plan[0]["Plan"])
        )
        assert met < 50 * count


def nodes(plan: dict) -> list[dict]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes(below))]


def dropped(node: dict) -> float:
    return node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
