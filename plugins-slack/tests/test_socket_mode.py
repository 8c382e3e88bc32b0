"""Socket Mode: each event is answered when its hint is stored, and no connection ends in a gap."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.events import callback
from fake_slack.socket_mode import SocketMode
from integration_polling_slack import Slack, socket_mode
from integration_polling_slack.account import SlackSettings

from core import CredentialsInvalid, Hint, ListenableAccount, Listener, RateLimited
from core.egress import Egress, EgressRefused
from core.testing import RecordedHints, listening

MESSAGE = {"type": "message", "channel": "C1", "ts": "1700000000.000200", "user": "U1"}
LISTENER = Listener("app", {"account": "T1"})


@contextmanager
def connected(served: SocketMode) -> Iterator[RecordedHints]:
    """Listen during a block that begins after the greeting."""
    with listening(Slack, LISTENER) as heard:
        heard.wait_for(connections=1)
        yield heard


def failure(heard: RecordedHints) -> BaseException:
    """Wait until the listener has ended, and return its exception."""
    ended = threading.Event()
    while heard.error is None and not ended.wait(0.01):
        continue
    assert heard.error is not None
    return heard.error


def test_an_event_is_answered_when_its_hint_is_stored(
    served: SocketMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, may_store = RecordedHints.add, threading.Event()

    def slowly(hints: RecordedHints, account: str, part: str | None = None) -> None:
        assert may_store.wait(20)
        add(hints, account, part)

    monkeypatch.setattr(RecordedHints, "add", slowly)
    with connected(served) as heard:
        first = served.send(callback(MESSAGE))
        second = served.send(callback({**MESSAGE, "channel": "C2"}))
        assert not served.acknowledged
        may_store.set()
        served.until(acknowledged=second)
        assert served.acknowledged == [first, second]
        assert heard.hints == [Hint("T1", "C1"), Hint("T1", "C2")]


def test_an_event_that_cannot_be_stored_is_not_answered(
    served: SocketMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("the database is away")

    monkeypatch.setattr(RecordedHints, "add", fail)
    with connected(served) as heard:
        served.send(callback(MESSAGE))
        assert isinstance(failure(heard), OSError)
        served.until(connections=0)
    assert not served.acknowledged


def test_a_connection_counts_after_its_greeting(
    served: SocketMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_mode, "HELLO_SECONDS", 0.1)
    monkeypatch.setattr(socket_mode, "CHECK_SECONDS", 0.01)
    served.greets = False
    with listening(Slack, LISTENER) as heard:
        assert isinstance(failure(heard), socket_mode.Unanswered)
        assert heard.connections == 0
        served.until(connections=0)


@pytest.mark.parametrize("reason", ["warning", "refresh_requested"])
def test_the_next_connection_opens_before_the_last_one_ends(
    served: SocketMode, reason: str
) -> None:
    with connected(served) as heard:
        served.disconnect(reason)
        heard.wait_for(connections=2)
        served.until(connections=2)
        old = json.dumps({"envelope_id": "old", "type": "events_api", "payload": callback(MESSAGE)})
        served.raw(old, 0)
        served.until(acknowledged="old")
        served.until(acknowledged=served.send(callback({**MESSAGE, "channel": "C2"})))
        assert [hint.part for hint in heard.hints] == ["C1", "C2"]
        served.disconnect(reason, 0)
        served.open[0].close()
        served.until(connections=1)
        served.until(acknowledged=served.send(callback({**MESSAGE, "channel": "C3"})))
        assert heard.hints[-1] == Hint("T1", "C3")
        assert heard.error is None
        assert served.tickets == 2


def test_the_listener_closes_a_replaced_connection(
    served: SocketMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_mode, "OVERLAP_SECONDS", 0.1)
    with connected(served) as heard:
        for connections in (2, 3):
            served.disconnect("refresh_requested")
            heard.wait_for(connections=connections)
            served.until(connections=1)
        served.until(acknowledged=served.send(callback(MESSAGE)))
        assert heard.error is None


def test_a_refused_replacement_ends_the_listener(served: SocketMode) -> None:
    with connected(served) as heard:
        served.refuses = 503
        served.disconnect("refresh_requested")
        assert "503" in str(failure(heard))
        served.until(connections=0)


def test_a_connection_that_ends_before_its_greeting_is_a_failure(served: SocketMode) -> None:
    served.greets = False
    with listening(Slack, LISTENER) as heard:
        served.until(connections=1)
        served.disconnect("too_many_websockets")
        assert isinstance(failure(heard), socket_mode.Unanswered)
        assert heard.connections == 0


def test_a_lost_connection_ends_the_listener(served: SocketMode) -> None:
    with connected(served) as heard:
        served.open[0].socket.close()
        assert isinstance(failure(heard), ConnectionError)


def test_a_disabled_socket_mode_says_so(served: SocketMode) -> None:
    with connected(served) as heard:
        served.disconnect("link_disabled")
        assert "Socket Mode is disabled" in str(failure(heard))
        served.until(connections=0)


def test_a_repeated_event_makes_one_hint(served: SocketMode) -> None:
    event = callback(MESSAGE)
    with connected(served) as heard:
        served.send(event)
        again = served.send(event, retry_attempt=1, retry_reason="timeout")
        served.until(acknowledged=again)
        assert heard.hints == [Hint("T1", "C1")]
        assert len(served.acknowledged) == 2


FRAMES = (
    "", "{", "null", "[]", "1", '"x"', b"\xff\x00", "[" * 50_000, "{}", '{"type": []}',
    '{"envelope_id": 1, "type": "events_api", "payload": {}}',
    '{"envelope_id": "e1", "type": "events_api", "payload": null}',
    '{"envelope_id": "e2", "type": "events_api", "payload": {"event": 1}}',
    '{"envelope_id": "e3", "type": "slash_commands", "payload": {"command": "/x"}}',
    '{"type": "hello"}', '{"type": "something_new"}',
)  # fmt: skip


def test_malformed_frames_and_other_envelopes_do_no_harm(served: SocketMode) -> None:
    with connected(served) as heard:
        for frame in FRAMES:
            served.raw(frame)
        served.until(acknowledged=served.send(callback(MESSAGE)))
        assert heard.hints == [Hint("T1", "C1")]
        assert served.acknowledged[:3] == ["e1", "e2", "e3"]
        assert heard.error is None


def test_a_frame_that_is_too_large_ends_the_connection(
    served: SocketMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_mode, "MAX_FRAME_BYTES", 10_000)
    with connected(served) as heard:
        served.raw("x" * 10_001)
        assert "1009" in str(failure(heard))


def test_a_wrong_token_ends_the_listener(
    served: SocketMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_APP_TOKEN", "xapp-1-A1-2222-wrong")
    with listening(Slack, LISTENER) as heard:
        assert isinstance(failure(heard), CredentialsInvalid)


def test_a_limit_of_slack_is_waited_for(fake: Fake, served: SocketMode) -> None:
    fake.fail("apps.connections.open", "ratelimited", status=429, Retry_After="3600")
    stopping, waited = threading.Event(), list[float]()
    wait = stopping.wait

    def record(seconds: float | None = None) -> bool:
        waited.append(seconds or 0.0)
        return wait(0)

    stopping.wait = record  # type: ignore[method-assign]
    with pytest.raises(RateLimited):
        socket_mode.receive(SlackSettings(), RecordedHints(), stopping)
    assert waited == [socket_mode.MAX_WAIT_SECONDS]


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_refused_connection_ends_the_listener(served: SocketMode, status: int) -> None:
    served.refuses = status
    with listening(Slack, LISTENER) as heard:
        error = failure(heard)
        assert isinstance(error, ConnectionError)
        assert str(status) in str(error)
        assert "ticket" not in str(error)


def test_a_redirect_is_not_followed(served: SocketMode) -> None:
    served.refuses, served.location = 302, "/redirected"
    with listening(Slack, LISTENER) as heard:
        assert "302" in str(failure(heard))
    assert not heard.connections


def test_the_address_must_be_slacks(fake: Fake, served: SocketMode) -> None:
    real = SlackSettings.model_validate({"SLACK_API_URL": "https://slack.com/api/"})
    for url in ("wss://wss-primary.slack.com/link/?ticket=1", "wss://wss-mobile.slack-gov.com/"):
        assert socket_mode.is_slacks(real, url)
    for url in (
        "ws://wss-primary.slack.com/", "https://slack.com/", "wss://slack.com.example.org/",
        "wss://notslack.com/", "wss://127.0.0.1/", "wss://[::1/", "", "wss://",
    ):  # fmt: skip
        assert not socket_mode.is_slacks(real, url)
    assert socket_mode.is_slacks(SlackSettings(), served.url)
    served.url = "ws://203.0.113.7"
    with listening(Slack, LISTENER) as heard:
        assert "not one of Slack" in str(failure(heard))


def test_the_guard_of_outgoing_connections_holds(served: SocketMode) -> None:
    egress = Egress()
    try:
        with egress.for_account(public_only=True):
            with pytest.raises(EgressRefused):
                socket_mode._connected(served.url)
            with pytest.raises(EgressRefused):
                socket_mode.receive(SlackSettings(), RecordedHints(), threading.Event())
    finally:
        egress.close()
    assert not served.tickets


def test_no_log_has_the_ticket_or_the_token(
    served: SocketMode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with connected(served):
        served.until(acknowledged=served.send(callback(MESSAGE)))
    ours = [one.getMessage() for one in caplog.records if one.name != "websockets.server"]
    assert not [text for text in ours if "ticket" in text or "xapp" in text]
    assert "xapp" not in repr(SlackSettings())


def test_a_listener_with_nothing_to_read_stops(served: SocketMode) -> None:
    with connected(served):
        pass  # `listening` fails if the listener does not stop
    served.until(connections=0)


def test_the_operators_token_decides_how_events_arrive(served: SocketMode) -> None:
    account = ListenableAccount("1", "ann", "T1:UBOT", "T1:A1", {})
    [listener] = Slack.listeners(SlackSettings(), [account])
    assert listener.listens
    with pytest.raises(ValueError, match="printable ASCII"):
        SlackSettings.model_validate({"SLACK_APP_TOKEN": "two words"})


def test_without_accounts_no_connection_takes_events_of_another_domain(served: SocketMode) -> None:
    """Slack sends an event to only one of an app's connections."""
    [listener] = Slack.listeners(SlackSettings(), [])
    assert not listener.listens


@pytest.fixture
def served(socket_mode: SocketMode) -> SocketMode:
    """The fake's Socket Mode, beside the module of the same name."""
    return socket_mode
