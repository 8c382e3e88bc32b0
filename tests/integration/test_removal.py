"""Deleted items are removed after their retention time, and no reader misses a deletion."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from core import TaskOutput
from core.content import removal
from core.dispatcher.maintenance import Maintenance
from core.errors import InvalidInput
from core.ledger import monotonic, pruning
from core.plugins import Registry
from core.service.authorization import Principal
from core.service.content import changes
from core.service.pagination import decode_cursor, encode_cursor

ADMIN = Principal(uuid4(), None)
AGE = """
WITH samples AS (UPDATE monotonic_sample SET at = at - %(days)s * interval '1 day')
UPDATE user_integration_content SET deleted_at = deleted_at - %(days)s * interval '1 day'
"""


def pass_days(desk: Any, days: float) -> None:
    """Let the change feed report all deletions, and then let some days pass."""
    monotonic.sample(desk.conn, 0.0, 1e9)
    desk.conn.execute(AGE, {"days": days})


def remove(desk: Any, days: float = 30, seconds: float = 60.0) -> bool:
    return pruning.remove_deleted(desk.conn, days, seconds)


def ids(desk: Any) -> set[str]:
    return set(desk.content())


def read(desk: Any, after: str | None = None, limit: int = 100) -> tuple[list[Any], str]:
    feed = changes.read(desk.conn, ADMIN, after=after, limit=limit)
    return [
        (change.kind, change.content["external_id"]) for change in feed.changes if change.content
    ], feed.cursor


@pytest.fixture
def account(desk: Any) -> Any:
    """Connect an account with the live items `a` and `b`, and with the deleted item `gone`."""
    account = desk.account()
    desk.keep(account, *map(TaskOutput, ["a", "b", "gone"]))
    desk.keep(account, TaskOutput.gone("gone"))
    return account


@pytest.mark.usefixtures("account")
def test_a_deleted_item_goes_after_the_retention_time_and_not_before(desk) -> None:
    pass_days(desk, 29)
    assert remove(desk)
    assert ids(desk) == {"a", "b", "gone"}
    pass_days(desk, 2)
    assert remove(desk)
    assert ids(desk) == {"a", "b"}


def test_a_removed_item_that_the_source_shows_again_is_new(desk, account) -> None:
    _, cursor = read(desk)
    pass_days(desk, 31)
    remove(desk)
    desk.keep(account, TaskOutput("gone", "back"))
    assert read(desk, cursor)[0] == [("created", "gone")]


def test_an_item_that_came_back_in_the_meantime_stays(desk, account) -> None:
    pass_days(desk, 31)
    desk.keep(account, TaskOutput("gone", "back"))
    remove(desk)
    assert desk.alive() == {"a", "b", "gone"}


@pytest.mark.usefixtures("account")
def test_a_deletion_that_the_feed_has_not_reported_stays(desk, connect) -> None:
    other = connect()
    with other.transaction():
        other.execute("SELECT pg_current_xact_id()")
        desk.keep(desk.account("other"), TaskOutput("late"), TaskOutput("x"))
        desk.conn.execute("UPDATE user_integration SET next_sync_at = now()")
        desk.conn.execute(
            """UPDATE user_integration_content SET deleted_at = now(),
            changed_xid = pg_current_xact_id()::text::bigint WHERE external_id = 'late'"""
        )
        pass_days(desk, 31)
        remove(desk)
        assert ids(desk) == {"a", "b", "late", "x"}
    remove(desk)
    assert "late" in ids(desk), "the time counts from the report"
    pass_days(desk, 31)
    remove(desk)
    assert "late" not in ids(desk)


def test_held_deletions_stay_as_they_are(desk, account) -> None:
    hold = desk.hold(account, desk.run(account), "a", "gone")
    pass_days(desk, 31)
    remove(desk)
    assert desk.alive() == {"a", "b"}
    state = "SELECT state, vanished FROM held_deletion WHERE id = %s"
    assert desk.rows(state, hold) == [("held", 2)]
    items = "SELECT external_id FROM held_deletion_item ORDER BY 1"
    assert desk.rows(items) == [("a",), ("gone",)]


def test_a_reader_that_may_have_missed_the_deletion_starts_again(desk, account) -> None:
    _, before = read(desk, limit=1)
    before = encode_cursor(decode_cursor(before)[:4])
    _, at_deletion = read(desk)
    desk.keep(account, TaskOutput("c"))
    _, later = read(desk, at_deletion)
    pass_days(desk, 31)
    assert read(desk, before)[0] == [("created", "b"), ("deleted", "gone"), ("created", "c")]
    remove(desk)
    with pytest.raises(InvalidInput) as refused:
        read(desk, before)
    assert refused.value.code == "cursor-expired"
    assert read(desk, at_deletion)[0] == [("created", "c")]
    assert read(desk, later)[0] == []
    assert read(desk, changes.LATEST)[0] == []
    assert read(desk)[0] == [("created", "a"), ("created", "b"), ("created", "c")]


def test_a_first_reading_goes_on_if_it_began_after_the_deletion(desk, account) -> None:
    _, began_after = read(desk, limit=1)
    desk.keep(account, TaskOutput("d"))
    pass_days(desk, 31)
    remove(desk)
    found, cursor = read(desk, began_after, limit=1)
    assert found == [("created", "b")]
    found, cursor = read(desk, cursor)
    assert found == [("created", "d")]
    assert len(decode_cursor(cursor)) == len(changes.KEY.columns)
    desk.keep(account, TaskOutput.gone("a"))
    pass_days(desk, 31)
    remove(desk)
    with pytest.raises(InvalidInput):
        read(desk, began_after)
    with pytest.raises(InvalidInput):
        read(desk, cursor)


def test_a_removal_while_a_page_is_read_is_noticed(desk, account, monkeypatch) -> None:
    _, cursor = read(desk, limit=1)
    desk.keep(account, TaskOutput.gone("a"))
    _, cursor = read(desk, encode_cursor(decode_cursor(cursor)[:4]), limit=1)
    pass_days(desk, 31)
    read_rows = changes._read

    def remove_first(*arguments: Any, **options: Any) -> Any:
        remove(desk)
        return read_rows(*arguments, **options)

    monkeypatch.setattr(changes, "_read", remove_first)
    with pytest.raises(InvalidInput):
        read(desk, cursor)


@pytest.mark.usefixtures("account")
def test_numbers_of_another_cluster_neither_remove_nor_expire_anything(desk) -> None:
    """The database was restored into a cluster whose transactions have lower numbers."""
    _, cursor = read(desk, limit=1)
    monotonic.sample(desk.conn, 0.0, 1e9)
    desk.conn.execute("UPDATE monotonic_sample SET horizon = 1e12, at = at - interval '31 days'")
    desk.conn.execute(
        "UPDATE engine_state SET removed_source = 'another.1', removed_xid = 1e12, removed_id = 1"
    )
    remove(desk)
    assert ids(desk) == {"a", "b", "gone"}
    assert ("deleted", "gone") in read(desk, encode_cursor(decode_cursor(cursor)[:4]))[0]
    pass_days(desk, 31)
    remove(desk)
    assert ids(desk) == {"a", "b"}
    with pytest.raises(InvalidInput):
        read(desk, encode_cursor(decode_cursor(cursor)[:4]))


def test_items_are_removed_in_portions(desk, account, monkeypatch) -> None:
    monkeypatch.setattr(removal, "ROWS_PER_STATEMENT", 2)
    desk.keep(account, *(TaskOutput(str(number)) for number in range(5)))
    desk.keep(account, *(TaskOutput.gone(str(number)) for number in range(5)))
    _, cursor = read(desk)
    pass_days(desk, 31)
    assert not remove(desk, seconds=0.0)
    assert len(ids(desk)) == 6
    with pytest.raises(InvalidInput):
        read(desk, encode_cursor([*decode_cursor(cursor)[:3], 0]))
    assert remove(desk)
    assert ids(desk) == {"a", "b"}
    assert read(desk, cursor)[0] == []


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("retention_days", "watched_days", "is_removed"),
    [(None, 40, False), (30.0, 40, True), (30.0, 1, False)],
    ids=["no setting", "after 40 days", "the clock stepped ahead"],
)
def test_the_leader_removes_items_if_the_setting_and_its_own_clock_say_so(
    desk, settings, database, queues, retention_days, watched_days, is_removed
) -> None:
    changed = settings.model_copy(update={"deleted_retention_days": retention_days})
    maintenance = Maintenance(uuid4(), changed, database, queues, Registry())
    monotonic.sample(desk.conn, 0.0, 1e9)
    desk.conn.execute(AGE, {"days": 40})
    monotonic.sample(desk.conn, watched_days * 86_400.0, 1e9)
    maintenance._prune_content(desk.conn)
    assert ids(desk) == ({"a", "b"} if is_removed else {"a", "b", "gone"})


def test_the_api_answers_410_for_an_expired_cursor(api, desk, account) -> None:
    cursor = encode_cursor(decode_cursor(read(desk, limit=1)[1])[:4])
    pass_days(desk, 31)
    remove(desk)
    for path in ("/v1/changes", "/v1/export"):
        answer = api.admin.get(path, params={"after": cursor})
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor-expired")
