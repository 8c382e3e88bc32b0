"""Texts that people read, and logs, never contain a secret of an account."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from core import Manifest, OAuth
from core.accounts.redaction import MAX_TEXT_CHARS, error_text, redactor, remember_operator
from core.environment import Environment
from core.integration.context import ContextLogger
from core.known_secrets import KNOWN, OPERATOR, secrets_in


class Token(BaseModel):
    value: SecretStr


class Key(BaseModel, extra="ignore"):
    owner: str
    secret: SecretStr


class Login(BaseModel, extra="forbid"):
    pin: SecretStr | None = None
    host: str = ""
    key: Key | None = None
    named: SecretStr = Field(SecretStr(""), alias="otherName")


class Nested(BaseModel):
    inner: Token
    more: list[SecretStr]
    by_name: dict[str, SecretStr]
    raw: SecretBytes
    public: str


@pytest.fixture(autouse=True)
def no_operator() -> Iterator[None]:
    yield
    KNOWN.forget(OPERATOR)


SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=40)

SHAPES: dict[str, Callable[[str], str]] = {
    "plain": lambda secret: secret,
    "in a query": lambda secret: quote_plus(secret),
    "in a URL": lambda secret: quote(secret, safe=""),
    "repr": repr,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
}


@pytest.mark.parametrize("shape", SHAPES)
@given(secret=SECRETS)
def test_a_secret_is_redacted_in_every_encoding(shape: str, secret: str) -> None:
    written = SHAPES[shape](secret)
    redacted = redactor(Token(value=SecretStr(secret)))(f"<{written}>")
    assert "***" in redacted
    assert written.strip("'\"=") not in redacted or written.strip("'\"=") in "<***>"


UNSTRUCK: dict[str, Callable[[str], str]] = {
    "in the path of a URL": quote,
    "in JSON": lambda secret: json.dumps(secret)[1:-1],
}


@pytest.mark.parametrize("shape", UNSTRUCK)
def test_a_secret_is_redacted_in_url_paths_and_json(shape: str) -> None:
    secret = 'hun/ter "zwölf"'
    written = UNSTRUCK[shape](secret)
    assert written not in redactor(Token(value=SecretStr(secret)))(f"{written}")


@given(secret=SECRETS, before=st.binary(max_size=7), after=st.binary(max_size=4))
def test_a_secret_is_redacted_inside_a_longer_base64_text(
    secret: str, before: bytes, after: bytes
) -> None:
    """The secret is part of a longer text, as in a Basic header.

    Its first and last characters share bits with the neighbours, and may stay.
    """
    raw = secret.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(before + raw + after).decode()
        own = whole[-(-len(before) * 8 // 6) : (len(before) + len(raw)) * 8 // 6]
        pieces = {own[at : at + 6] for at in range(len(own) - 5)}
        redacted = redactor(Token(value=SecretStr(secret)))(whole)
        assert "***" in redacted
        left = redacted.split("***")
        # Pieces that occur by chance in the neighbours' own text do not come from the secret.
        others = whole.replace(own, " ")
        assert not [
            piece for piece in pieces if piece not in others and any(piece in text for text in left)
        ]


def test_the_password_of_a_basic_header_is_redacted() -> None:
    secret = "hunter-2-hunter"
    for user in ("u", "us", "user"):
        header = base64.b64encode(f"{user}:{secret}".encode()).decode()
        redacted = redactor(Token(value=SecretStr(secret)))(f"Authorization: Basic {header}")
        assert "***" in redacted
        own = header[-(-(len(user) + 1) * 8 // 6) :].rstrip("=")
        assert not [own[at : at + 6] for at in range(len(own) - 5) if own[at : at + 6] in redacted]


def test_secrets_are_found_anywhere_in_a_model() -> None:
    model = Nested(
        inner=Token(value="inner-secret"),
        more=["first-secret"],
        by_name={"a": "named-secret"},
        raw=b"bytes-secret",
        public="everyone",
    )
    text = "inner-secret first-secret named-secret bytes-secret everyone"
    assert redactor(model)(text) == "*** *** *** *** everyone"


def test_a_secret_that_contains_another_is_redacted_completely() -> None:
    model = Nested(inner=Token(value="abcd"), more=["abcd-efgh"], by_name={}, raw=b"", public="")
    assert redactor(model)("abcd-efgh abcd") == "*** ***"


def test_a_very_short_secret_does_not_redact_every_text() -> None:
    assert redactor(Token(value=SecretStr("a")))("a banana") == "a banana"


def test_an_error_is_one_bounded_line() -> None:
    text = error_text(ValueError("first\nsecond\x00\x1b[31m " + "x" * 10_000), str)
    assert text.startswith("ValueError: first second [31m x")
    assert len(text) <= MAX_TEXT_CHARS
    assert text.isprintable()
    assert error_text(ValueError(""), str) == "ValueError"


def test_an_error_is_truncated_after_redaction() -> None:
    """A part of a secret at the cut would not be recognized."""
    secret = "s3cret-" * 8
    text = error_text(
        ValueError("x" * (2 * MAX_TEXT_CHARS - 10) + secret),
        redactor(Token(value=SecretStr(secret))),
    )
    assert "s3cret" not in text


def test_a_tasks_log_redacts_secrets_in_messages_arguments_and_exceptions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    redact = redactor(Token(value=SecretStr("hunter-2")))
    log = ContextLogger(logging.getLogger("core.task"), {"account": "a"}, redact)
    with caplog.at_level(logging.INFO):
        log.info("using hunter-2")
        log.info("using %s and %r", "hunter-2", {"password": "hunter-2"})
        log.error("failed", exc_info=ValueError("hunter-2"))
        try:
            raise ValueError("hunter-2")
        except ValueError:
            log.exception("failed")
    assert len(caplog.records) == 4
    assert "hunter-2" not in caplog.text
    assert all(record.account == "a" for record in caplog.records)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pass%20word@h/db",
        "postgresql://h/db?user=u&password=pass+word",
        "postgresql://h/db?user=u&password=pass%20word",
        "host=h user=u password='pass word' dbname=db",
    ],
)
def test_the_database_password_is_redacted_in_every_form_of_url(url: str) -> None:
    environment = Environment(url, "redis://h", ("the-key",), embedded=False)
    remember_operator(environment, SimpleNamespace(integrations={}))
    assert KNOWN.redact("it says 'pass word' to the-key") == "it says '***' to ***"


def test_the_client_secret_of_the_sign_in_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_OIDC_CLIENT_SECRET", "the-client-secret")
    environment = Environment("postgresql://h/db", "redis://h", (), embedded=False)
    remember_operator(environment, SimpleNamespace(integrations={}))
    assert KNOWN.redact("invalid client: the-client-secret") == "invalid client: ***"


def test_an_oauth_client_secret_is_redacted_without_declared_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_CLIENT_SECRET", "the-client-secret")
    oauth = OAuth(
        "https://shop.example/a",
        "https://shop.example/t",
        [],
        "SHOP_CLIENT_ID",
        "SHOP_CLIENT_SECRET",
    )
    shop = SimpleNamespace(manifest=Manifest("shop", "Shop", oauth=oauth))
    environment = Environment("postgresql://h/db", "redis://h", (), embedded=False)
    remember_operator(environment, SimpleNamespace(integrations={"shop": shop}))
    assert KNOWN.redact("invalid client: the-client-secret") == "invalid client: ***"


@pytest.mark.parametrize(
    ("values", "secrets"),
    [
        # The model declares secrets of any length and form.
        ({"pin": "1234", "host": "production-host-of-ann"}, ["1234"]),
        ({"pin": "ann@lager.example"}, ["ann@lager.example"]),
        ({"otherName": "small words"}, ["small words"]),
        (
            {"key": {"owner": "the name of ann", "secret": "rose", "id": "4be71c0a9d"}},
            ["rose"],
        ),
        # A text of any other field may be a secret.
        ({"token": "s3cretword"}, ["s3cretword"]),
        ({"token": ["p@ssword1", {"deep": "Xylophone"}]}, ["p@ssword1", "Xylophone"]),
        ({"token": "correct horse battery"}, ["correct horse battery"]),
        ({"token": "https://ann:rose@lager.example/"}, ["https://ann:rose@lager.example/"]),
        ({"token": "https://lager.example/hooks/T0"}, ["https://lager.example/hooks/T0"]),
        ({"token": 12345678}, ["12345678"]),
        ({"key": {"secret": "n0t-a-valid-key"}}, ["n0t-a-valid-key"]),
        ({"pin": ["longer-than-a-word"]}, ["longer-than-a-word"]),
        # Short texts, words and addresses appear in messages.
        ({"token": "rose"}, []),
        ({"token": "k3yword"}, []),
        ({"type": "service_account", "universe": "googleapis.com"}, []),
        ({"subject": "administrator@lager.example", "at": "https://lager.example"}, []),
        ({"empty": None, "list": [], "is": True, "number": 1.5}, []),
        ({}, []),
    ],
    ids=str,
)
def test_secrets_are_found_in_a_part_of_the_credentials(
    values: dict[str, object], secrets: list[str]
) -> None:
    assert list(secrets_in(Login, values)) == secrets
