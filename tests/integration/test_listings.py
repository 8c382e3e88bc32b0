"""Pagination while others write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.db.pool import Conn
from core.service.accounts import queries as account_queries
from core.service.content import queries as content_queries
from core.service.pagination import PagedQuery
from core.service.runs import queries as run_queries

ACCOUNT = UUID(int=7)

ITEM = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    digest, content_seq, metadata_seq)
VALUES (%s, 'shop', %s, 'item', '', 1, 1) ON CONFLICT DO NOTHING
"""
# Many rows have the same time, so that the id decides.
CONNECTED = """
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config, limits,
    created_at)
VALUES (gen_random_uuid(), 'u', 'shop', %s, %s, '{}', '[]', date_trunc('second', clock_timestamp()))
ON CONFLICT DO NOTHING
"""
TASK = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key)
VALUES (%s, %s, 'shop', 'live', 'step', '{}', convert_to(%s, 'UTF8')) ON CONFLICT DO NOTHING
"""


def add_item(conn: Conn, name: str) -> None:
    conn.execute(ITEM, (ACCOUNT, name))


def add_account(conn: Conn, name: str) -> None:
    conn.execute(CONNECTED, (name, name))


def add_task(conn: Conn, name: str) -> None:
    conn.execute(TASK, (ACCOUNT, ACCOUNT, name))


LISTINGS: dict[str, tuple[PagedQuery, Callable[[Conn, str], None], dict[str, Any]]] = {
    "content": (content_queries.content, add_item, {}),
    "content of an account": (
        content_queries.content_of_account,
        add_item,
        {"user_integration_id": ACCOUNT},
    ),
    "accounts": (account_queries.accounts, add_account, {}),
    "tasks": (run_queries.tasks, add_task, {"run_id": ACCOUNT}),
}
NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6
)

EAST, WEST = (timezone(timedelta(hours=hours)) for hours in (14, -14))
ENDS: dict[str, tuple[object, object]] = {
    "bigint": (-(2**63), 2**63 - 1),
    "text": ("", "\U0010ffff"),
    "timestamptz": (datetime.min.replace(tzinfo=EAST), datetime.max.replace(tzinfo=WEST)),
    "uuid": (UUID(int=0), UUID(int=2**128 - 1)),
}


@pytest.mark.parametrize("which", LISTINGS)
@given(
    there=st.sets(NAMES, max_size=25),
    limit=st.integers(1, 9),
    meanwhile=st.lists(st.lists(NAMES, max_size=3), max_size=12),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_return_every_earlier_row_once(
    which: str, there: set[str], limit: int, meanwhile: list[list[str]], conn: Conn
) -> None:
    """Rows added between two pages may or may not be returned.

    No row is returned twice, and the new rows hide no earlier row.
    """
    listing, add, filters = LISTINGS[which]
    conn.execute("TRUNCATE user_integration_content, user_integration, sync_task CASCADE")
    for name in sorted(there, key=hash):
        add(conn, name)
    before = {row["id"] for row in listing.pages(conn, **filters)}
    assert len(before) == len(there)
    seen: list[Any] = []
    cursor: str | None = None
    while True:
        page = listing.page(conn, limit=limit, after=cursor, **filters)
        assert len(page.rows) <= limit
        seen += [row["id"] for row in page.rows]
        if page.cursor is None:
            break
        assert len(page.rows) == limit
        cursor = page.cursor
        for name in meanwhile.pop() if meanwhile else ():
            add(conn, name)
    assert len(set(seen)) == len(seen), "a row was returned twice"
    assert before <= set(seen), f"{len(before - set(seen))} rows were not returned"


@pytest.mark.parametrize("which", LISTINGS)
@pytest.mark.parametrize("end", [0, 1])
def test_a_cursor_with_the_smallest_or_largest_values_can_be_compared(
    which: str, end: int, conn: Conn
) -> None:
    listing, _, filters = LISTINGS[which]
    cursor = listing.key.encode(
        {column: ENDS[kind][end] for column, kind in listing.key.columns.items()}
    )
    assert listing.page(conn, after=cursor, **filters).cursor is None
