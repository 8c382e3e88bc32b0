"""The documentation names every config field, credential, setting and limit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from integration_polling_gmail import Config, Credentials, Gmail
from integration_polling_gmail.account import ServiceAccount
from integration_polling_gmail.settings import GmailSettings
from support.readme import config_fields, config_table

README = Path(__file__).parents[1] / "README.md"
SETTINGS = README.parents[1] / "docs" / "reference" / "settings.md"
NAMES = {
    "config": [*Config.model_fields],
    "credentials": [name for name in Credentials.model_fields if name != "access_token_expires"],
    "settings": [name.upper() for name in GmailSettings.model_fields],
    "limits": [limit.name for limit in Gmail.manifest.limits],
}


@pytest.mark.parametrize("what", NAMES)
def test_the_readme_names_every_field_setting_and_limit(what: str) -> None:
    words = set(re.findall(r"`(\w+)`", README.read_text("utf-8")))
    assert set(NAMES[what]) <= words


def test_the_reference_names_every_setting() -> None:
    assert set(NAMES["settings"]) <= set(re.findall(r"`(\w+)`", SETTINGS.read_text("utf-8")))


def test_a_key_file_may_have_other_fields() -> None:
    assert ServiceAccount.model_validate(
        {"client_email": "a@b", "private_key": "x", "universe_domain": "y"}
    )


def test_the_readme_has_each_config_field_with_its_default() -> None:
    table = config_table(README)
    assert table == config_fields(Config, table)
