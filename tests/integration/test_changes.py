"""The change feed: every change, once, in an order in which no reader misses any."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest

from core import Listing, Task, TaskOutput
from core.content import store
from core.errors import InvalidInput
from core.ledger import erasure
from core.results.rows import OutputRow
from core.service.accounts import disconnect as account_disconnect
from core.service.accounts import erase as account_erase
from core.service.authorization import Principal
from core.service.content import changes
from core.service.content import queries as content_queries
from core.service.pagination import encode_cursor
from core.service.runs.progress import progress
from core.states import Operation

ADMIN = Principal(uuid4(), None)
WRITERS, READERS, ROUNDS, ITEMS = 6, 2, 40, 12


def all_of(conn, principal=ADMIN, after=None, limit=7):
    """Return every change after a cursor, and the cursor after them."""
    found = []
    while True:
        feed = changes.read(conn, principal, after=after, limit=limit)
        found += feed.changes
        after = feed.cursor
        if not feed.more:
            return found, after


def told(found):
    return [(change.kind, change.content and change.content["external_id"]) for change in found]


def test_changes_are_returned_in_their_order(desk) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"), TaskOutput("2", "x"))
    first, cursor = all_of(desk.conn)
    assert told(first) == [("created", "1"), ("created", "2")]
    assert all_of(desk.conn, after=cursor)[0] == []
    desk.keep(account, TaskOutput("2", "y"))
    desk.keep(account, TaskOutput.update("1", metadata={"a": 1}))
    desk.keep(account, TaskOutput("3", "x"), TaskOutput.gone("2"))
    later, cursor = all_of(desk.conn, after=cursor)
    assert told(later) == [("updated", "1"), ("deleted", "2"), ("created", "3")]
    desk.keep(account, TaskOutput("3", "x"))
    assert all_of(desk.conn, after=cursor)[0] == []


def test_the_feed_and_the_run_show_the_number_of_held_deletions(desk) -> None:
    mine, other = desk.account("a", user_id="u"), desk.account("b", user_id="v")
    for account in (mine, other):
        desk.keep(account, TaskOutput("1"), TaskOutput("2"))
    root = desk.root(mine)
    tasks = [Task("step")]
    desk.finish(root, tasks=tasks, listed=[Listing()])
    assert progress(desk.conn, UUID(root.run_id)).counters()["deletions_held"] == 2
    desk.finish(*desk.claim())
    ended = progress(desk.conn, UUID(root.run_id))
    assert (ended.state, ended.counters()["deletions_held"]) == ("succeeded", 2)
    held = {
        user: changes.read(desk.conn, Principal(uuid4(), user)).deletions_held
        for user in (None, "u", "v")
    }
    assert held == {None: 2, "u": 2, "v": 0}


def test_a_user_reads_changes_of_their_own_accounts_only(desk, monkeypatch) -> None:
    monkeypatch.setattr(changes, "MAX_SCANNED_ROWS", 3)
    mine, other = desk.account("a", user_id="u"), desk.account("b", user_id="v")
    for number in range(5):
        desk.keep(other, *(TaskOutput(f"{number}-{item}", "x") for item in range(4)))
        desk.keep(mine, TaskOutput(f"mine{number}", "x"))
    found, _ = all_of(desk.conn, Principal(uuid4(), "u"), limit=2)
    assert [change.content["external_id"] for change in found] == [
        f"mine{number}" for number in range(5)
    ]


def test_operators_read_that_the_content_of_a_disconnected_account_was_erased(desk) -> None:
    """`polling disconnect --delete-content` keeps the account."""
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"))
    _, cursor = all_of(desk.conn)
    account_disconnect.hide(desk.conn, account, erases_account=False, now=True)
    assert sum(erasure.erase(desk.conn, account))
    assert told(all_of(desk.conn, after=cursor)[0]) == [("erased", None)]


def test_operators_read_that_an_account_was_erased(desk, api) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"))
    _, cursor = all_of(desk.conn)
    account_erase.erase_account(api.backend, account)
    found, cursor = all_of(desk.conn, after=cursor)
    assert [(change.kind, change.account, change.content) for change in found] == [
        ("erased", account, None)
    ]
    assert all_of(desk.conn, after=cursor)[0] == []


def test_latest_returns_only_later_changes(desk) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"))
    _, cursor = all_of(desk.conn, after=changes.LATEST)
    desk.keep(account, TaskOutput("2", "x"))
    assert told(all_of(desk.conn, after=cursor)[0]) == [("created", "2")]


def test_no_change_after_an_open_transaction_is_returned(desk, connect) -> None:
    account = desk.account("a", user_id="u")
    slow = connect()
    with slow.transaction():
        slow.execute("SELECT pg_current_xact_id()")  # takes a transaction id
        desk.keep(account, TaskOutput("1", "x"))
        assert all_of(desk.conn)[0] == []
        write(slow, account, "0")
    assert told(all_of(desk.conn)[0]) == [("created", "0"), ("created", "1")]


def writer_of(account):
    return store.Writer(str(account), "shop", str(uuid4()), 0, time.monotonic_ns())


def write(conn, account, *ids, content="x"):
    rows = [
        OutputRow(Operation.KEEP, id, kind="item", size=1, text=content, digest=uuid4().hex)
        for id in sorted(ids)
    ]
    store.upsert(conn, [(writer_of(account), row) for row in rows])


REACHED = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > max(changed_xid)
FROM user_integration_content
"""


class Abandoned(Exception):
    """A writer that rolls back."""


class Rush:
    """Writers that commit in any order, and readers that follow them.

    Attributes:
      read: The changes that each reader received.
    """

    def __init__(self, account, connect, seed) -> None:
        self.account, self.seed = account, seed
        self.conns = [connect() for _ in range(WRITERS + READERS)]
        self.read = [[] for _ in range(READERS)]
        self.done = threading.Event()
        self.failures: list[BaseException] = []

    def run(self) -> None:
        writers = [
            threading.Thread(target=self._guarded, args=(self._write, n)) for n in range(WRITERS)
        ]
        readers = [
            threading.Thread(target=self._guarded, args=(self._read, n)) for n in range(READERS)
        ]
        for thread in writers + readers:
            thread.start()
        for thread in writers:
            thread.join()
        self.done.set()
        for thread in readers:
            thread.join()
        assert not self.failures, self.failures

    def _guarded(self, act, number) -> None:
        try:
            act(number)
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.failures.append(error)

    def _write(self, number) -> None:
        dice = random.Random(f"{self.seed}-{number}")
        for round in range(ROUNDS):
            with suppress(Abandoned), self.conns[number].transaction():
                self._change(self.conns[number], number, round, dice)
                # The transaction stays open for a varying time, so that ids are taken in one order
                # and committed in another.
                self.conns[number].execute(
                    "SELECT pg_sleep(%s)", (dice.choice([0, 0, 0.002, 0.02]),)
                )
                if dice.random() < 0.1:
                    raise Abandoned

    def _change(self, conn, number, round, dice) -> None:
        ids = dice.sample(range(ITEMS), k=dice.randint(1, 3))
        write(conn, self.account, *(f"{number}/{id}" for id in ids), content=f"{round}")
        write(conn, self.account, f"{number}/new-{round}")
        if dice.random() < 0.3:
            store.mark_deleted(conn, [(writer_of(self.account), f"{number}/{ids[0]}")])

    def _read(self, number) -> None:
        conn, cursor, dice = (
            self.conns[WRITERS + number],
            None,
            random.Random(f"{self.seed}-reader-{number}"),
        )
        last = False
        while not last:
            # Others in the cluster, such as autovacuum, may delay the feed for a moment.
            last = self.done.is_set() and conn.execute(REACHED).fetchone()[0]
            found, cursor = all_of(conn, after=cursor, limit=dice.choice([1, 5, 50]))
            self.read[number] += found


@pytest.mark.parametrize("seed", range(2))
def test_concurrent_long_transactions_cause_no_gap_and_no_repeat(desk, connect, seed) -> None:
    """In the end each reader has the current state of every item, and received no change twice."""
    rush = Rush(desk.account("a", user_id="u"), connect, seed)
    rush.run()
    rows = {row["id"]: row for row in content_queries.content.pages(desk.conn)}
    place = dict(desk.rows("SELECT id, changed_xid FROM user_integration_content"))
    assert len(rows) > WRITERS * 10
    for found in rush.read:
        entries = [(change.content["changed_xid"], change.content["id"]) for change in found]
        assert len(entries) == len(set(entries)), "a change was returned twice"
        assert entries == sorted(entries)
        latest = {change.content["id"]: change.content for change in found}
        assert set(latest) == set(rows), "an item was never returned"
        assert {id: row["changed_xid"] for id, row in latest.items()} == place, (
            "a last change was not returned"
        )
        assert {id: row["deleted_at"] for id, row in latest.items()} == {
            id: row["deleted_at"] for id, row in rows.items()
        }


@pytest.mark.parametrize("hours", [-14, -5, 0, 5, 14])
def test_a_forged_date_at_the_edge_of_the_calendar_stops_no_reader(desk, hours) -> None:
    zone = timezone(timedelta(hours=hours))
    edges = (datetime.min.replace(tzinfo=zone), datetime.max.replace(tzinfo=zone))
    account = desk.account("a", user_id="u")
    desk.keep(
        account,
        *(TaskOutput(str(number), "x", timestamp=edge) for number, edge in enumerate(edges)),
    )
    for here in ("UTC", "Asia/Tokyo", "America/Los_Angeles"):
        desk.conn.execute("SELECT set_config('TimeZone', %s, false)", (here,))
        assert told(all_of(desk.conn)[0]) == [("created", "0"), ("created", "1")]
        assert len(list(content_queries.content.pages(desk.conn))) == 2


# Cursors
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        ["s", -5, 0, 0],
        ["s", 0, 2, 0],
        ["s", 2**63, 0, 0],
        ["s", True, 0, 0],
        ["s", "1 OR 1=1", 0, 0],
        ["s", 1.5, 0, 0],
        ["s", [1], 0, 0],
        [None, 0, 0, 0, 0],
        [],
    ],
)
def test_a_forged_cursor_is_refused(conn, place) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid cursor"):
        changes.read(conn, ADMIN, after=encode_cursor(place))


@pytest.mark.parametrize(
    "text", ["", "x", "====", "é", "bnVsbA", "W1tbW1tb", "\x00", "W1tbW1tb" * 3000]
)
def test_an_invalid_cursor_is_refused(conn, text) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid cursor"):
        changes.read(conn, ADMIN, after=text)


def test_a_cursor_of_another_database_is_refused_with_the_reason(api) -> None:
    cursor = encode_cursor(["7000000000000000000.1", 5, 0, 5])
    answer = api.admin.get("/v1/changes", params={"after": cursor})
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (
        410,
        "cursor-outdated",
    )


def test_changes_of_another_cluster_are_returned_after_a_restore(desk) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"), TaskOutput("2", "x"))
    desk.conn.execute(
        "UPDATE user_integration_content SET changed_xid = 9e15 WHERE external_id = '1'"
    )
    assert told(all_of(desk.conn)[0]) == [("created", "2")]
    assert changes.repair_horizon(desk.conn)
    assert not changes.repair_horizon(desk.conn)
    assert told(all_of(desk.conn)[0]) == [("created", "2"), ("created", "1")]


# Waiting
# --------------------------------------------------------------------------------------------------


def test_a_waiting_reader_is_answered_when_a_change_arrives(api, desk) -> None:
    account, user = desk.account("a", user_id="u"), api.user("u")
    cursor = user.get("/v1/changes").json()["cursor"]
    answers = []

    def wait() -> None:
        begun = time.monotonic()
        answer = user.get("/v1/changes", params={"after": cursor, "wait": 50}).json()
        answers.append((answer["changes"][0]["content"]["external_id"], time.monotonic() - begun))

    thread = threading.Thread(target=wait)
    thread.start()
    desk.keep(desk.account("b", user_id="v"), TaskOutput("other", "x"))
    desk.keep(account, TaskOutput("1", "x"))
    thread.join(40)
    assert answers[0][0] == "1"
    assert answers[0][1] < 40


def test_a_waiting_reader_without_changes_gets_a_cursor(api) -> None:
    answer = api.user("u").get("/v1/changes", params={"wait": 0.3}).json()
    assert (answer["changes"], answer["more"]) == ([], False)
    assert answer["cursor"]


def test_changes_of_others_delay_no_reader_beyond_its_wait(api, desk, monkeypatch) -> None:
    monkeypatch.setattr(changes, "MAX_SCANNED_ROWS", 1)
    desk.keep(
        desk.account("a", user_id="v"), *(TaskOutput(f"{number}", "x") for number in range(100))
    )
    answer = api.user("u").get("/v1/changes", params={"wait": 0.001}).json()
    assert (answer["changes"], answer["more"]) == ([], True)


def test_an_item_that_changes_during_a_read_is_returned_only_at_its_new_place(
    desk, monkeypatch
) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"), TaskOutput("2", "x"))
    visible = changes._visible

    def meanwhile(conn, principal, scanned):
        desk.keep(account, TaskOutput("1", "newer"))
        return visible(conn, principal, scanned)

    with monkeypatch.context() as patch:
        patch.setattr(changes, "_visible", meanwhile)
        feed = changes.read(desk.conn, ADMIN)
    assert told(feed.changes) == [("created", "2")]
    assert told(all_of(desk.conn, after=feed.cursor)[0]) == [("updated", "1")]
