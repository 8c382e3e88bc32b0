"""Rereads: what is written, what is not, and who wins."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from support.letters import Letters

from core import (
    BaseIntegration,
    CredentialsInvalid,
    Listing,
    Manifest,
    Reader,
    SkipItem,
    StoredItem,
    TaskOutput,
    TaskResult,
)
from core.accounts import store as account_store
from core.content.blobs import Blobs
from core.db.pool import Database
from core.egress import Egress
from core.errors import PermanentError, WrongState
from core.ledger import completion, processes, rereads, scheduling
from core.ledger.outcomes import Dispatch, Outcome
from core.scopes import ALL
from core.service import authorization
from core.service.accounts import validation
from core.service.content import changes
from core.states import TaskState
from core.worker import reread as worker_reread
from core.worker.accounts import LoadedAccount
from core.worker.context import Services

Read = Callable[[StoredItem], TaskResult]


class Post(BaseIntegration):
    """An integration whose tests provide the reader."""

    manifest = Manifest("post", "Post", reader=Reader(3, ["letter"], ["source"]))
    how: Read

    def reread(self, item: StoredItem) -> TaskResult:
        return type(self).how(item)


def upper(item: StoredItem) -> TaskResult:
    """Read a letter: its words in capitals, and each word a file."""
    raw = item.child(f"{item.id}/raw")
    assert raw is not None
    words = raw.read().decode().split()
    files = [
        TaskOutput(f"{item.id}/{word}", word, kind="file", parent=item.id, name=word)
        for word in words
    ]
    letter = TaskOutput(
        item.id, " ".join(words).upper(), kind="letter", name=item.name, timestamp=item.timestamp,
        metadata=item.metadata, fingerprint=item.fingerprint,
    )  # fmt: skip
    return TaskResult([letter, *files], seen=[raw.id], listed=[Listing(item.id)])


def letter(id: str, text: str, raw: str | bytes, *files: str, **given: Any) -> list[TaskOutput]:
    return [
        TaskOutput(id, text, kind="letter", **given),
        TaskOutput(f"{id}/raw", raw, kind="source", parent=id),
        *(TaskOutput(f"{id}/{name}", name, kind="file", parent=id, name=name) for name in files),
    ]


@dataclass
class Office:
    """The account, the plugin's reader, and a worker without processes."""

    desk: Any
    account: UUID
    services: Services

    def keep(self, *outputs: TaskOutput, **more: Any) -> None:
        dispatch = self.root()
        self.desk.finish(dispatch, output=outputs, **more)

    def root(self) -> Dispatch:
        scheduling.request_run(self.desk.conn, self.account)
        return next(each for each in self.claim() if each.type == "start")

    def claim(self) -> list[Dispatch]:
        return self.desk.claim(domain="post")

    def request(self) -> UUID:
        return rereads.request_reread(self.desk.conn, self.account)[0]

    def read(self, how: Read, dispatch: Dispatch | None = None) -> Outcome:
        """Read a portion, without saving it."""
        Post.how = staticmethod(how)  # type: ignore[assignment]
        if dispatch is None:
            (dispatch,) = self.claim()
        loaded = LoadedAccount(
            account_store.load(self.desk.conn, self.account), Post, Post.config_model(),
            Post.credentials_model(), (), str,
        )  # fmt: skip
        return worker_reread.run_reread(dispatch, loaded, self.services)

    def save(self, outcome: Outcome) -> None:
        self.desk.save(outcome)
        completion.end_runs(self.desk.conn, {outcome.dispatch.run_id})

    def reread(self, how: Read = upper) -> list[Outcome]:
        """Reread the account completely."""
        self.request()
        outcomes = []
        while claimed := self.claim():
            outcomes.append(self.read(how, claimed[0]))
            self.save(outcomes[-1])
        return outcomes

    def xmin(self) -> dict[str, Any]:
        return self.desk.content("xmin::text")

    def feed(
        self, after: str | None = None, **given: Any
    ) -> tuple[list[tuple[str, str, str]], str]:
        anyone = authorization.Principal(uuid4(), None)
        feed = changes.read(self.desk.conn, anyone, after=after, limit=1_000, **given)
        found = [
            (each.content["external_id"], each.kind, each.cause)
            for each in feed.changes
            if each.content is not None
        ]
        return sorted(found), feed.cursor


@pytest.fixture
def office(desk: Any, database: Database, blobs: Blobs) -> Iterator[Office]:
    entry = {"domain": "post", "name": "Post", "version": "1", "tasks": {}, "max_tasks": 1_000}
    processes.register(desk.conn, [entry | {"reader_version": 3}])
    account = desk.account(domain="post")
    nothing = cast(Any, None)
    egress = Egress()
    services = Services(database, nothing, blobs, nothing, lambda _: False, egress)
    yield Office(desk, account, services)
    egress.close()


def test_a_reread_changes_what_differs_and_nothing_else(office: Office) -> None:
    office.keep(*letter("a", "wrong", "one two", "one"), *letter("b", "ONE", "one", "one"))
    before = office.xmin()
    office.reread()
    assert office.desk.content("content_text", "deleted_at IS NULL") == {
        "a": "ONE TWO", "a/one": "one", "a/two": "two", "a/raw": "one two",
        "b": "ONE", "b/one": "one", "b/raw": "one",
    }  # fmt: skip
    after = office.xmin()
    assert {id for id in before if before[id] != after[id]} == {"a"}
    assert office.desk.rows(
        "SELECT trigger, lane, state, outputs_saved, outputs_unchanged"
        " FROM sync_run WHERE trigger = 'reread'"
    ) == [("reread", "backfill", "succeeded", 2, 3)]


def test_nothing_is_written_if_nothing_differs(office: Office) -> None:
    when = datetime(2024, 5, 1, tzinfo=UTC)
    metadata = {"b": [1, 2.5, None], "a": {"ä": True}}
    office.keep(
        *letter("a", "ONE", "one", "one", metadata=metadata, timestamp=when, name="A\x00"),
        TaskOutput.update("a", metadata={"labels": ["x"]}, fingerprint="f"),
    )
    office.keep(TaskOutput.update("a", metadata={"labels": ["y"]}, fingerprint="g"))
    before = office.xmin()
    office.reread()
    assert office.xmin() == before


def test_vanished_children_are_marked_deleted_with_what_is_below_them(office: Office) -> None:
    office.keep(
        *letter("a", "ONE", "one", "one", "old"),
        TaskOutput("a/old/part", "x", kind="file", parent="a/old"),
        TaskOutput("other", "x", kind="file"),
    )
    office.reread()
    assert office.desk.alive() == {"a", "a/one", "a/raw", "other"}
    assert office.desk.value("SELECT outputs_deleted FROM sync_run WHERE trigger = 'reread'") == 2


@pytest.mark.parametrize("keeps", [True, False])
def test_vanished_children_are_deleted_where_the_account_keeps_items(
    office: Office, keeps: bool
) -> None:
    office.desk.rows(
        "UPDATE user_integration SET deletions = %s RETURNING 1", "keep" if keeps else "mark"
    )
    many = [f"f{number}" for number in range(30)]
    office.keep(*letter("a", "ONE", "one", "one", *many))
    office.reread()
    assert office.desk.alive() == {"a", "a/one", "a/raw"}
    assert office.desk.value("SELECT count(*) FROM held_deletion") == 0


def test_a_deleted_child_returns_if_the_source_has_it(office: Office) -> None:
    office.keep(*letter("a", "ONE", "one", "one"))
    office.keep(TaskOutput.gone("a/one"))
    office.reread()
    assert "a/one" in office.desk.alive()


def test_a_newer_download_wins_over_the_reread_of_an_older_source(office: Office) -> None:
    office.keep(*letter("a", "x", "old", "old"))
    office.request()
    (dispatch,) = office.claim()
    outcome = office.read(upper, dispatch)
    office.keep(*letter("a", "x2", "new", "new"), TaskOutput.gone("a/old"))
    office.save(outcome)
    assert office.desk.content("content_text", "deleted_at IS NULL") == {
        "a": "x2", "a/new": "new", "a/raw": "new"
    }  # fmt: skip
    # The item is read again, from its new source.
    office.save(office.read(upper))
    assert office.desk.content("content_text", "external_id = 'a'") == {"a": "NEW"}
    assert office.desk.alive() == {"a", "a/new", "a/raw"}


def test_a_change_of_metadata_during_a_reread_is_kept(office: Office) -> None:
    office.keep(*letter("a", "x", "one", "one", metadata={"labels": ["x"]}))
    office.request()
    outcome = office.read(upper)
    office.keep(TaskOutput.update("a", metadata={"labels": ["y"]}))
    office.save(outcome)
    office.save(office.read(upper))
    assert office.desk.content("content_text, metadata", "external_id = 'a'") == {
        "a": ["ONE", {"labels": ["y"]}]
    }


def test_a_late_download_loses_to_the_reread_of_a_newer_source(office: Office) -> None:
    """The reread keeps the number of its source, so an older download stays older."""
    late = office.root()
    scheduling.request_run(office.desk.conn, office.account)
    office.desk.add(UUID(late.run_id), "k")
    (newer,) = office.claim()
    assert newer.dispatch_seq > late.dispatch_seq
    office.desk.save(office.desk.outcome(newer, output=letter("a", "x", "new", "new")))
    office.request()
    payload_before = office.desk.value(
        "SELECT payload->>'before' FROM sync_task WHERE type = 'reread'"
    )
    assert int(payload_before) >= late.dispatch_seq
    # It waits for tasks that were dispatched before it.
    (dispatch,) = office.claim()
    assert office.read(upper, dispatch).state == TaskState.READY
    office.desk.save(office.desk.outcome(late, output=letter("a", "y", "old", "old")))
    office.save(office.read(upper, dispatch))
    assert office.desk.content("content_text", "external_id = 'a'") == {"a": "NEW"}


def test_a_deleted_item_is_not_read(office: Office) -> None:
    office.keep(*letter("a", "x", "one", "one"))
    office.request()
    outcome = office.read(upper)
    office.keep(TaskOutput.gone("a"))
    office.save(outcome)
    assert office.desk.alive() == set()
    office.reread()
    assert office.desk.alive() == set()


def test_a_sweep_still_deletes_what_was_read_again_during_its_run(office: Office) -> None:
    office.keep(*letter("a", "x", "one"), *letter("b", "x", "one"))
    lister = office.root()
    office.request()
    (dispatch,) = office.claim()
    dispatch.payload.pop("before")
    office.save(office.read(upper, dispatch))
    assert "a/one" in office.desk.alive()
    office.desk.finish(lister, guard=1.0, seen=["b"], listed=[Listing()])
    assert office.desk.alive() == {"b", "b/one", "b/raw"}


def test_the_feed_names_rereads_and_can_leave_them_out(office: Office) -> None:
    office.keep(*letter("a", "x", "one two", "one"), *letter("b", "ONE", "one", "one"))
    first, cursor = office.feed()
    assert {cause for _, _, cause in first} == {"sync"}
    office.reread()
    assert office.feed(cursor)[0] == [("a", "updated", "reread"), ("a/two", "created", "reread")]
    assert office.feed(cursor, without_rereads=True)[0] == []
    # A reader that begins now gets everything once.
    everything = {id for id, _, _ in office.feed(without_rereads=True)[0]}
    assert everything == {"a", "a/one", "a/two", "a/raw", "b", "b/one", "b/raw"}
    assert len(office.feed(without_rereads=True)[0]) == 7
    office.keep(TaskOutput.update("a", metadata={"labels": ["y"]}))
    assert office.feed(cursor, without_rereads=True)[0] == [("a", "updated", "sync")]
    assert ("a", "updated", "sync") in office.feed(cursor)[0]


def test_a_reader_without_rereads_misses_no_change_that_a_reread_covered(office: Office) -> None:
    office.keep(*letter("a", "ONE", "one", "one"))
    _, cursor = office.feed(without_rereads=True)
    office.keep(*letter("a", "x", "one two", "one"))
    office.keep(*letter("b", "y", "one two"))
    # The reader stands between the change and the reread that follows.
    office.reread()
    found, cursor = office.feed(cursor, without_rereads=True)
    assert {id for id, _, _ in found} >= {"a", "b", "b/raw"}
    assert office.feed(cursor, without_rereads=True)[0] == []


def test_one_item_that_cannot_be_read_gets_a_task_of_its_own(office: Office) -> None:
    office.keep(*letter("a", "x", "one"), *letter("b", "x", "two"), *letter("c", "x", "three"))

    def fails(item: StoredItem) -> TaskResult:
        if item.id == "b":
            raise ValueError("a bad letter")
        return upper(item)

    office.request()
    office.save(office.read(fails))
    assert office.desk.content("content_text", "kind = 'letter'") == {
        "a": "ONE", "b": "x", "c": "THREE"
    }  # fmt: skip
    (alone,) = office.claim()
    assert alone.payload["ids"] == ["b"]
    with pytest.raises(ValueError, match="a bad letter"):
        office.read(fails, alone)


def test_a_task_that_died_gives_each_item_a_task_of_its_own(office: Office) -> None:
    office.keep(*(row for number in range(3) for row in letter(f"l{number}", "x", "one")))
    office.request()
    (dispatch,) = office.claim()
    office.desk.rows("UPDATE sync_task SET crashes = 1 WHERE id = %s RETURNING 1", dispatch.task_id)
    died = type(dispatch)(**{**{n: getattr(dispatch, n) for n in dispatch.__slots__}, "crashes": 1})
    office.save(office.read(upper, died))
    singles = office.claim()
    assert sorted(each.payload["ids"] for each in singles) == [["l0"], ["l1"], ["l2"]]
    for each in singles:
        office.save(office.read(upper, each))
    assert set(office.desk.content("content_text", "kind = 'letter'").values()) == {"ONE"}


def test_an_item_that_a_reread_skips_does_not_change(office: Office) -> None:
    office.keep(*letter("a", "x", "one"))

    def skips(item: StoredItem) -> TaskResult:
        raise SkipItem("not now")

    office.reread(skips)
    assert office.desk.content("content_text", "external_id = 'a'") == {"a": "x"}


def test_an_error_about_credentials_does_not_stop_the_account(office: Office) -> None:
    office.keep(*letter("a", "x", "one"))

    def fails(item: StoredItem) -> TaskResult:
        raise CredentialsInvalid("none here")

    office.request()
    office.save(office.read(fails))
    with pytest.raises(PermanentError, match="none here"):
        office.read(fails)


def _connect_locally() -> None:
    with socket.socket(socket.AF_UNIX) as local:
        local.connect("/nowhere")


def test_a_reread_has_no_network(office: Office) -> None:
    office.keep(*letter("a", "x", "one"))
    tried = []

    def connects(item: StoredItem) -> TaskResult:
        for act in (
            lambda: socket.create_connection(("127.0.0.1", 9), 1),
            lambda: socket.getaddrinfo("localhost", 80),
            _connect_locally,
        ):
            try:
                act()
            except Exception as error:  # noqa: BLE001
                tried.append(type(error).__name__)
        return TaskResult()

    office.reread(connects)
    assert tried == ["EgressRefused"] * 3
    socket.getaddrinfo("localhost", 80)


@pytest.mark.parametrize(
    "result",
    [
        TaskResult([TaskOutput.update("a", metadata={})]),
        TaskResult([TaskOutput.gone("a")]),
        TaskResult([TaskOutput.gone("b")]),
        TaskResult([TaskOutput("elsewhere", "x")]),
        TaskResult(listed=[Listing()]),
        TaskResult(listed=[Listing("b")]),
    ],
)
def test_a_reread_reaches_only_its_item(office: Office, result: TaskResult) -> None:
    office.keep(*letter("a", "x", "one"), TaskOutput("b", "x", kind="file"))
    outcome = office.read(lambda _: result, (office.request(), office.claim()[0])[1])
    assert outcome.rereads == []
    assert [task.payload["ids"] for task in outcome.tasks] == [["a"]]


def test_portions_follow_each_other(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_reread, "PORTION_ROWS", 7)
    office.keep(*(row for number in range(9) for row in letter(f"l{number}", "x", "one")))
    outcomes = office.reread()
    assert len(outcomes) == 3
    assert set(office.desk.content("content_text", "kind = 'letter'").values()) == {"ONE"}


def test_a_portion_ends_after_some_time(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_reread, "PORTION_SECONDS", 0.0)
    office.keep(*(row for number in range(4) for row in letter(f"l{number}", "x", "one")))
    outcomes = office.reread()
    assert len(outcomes) == 4
    assert set(office.desk.content("content_text", "kind = 'letter'").values()) == {"ONE"}


def test_a_reread_leaves_time_to_syncs_of_its_process(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(worker_reread.time, "sleep", pauses.append)
    office.keep(*letter("a", "x", "one"), *letter("b", "x", "two"))
    office.reread()
    assert pauses == []
    office.services = replace(office.services, syncing=lambda: True)
    office.reread()
    assert len(pauses) == 2
    assert all(0 < pause <= worker_reread.MAX_YIELD_SECONDS for pause in pauses)


def test_a_reread_returns_early_when_its_account_stops(office: Office) -> None:
    office.keep(*letter("a", "x", "one"), *letter("b", "x", "two"))
    office.services = replace(office.services, stopping=lambda _: True)
    office.request()
    outcome = office.read(upper)
    assert [row.item for row in outcome.rereads] == ["a"]
    assert [task.payload["after"] for task in outcome.tasks] == ["a"]


def test_large_content_is_read_from_its_blob(office: Office) -> None:
    raw = b"word " * 300_000
    office.keep(*letter("a", "x", raw))

    def counts(item: StoredItem) -> TaskResult:
        source = item.child("a/raw")
        assert source is not None
        size = sum(len(chunk) for chunk in source.chunks())
        with item.blob() as blob:
            blob.write(source.read())
        file = TaskOutput("a/copy", blob.blob, kind="file", parent="a")
        same = TaskOutput("a/raw2", source.content, kind="source", parent="a")
        return TaskResult([TaskOutput("a", str(size), kind="letter"), file, same])

    office.reread(counts)
    found = office.desk.content("blob_key, size")
    assert found["a/copy"] == found["a/raw"] == found["a/raw2"]
    assert found["a/raw"][1] == len(raw)


def test_the_same_reread_is_joined(office: Office) -> None:
    first, is_new = rereads.request_reread(office.desk.conn, office.account)
    again, again_new = rereads.request_reread(office.desk.conn, office.account)
    assert (first, is_new, again_new) == (again, True, False)
    office.desk.rows("""UPDATE user_integration SET config = '{"a": 1}' RETURNING 1""")
    other, other_new = rereads.request_reread(office.desk.conn, office.account)
    assert (other, other_new) == (first, True)


def test_a_reread_joins_the_backfill(office: Office) -> None:
    office.desk.rows(
        "INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger,"
        " start_seq) VALUES (%s, %s, 'post', 'backfill', 'schedule', 0) RETURNING 1",
        uuid4(), office.account,
    )  # fmt: skip
    run = office.request()
    assert office.desk.rows("SELECT id FROM sync_run WHERE lane = 'backfill'") == [(run,)]


@pytest.mark.parametrize("status", ["paused", "error", "disconnected"])
def test_only_an_active_account_is_read_again(office: Office, status: str) -> None:
    office.desk.rows("UPDATE user_integration SET sync_status = %s RETURNING 1", status)
    with pytest.raises(WrongState):
        office.request()


def test_an_integration_without_a_reader_says_so(desk: Any) -> None:
    with pytest.raises(WrongState) as error:
        rereads.request_reread(desk.conn, desk.account())
    assert error.value.code == "reread-unsupported"


class TestAutomaticRereads:
    @pytest.fixture
    def worker(self, office: Office) -> Callable[..., None]:
        def beat(version: int | None, number: int = 7) -> None:
            readers = None if version is None else {"post": version}
            process = processes.Process(
                UUID(int=number), "worker", "host", 1, ["post"], 8, readers=readers
            )
            processes.heartbeat(office.desk.conn, process, datetime.now(UTC))

        return beat

    def test_an_older_readers_content_is_read_again_once(
        self, office: Office, worker: Callable[..., None]
    ) -> None:
        conn = office.desk.conn
        assert office.desk.value("SELECT reader_version FROM user_integration") == 3
        worker(3)
        assert rereads.reread_outdated(conn) == 0
        office.desk.rows("UPDATE user_integration SET reader_version = 2 RETURNING 1")
        assert rereads.reread_outdated(conn) == 1
        assert rereads.reread_outdated(conn) == 0

    @pytest.mark.parametrize("other", [2, None])
    def test_it_waits_until_every_worker_has_the_reader(
        self, office: Office, worker: Callable[..., None], other: int | None
    ) -> None:
        office.desk.rows("UPDATE user_integration SET reader_version = 2 RETURNING 1")
        assert rereads.reread_outdated(office.desk.conn) == 0
        worker(3)
        worker(other, 8)
        assert rereads.reread_outdated(office.desk.conn) == 0
        processes.deregister(office.desk.conn, UUID(int=8))
        assert rereads.reread_outdated(office.desk.conn) == 1

    def test_few_accounts_are_read_at_a_time(
        self, office: Office, worker: Callable[..., None]
    ) -> None:
        worker(3)
        for number in range(rereads.MAX_OPEN + 3):
            office.desk.account(f"a{number}", domain="post")
        office.desk.rows("UPDATE user_integration SET reader_version = 1 RETURNING 1")
        assert rereads.reread_outdated(office.desk.conn) == rereads.MAX_OPEN
        assert rereads.reread_outdated(office.desk.conn) == 0

    def test_an_account_that_is_not_active_is_read_when_it_resumes(
        self, office: Office, worker: Callable[..., None]
    ) -> None:
        worker(3)
        office.desk.rows(
            "UPDATE user_integration SET reader_version = 1, sync_status = 'paused' RETURNING 1"
        )
        assert rereads.reread_outdated(office.desk.conn) == 0
        office.desk.rows("UPDATE user_integration SET sync_status = 'active' RETURNING 1")
        assert rereads.reread_outdated(office.desk.conn) == 1


def test_only_marked_fields_need_a_reread() -> None:
    before = Letters.config_model(letters=1).model_dump()
    assert validation.needs_reread(Letters.config_model, before, before | {"files": False})
    assert not validation.needs_reread(Letters.config_model, before, before | {"letters": 2})
    assert not validation.needs_resync(Letters.config_model, before, before | {"files": False})


def test_a_changed_config_waits_for_a_reread(office: Office) -> None:
    config: dict[str, Any] = {"id": office.account, "config": "{}", "limits": "[]"}
    config |= {"public_hosts_only": False, "resync": False, "instead_of": None}
    for needed, version in ((False, 3), (True, 0)):
        office.desk.conn.execute(account_store.SET_CONFIG, config | {"reread": needed})
        assert office.desk.value("SELECT reader_version FROM user_integration") == version


def test_a_reread_is_requested_over_rest(api: Any, office: Office) -> None:
    user = api.client(api.token("u", scopes=ALL))
    place = f"/v1/user-integrations/{office.account}/reread"
    first, again = user.post(place), user.post(place)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["run_id"] == again.json()["run_id"]
    other = office.desk.account("no-reader", user_id="u")
    refused = user.post(f"/v1/user-integrations/{other}/reread")
    assert (refused.status_code, refused.json()["code"]) == (409, "reread-unsupported")
    assert str(other) in refused.text


def test_the_feed_over_rest_leaves_out_rereads(api: Any, office: Office) -> None:
    office.keep(*letter("a", "x", "one", "one"))
    user = api.client(api.token("u", scopes=ALL))
    cursor = user.get("/v1/changes").json()["cursor"]
    office.reread()
    with_rereads = user.get("/v1/changes", params={"after": cursor}).json()
    assert [change["cause"] for change in with_rereads["changes"]] == ["reread"]
    assert with_rereads["changes"][0]["content"]["reread_at"] is not None
    without = user.get("/v1/changes", params={"after": cursor, "rereads": False}).json()
    assert without["changes"] == []
    following = user.get("/v1/changes", params={"after": without["cursor"]}).json()
    assert following["changes"] == []


def test_a_reread_travels_in_a_message(office: Office) -> None:
    office.keep(*letter("a", "x", "one two", "one", "old"))
    office.request()
    outcome = office.read(upper)
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert again == outcome
    office.save(again)
    assert office.desk.alive() == {"a", "a/one", "a/two", "a/raw"}
