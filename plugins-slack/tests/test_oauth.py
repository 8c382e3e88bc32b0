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
from integration_polling_slack import Config, Credentials, Slack, scopes
from pydantic import ValidationError

from core import CredentialsInvalid, OAuth
from core.errors import InvalidInput, WrongState
from core.service.accounts.oauth_client import _client, _exchange, authorization_url
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
    with pytest.raises(WrongState) as refused:
        _client(oauth, CALLBACK)
    assert refused.value.fields == {"setting": "SLACK_CLIENT_SECRET"}


def asked_scopes(fake: Fake, **config: Any) -> dict[str, set[str]]:
    """Return the scopes in the authorization request of an account with this config."""
    oauth, parameters = endpoint(fake), Slack.oauth_parameters(Config(**config))
    url = authorization_url(oauth, CALLBACK, "s", "v" * 43, parameters)
    found = dict(parse_qsl(urlsplit(url).query))
    return {
        name: set(found[name].split(",")) for name in ("scope", "user_scope") if found.get(name)
    }


@pytest.mark.parametrize(
    "config",
    [
        {}, {"types": ["public"]}, {"types": ["im", "mpim"]}, {"files": "all"},
        {"types": ["public"], "join_public": True}, {"files": "none"},
    ],
)  # fmt: skip
def test_the_scopes_asked_for_follow_the_config(fake: Fake, config: dict[str, Any]) -> None:
    needed = scopes.needed(Config(**config)) | {"usergroups:read"}
    assert asked_scopes(fake, **config) == {"scope": needed}
    person = asked_scopes(fake, connect_as="person", **config)
    assert person == {"user_scope": needed - {"channels:join"} | {"search:read"}}


def test_a_config_for_public_channels_asks_for_nothing_private(fake: Fake) -> None:
    assert asked_scopes(fake, types=["public"])["scope"] == {
        "channels:read", "channels:history", "users:read", "usergroups:read",
    }  # fmt: skip


@pytest.mark.parametrize("config", [{}, {"types": ["im"]}, {"files": "all"}])
@pytest.mark.parametrize("kind", ["bot", "person"])
def test_the_scopes_asked_for_are_sufficient(fake: Fake, config: dict[str, Any], kind: str) -> None:
    [granted] = asked_scopes(fake, connect_as=kind, **config).values()
    fake.scopes = ",".join(granted)
    found = Slack.credentials_from_oauth(exchanged(fake, {"person": "user"}.get(kind, kind)))
    harness = Harness(Slack, {"connect_as": kind, **config}, found)
    assert harness.check().id == ("T1:U1" if kind == "person" else "T1:UBOT")
    assert harness.sync().state == "succeeded"


def test_an_expired_token_without_a_refresh_token_says_what_to_paste(fake: Fake) -> None:
    fake.tokens["xoxe.xoxb-1"] = "expired"
    error = Harness(Slack, {}, {"token": "xoxe.xoxb-1"}).sync().error
    assert isinstance(error, CredentialsInvalid)
    with pytest.raises(CredentialsInvalid, match="rotates its tokens"):
        Harness(Slack, {}, {"token": "xoxe.xoxb-1"}).check()
    assert "rotates its tokens" in error.reason
    assert "refresh token (`xoxe-1-…`)" in error.remedy
