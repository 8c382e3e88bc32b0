"""Each kind of credentials, and their renewal."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from integration_polling_gmail import Config, Credentials, Gmail
from pydantic import ValidationError
from support.gmail import FakeGmail

from core import ConfigurationError, CredentialsInvalid
from core.egress import any_host
from core.errors import InvalidInput, PollingError
from core.service.accounts.check import CheckResult, check
from core.service.accounts.validation import credentials_of
from core.testing import Harness


def connected(*account: Any) -> CheckResult:
    """Return the engine's check of an account that is being connected."""
    return check(*account, egress=any_host())


CLIENT = "service@project.iam.gserviceaccount.com"


def tokens_of(harness: Harness) -> Credentials:
    assert isinstance(harness.credentials, Credentials)
    return harness.credentials


def probe(credentials: dict[str, Any], **config: Any) -> Any:
    """Check the credentials as `polling connect` does."""
    return connected(Gmail, Config(**config), Credentials.model_validate(credentials))


def test_a_refresh_token_alone_is_enough(gmail: FakeGmail) -> None:
    found = probe({"refresh_token": gmail.tokens.new_refresh_token()})
    assert (found.identity.id, found.identity.group) == (gmail.mailbox.address, "1234567")
    assert found.credentials.access_token is not None, "the new token is kept"


def test_a_token_is_renewed_before_it_expires(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(2)
    harness = Harness(Gmail, {}, {"refresh_token": gmail.tokens.new_refresh_token()})
    assert harness.sync().state == "succeeded"
    assert gmail.tokens.refreshes == 1
    assert {call.status for call in gmail.calls} == {200}, (
        "a call with an expired token is a wasted call"
    )
    expires = tokens_of(harness).access_token_expires
    assert expires is not None
    assert abs((expires - dt.datetime.now(dt.UTC)).total_seconds() - 3600) < 60


def test_a_rejected_token_is_renewed_once_and_the_task_continues(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(5)
    harness = Harness(Gmail, {}, gmail.credentials())
    gmail.tokens.expire_access_tokens()
    result = harness.sync()
    assert (result.state, result.failures) == ("succeeded", [])
    assert gmail.tokens.refreshes == 1


def test_a_rotated_refresh_token_is_kept(gmail: FakeGmail) -> None:
    gmail.tokens.rotate = True
    gmail.mailbox.fill(2)
    harness = Harness(Gmail, {}, gmail.credentials())
    for _ in range(3):
        gmail.tokens.expire_access_tokens()
        assert harness.sync().state == "succeeded"
    assert gmail.tokens.refreshes == 3


def test_a_revoked_token_stops_the_account_until_it_is_reconnected(
    gmail: FakeGmail,
) -> None:
    gmail.mailbox.fill(5)
    harness = Harness(Gmail, {}, gmail.credentials())
    gmail.tokens.revoke()
    result = harness.sync()
    assert isinstance(result.error, CredentialsInvalid)
    assert "invalid_grant" in str(result.error)
    before = len(gmail.calls)
    harness.reconnect(gmail.credentials())
    assert harness.sync().state == "succeeded"
    assert len([item for item in harness.content.values() if item.kind == "message"]) == 5
    assert before == 1, "polling continues with revoked credentials"


def test_a_new_token_that_is_rejected_stops_the_account(gmail: FakeGmail) -> None:
    from support.gmail.server import UNAUTHORIZED

    gmail.fail(UNAUTHORIZED, "profile", times=100)
    assert isinstance(Harness(Gmail, {}, gmail.credentials()).sync().error, CredentialsInvalid)
    assert gmail.tokens.refreshes == 1


def test_an_access_token_alone_works_until_it_expires(gmail: FakeGmail) -> None:
    gmail.mailbox.fill(2)
    harness = Harness(Gmail, {}, {"access_token": gmail.tokens.new_access_token()})
    assert harness.check().group is None
    assert harness.sync().state == "succeeded"
    gmail.tokens.expire_access_tokens()
    error = harness.sync().error
    assert isinstance(error, CredentialsInvalid)
    assert "without a refresh token" in str(error)


@pytest.mark.parametrize("token", ["ya29.copied…", "ya29.two\nlines"])
def test_a_token_with_invalid_characters_is_rejected(gmail: FakeGmail, token: str) -> None:
    with pytest.raises(InvalidInput, match="invalid characters"):
        probe({"access_token": token})
    assert gmail.calls == []


def test_a_profile_without_an_address_connects_no_account(gmail: FakeGmail) -> None:
    gmail.fail((200, {"historyId": "1", "emailAddress": None}), "profile")
    with pytest.raises(PollingError, match="no email address"):
        probe(gmail.credentials())


# A file of another kind

KEY = {"type": "service_account", "client_email": "a@b.example", "private_key": "s3cret-key"}
CLIENT_FILE = {"installed": {"client_id": "1-x", "client_secret": "s3cret-client"}}
FILES: dict[str, tuple[dict[str, Any], str, str]] = {
    "key": (KEY, "the key file of a service account", "give it as `service_account`"),
    "key without type": (
        {name: value for name, value in KEY.items() if name != "type"},
        "the key file of a service account", "`subject`",
    ),
    "desktop": (CLIENT_FILE, "the file of an OAuth client", "GMAIL_CLIENT_ID"),
    "web": ({"web": CLIENT_FILE["installed"]}, "the file of an OAuth client", "GMAIL_CLIENT_ID"),
    "gcloud": (
        {"type": "authorized_user", "client_id": "1-x", "client_secret": "s3cret-client",
         "refresh_token": "s3cret-token"},
        "a sign-in of the gcloud command", "sign in without a file",
    ),
    "federation": (
        {"type": "external_account", "audience": "s3cret-audience"},
        "a configuration of Google Cloud without a key", "create a JSON key",
    ),
    "saved": (
        {"token": "s3cret-token", "refresh_token": "s3cret-refresh", "scopes": [],
         "token_uri": "https://oauth2.googleapis.com/token"},
        "a token that Google or a Google library has written", "only its refresh_token",
    ),
}  # fmt: skip


def refused(credentials: dict[str, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        credentials_of(Gmail, credentials)
    text = str(caught.value)
    assert "s3cret" not in text
    return text


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_named_with_what_to_give_instead(name: str) -> None:
    file, kind, remedy = FILES[name]
    text = refused(file)
    assert kind in text
    assert remedy in text
    assert "more)" not in text, "one sentence"
    if kind != FILES["key"][1]:
        inner = refused({"service_account": file, "subject": "ann@example.com"})
        assert inner.startswith(f"credentials: service_account: this is {kind}")


def test_credentials_within_credentials_are_named() -> None:
    inner = {"service_account": KEY, "subject": "ann@example.com"}
    text = refused({"service_account": inner, "subject": "ann@example.com"})
    assert "give only the key file as `service_account`" in text


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_an_organization_names_the_kind_of_file_that_it_got(name: str, wrapped: bool) -> None:
    file, kind, _ = FILES[name]
    if wrapped and kind == FILES["key"][1]:
        file, kind = {"service_account": {"type": "service_account"}}, "is incomplete"
    elif wrapped:
        file = {"service_account": file, "subject": "admin@example.com"}
    with pytest.raises(ConfigurationError, match=kind) as caught:
        list(Gmail.members(Config(), file, None))
    assert "s3cret" not in str(caught.value)


# In a browser


def answered(gmail: FakeGmail, **other: Any) -> dict[str, Any]:
    """Return Google's response to an authorization code, as authlib passes it."""
    return {
        "access_token": gmail.tokens.new_access_token(), "expires_in": 3599,
        "expires_at": 1_800_000_000, "refresh_token": gmail.tokens.new_refresh_token(),
        "refresh_token_expires_in": 604_799,
        "scope": "https://www.googleapis.com/auth/gmail.readonly", "token_type": "Bearer",
    } | other  # fmt: skip


def test_the_response_to_an_authorization_code_becomes_credentials(gmail: FakeGmail) -> None:
    credentials = dict(Gmail.credentials_from_oauth(answered(gmail)))
    expires = Credentials.model_validate(credentials).access_token_expires
    assert expires is not None
    assert abs((expires - dt.datetime.now(dt.UTC)).total_seconds() - 3599) < 60
    assert probe(credentials).identity.group == "1234567", "the client is the operator's"
    assert gmail.tokens.refreshes == 0, "the plugin renewed a new token"
    gmail.mailbox.fill(1)
    gmail.tokens.expire_access_tokens()
    harness = Harness(Gmail, {}, credentials)
    assert harness.sync().state == "succeeded"
    assert gmail.tokens.refreshes == 1


def test_a_grant_without_a_refresh_token_is_rejected(gmail: FakeGmail) -> None:
    answer = answered(gmail)
    del answer["refresh_token"]
    with pytest.raises(InvalidInput):
        credentials_of(Gmail, Gmail.credentials_from_oauth(answer))


@pytest.mark.parametrize(
    "other",
    [
        {
            "client_id": "x", "client_secret": "y", "subject": "a@b",
            "service_account": {"client_email": "abc"},
        },
        {"expires_in": None}, {"expires_in": "soon"}, {"expires_in": -1}, {"expires_in": 1e300},
        {"access_token": ""},
    ],
)  # fmt: skip
def test_other_fields_of_a_grant_are_ignored(gmail: FakeGmail, other: dict[str, Any]) -> None:
    found = credentials_of(Gmail, Gmail.credentials_from_oauth(answered(gmail, **other)))
    assert isinstance(found, Credentials)
    assert (found.client_id, found.subject, found.service_account) == (None, None, None)
    assert found.refresh_token is not None


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
def test_a_grant_of_another_type_is_rejected_without_repeating_it(
    gmail: FakeGmail, name: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        credentials_of(
            Gmail, Gmail.credentials_from_oauth(answered(gmail, **{name: ["the-secret"]}))
        )
    assert "the-secret" not in str(caught.value)


# Service accounts


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(1)
    )
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem(key: rsa.RSAPrivateKey) -> str:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(
        serialization.Encoding.PEM, kind, serialization.NoEncryption()
    ).decode()


def service_account(key: rsa.RSAPrivateKey, **other: str) -> dict[str, Any]:
    found = {
        "type": "service_account",
        "client_email": CLIENT,
        "private_key": pem(key),
        "private_key_id": "1",
    }
    return {"service_account": found | other, "subject": "owner@example.com"}


def test_a_service_account_acts_for_its_subject(gmail: FakeGmail, key: rsa.RSAPrivateKey) -> None:
    gmail.tokens.certificates = {"1": certificate(key)}
    gmail.mailbox.fill(2)
    # A key file also names an endpoint, which the plugin must not call.
    harness = Harness(
        Gmail, {}, service_account(key, token_uri="https://elsewhere.example/token", project_id="p")
    )
    assert harness.sync().state == "succeeded"
    assert gmail.tokens.subjects == ["owner@example.com"]
    assert harness.check().group == "p"


def test_a_service_account_with_another_key_is_rejected(
    gmail: FakeGmail, key: rsa.RSAPrivateKey
) -> None:
    gmail.tokens.certificates = {"1": certificate(rsa.generate_private_key(65537, 2048))}
    assert isinstance(Harness(Gmail, {}, service_account(key)).sync().error, CredentialsInvalid)


def test_an_invalid_key_is_not_repeated_in_the_error(gmail: FakeGmail) -> None:
    account = {
        "service_account": {"client_email": CLIENT, "private_key": "not-a-key-at-all"},
        "subject": "a@b",
    }
    error = Harness(Gmail, {}, account).sync().error
    assert isinstance(error, ConfigurationError)
    assert "not-a-key" not in str(error)


# Rejected credentials and settings


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"service_account": {"client_email": "abc", "private_key": "x"}},
        {
            "refresh_token": "x",
            "service_account": {"client_email": "abc", "private_key": "x"},
            "subject": "a@b",
        },
        {"access_token": "x", "token_uri": "https://elsewhere.example"},
    ],
)
def test_incomplete_or_unknown_credentials_are_invalid(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Credentials.model_validate(given)


def test_a_refresh_token_needs_an_oauth_client(
    gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GMAIL_CLIENT_ID")
    monkeypatch.delenv("GMAIL_CLIENT_SECRET")
    with pytest.raises(InvalidInput, match="no OAuth client") as caught:
        probe({"refresh_token": gmail.tokens.new_refresh_token()})
    assert "GMAIL_CLIENT_ID" in caught.value.next_step("cli")


def test_the_operators_secret_is_not_used_for_another_client(gmail: FakeGmail) -> None:
    with pytest.raises(InvalidInput, match="no OAuth client is configured"):
        probe({"refresh_token": gmail.tokens.new_refresh_token(), "client_id": "another"})


def test_a_rejected_client_is_a_configuration_error(
    gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMAIL_CLIENT_SECRET", "not the secret")
    harness = Harness(Gmail, {}, {"refresh_token": gmail.tokens.new_refresh_token()})
    assert isinstance(harness.sync().error, ConfigurationError)


@pytest.mark.parametrize("name", ["GMAIL_API_URL", "GOOGLE_TOKEN_URL"])
def test_an_invalid_endpoint_is_reported_without_repeating_it(
    gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "ftp://secret-host")
    with pytest.raises((InvalidInput, PollingError), match=name) as caught:
        probe(gmail.credentials())
    assert "secret-host" not in str(caught.value)


def test_an_account_cannot_set_an_endpoint() -> None:
    fields = {*Config.model_fields, *Credentials.model_fields}
    assert not [name for name in fields if "url" in name or "uri" in name or "endpoint" in name]
