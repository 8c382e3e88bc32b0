"""Pages that compare a bounded number of rows: together they have each row once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core import TaskOutput
from core.db.pool import Conn
from core.service import audit, pagination
from core.service.accounts import queries as account_queries
from core.service.audit import AuditFilter
from core.service.content import listing
from core.service.content.listing import ContentFilter
from core.service.pagination import Page
from core.service.query_timeout import QuerySlots
from core.service.runs import listing as run_listing
from core.service.runs import tree
from core.service.runs.listing import RunFilter

SCANNED = 3
"""The number of rows that a page compares in these tests."""

ITEMS = tuple(
    TaskOutput(f"{number:02}", kind=("letter", "note", "parcel")[number % 3],
               parent=("box", "shelf", None)[number // 3 % 3])
    for number in range(24)
)  # fmt: skip
WRITTEN = "SELECT external_id FROM user_integration_content c WHERE {} ORDER BY external_id"
MARKED = """
UPDATE user_integration_content SET
    deleted_at = CASE WHEN right(external_id, 1) = '4' THEN now() END,
    gone_at_source = CASE WHEN right(external_id, 1) = '5' THEN now() END
"""
TASK = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, state, parent_id)
SELECT %(run)s, %(account)s, 'shop', 'live', 'step', '{}', convert_to(n::text, 'UTF8'),
    CASE WHEN n %% 7 = 0 THEN 'ready' ELSE 'done' END, %(parent)s
FROM generate_series(1, 20) n RETURNING id
"""
ACTED = """
INSERT INTO audit (changed_xid, act, channel, target_type, target_id, user_id, actor_user_id)
VALUES (pg_current_xact_id()::text::bigint, %s, 'command', 'account', %s, %s, %s)
"""
ENDED = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    started_at, finished_at)
SELECT gen_random_uuid(), %s, 'shop', 'live', 'manual',
    CASE WHEN n %% 6 = 0 THEN 'failed' ELSE 'succeeded' END, 0,
    now() - n / 2 * interval '1 hour', now() FROM generate_series(1, 20) n
"""


@pytest.fixture(autouse=True)
def _bounded(monkeypatch) -> None:
    monkeypatch.setattr(pagination, "MAX_SCANNED_ROWS", SCANNED)


@pytest.fixture
def accounts(desk) -> list[UUID]:
    """Three accounts of one user, and one of another, all with the same items but one without."""
    found = [desk.account(name, user_id="u") for name in ("a", "b", "empty")]
    found.append(desk.account("theirs", user_id="v"))
    for account in (found[0], found[1], found[3]):
        desk.keep(account, *ITEMS)
    desk.conn.execute(MARKED)
    return found


def all_rows(read: Callable[[str | None], Page]) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of all pages, and the number of pages."""
    rows: list[dict[str, Any]] = []
    after, pages = None, 0
    while pages == 0 or after is not None:
        page = read(after)
        rows, after, pages = rows + page.rows, page.cursor, pages + 1
        assert pages < 200
    return rows, pages


FILTERS: dict[str, tuple[ContentFilter, str]] = {
    "everything": (ContentFilter(deleted=None), "true"),
    "kept": (ContentFilter(), "deleted_at IS NULL"),
    "deleted": (ContentFilter(deleted=True), "deleted_at IS NOT NULL"),
    "gone": (ContentFilter(gone=True), "gone_at_source IS NOT NULL"),
    "kind": (ContentFilter(kind="note"), "kind = 'note' AND deleted_at IS NULL"),
    "parent": (ContentFilter(parent="box"), "parent = 'box' AND deleted_at IS NULL"),
    "children": (ContentFilter(parent="box", deleted=None), "parent = 'box'"),
    "external ID": (ContentFilter(external_id="07"), "external_id = '07'"),
    "parent and kind": (
        ContentFilter(parent="shelf", kind="note"),
        "parent = 'shelf' AND kind = 'note' AND deleted_at IS NULL",
    ),
    "deleted, none": (ContentFilter(deleted=True, kind="none"), "false"),
    "unknown": (ContentFilter(external_id="none"), "false"),
}


LIMITS = (1, 2, 50)


def test_pages_of_content_have_each_item_once(desk, accounts) -> None:
    for narrowed, condition in FILTERS.values():
        for limit in LIMITS:
            check_content(desk, accounts, narrowed, condition, limit)


def check_content(
    desk: Any, accounts: list[UUID], narrowed: ContentFilter, condition: str, limit: int
) -> None:
    slots = QuerySlots()
    scopes = {
        "account": ({"account": accounts[0]}, [accounts[0]]),
        "own account": ({"account": accounts[0], "user": "u"}, [accounts[0]]),
        "another's account": ({"account": accounts[3], "user": "u"}, []),
        "user": ({"user": "u"}, accounts[:3]),
        "domain": ({"domain": "shop"}, accounts),
        "all": ({}, accounts),
    }
    for given, of_accounts in scopes.values():
        rows, _ = all_rows(
            lambda after, given=given: listing.page(
                desk.conn, slots, replace(narrowed, **given), limit=limit, after=after
            )
        )
        expected = [
            (account, id)
            for account in sorted(of_accounts)
            for (id,) in desk.rows(
                WRITTEN.format(f"{condition} AND user_integration_id = %s"), account
            )
        ]
        found = [(row["user_integration_id"], row["external_id"]) for row in rows]
        assert found == expected, (narrowed, given)


def test_a_page_without_matches_ends_early(desk, accounts) -> None:
    slots = QuerySlots()
    narrowed = ContentFilter(account=accounts[0], deleted=None, gone=False, kind="parcel")
    page = listing.page(desk.conn, slots, replace(narrowed, domain="none"))
    assert (page.rows, page.cursor is None) == ([], False)


def test_pages_of_runs_have_each_run_once(desk) -> None:
    account, slots = desk.account(), QuerySlots()
    desk.conn.execute(ENDED, (account,))
    desk.run(account)
    for state, number in ((None, 21), ("failed", 3), ("running", 1), ("partial", 0)):
        rows, _ = all_rows(
            lambda after, state=state: run_listing.page(
                desk.conn, slots, RunFilter(state=state), after=after
            )
        )
        assert len({row["id"] for row in rows}) == len(rows) == number
        times = [row["started_at"] for row in rows]
        assert times == sorted(times, reverse=True)


def test_pages_of_acts_have_each_act_once(desk) -> None:
    slots, conn = QuerySlots(), desk.conn
    conn.execute("DELETE FROM audit")
    for number in range(20):
        act = "account.erase" if number % 9 == 8 else "account.connect"
        user = "u" if number % 2 else "v"
        conn.execute(ACTED, (act, f"{number:02}", user, user))
    written = {
        AuditFilter(): range(20),
        AuditFilter(act="account.erase"): (8, 17),
        AuditFilter(act="token.create"): (),
        AuditFilter(of_user="u"): range(1, 20, 2),
        AuditFilter(of_user="u", act="account.erase"): (17,),
        AuditFilter(user="v"): range(0, 20, 2),
        AuditFilter(user="v", act="account.erase"): (8,),
        AuditFilter(user="v", of_user="u"): (),
    }
    for audit_filter, numbers in written.items():
        expected = [f"{number:02}" for number in numbers]
        for limit in LIMITS:
            rows, _ = all_rows(
                lambda after, audit_filter=audit_filter, limit=limit: audit.page(
                    conn, slots, audit_filter, limit=limit, after=after
                )
            )
            assert [row["target_id"] for row in rows] == expected[::-1], audit_filter
            assert followed(conn, audit_filter, limit) == expected, audit_filter


def followed(conn: Conn, audit_filter: AuditFilter, limit: int) -> list[str]:
    """Return the objects of all acts of the feed, which ends with a page without `more`."""
    slots, after, found = QuerySlots(), None, list[str]()
    for _ in range(50):
        acts = audit.read(conn, slots, audit_filter, after=after, limit=limit)
        found += [row["target_id"] for row in acts.rows]
        assert len(acts.rows) <= SCANNED
        after = acts.cursor
        if not acts.more:
            assert audit.read(conn, slots, audit_filter, after=after).rows == []
            return found
    raise AssertionError("the feed does not end")


def tasks_of(conn: Conn, account: UUID, run: UUID, parent: int | None) -> list[int]:
    params = {"run": run, "account": account, "parent": parent}
    return [id for (id,) in conn.execute(TASK, params).fetchall()]


def test_pages_of_tasks_have_each_task_once(desk) -> None:
    account, slots, conn = desk.account(), QuerySlots(), desk.conn
    run, other = UUID(int=1), UUID(int=2)
    roots = tasks_of(conn, account, run, None)
    tasks_of(conn, account, other, roots[0])
    for state, expected in ((None, roots), ("ready", [roots[6], roots[13]]), ("parked", [])):
        rows, _ = all_rows(
            lambda after, state=state: run_listing.tasks(
                conn, slots, run, user=None, state=state, after=after
            )
        )
        assert [row["id"] for row in rows] == expected[::-1]


def test_pages_of_a_tree_have_each_task_once(desk) -> None:
    account, slots, conn = desk.account(), QuerySlots(), desk.conn
    run, background = UUID(int=1), UUID(int=2)
    roots = tasks_of(conn, account, run, None)
    conn.execute("UPDATE sync_task SET dedup_key = dedup_key || '!'::bytea")
    children = tasks_of(conn, account, run, roots[2])
    elsewhere = tasks_of(conn, account, background, roots[2])
    for of_run, parent, expected in (
        (run, None, roots),
        (run, roots[2], children),
        (run, roots[3], []),
        (background, None, elsewhere),
    ):
        rows, _ = all_rows(
            lambda after, of_run=of_run, parent=parent: tree.tasks(
                conn, slots, of_run, parent, user=None, limit=2, after=after
            )
        )
        assert [row["id"] for row in rows] == expected


def test_totals_of_a_large_account_are_estimates(desk, accounts, monkeypatch) -> None:
    exact = account_queries.shown_totals(desk.conn, accounts[0])
    assert (exact.items, exact.is_estimated, exact.deleted, exact.gone_at_source) == (
        22,
        False,
        2,
        2,
    )
    monkeypatch.setattr(account_queries, "MAX_COUNTED_ITEMS", 10)
    desk.conn.execute("ANALYZE user_integration_content")
    about = account_queries.shown_totals(desk.conn, accounts[0])
    assert (about.items, about.is_estimated, about.deleted) == (24, True, 2)
