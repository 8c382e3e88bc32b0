"""The documentation names each config field and setting."""

from __future__ import annotations

from pathlib import Path

from integration_polling_slack import Config
from integration_polling_slack.account import SlackSettings
from support.readme import config_fields, config_table

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parents[1] / "docs"


def test_the_readme_has_each_config_field_with_its_default() -> None:
    table = config_table(README)
    assert table == config_fields(Config, table)


def test_the_settings_are_documented() -> None:
    readme = README.read_text("utf-8")
    names = [str(field.validation_alias) for field in SlackSettings.model_fields.values()]
    reference = (DOCS / "reference" / "settings.md").read_text("utf-8")
    assert not [name for name in names if f"`{name}`" not in reference or f"`{name}`" not in readme]
