"""Tokens: rotated one at a time, stored before use, sent only to Slack, and never logged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.server import BOT
from integration_polling_slack import Credentials, Slack
from pydantic import ValidationError

from core import ConfigurationError, CredentialsInvalid, TransientError
from core.testing import Harness


@pytest.fixture
def channel(fake: Fake) -> Any:
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "hello")
    return channel


def expire(fake: Fake) -> None:
    """Let all tokens expire, as after 12 hours."""
    for token in fake.tokens:
        fake.tokens[token] = "expired"


def test_an_expired_token_is_renewed_and_the_call_made_again(
    fake: Fake, channel: Any, connect: Any, sync: Any
) -> None:
    token, refresh = fake.rotate()
    harness = connect(token, refresh)
    sync(harness)
    expire(fake)
    fake.workspace.post(channel, "later")
    result = sync(harness)
    assert len(fake.called("oauth.v2.access")) == 1
    assert not result.failures
    credentials = harness.credentials
    assert isinstance(credentials, Credentials)
    assert credentials.token.get_secret_value() in fake.tokens
    assert credentials.refresh_token is not None
    assert credentials.refresh_token.get_secret_value() in fake.refresh_tokens


def test_a_token_that_expires_during_a_run_is_renewed(
    fake: Fake, channel: Any, connect: Any, sync: Any
) -> None:
    fake.page_cap = 3
    for number in range(20):
        fake.workspace.post(channel, f"message {number}")
    token, refresh = fake.rotate()
    expired: list[bool] = []

    def before(method: str, arguments: dict[str, str]) -> None:
        if method == "conversations.history" and len(fake.called(method)) == 4 and not expired:
            expired.append(True)
            expire(fake)

    fake.before = before
    harness = connect(token, refresh)
    sync(harness)
    assert len([item for item in harness.content.values() if item.kind == "message"]) == 21
    assert harness.charged["conversations.history"] == 1, "the repeated call must be charged"


def test_a_new_token_that_expires_immediately_does_not_stop_the_account(
    fake: Fake, channel: Any, connect: Any, sync: Any
) -> None:
    token, refresh = fake.rotate()
    fake.fail("conversations.history", "token_expired", times=2)
    harness = connect(token, refresh)
    [error] = sync(harness).failures
    assert isinstance(error, TransientError)


def test_an_expired_token_without_a_refresh_token_stops_the_account(
    fake: Fake, channel: Any, connect: Any
) -> None:
    expire(fake)
    assert isinstance(connect().sync().error, CredentialsInvalid)


def test_a_rejected_refresh_token_stops_the_account(fake: Fake, channel: Any, connect: Any) -> None:
    token, refresh = fake.rotate()
    expire(fake)
    fake.refresh_tokens.clear()
    error = connect(token, refresh).sync().error
    assert isinstance(error, CredentialsInvalid)
    assert "invalid_refresh_token" in str(error)


@pytest.mark.parametrize(
    ("name", "value"), [("SLACK_CLIENT_ID", ""), ("SLACK_CLIENT_SECRET", "wrong")]
)
def test_a_wrong_client_is_a_configuration_error(
    fake: Fake, channel: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    token, refresh = fake.rotate()
    expire(fake)
    assert isinstance(connect(token, refresh).sync().error, ConfigurationError)
    assert refresh in fake.refresh_tokens


def test_redirects_of_the_api_are_not_followed(
    fake: Fake, channel: Any, connect: Any, elsewhere: tuple[str, list[dict[str, str]]]
) -> None:
    """The default of urllib is to send the token to the redirect's target."""
    url, received = elsewhere
    fake.fail(
        "conversations.history", status=302, body=b"", Location=f"{url}/api/conversations.history"
    )
    connect().sync()
    assert not received


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that is not Slack's, and the headers that it received."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            received.append(dict(self.headers))
            self.send_response(200)
            self.end_headers()

        do_GET = do_POST = _answer  # noqa: N815  the names are the standard library's

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_content_state_and_logs_contain_no_token(
    fake: Fake, channel: Any, connect: Any, sync: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    fake.workspace.upload(channel, b"bytes")
    token, refresh = fake.rotate()
    harness = connect(token, refresh, files="all")
    sync(harness)
    expire(fake)
    sync(harness)
    told = f"{harness.content} {harness.state} {harness.tasks} {caplog.text}"
    assert "conversations.history" not in caplog.text, "the client must not log its requests"
    assert not [
        secret
        for secret in [*fake.tokens, *fake.refresh_tokens, refresh, "fake-client-secret"]
        if secret in told
    ]


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ümlaut"])
def test_a_token_that_is_not_one_word_is_invalid(token: str) -> None:
    with pytest.raises(ValidationError):
        Credentials.model_validate({"token": token})


def test_an_account_cannot_set_slacks_address(fake: Fake, channel: Any) -> None:
    assert not {"url", "api_url", "base_url"} & (
        set(Slack.config_model.model_fields) | set(Slack.credentials_model.model_fields)
    )
    harness = Harness(Slack, {}, {"token": BOT})
    harness.sync()
    assert fake.calls


@pytest.mark.parametrize("url", ["slack.com/api", "file:///etc/passwd", "https://"])
def test_an_invalid_address_is_a_configuration_error(
    connect: Any, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SLACK_API_URL", url)
    with pytest.raises(ConfigurationError, match="SLACK_API_URL"):
        connect().check()
