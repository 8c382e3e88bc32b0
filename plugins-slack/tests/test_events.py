"""Events of Slack: their signatures, and the parts that they name."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from fake_slack.events import SIGNING_SECRET, callback, reacted, signed
from fake_slack.workspace import Channel
from hypothesis import given
from hypothesis import strategies as st
from integration_polling_slack import Slack, events
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.parts import Part

from core import Hint, ListenableAccount, WebhookRequest, WebhookResponse

TS, ROOT = "1700000000.000200", "1600000000.000100"
MESSAGE = {"type": "message", "channel": "C1", "ts": TS, "user": "U1", "text": "hello"}
REPLY = {**MESSAGE, "thread_ts": ROOT}


def settings(**given: Any) -> SlackSettings:
    return SlackSettings.model_validate({"SLACK_SIGNING_SECRET": SIGNING_SECRET, **given})


def ask(body: bytes, headers: dict[str, str], **given: Any) -> WebhookResponse:
    return Slack.webhook(WebhookRequest(body, headers, {}, settings(**given)))


def parts(event: dict[str, Any], **fields: Any) -> list[str | None]:
    """Return the parts that an event names."""
    hints = ask(*signed(callback(event, **fields))).hints
    assert {hint.account for hint in hints} <= {"T1"}
    return [hint.part for hint in hints]


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (MESSAGE, ["C1"]),
        ({**MESSAGE, "thread_ts": TS}, ["C1"]),
        ({**MESSAGE, "subtype": "file_share"}, ["C1"]),
        ({**MESSAGE, "subtype": "channel_topic"}, ["C1", "C1:settings"]),
        (REPLY, [f"C1:{ROOT}"]),
        ({**REPLY, "subtype": "thread_broadcast"}, [f"C1:{ROOT}", "C1"]),
        ({**MESSAGE, "subtype": "message_changed", "message": MESSAGE}, [f"C1:{TS}"]),
        ({**MESSAGE, "subtype": "message_changed", "message": REPLY}, [f"C1:{ROOT}:{TS}"]),
        ({**MESSAGE, "subtype": "message_replied", "message": REPLY}, [f"C1:{ROOT}"]),
        ({**MESSAGE, "subtype": "message_deleted", "deleted_ts": ROOT}, [f"C1:{ROOT}"]),
        (
            {
                **MESSAGE,
                "subtype": "message_deleted",
                "deleted_ts": TS,
                "previous_message": REPLY,
            },
            [f"C1:{ROOT}:{TS}"],
        ),
        (reacted(Channel("C1", "general"), TS), [f"C1:{TS}"]),
        (reacted(Channel("C1", "general"), TS, "reaction_removed"), [f"C1:{TS}"]),
        ({"type": "channel_rename", "channel": {"id": "C1", "name": "new"}}, ["C1:settings"]),
        ({"type": "group_rename", "channel": {"id": "C1", "name": "new"}}, ["C1:settings"]),
        ({"type": "channel_created", "channel": {"id": "C1", "name": "new"}}, ["C1:settings"]),
        ({"type": "channel_left", "channel": "C1", "actor_id": "U1"}, ["C1:settings"]),
        ({"type": "group_left", "channel": "C1"}, ["C1:settings"]),
        ({"type": "channel_archive", "channel": "C1", "user": "U1"}, ["C1:settings"]),
        ({"type": "member_joined_channel", "channel": "C1", "user": "UBOT"}, ["C1:settings"]),
        ({"type": "member_joined_channel", "channel": "C1", "user": "U2"}, ["C1:members"]),
        ({"type": "member_left_channel", "channel": "C1", "user": "U2"}, ["C1:members"]),
        ({"type": "file_shared", "channel_id": "C1", "file_id": "F1"}, ["C1"]),
        ({"type": "file_change", "file_id": "F1", "file": {"id": "F1"}}, ["F1:file"]),
        ({"type": "file_deleted", "file_id": "F1"}, ["F1:file"]),
        ({"type": "channel_id_changed", "old_channel_id": "C1"}, [None]),
        ({"type": "tokens_revoked", "tokens": {"bot": ["UBOT"]}}, [None]),
        # Events that an account does not need.
        ({"type": "user_huddle_changed", "user": {"id": "U1"}}, []),
        ({"type": "emoji_changed", "subtype": "add"}, []),
        ({"type": "app_mention", "channel": "C1", "ts": TS}, []),
        ({"type": "reaction_added", "item": {"type": "file", "file": "F1"}}, []),
    ],
)
def test_an_event_names_the_part_to_ask_for(event: dict[str, Any], wanted: list[Any]) -> None:
    assert parts(event) == wanted
    assert None in wanted or all(str(Part.parse(text)) == text for text in wanted)


def test_lost_events_make_the_complete_account_due() -> None:
    limited = {"type": "app_rate_limited", "team_id": "T1", "minute_rate_limited": 1518467820}
    assert ask(*signed(limited)).hints == [Hint("T1")]


def test_an_event_concerns_each_workspace_that_it_names() -> None:
    seen_by = [{"team_id": "T2", "enterprise_id": "E1", "user_id": "U9"}, {"team_id": None}]
    payload = callback(MESSAGE, authorizations=seen_by, context_team_id="T3")
    assert ask(*signed(payload)).hints == [Hint(id, "C1") for id in ("T1", "T3", "T2", "E1")]
    many = [{"team_id": f"T{number}"} for number in range(1_000)]
    assert len(ask(*signed(callback(MESSAGE, authorizations=many))).hints) <= 100


def test_an_event_that_slack_sends_again_has_the_same_id() -> None:
    payload = callback(MESSAGE, event_id="Ev1")
    assert ask(*signed(payload)).id == "Ev1"
    body, headers = signed(payload)
    again = {**headers, "x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}
    assert ask(body, again).id == "Ev1"


def test_the_challenge_is_answered() -> None:
    challenge = {"type": "url_verification", "challenge": "3eZbrw1aB", "token": "legacy"}
    response = ask(*signed(challenge))
    assert (response.status, response.body, response.hints) == (200, "3eZbrw1aB", ())
    assert response.content_type == "text/plain"
    assert ask(*signed(challenge, "another secret")).status == 401
    for wrong in (None, 1, {}, "x" * 100_000):
        assert ask(*signed({**challenge, "challenge": wrong})).status == 400


def forged() -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return requests that Slack has not signed lately."""
    now, payload = time.time(), callback(MESSAGE)
    body, headers = signed(payload, at=now)
    name, at = "x-slack-signature", "x-slack-request-timestamp"
    return {
        "another secret": signed(payload, "wrong secret"),
        "an empty secret": signed(payload, ""),
        "another body": (body + b" ", headers),
        "no signature": (body, {at: headers[at]}),
        "no time": (body, {name: headers[name]}),
        "another time": (body, {**headers, at: str(int(now) - 1)}),
        "an old time": signed(payload, at=now - 400),
        "a time in the future": signed(payload, at=now + 400),
        "a strange digit": (body, {**headers, at: "\N{ARABIC-INDIC DIGIT ONE}"}),
        "a huge time": (body, {**headers, at: "9" * 10_000}),
        "not a number": (body, {**headers, at: "nan"}),
        "a strange signature": (body, {**headers, name: "v0=\N{SNOWMAN}"}),
        "without its version": (body, {**headers, name: headers[name][3:]}),
    }


def test_a_forged_or_old_request_is_refused() -> None:
    for name, request in forged().items():
        response = ask(*request)
        assert (response.status, response.hints, response.id) == (401, (), ""), name


def test_every_request_is_refused_without_a_secret() -> None:
    body, headers = signed(callback(MESSAGE), "")
    assert ask(body, headers, SLACK_SIGNING_SECRET="").status == 401


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"event": ' + b"9" * 9_999]
)
def test_a_malformed_body_does_no_harm(body: bytes) -> None:
    response = ask(*signed(body))
    assert (response.status, response.hints) == (400, ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from([TS, "C1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
KINDS = st.sampled_from(
    sorted(
        {"message", "file_shared", *events.CHANNEL_EVENTS, *events.MEMBER_EVENTS}
        | events.REACTION_EVENTS
        | events.FILE_EVENTS
    )
)
KEYS = (
    "subtype", "channel", "ts", "thread_ts", "deleted_ts", "message", "previous_message", "item",
    "file_id", "file", "user", "channel_id",
)  # fmt: skip
SUBTYPES = st.sampled_from(["message_changed", "message_deleted", "message_replied"])


@given(
    st.fixed_dictionaries(
        {"type": KINDS | JSON},
        optional=dict.fromkeys(KEYS, JSON | SUBTYPES),
    )
    | JSON,
    JSON,
)
def test_an_event_of_any_form_does_no_harm(event: Any, authorizations: Any) -> None:
    payload = callback(event, authorizations=authorizations)
    for hint in ask(*signed(payload)).hints:
        assert hint.part is None or str(Part.parse(hint.part)) == hint.part


@given(st.text(max_size=20) | st.sampled_from(["", ":", "C1:", f"C1:{TS}:{TS}:{TS}", "C1:x:file"]))
def test_another_text_names_no_part(text: str) -> None:
    part = Part.parse(text)
    assert part is None or str(part) == text


def test_accounts_are_known_by_their_workspace() -> None:
    accounts = [
        ListenableAccount("1", "ann", "T1:UBOT", "T1:A1", {}),
        ListenableAccount("2", "bob", "T1:U1", None, {}),
        ListenableAccount("3", "eve", "T2:UBOT", "T2:A1", {}),
    ]
    assert Slack.listeners(settings(SLACK_SIGNING_SECRET=""), accounts) == []
    [listener] = Slack.listeners(settings(), accounts)
    assert listener.accounts == {"1": "T1", "2": "T1", "3": "T2"}
    assert not listener.listens


def test_an_account_of_another_app_gets_no_events() -> None:
    accounts = [
        ListenableAccount("bot", "ann", "T1:UBOT", "T1:A1", {}),
        ListenableAccount("other bot", "ann", "T1:UBOT2", "T1:A2", {}),
        ListenableAccount("person", "ann", "T1:U1", "T1:1111.2222", {}),
        ListenableAccount("new", "ann", "T1:U2", None, {}),
    ]
    [listener] = Slack.listeners(settings(SLACK_APP_TOKEN="xapp-1-A1-1111-fake"), accounts)
    assert set(listener.accounts) == {"bot", "person", "new"}
    [listener] = Slack.listeners(settings(SLACK_APP_TOKEN="xapp-unknown"), accounts)
    assert len(listener.accounts) == 4


def test_a_secret_is_not_shown() -> None:
    assert SIGNING_SECRET not in repr(settings())
    assert SIGNING_SECRET not in json.dumps(settings().model_dump(mode="json"))
