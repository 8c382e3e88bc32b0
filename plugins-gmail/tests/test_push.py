"""Events of Gmail: each becomes a hint. The account names the reason if none arrive."""

from __future__ import annotations

import base64
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from integration_polling_gmail import Gmail, push
from integration_polling_gmail.push import RENEW_EVERY, TRY_AGAIN_EVERY
from integration_polling_gmail.settings import GmailSettings
from pydantic import ValidationError
from support.gmail import FakeGmail, mail
from support.gmail.service_accounts import service_account
from syncing import Costs, connect, messages, synced

from core import EVENTS, ConfigurationError, Hint, ListenableAccount, Listener
from core.testing import Harness, RecordedHints, listening

OWNER = "owner@example.com"


@pytest.fixture
def pushing(gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch) -> FakeGmail:
    """The fake, with a subscription that the plugin knows."""
    for name, value in gmail.push_environment.items():
        monkeypatch.setenv(name, value)
    return gmail


@pytest.fixture
def listener(pushing: FakeGmail) -> Listener:
    return Listener(pushing.pubsub.subscription, {"1": OWNER})


def event(gmail: FakeGmail, **data: Any) -> None:
    given = {"emailAddress": OWNER, "historyId": 17} | data
    gmail.pubsub.publish(base64.urlsafe_b64encode(json.dumps(given).encode()).decode())


def failure(heard: RecordedHints) -> BaseException:
    """Wait until the listener has ended, and return its exception."""
    waiting = threading.Event()
    while heard.error is None and not waiting.wait(0.01):
        continue
    assert heard.error is not None
    return heard.error


def until_acknowledged(gmail: FakeGmail) -> None:
    waiting = threading.Event()
    while gmail.pubsub.waiting and not waiting.wait(0.01):
        continue


def watched(harness: Harness) -> Any:
    return harness.state[EVENTS]


def age_watch(harness: Harness, age: timedelta) -> None:
    """Move the latest attempt into the past."""
    watched(harness)["at"] = (datetime.now(UTC) - age).isoformat()


# The listener


def test_one_listener_has_all_accounts(pushing: FakeGmail) -> None:
    accounts = [
        ListenableAccount(id, "ann", identity, None, {})
        for id, identity in (("1", "Ann@Example.com"), ("2", "bob@example.com"), ("3", "x" * 501))
    ]
    [found] = Gmail.listeners(GmailSettings(), accounts)
    assert found.key == pushing.pubsub.subscription
    assert found.accounts == {"1": "ann@example.com", "2": "bob@example.com"}


def test_half_of_the_settings_is_an_error(
    gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Gmail.listeners(GmailSettings(), []) == []
    monkeypatch.setenv("GMAIL_PUBSUB_SUBSCRIPTION", gmail.pubsub.subscription)
    with pytest.raises(ConfigurationError, match="set both"):
        Gmail.listeners(GmailSettings(), [])
    monkeypatch.setenv("GMAIL_PUBSUB_SUBSCRIPTION", "polling")
    with pytest.raises(ValidationError, match="projects/PROJECT/subscriptions/NAME"):
        GmailSettings()


def test_an_event_is_acknowledged_when_its_hint_is_stored(
    pushing: FakeGmail, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, may_store = RecordedHints.add, threading.Event()

    def slowly(hints: RecordedHints, account: str, part: str | None = None) -> None:
        assert may_store.wait(20)
        add(hints, account, part)

    monkeypatch.setattr(RecordedHints, "add", slowly)
    with listening(Gmail, listener) as heard:
        heard.wait_for(connections=1)
        event(pushing, emailAddress="Owner@Example.com")
        assert pushing.pubsub.waiting == 1
        may_store.set()
        heard.wait_for(hints=1)
        until_acknowledged(pushing)
    assert heard.hints == [Hint(OWNER, "17")]


def test_an_event_that_cannot_be_stored_is_sent_again(
    pushing: FakeGmail, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushing.pubsub.ack_seconds = 0.1

    def fail(*arguments: Any) -> None:
        raise OSError("the database is away")

    with monkeypatch.context() as broken:
        broken.setattr(RecordedHints, "add", fail)
        with listening(Gmail, listener) as heard:
            heard.wait_for(connections=1)
            event(pushing)
            assert isinstance(failure(heard), OSError)
    assert pushing.pubsub.waiting == 1
    with listening(Gmail, listener) as heard:
        heard.wait_for(hints=1)
        until_acknowledged(pushing)


def test_several_events_of_a_mailbox_are_one_hint(pushing: FakeGmail, listener: Listener) -> None:
    for id in (5, 9, 7):
        event(pushing, historyId=id)
    event(pushing, emailAddress="bob@example.com", historyId="12")
    with listening(Gmail, listener) as heard:
        heard.wait_for(hints=2)
        until_acknowledged(pushing)
    assert heard.hints == [Hint(OWNER, "9"), Hint("bob@example.com", "12")]


@pytest.mark.parametrize(
    "data",
    ["", "!", "bnVsbA==", "W10=", "e30=", "/w==", base64.b64encode(b"[" * 50_000).decode(),
     base64.b64encode(b'{"emailAddress": 1, "historyId": 1}').decode(),
     base64.b64encode(b'{"emailAddress": "a@b", "historyId": "-1"}').decode()],
)  # fmt: skip
def test_a_malformed_message_is_acknowledged_without_a_hint(
    pushing: FakeGmail, listener: Listener, data: str
) -> None:
    pushing.pubsub.publish(data)
    event(pushing)
    with listening(Gmail, listener) as heard:
        heard.wait_for(hints=1)
        until_acknowledged(pushing)
    assert heard.hints == [Hint(OWNER, "17")]


def test_a_listener_stops_while_pub_sub_holds_its_pull(
    pushing: FakeGmail, listener: Listener
) -> None:
    pushing.pubsub.hold_seconds = 60
    with listening(Gmail, listener) as heard:
        heard.wait_for(connections=1)
    assert heard.error is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pullable": False}, "grant the role Pub/Sub Subscriber"),
        ({"project": "elsewhere"}, "does not exist"),
        ({"refuses": 503}, "503"),
    ],
)
def test_a_refused_pull_is_no_connection(
    pushing: FakeGmail, listener: Listener, change: dict[str, Any], says: str
) -> None:
    for name, value in change.items():
        setattr(pushing.pubsub, name, value)
    with listening(Gmail, listener) as heard:
        assert says in str(failure(heard))
    assert not heard.connections


def test_one_failed_pull_is_repeated_and_the_second_one_ends_the_listener(
    pushing: FakeGmail, listener: Listener
) -> None:
    pushing.pubsub.hold_seconds = 0.05
    with listening(Gmail, listener) as heard:
        heard.wait_for(connections=1)
        pulls = pushing.pubsub.pulls
        pushing.pubsub.refuses = 503
        while pushing.pubsub.refused == 0:
            threading.Event().wait(0.01)
        pushing.pubsub.refuses = 0
        event(pushing)
        heard.wait_for(hints=1)
        assert pushing.pubsub.pulls > pulls
        pushing.pubsub.refuses = 503
        assert "503" in str(failure(heard))
    assert heard.connections == 1


def test_rarely_polled_accounts_get_a_hint_each_day(
    pushing: FakeGmail, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "LOOK_EVERY_SECONDS", 0.1)
    pushing.pubsub.hold_seconds = 0.05
    with listening(Gmail, listener) as heard:
        heard.wait_for(connections=3)
    assert timedelta(seconds=24 * 3600) > RENEW_EVERY


@pytest.mark.parametrize("given", ["{}", "not-a-file", "/nowhere/key.json", "{"])
def test_a_wrong_key_is_told_without_repeating_it(
    pushing: FakeGmail, listener: Listener, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("GMAIL_PUBSUB_CREDENTIALS", given)
    with listening(Gmail, listener) as heard:
        error = failure(heard)
    assert "GMAIL_PUBSUB_CREDENTIALS is neither" in str(error)


def test_the_key_can_be_a_file(
    pushing: FakeGmail, listener: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "key.json").write_text(json.dumps(service_account()), "utf-8")
    monkeypatch.setenv("GMAIL_PUBSUB_CREDENTIALS", str(tmp_path / "key.json"))
    with listening(Gmail, listener) as heard:
        heard.wait_for(connections=1)
    assert pushing.tokens.subjects == [""], "the service account acts for itself"


# The watch


def test_an_account_renews_its_watch_each_day(pushing: FakeGmail, costs: Costs) -> None:
    harness = connect(pushing)
    synced(harness)
    assert costs()["watch"] == 1
    assert datetime.fromisoformat(watched(harness)["until"]) > datetime.now(UTC) + timedelta(6)
    synced(harness)
    assert "watch" not in costs()
    age_watch(harness, RENEW_EVERY)
    harness.hint()
    assert costs()["watch"] == 1
    synced(harness)
    assert "watch" not in costs()


def test_without_a_subscription_nothing_is_watched(gmail: FakeGmail, costs: Costs) -> None:
    harness = connect(gmail)
    synced(harness)
    assert "watch" not in costs()
    assert EVENTS not in harness.state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"granted": False}, "grant the role Pub/Sub Publisher on it to gmail-api-push@system"),
        ({"client_project": "other"}, "belongs to another Google Cloud project"),
        ({"exists": False}, "the topic of GMAIL_PUBSUB_SUBSCRIPTION does not exist"),
        ({"readable": False}, "grant the role Pub/Sub Viewer"),
        ({"refuses": 503}, "Pub/Sub answered 503"),
    ],
)
def test_a_refused_watch_is_told_and_stops_nothing(
    pushing: FakeGmail, costs: Costs, change: dict[str, Any], says: str
) -> None:
    for name, value in change.items():
        setattr(pushing.pubsub, name, value)
    id = pushing.mailbox.add(mail("Kept"))
    harness = connect(pushing)
    [warning] = harness.rehearse().warnings
    assert says in warning
    synced(harness)
    assert says in watched(harness)["problem"]
    assert id in messages(harness)
    costs()
    synced(harness)
    assert "watch" not in costs()
    for name in change:
        setattr(pushing.pubsub, name, getattr(type(pushing.pubsub)(), name))
    age_watch(harness, TRY_AGAIN_EVERY)
    synced(harness)
    assert watched(harness)["problem"] is None
    assert not harness.rehearse()


def test_the_first_copy_has_the_size_of_the_mailbox(pushing: FakeGmail) -> None:
    pushing.mailbox.add(mail("One"))
    pushing.mailbox.add(mail("Two"))
    bound = connect(pushing).rehearse().bound
    assert bound is not None
    assert (bound.items, bound.noun, bound.background) == (2, "messages", True)
    assert bound.cost == {"quota": 20.01, "project": 20.01}
    assert connect(pushing, query="from:me").rehearse().bound is None, "a part has another size"


def test_a_refused_renewal_keeps_the_time_of_the_watch(pushing: FakeGmail) -> None:
    harness = connect(pushing)
    synced(harness)
    until = watched(harness)["until"]
    pushing.pubsub.granted = False
    age_watch(harness, RENEW_EVERY)
    synced(harness)
    assert watched(harness)["until"] == until


def test_a_watch_for_another_topic_is_replaced(pushing: FakeGmail) -> None:
    pushing.pubsub.other_watch = True
    harness = connect(pushing)
    synced(harness)
    assert watched(harness)["problem"] is None
    assert pushing.pubsub.stops == 1


def test_a_watch_without_a_real_end_is_refused(
    pushing: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = connect(pushing)
    monkeypatch.setattr("support.gmail.pubsub.WATCH_SECONDS", 9e11)
    [warning] = harness.rehearse().warnings
    assert "unexpected response" in warning


def test_another_subscription_is_watched_immediately(
    pushing: FakeGmail, costs: Costs, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = connect(pushing)
    synced(harness)
    costs()
    watched(harness)["subscription"] = "projects/project/subscriptions/former"
    synced(harness)
    assert costs()["watch"] == 1


# The runs of hints


def test_a_hint_reads_the_history_and_nothing_else(gmail: FakeGmail, costs: Costs) -> None:
    harness = connect(gmail)
    synced(harness)
    state: Any = harness.state
    state["comparing"] = {"at": (datetime.now(UTC) - timedelta(hours=7)).isoformat()}
    id = gmail.mailbox.add(mail("News"))
    costs()
    harness.hint(str(gmail.mailbox.history_id))
    assert costs() == {"history": 1, "message": 1, "labels": 1}
    assert id in messages(harness)


def test_an_account_follows_only_newer_history(gmail: FakeGmail) -> None:
    harness = connect(gmail)
    assert harness.follows("17"), "before the first sync"
    synced(harness)
    known = gmail.mailbox.history_id
    gmail.mailbox.add(mail("News"))
    assert harness.follows(str(gmail.mailbox.history_id))
    harness.hint()
    assert not harness.follows(str(gmail.mailbox.history_id))
    assert not harness.follows(str(known))
    assert harness.follows("something")


def test_after_an_expired_history_a_hint_brings_news_and_the_next_poll_deletes(
    gmail: FakeGmail,
) -> None:
    old = gmail.mailbox.fill(5)
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.delete(old[0])
    new = gmail.mailbox.add(mail("News"))
    gmail.mailbox.forget_history()
    harness.hint()
    assert new in messages(harness)
    assert old[0] in messages(harness), "a run of hints never sweeps"
    later = gmail.mailbox.add(mail("More news"))
    harness.hint()
    assert later in messages(harness)
    synced(harness)
    assert set(messages(harness)) == set(gmail.mailbox.messages)


def test_a_hint_leaves_deleted_labels_to_the_next_poll(gmail: FakeGmail) -> None:
    label = gmail.mailbox.create_label("Old")
    harness = connect(gmail)
    synced(harness)
    state: Any = harness.state
    state["history"]["labels_listed"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    gmail.mailbox.delete_label(label)
    gmail.mailbox.add(mail("News"))
    harness.hint()
    synced(harness)
    assert f"label/{label}" not in harness.content


def test_a_change_of_since_waits_for_a_poll(gmail: FakeGmail) -> None:
    old = gmail.mailbox.add(mail("Old"))
    harness = connect(gmail)
    synced(harness)
    harness.config.since = datetime(2027, 1, 1, tzinfo=UTC).date()  # type: ignore[attr-defined]
    gmail.mailbox.add(mail("News"))
    harness.hint()
    synced(harness)
    assert old not in messages(harness)
