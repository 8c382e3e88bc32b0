"""Gmail's own words decide: a message is gone, an account stops, a history has expired.

The cases `cases/e2e-*.json` are from public reports: the answers of a server, and the correct
effects.
"""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from integration_polling_gmail import Config, Credentials, Gmail
from support.gmail import FakeGmail, mail
from support.gmail.server import NOT_FOUND, Rule, error
from syncing import Costs, connect, messages, synced

from core import ConfigurationError, CredentialsInvalid, IntegrationError, PermanentError
from core.testing import Harness

CASES = Path(__file__).parent / "cases"
HTML = "<html><head><title>404</title></head><body>default backend - 404</body></html>"
DELEGATION, SCOPE = "e2e-403-forbidden-delegation", "e2e-403-forbidden-metadata-scope"


def rules(name: str, **changes: Any) -> list[Rule]:
    """Return the rules of a case."""
    case = json.loads((CASES / f"{name}.json").read_text())
    return [Rule(rule | changes) for rule in case["rule"]]


def check(gmail: FakeGmail, **config: Any) -> None:
    credentials = Credentials.model_validate(gmail.credentials())
    with closing(Gmail(Config(**config), credentials)) as plugin:
        plugin.check()


def kept(gmail: FakeGmail, count: int) -> tuple[list[str], Harness]:
    ids = gmail.mailbox.fill(count)
    harness = connect(gmail)
    synced(harness)
    return ids, harness


def age(harness: Harness, **fields: timedelta) -> None:
    """Move times of the state into the past."""
    state: Any = harness.state["history"]
    for name, span in fields.items():
        state[name] = (datetime.now(UTC) - span).isoformat()


# What is gone


@pytest.mark.parametrize(
    "answer",
    [
        (404, ""), (404, HTML), (404, '{"error": "Not Found"}'), (404, "404 page not found\n"),
        (404, '{"code": 404, "message": "no Route matched"}'), (404, "null"), (404, "[]"),
        (404, '{"error": {"code": 404, "message": "Method not found.", "status": "NOT_FOUND"}}'),
        (404, '{"error": {"code": "NotFound", "message": "x"}}'), (403, ""), (403, HTML),
        (401, HTML), (400, HTML), (410, ""), (407, HTML), (451, ""), (421, ""), (302, ""),
    ],
    ids=str,
)  # fmt: skip
def test_another_servers_answer_deletes_nothing_and_stops_nobody(
    gmail: FakeGmail, answer: tuple[int, str]
) -> None:
    ids, harness = kept(gmail, 25)
    gmail.mailbox.delete(ids[0])
    gmail.mailbox.forget_history()
    status, text = answer
    (rule,) = rules("e2e-404-not-from-google", status=status, text=text, times=4)
    gmail.rules = [rule]
    result = harness.sync()
    assert result.error is None
    assert not result.parked
    gmail.rules = []
    synced(harness)
    assert set(messages(harness)) == set(ids[1:])


def test_another_servers_answer_loses_nothing_of_a_first_sync(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(20)
    gmail.rules = rules("e2e-404-not-from-google", times=5)
    harness = connect(gmail)
    assert harness.sync().error is None
    gmail.rules = []
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_an_outage_during_the_first_sync_parks_no_message(gmail: FakeGmail, costs: Costs) -> None:
    """The case `e2e-503-outage`: each request for a message answers 503, in several runs."""
    ids = gmail.mailbox.fill(40)
    outage = {"path": "/messages/", "status": 503, "reason": "backendError"}
    gmail.rules = [Rule(outage | {"message": "The service is currently unavailable."})]
    harness = connect(gmail)
    for _ in range(4):
        result = harness.sync("schedule")
        assert result.error is None
        assert not result.parked
    gmail.rules = []
    harness.sync("schedule")
    assert set(messages(harness)) == set(ids)


def test_another_servers_answer_expires_no_history(gmail: FakeGmail, costs: Costs) -> None:
    _, harness = kept(gmail, 5)
    new = gmail.mailbox.add(mail("New"))
    gmail.rules = [Rule({"path": "/history", "status": 404, "text": HTML, "times": 1})]
    costs()
    synced(harness)
    assert new in harness.content
    assert costs() == {"history": 2, "labels": 1, "message": 1}


@pytest.mark.parametrize("burst", [1, 4])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "not yet fetched"])
def test_messages_that_are_not_found_are_requested_again_minutes_later(
    gmail: FakeGmail, is_kept: bool, burst: int
) -> None:
    ids, harness = kept(gmail, 5) if is_kept else (gmail.mailbox.fill(5), connect(gmail))
    if is_kept:
        gmail.mailbox.forget_history()
    gmail.fail(NOT_FOUND, "message", times=burst)
    before = harness.clock
    synced(harness)
    assert set(messages(harness)) == set(ids)
    assert harness.clock - before > 120
    assert gmail.count()["message"] == (10 if is_kept else 5) + burst


def test_a_message_that_is_not_found_twice_is_gone(gmail: FakeGmail) -> None:
    ids, harness = kept(gmail, 5)
    gmail.mailbox.forget_history()
    gmail.rules = [Rule({"path": f"/messages/{ids[0]}", "status": 404, "reason": "notFound"})]
    result = synced(harness)
    assert set(messages(harness)) == set(ids[1:])
    assert result.tasks_parked == 0


def test_a_burst_of_gone_messages_waits_for_a_person(gmail: FakeGmail) -> None:
    """The listing still names them, so that its sweep does not see the deletion."""
    ids, harness = kept(gmail, 40)
    gmail.mailbox.forget_history()
    gone = set(ids[:30])
    gmail.failing = lambda kind, path: NOT_FOUND if path.split("/")[-1] in gone else None
    result = synced(harness)
    lost = set(ids) - set(messages(harness))
    assert len(lost) < 24, "half of all rows, at most"
    assert harness.held
    assert result.outputs["held"]


# Who may connect


@pytest.mark.parametrize(
    ("name", "kind"), [(DELEGATION, ConfigurationError), (SCOPE, CredentialsInvalid)]
)
@pytest.mark.parametrize("query", ["", "is:unread"])
def test_a_refusal_of_the_account_is_found_at_connect(
    gmail: FakeGmail, name: str, kind: type[IntegrationError], query: str
) -> None:
    gmail.mailbox.fill(3)
    check(gmail, query=query)
    gmail.rules = rules(name)
    with pytest.raises(kind, match=r"Delegation denied|Metadata scope"):
        check(gmail, query=query)


def test_a_token_that_may_not_search_is_found_at_connect(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    message = "Metadata scope does not support 'q' parameter"
    gmail.rules = [Rule({"path": "q=", "status": 403, "reason": "forbidden", "message": message})]
    check(gmail)
    with pytest.raises(CredentialsInvalid, match=r"gmail\.metadata"):
        check(gmail, query="is:unread")


def test_a_check_of_an_empty_mailbox_and_of_a_vanishing_message_succeeds(
    gmail: FakeGmail, costs: Costs
) -> None:
    check(gmail)
    gmail.mailbox.fill(1)
    gmail.fail(NOT_FOUND, "message")
    check(gmail)
    costs()
    check(gmail)
    assert costs() == {"profile": 1, "messages": 1, "message": 1}


@pytest.mark.parametrize(
    ("name", "kind"), [(DELEGATION, ConfigurationError), (SCOPE, CredentialsInvalid)]
)
def test_a_refusal_of_the_account_stops_it(
    gmail: FakeGmail, name: str, kind: type[IntegrationError]
) -> None:
    gmail.mailbox.fill(5)
    harness = connect(gmail)
    gmail.rules = rules(name)
    result = harness.sync()
    assert isinstance(result.error, kind)
    assert not result.parked
    gmail.rules = []
    synced(harness)
    assert len(messages(harness)) == 5


@pytest.mark.parametrize(
    "refusal",
    [(400, "failedPrecondition", "Precondition check failed."), (403, "forbidden", "Forbidden")],
    ids=str,
)
def test_a_refusal_of_one_message_parks_it_alone(
    gmail: FakeGmail, refusal: tuple[int, str, str]
) -> None:
    ids = gmail.mailbox.fill(5)
    status, reason, text = refusal
    gmail.rules = rules(
        "e2e-400-one-message",
        path=f"/messages/{ids[2]}",
        status=status,
        reason=reason,
        message=text,
    )
    harness = connect(gmail)
    result = harness.sync()
    assert result.error is None
    assert [type(parked.error) for parked in result.parked] == [PermanentError]
    assert set(messages(harness)) == set(ids) - {ids[2]}


def test_a_refusal_of_the_profile_too_stops_the_account(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    (rule,) = rules("e2e-400-one-message", path="/messages/")
    gmail.rules = [rule, *rules("e2e-400-one-message", path="/profile")]
    gmail.mailbox.fill(1)
    result = harness.sync()
    assert isinstance(result.error, ConfigurationError)
    assert not result.parked
    with pytest.raises(ConfigurationError, match="Precondition check failed"):
        check(gmail)


# A rate limit delays all messages, and an error only its own.
@pytest.mark.parametrize(("status", "seconds"), [(429, 8 * 30), (503, 30)])
def test_retry_after_of_a_header_is_obeyed(gmail: FakeGmail, status: int, seconds: int) -> None:
    ids = gmail.mailbox.fill(8)
    gmail.rules = rules("e2e-retry-after-header", status=status)
    harness = connect(gmail)
    synced(harness)
    assert set(messages(harness)) == set(ids)
    assert seconds <= harness.clock < seconds + 30
    assert [call.status for call in gmail.calls].count(status) == 8


# Chats


CHAT = mail("", "See you at noon, <b>really</b>?")


@pytest.mark.parametrize("raw", [None, b"", b"Date: Mon, 23 Nov 2026 15:00:00 +0000\r\n"])
def test_a_chat_is_read_from_gmails_description_once(
    gmail: FakeGmail, costs: Costs, raw: bytes | None
) -> None:
    gmail.chat_raw = raw
    id = gmail.mailbox.add(CHAT, ["CHAT"])
    harness = connect(gmail)
    synced(harness)
    assert costs()["message"] == 2
    item = harness.content[id]
    assert "See you at noon" in str(item.content)
    assert item.metadata["labels"] == ["CHAT"]
    assert item.metadata["from"], "people are read too"
    assert f"{id}/raw" not in harness.content, "a chat has no source"
    synced(harness)
    assert costs() == {"history": 1}
    harness.reread()
    assert "See you at noon" in str(harness.content[id].content)


def test_files_of_a_chat_are_kept(gmail: FakeGmail) -> None:
    source = mail("", attachments=[("a.png", "image/png", b"\x89PNG bytes" * 100)])
    id = gmail.mailbox.add(source, ["CHAT"])
    harness = connect(gmail)
    synced(harness)
    (file,) = [item for item in harness.content.values() if item.kind == "attachment"]
    assert (file.name, file.content, file.parent) == ("a.png", b"\x89PNG bytes" * 100, id)


def test_a_chat_without_words_is_kept_and_not_requested_again(
    gmail: FakeGmail, costs: Costs
) -> None:
    id = gmail.mailbox.add(b"", ["CHAT"])
    harness = connect(gmail)
    synced(harness)
    assert id in harness.content
    costs()
    synced(harness)
    assert costs() == {"history": 1}


# The history


@pytest.mark.parametrize("digits", [1, 19, 20, 21, 40, 300])
def test_history_ids_may_have_any_length(gmail: FakeGmail, digits: int) -> None:
    start = int("9" * digits)
    gmail.mailbox.history_id = gmail.mailbox.oldest_history_id = start
    _, harness = kept(gmail, 3)
    new = gmail.mailbox.add(mail("New"))
    result = synced(harness)
    assert new in harness.content
    assert {run.trigger for run in result.runs} == {"schedule"}


def test_an_expired_history_id_that_is_the_newest_costs_one_question(
    gmail: FakeGmail, costs: Costs
) -> None:
    _, harness = kept(gmail, 5)
    gmail.fail(NOT_FOUND, "history", times=100)
    costs()
    for _ in range(3):
        synced(harness)
        assert costs() == {"history": 1, "profile": 1}


def test_a_history_that_expires_again_costs_one_listing_a_day(
    gmail: FakeGmail, costs: Costs
) -> None:
    gmail.page_size = 10
    ids, harness = kept(gmail, 30)
    gmail.mailbox.forget_history()
    synced(harness)
    costs()
    for number in range(3):
        new = gmail.mailbox.add(mail(f"New {number}"))
        gmail.mailbox.delete(ids.pop(0))
        gmail.mailbox.forget_history()
        synced(harness)
        assert costs() == {"history": 1, "profile": 1, "messages": 2, "message": 1}
        assert new in harness.content, "new mail is found on the newest pages"
    assert len(messages(harness)) == 33, "deletions wait for the listing"
    gmail.mailbox.forget_history()
    age(harness, listed=timedelta(hours=25))
    synced(harness)
    assert costs() == {"history": 1, "profile": 1, "messages": 3}, "no question per message"
    assert set(messages(harness)) == set(gmail.mailbox.messages)
    synced(harness)
    assert costs() == {"history": 1}


def test_new_mail_is_found_after_a_run_that_could_not_list_it(gmail: FakeGmail) -> None:
    _, harness = kept(gmail, 5)
    gmail.mailbox.forget_history()
    synced(harness)
    new = gmail.mailbox.add(mail("New"))
    gmail.mailbox.forget_history()
    gmail.fail(error(400, "No", "invalidArgument"), "messages")
    assert harness.sync().state == "partial"
    assert new not in harness.content
    synced(harness)
    assert new in harness.content


def test_a_history_that_expires_after_more_than_an_hour_is_listed_completely(
    gmail: FakeGmail,
) -> None:
    ids, harness = kept(gmail, 5)
    gmail.mailbox.forget_history()
    synced(harness)
    gmail.mailbox.label(ids[0], remove=["UNREAD"])
    gmail.mailbox.forget_history()
    age(harness, expired=timedelta(minutes=61))
    synced(harness)
    assert harness.content[ids[0]].metadata["labels"] == ["INBOX"]


# Labels


def names(harness: Harness) -> dict[str, str | None]:
    return {
        item.id.removeprefix("label/"): item.name
        for item in harness.content.values()
        if item.kind == "label" and item.metadata["type"] == "user"
    }


def test_renamed_deleted_and_empty_labels_are_followed(gmail: FakeGmail, costs: Costs) -> None:
    first, second = gmail.mailbox.create_label("First"), gmail.mailbox.create_label("Second")
    id = gmail.mailbox.add(mail(), ["INBOX", second])
    _, harness = kept(gmail, 3)
    gmail.mailbox.rename_label(first, "Renamed")
    costs()
    synced(harness)
    assert names(harness) == {first: "Renamed", second: "Second"}
    assert costs() == {"history": 1, "labels": 1}
    gmail.mailbox.delete_label(second)
    synced(harness)
    assert names(harness) == {first: "Renamed"}
    assert harness.content[id].metadata["labels"] == ["INBOX"]
    empty = gmail.mailbox.create_label("Empty")
    age(harness, labels_listed=timedelta(minutes=61))
    synced(harness)
    assert names(harness) == {first: "Renamed", empty: "Empty"}


# Attachments


def test_another_policy_fetches_nothing_that_is_stored(gmail: FakeGmail, costs: Costs) -> None:
    large = bytes(range(256)) * 40_000
    id = gmail.mailbox.add(
        mail(attachments=[("large.bin", "application/octet-stream", large)]), ["INBOX"]
    )
    gmail.mailbox.fill(20)
    harness = connect(gmail, max_attachment_mb=25)
    synced(harness)
    assert costs()["message"] == 21, "a large attachment comes with its message, once"
    for change in ({"max_attachment_mb": 1}, {"max_attachment_mb": 50}, {"attachments": "metadata"},
            {"attachments": "all"}, {"since": None}):  # fmt: skip
        for name, value in change.items():
            setattr(harness.config, name, value)
        harness.reread()
        synced(harness)
        assert costs() == {"history": 1}, change
    assert harness.content[f"{id}/1"].content == large


def test_a_large_forwarded_mail_is_taken_from_the_source(gmail: FakeGmail, costs: Costs) -> None:
    inner = mail("Inner", attachments=[("b", "application/octet-stream", b"\1" * 10_000_000)])
    head = b"Subject: Fwd\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nsee\r\n--b"
    source = head + b"\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--b--\r\n"
    id = gmail.mailbox.add(source)
    harness = connect(gmail)
    synced(harness)
    assert costs()["message"] == 1
    assert "attachment" not in costs()
    files = [item for item in harness.content.values() if item.kind == "attachment"]
    assert {item.content_type for item in files} >= {"message/rfc822"}
    assert all(item.content for item in files)
    assert id in harness.content
