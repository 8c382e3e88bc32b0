"""The effect of Google's error responses: waiting, stopping the account, or trying again."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from integration_polling_gmail import Config, Credentials, Gmail
from integration_polling_gmail.errors import BadRequest, Missing, Refused, Unauthorized, meaning
from integration_polling_gmail.streaming import Base64Decoder, LargeString, read_json
from integration_polling_gmail.tokens import refusal
from support.gmail import FakeGmail, mail
from support.gmail.server import POLICY, SCOPE, TOO_MANY_AT_ONCE, UNAUTHORIZED, error, rate_limited
from support.gmail.tokens import Answer

from core import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    PermanentError,
    RateLimited,
    TransientError,
    Unavailable,
)
from core.testing import Harness

NOW = datetime(2026, 11, 23, 15, 0, 0, tzinfo=UTC)
DATE = {"date": "Mon, 23 Nov 2026 15:00:00 GMT"}


@pytest.mark.parametrize(
    "date",
    [
        "", "23 Nov", "Mon, 23 Nov 99999999999999999999 15:00:00 GMT",
        "Mon, 23 Nov 2026 15:00:00 +99999999999999", "Fri, 31 Dec 9999 23:59:59 -0100",
        "Sat, 01 Jan 0001 00:00:00 +1400",
    ],
)  # fmt: skip
def test_an_invalid_date_header_costs_no_attempt(date: str) -> None:
    """The `Date` header may be garbage; the response is still a rate limit."""
    for code, found in (
        rate_limited(429, "2026-11-23T15:07:30.500Z"),
        error(403, "Daily", "dailyLimitExceeded"),
    ):
        assert isinstance(meaning(code, json.dumps(found).encode(), {"date": date}), RateLimited)


def said(answer: Answer) -> IntegrationError:
    code, found = answer
    return meaning(code, json.dumps(found).encode(), DATE)


QUERIES = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute"
NEWER = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED"}]


@pytest.mark.parametrize(
    ("answer", "limit", "seconds"),
    [
        (rate_limited(429, "2026-11-23T15:07:30.500Z"), "quota", 450.5),
        (rate_limited(403, "2026-11-23T15:00:10.000Z"), "quota", 10.0),
        (rate_limited(403, "2026-11-23T14:00:00.000Z"), "quota", 1.0),
        (rate_limited(429, None), "quota", None),
        (rate_limited(403, "2026-99-99T99:99:99Z"), "quota", None),
        (TOO_MANY_AT_ONCE, "user", 2.0),
        (
            error(403, f"{QUERIES} per user' of service", "rateLimitExceeded", details=NEWER),
            "quota",
            None,
        ),
        (error(403, f"{QUERIES}' of service", "rateLimitExceeded"), "project", None),
        (
            error(403, "Daily Limit Exceeded", "dailyLimitExceeded", domain="usageLimits"),
            "project",
            17 * 3600.0,
        ),
    ],
)
def test_both_formats_of_a_rate_limit_are_recognized(
    answer: Answer, limit: str, seconds: float | None
) -> None:
    found = said(answer)
    assert isinstance(found, RateLimited)
    assert (found.limit, found.retry_after) == (limit, seconds)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (POLICY, ConfigurationError),
        (SCOPE, CredentialsInvalid),
        (
            error(403, "Gmail API has not been used in project 1", "accessNotConfigured"),
            ConfigurationError,
        ),
        (error(403, "Delegation denied for owner", "forbidden"), ConfigurationError),
        (error(403, "Metadata scope doesn't allow format RAW", "forbidden"), CredentialsInvalid),
        (
            error(403, "Metadata scope does not support 'q' parameter", "forbidden"),
            CredentialsInvalid,
        ),
        (error(403, "Forbidden", "forbidden"), Refused),
        (error(400, "Precondition check failed.", "failedPrecondition"), Refused),
        (error(410, "Gone", "deleted"), PermanentError),
        (error(409, "Conflict", "aborted"), TransientError),
        ((404, {"error": {"code": 404, "message": "Method not found."}}), Unavailable),
        ((404, {"error": {"code": "404", "message": "x"}}), Unavailable),
        ((404, {"error": {"code": 5, "message": "no route"}}), Unavailable),
        ((404, {"error": "Not Found", "status": 404}), Unavailable),
        ((404, {"code": 404, "message": "no Route matched with those values"}), Unavailable),
        ((404, {}), Unavailable),
        ((403, {}), Unavailable),
        ((401, {}), Unavailable),
        ((400, {}), Unavailable),
        ((407, {}), Unavailable),
        (error(400, "Mail service not enabled", "failedPrecondition"), ConfigurationError),
        (error(400, "Invalid id value", "invalidArgument"), BadRequest),
        (UNAUTHORIZED, Unauthorized),
        (error(404, "Requested entity was not found.", "notFound"), Missing),
        (error(500, "Backend Error", "backendError"), Unavailable),
        (error(503, "The service is currently unavailable.", "backendError"), Unavailable),
        (error(403, "Backend Error", "backendError"), Unavailable),
        ((502, {}), Unavailable),
        ((408, {}), Unavailable),
        ((409, {}), TransientError),
        ((302, {}), TransientError),
        ((418, {}), Unavailable),
    ],
)
def test_other_errors_become_their_exception(answer: Answer, kind: type[IntegrationError]) -> None:
    assert type(said(answer)) is kind


@pytest.mark.parametrize(
    ("answer", "limit", "seconds"),
    [
        (rate_limited(429, None), "quota", 30.0),
        (rate_limited(403, None), "quota", 30.0),
        (rate_limited(429, "2026-11-23T15:00:10.000Z"), "quota", 30.0),
        (rate_limited(429, "2026-11-23T15:01:10.000Z"), "quota", 70.0),
        (TOO_MANY_AT_ONCE, "user", 30.0),
        ((429, {}), "quota", 30.0),
        (error(403, "Daily", "dailyLimitExceeded"), "project", 17 * 3600.0),
    ],
)
def test_the_header_retry_after_is_obeyed_beside_the_text(
    answer: Answer, limit: str, seconds: float
) -> None:
    code, found = answer
    limited = meaning(code, json.dumps(found).encode(), DATE | {"retry-after": "30"})
    assert isinstance(limited, RateLimited)
    assert (limited.limit, limited.retry_after) == (limit, seconds)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Mon, 23 Nov 2026 15:01:30 GMT", 90.0),
        ("Mon, 23 Nov 2026 14:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86_400.0),
        ("soon", None),
        ("٣", None),
        ("-5", None),
        ("", None),
    ],
)
def test_the_pause_of_a_server_error_is_honoured(value: str, seconds: float | None) -> None:
    headers = DATE | {"retry-after": value}
    for found in (meaning(503, b"", headers), refusal(503, {}, headers)):
        assert isinstance(found, Unavailable)
        assert (found.retry_after, found.limit) == (seconds, None)


@given(st.integers(300, 599), st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["error", "errors", "details", "reason", "message", "code"]), inner)).map(
            lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_response_becomes_an_exception(status: int, body: bytes) -> None:
    found = meaning(status, body, {})
    assert isinstance(found, IntegrationError)
    assert len(str(found)) < 400


def test_an_error_does_not_repeat_the_body() -> None:
    assert "token" not in str(meaning(502, b"<html>GET / Authorization: Bearer token", {}))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_grant", CredentialsInvalid),
        (400, "admin_policy_enforced", CredentialsInvalid),
        (401, "invalid_client", ConfigurationError),
        (401, "unauthorized_client", ConfigurationError),
        (429, "", RateLimited),
        (500, "internal_failure", Unavailable),
        (503, "", Unavailable),
        (400, "temporarily_unavailable", Unavailable),
        (403, "rate_limit_exceeded", RateLimited),
        (403, "", TransientError),
        (407, "<html>Log in to the proxy", TransientError),
    ],
)
def test_an_error_of_the_token_endpoint_becomes_its_exception(
    status: int, code: str, kind: type[IntegrationError]
) -> None:
    assert type(refusal(status, {"error": code})) is kind


def test_an_error_of_the_token_endpoint_names_its_subtype() -> None:
    assert "invalid_rapt" in str(
        refusal(400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"})
    )


@pytest.mark.parametrize("place", ["error", "error_subtype"])
def test_an_error_of_the_token_endpoint_repeats_only_codes(place: str) -> None:
    answer = {"error": "invalid_grant"} | {place: "refresh_token=1//0gSecret"}
    assert "Secret" not in str(refusal(400, answer))


# Probes


def probe(gmail: FakeGmail, **changes: Any) -> None:
    found = Gmail(Config(), Credentials.model_validate(gmail.credentials() | changes))
    with closing(found):
        found.probe()


def test_a_probe_is_one_call(gmail: FakeGmail) -> None:
    probe(gmail)
    assert gmail.count() == {"profile": 1}
    assert gmail.tokens.refreshes == 0


def test_a_probe_with_a_rejected_token_is_an_answer(gmail: FakeGmail) -> None:
    with pytest.raises(CredentialsInvalid):
        probe(gmail, access_token="expired")
    assert gmail.tokens.refreshes == 0, "only the engine renews tokens: Google may rotate them"


def test_a_probe_shows_that_gmail_does_not_answer(gmail: FakeGmail) -> None:
    gmail.fail(error(503, "The service is currently unavailable.", "backendError"), "profile")
    with pytest.raises(Unavailable):
        probe(gmail)


def test_a_probe_shows_that_no_token_can_be_renewed(
    gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile would answer 401, and the next task would need a new token."""
    monkeypatch.setenv("GOOGLE_TOKEN_URL", "http://127.0.0.1:9/token")
    with pytest.raises(Unavailable, match="token endpoint"):
        probe(gmail, access_token=None)


# In a sync


def connect(gmail: FakeGmail, **config: Any) -> Harness:
    return Harness(Gmail, config, gmail.credentials())


@pytest.mark.parametrize("code", [403, 429])
def test_retry_after_is_honoured_without_a_blocked_worker(gmail: FakeGmail, code: int) -> None:
    gmail.mailbox.fill(5)
    until = (datetime.now(UTC) + timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    gmail.fail(rate_limited(code, until), "message")
    harness = connect(gmail)
    result = harness.sync()
    assert result.state == "succeeded", [result.error, *result.parked]
    assert 1_700 < harness.clock < 1_900, "the wait must be in virtual time"
    assert len([item for item in harness.content.values() if item.kind == "message"]) == 5


def test_a_policy_stops_the_account_at_the_first_refusal(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(30)
    gmail.fail(POLICY, "message", times=1000)
    result = connect(gmail).sync()
    assert isinstance(result.error, ConfigurationError)
    assert gmail.count()["message"] == 1


@pytest.mark.parametrize("kind", ["profile", "labels", "messages", "message"])
def test_a_server_error_is_tried_again(gmail: FakeGmail, kind: str) -> None:
    gmail.mailbox.fill(3)
    gmail.fail(error(503, "The service is currently unavailable.", "backendError"), kind)
    assert connect(gmail).sync().state == "succeeded"


def test_a_response_that_is_not_json_is_tried_again(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(3)
    gmail.fail((200, b"<html>Sign in to the hotel's network"), "messages")  # type: ignore[arg-type]
    assert connect(gmail).sync().state == "succeeded"


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("messages", {}), ("messages", {"status": "ok"}), ("labels", {"status": "ok"}),
        ("messages", {"messages": None}), ("messages", {"messages": {"0": {"id": "1"}}}),
        ("messages", {"messages": [None]}), ("messages", {"messages": [{"id": 1}]}),
        ("messages", {"messages": [], "nextPageToken": 5}),
        ("messages", {"messages": [], "nextPageToken": ["x"]}), ("labels", {"labels": "none"}),
        ("labels", {"labels": None}), ("profile", {}), ("profile", {"historyId": 1.7e19}),
        ("profile", {"historyId": "١٢"}),
    ],
)  # fmt: skip
def test_a_malformed_listing_deletes_nothing(
    gmail: FakeGmail, kind: str, answer: dict[str, Any]
) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail, labels=["INBOX"])
    assert harness.sync().state == "succeeded"
    gmail.fail((200, answer), kind)
    result = harness.sync("resync")
    assert (result.state, result.outputs_deleted, result.held) == ("succeeded", 0, [])
    assert [type(error) for error in result.failures] == [TransientError]


@pytest.mark.parametrize("history", [None, {}, "x", [None], [["x"]]])
def test_a_malformed_history_loses_nothing(gmail: FakeGmail, history: Any) -> None:
    harness = connect(gmail)
    assert harness.sync().state == "succeeded"
    id = gmail.mailbox.add(mail())
    gmail.fail((200, {"history": history, "historyId": str(gmail.mailbox.history_id)}), "history")
    assert harness.sync().state == "succeeded"
    assert id in harness.content, "the cursor moved past the message"


@pytest.mark.parametrize("answer", [{}, {"id": "another", "raw": "AAAA"}, {"raw": ""}])
def test_a_response_that_is_not_the_message_is_tried_again(
    gmail: FakeGmail, answer: dict[str, Any]
) -> None:
    id = gmail.mailbox.add(mail("Kept"))
    gmail.fail((200, answer), "message")
    harness = connect(gmail)
    assert harness.sync().state == "succeeded"
    assert harness.content[id].name == "Kept"
    assert harness.content[f"{id}/raw"].content == gmail.mailbox.messages[id].raw


def test_a_response_without_the_message_removes_no_labels(gmail: FakeGmail) -> None:
    id = gmail.mailbox.fill(1)[0]
    harness = connect(gmail, labels=["INBOX"])
    assert harness.sync().state == "succeeded"
    gmail.mailbox.forget_history()
    gmail.fail((200, {}), "message")
    assert harness.sync().state == "succeeded"
    assert id in harness.content


def test_a_truncated_response_is_tried_again(gmail: FakeGmail) -> None:
    id = gmail.mailbox.add(mail())
    gmail.fail((200, b'{"id": "1", "raw": "AAAA'), "message")  # type: ignore[arg-type]
    harness = connect(gmail)
    assert harness.sync().state == "succeeded"
    assert harness.content[f"{id}/raw"].content == gmail.mailbox.messages[id].raw


def test_one_message_that_fails_for_good_is_parked_alone(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(5)
    gmail.failing = lambda kind, path: (
        error(400, "No", "invalidArgument") if ids[2] in path else None
    )
    harness = connect(gmail)
    result = harness.sync()
    assert (result.state, len(result.parked)) == ("partial", 1)
    assert len([item for item in harness.content.values() if item.kind == "message"]) == 4


# Responses in pieces


@given(st.binary(max_size=300), st.integers(1, 40), st.text(max_size=20), st.booleans())
def test_a_large_string_is_extracted_from_any_pieces(
    data: bytes, chunk: int, snippet: str, first: bool
) -> None:
    import base64

    encoded = base64.urlsafe_b64encode(data).decode()
    rest = {"snippet": snippet + '"raw": "no', "labelIds": ["raw"], "nested": {"x": snippet}}
    found = {"raw": encoded, **rest} if first else {**rest, "raw": encoded}
    text = json.dumps(found).replace("=", "\\u003d").encode()
    out = bytearray()
    reader = LargeString("raw", out.extend)
    for start in range(0, len(text), chunk):
        reader.feed(text[start : start + chunk])
    assert reader.finish() == {**rest, "raw": ""}
    assert bytes(out) == data


@given(st.binary(max_size=200))
def test_nothing_makes_the_base64_decoder_raise(data: bytes) -> None:
    decoder = Base64Decoder()
    decoder.feed(data)
    decoder.finish()


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_response_is_parsed_or_rejected(data: bytes, chunk: int) -> None:
    pieces = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    try:
        assert isinstance(read_json(pieces), dict)
    except TransientError:
        return
    reader = LargeString("raw", len)
    reader.feed(b'{"raw": "' + data)
