"""Listings of a mailbox: the first one, and those after the history has expired."""

from __future__ import annotations

from integration_polling_gmail import Gmail
from support.gmail import FakeGmail, mail
from support.gmail.server import BAD_PAGE, error
from syncing import Costs, connect, messages, synced

from core import TransientError
from core.testing import Faults, Harness


def test_the_history_id_is_read_before_the_first_listing(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    synced(connect(gmail))
    kinds = [call.kind for call in gmail.calls]
    assert kinds.index("profile") < kinds.index("messages")


def test_the_first_sync_runs_in_the_background(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    assert [run.lane for run in synced(harness).runs] == ["live", "backfill"]


def test_all_pages_are_listed(gmail: FakeGmail) -> None:
    gmail.page_size = 7
    ids = gmail.mailbox.fill(60)
    harness = connect(gmail)
    synced(harness)
    assert set(messages(harness)) == set(ids)
    assert gmail.count() == {"profile": 1, "labels": 1, "messages": 9, "message": 60}


def test_new_mail_is_fetched_before_old_mail(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(40)
    synced(connect(gmail))
    fetched = [call.path.split("/")[1] for call in gmail.calls if call.kind == "message"]
    places = [ids.index(id) for id in fetched]
    assert all(
        abs(place - wanted) <= 3 for place, wanted in zip(places, reversed(range(40)), strict=True)
    )


def test_mail_that_arrives_while_the_first_sync_runs_appears_once(gmail: FakeGmail) -> None:
    gmail.page_size = 5
    gmail.mailbox.fill(20)
    arrived: list[str] = []

    def arrive(kind: str, path: str) -> None:
        if kind == "messages" and len(arrived) < 3:
            arrived.append(gmail.mailbox.add(mail("While it runs")))

    gmail.before = arrive
    harness = connect(gmail)
    synced(harness)
    synced(harness)
    assert len(messages(harness)) == 23
    assert set(arrived) <= set(messages(harness))
    assert gmail.count()["message"] == 23, "a message was fetched twice"


def test_a_rejected_page_token_restarts_the_listing(gmail: FakeGmail) -> None:
    gmail.page_size = 5
    ids = gmail.mailbox.fill(20)
    listed: list[str] = []
    gmail.failing = lambda kind, path: (
        BAD_PAGE if kind == "messages" and (listed.append(path) or len(listed) == 3) else None
    )
    harness = connect(gmail)
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_a_listing_that_repeats_its_page_is_deferred(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    ids = [{"id": id} for id in gmail.mailbox.messages]
    gmail.failing = lambda kind, path: (
        (200, {"messages": ids, "nextPageToken": "x"}) if kind == "messages" else None
    )
    harness = connect(gmail)
    result = harness.sync()
    assert result.state == "partial"
    assert isinstance(result.deferred[0].error, TransientError)


def test_nothing_is_lost_when_workers_die_between_pages(gmail: FakeGmail) -> None:
    """Every task, of a listing or a history page, dies twice before its result is kept."""
    gmail.page_size = 3
    gmail.mailbox.fill(20)
    harness = Harness(Gmail, {}, gmail.credentials(), faults=Faults(1, kill=1.0))
    synced(harness)
    assert set(messages(harness)) == set(gmail.mailbox.messages)
    gmail.mailbox.fill(10)
    gmail.mailbox.delete(next(iter(gmail.mailbox.messages)))
    synced(harness)
    assert set(messages(harness)) == set(gmail.mailbox.messages)
    assert gmail.count()["history"] > 9


def test_an_expired_history_is_listed_again_in_the_same_run(gmail: FakeGmail, costs: Costs) -> None:
    ids = gmail.mailbox.fill(10)
    harness = connect(gmail)
    synced(harness)
    kept = harness.content
    gmail.mailbox.delete(ids[0])
    gmail.mailbox.label(ids[1], remove=["UNREAD"])
    new = gmail.mailbox.add(mail("In the gap"))
    gmail.mailbox.forget_history()
    costs()
    result = synced(harness)
    assert [run.trigger for run in result.runs if run.lane == "live"] == ["schedule"]
    assert set(messages(harness)) == {*ids[1:], new}, "a deletion in the gap was missed"
    assert harness.content[ids[1]].metadata["labels"] == ["INBOX"], (
        "a change of labels in the gap was missed"
    )
    assert harness.content[ids[2]] == kept[ids[2]]
    # The new message has two rows, and the changed labels are in one row.
    assert (result.outputs_saved, result.outputs_deleted) == (3, 2)
    raw = [call for call in gmail.calls if call.params.get("format") == ["raw"]]
    assert [call.path for call in raw] == [f"messages/{new}"]
    costs()
    synced(harness)
    assert costs() == {"history": 1}


def test_labels_are_right_after_a_resync(gmail: FakeGmail) -> None:
    """Labels may change between the end of the old history and the listing.

    The plugin must not use the old labels as a base.
    """
    ids = gmail.mailbox.fill(5)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.label(ids[0], add=["STARRED"])
    gmail.mailbox.forget_history()
    changed: list[str] = []

    def change(kind: str, path: str) -> None:
        if kind == "messages" and not changed:
            changed.append(path)
            gmail.mailbox.label(ids[0], remove=["UNREAD"])

    gmail.before = change
    synced(harness)
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "STARRED"]
    gmail.mailbox.label(ids[1], remove=["INBOX"])
    synced(harness)
    assert harness.content[ids[1]].metadata["labels"] == ["UNREAD"]


def test_a_later_listing_stays_in_the_live_run(gmail: FakeGmail) -> None:
    """A backfill may have begun long before the listing.

    Its own listing would not find items deleted that the backfill itself has kept.
    """
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    generation = harness.state["history"]["generation"]  # type: ignore[index,call-overload]
    first = len(harness.tasks)
    synced(harness, "resync")
    listings = [task for task in harness.tasks if task.type == "get_email_list"]
    assert [task.background for task in listings] == [True, False]
    assert all(
        task.background
        for task in harness.tasks[first:]
        if task.type in ("download_email", "update_labels")
    )
    assert harness.state["history"]["generation"] != generation, (
        "two listings need two generations, even without changes"
    )


def test_an_unfinished_listing_is_restarted(gmail: FakeGmail, costs: Costs) -> None:
    ids, gmail.page_size = gmail.mailbox.fill(10), 4
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.delete(ids[0])
    gmail.mailbox.forget_history()
    pages: list[str] = []
    gmail.failing = lambda kind, path: (
        error(503, "Down", "backendError")
        if kind == "messages" and (pages.append(path) or len(pages) > 1)
        else None  # type: ignore[func-returns-value]
    )
    assert harness.sync().state == "partial"
    gmail.failing = lambda kind, path: None
    synced(harness)
    assert set(messages(harness)) == set(ids[1:]), "a deletion in the gap was missed"
    costs()
    synced(harness)
    assert costs() == {"history": 1}


def test_an_invalid_state_causes_a_resync(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    harness.state["history"] = {"id": 1.7e19}
    assert "resync" in [run.trigger for run in synced(harness).runs]


def test_the_deletion_of_most_of_a_mailbox_is_held(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(30)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.delete(*ids[:24])
    gmail.mailbox.forget_history()
    result = synced(harness)
    assert result.held
    assert set(messages(harness)) == set(ids)


def test_labels_that_a_resync_could_not_fetch_are_fetched_later(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.label(ids[0], add=["STARRED"])
    gmail.mailbox.forget_history()
    gmail.fail(error(400, "No", "invalidArgument"), "message", times=3)
    assert harness.sync().state == "partial"
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "UNREAD"]
    gmail.mailbox.label(ids[0], remove=["UNREAD"])
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX", "STARRED"]
