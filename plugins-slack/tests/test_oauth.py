"""Connections in a browser: the engine's OAuth client requests tokens from Slack.

They become an account's credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from fake_slack import Fake
from fake_slack.server import CLIENT_ID
from integration_polling_slack import Credentials, Slack
from pydantic import ValidationError

from core import OAuth
from core.errors import InvalidInput, SettingsError
from core.service.accounts.oauth import _client, _exchange
from core.testing import Harness

CALLBACK = "https://polling.example.org/v1/oauth/callback"


def endpoint(fake: Fake) -> OAuth:
    """Return Slack's OAuth description, with the fake's token endpoint."""
    assert Slack.manifest.oauth is not None
    return replace(Slack.manifest.oauth, token_url=f"{fake.api_url}oauth.v2.access")


def exchanged(fake: Fake, kinds: str) -> Mapping[str, Any]:
    """Return the token endpoint's response after a user has agreed."""
    fake.codes["code-1"] = kinds
    return _exchange(Slack, endpoint(fake), CALLBACK, "code-1", "a-verifier")


@pytest.mark.parametrize(
    ("kinds", "identity"),
    [("bot", "T1:UBOT"), ("user", "T1:U1"), ("bot+user", "T1:UBOT"), ("user+bot", "T1:UBOT")],
)
@pytest.mark.parametrize("is_rotating", [True, False])
def test_an_installation_becomes_an_account(
    fake: Fake, kinds: str, identity: str, is_rotating: bool
) -> None:
    fake.is_rotating = is_rotating
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "hello")
    found = Slack.credentials_from_oauth(exchanged(fake, kinds))
    assert set(found) == ({"token", "refresh_token"} if is_rotating else {"token"})
    harness = Harness(Slack, {}, found)
    assert harness.check().id == identity
    fake.tokens[found["token"]] = "expired"
    result = harness.sync()
    assert (result.state == "succeeded") == is_rotating, (
        "a token is renewed with the refresh token of its own pair"
    )


def test_an_error_of_slack_is_not_a_token(fake: Fake) -> None:
    """Slack sends errors with HTTP 200."""
    with pytest.raises(InvalidInput, match="invalid_code"):
        _exchange(Slack, endpoint(fake), CALLBACK, "used-already", "a-verifier")


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": False, "access_token": "xoxb-1"},
        {"ok": False},
        {"access_token": "xoxb-1"},
        {"ok": True},
        {"ok": True, "authed_user": {"id": "U1"}},
        {"ok": True, "authed_user": ["xoxp-1"]},
        {"ok": True, "access_token": None, "refresh_token": "xoxe-1"},
        {"ok": True, "access_token": 7, "authed_user": None},
        {"ok": True, "access_token": ""},
        {"ok": True, "access_token": "two words"},
    ],
)
def test_a_response_without_tokens_is_rejected(answer: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Credentials.model_validate(Slack.credentials_from_oauth(answer))


def test_tokens_of_two_owners_are_not_combined() -> None:
    answer = {
        "ok": True,
        "access_token": "xoxb-1",
        "authed_user": {"access_token": "xoxp-1", "refresh_token": "xoxe-1"},
    }
    assert Slack.credentials_from_oauth(answer) == {"token": "xoxb-1"}


def test_the_authorization_request_has_comma_separated_scopes_and_no_pkce(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack requires commas between scopes, and accepts PKCE only from public clients."""
    oauth = endpoint(fake)
    with _client(oauth, CALLBACK) as client:
        url, _ = client.create_authorization_url(
            oauth.authorize_url, state="s", code_verifier="v" * 43, **oauth.extra
        )
    asked = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith("https://slack.com/oauth/v2/authorize?")
    assert asked == {
        "client_id": CLIENT_ID, "response_type": "code", "state": "s",
        "scope": ",".join(oauth.scopes),
        "redirect_uri": CALLBACK,
    }  # fmt: skip
    monkeypatch.delenv("SLACK_CLIENT_SECRET")
    with pytest.raises(SettingsError, match="SLACK_CLIENT_SECRET"):
        _client(oauth, CALLBACK)
