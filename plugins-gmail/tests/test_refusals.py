"""Each refusal of Google has a sentence and a remedy of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from integration_polling_gmail import Config, Credentials, Gmail
from support.gmail import FakeGmail
from support.gmail.refusing import REFUSALS, Refusal, token

from core import ConfigurationError, CredentialsInvalid
from core.egress import any_host
from core.errors import InvalidInput, PollingError
from core.service.accounts.check import check
from core.testing import Harness


def refused(credentials: Any) -> PollingError:
    with pytest.raises(PollingError) as caught:
        check(Gmail, Config(), Credentials.model_validate(credentials), egress=any_host())
    return caught.value


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_refusal_is_explained_at_connect(gmail: FakeGmail, refusal: Refusal) -> None:
    error = refused(refusal.refuse(gmail))
    assert refusal.says in error.message
    for surface in ("cli", "rest", "dashboard"):
        assert refusal.remedy in error.next_step(surface)
    assert isinstance(error, InvalidInput) is not refusal.later
    assert "not-a-key" not in str(error)


def test_every_refusal_has_a_sentence_and_a_remedy_of_its_own(gmail: FakeGmail) -> None:
    found = {}
    for refusal in REFUSALS:
        error = refused(refusal.refuse(gmail))
        assert error.message.count(". ") == 0, "one sentence"
        if not refusal.later and refusal.name != "skew":
            found[refusal.name] = (error.message, error.next_step("cli"))
    messages, remedies = zip(*found.values(), strict=True)
    assert len({*messages}) == len(messages)
    assert len({*remedies}) == len(remedies)


def test_without_a_network_there_is_nothing_to_correct(
    gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_TOKEN_URL", "http://127.0.0.1:9/token")
    error = refused(token(gmail))
    assert "cannot reach Google" in error.message
    assert "nothing to correct" in error.next_step("cli")


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_stopped_account_shows_reason_and_remedy(gmail: FakeGmail, refusal: Refusal) -> None:
    given = refusal.refuse(gmail)
    error = Harness(Gmail, {}, given).sync().error
    if refusal.later:
        assert not isinstance(error, CredentialsInvalid | ConfigurationError)
    else:
        assert isinstance(error, CredentialsInvalid | ConfigurationError)
        assert refusal.says in str(error)
        assert refusal.remedy in str(error)


def test_an_answer_that_repeats_the_request_is_not_shown(gmail: FakeGmail) -> None:
    secret = "1//0secret-of-the-request"
    gmail.tokens.refusal = 400, {"error": "invalid_grant", "error_description": secret}
    error = refused(token(gmail))
    assert secret not in error.message + error.next_step("cli")


def test_the_end_of_a_sign_in_of_an_app_in_testing_is_said_on_day_0(gmail: FakeGmail) -> None:
    def connected() -> str | None:
        given = Credentials.model_validate(token(gmail))
        return check(Gmail, Config(), given, egress=any_host()).identity.notice

    assert connected() is None
    gmail.tokens.testing = True
    notice = connected()
    assert notice is not None
    ends = datetime.now(UTC) + timedelta(seconds=604_799)
    assert f"{ends:%Y-%m-%d}" in notice
    assert "publish the OAuth app" in notice
