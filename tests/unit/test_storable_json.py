"""The config that PostgreSQL can store as JSON, and configs that are refused before."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from core import AccountIdentity, BaseIntegration, Context, Manifest, TaskResult
from core.errors import InvalidInput
from core.service.accounts.validation import config_of


class Open(BaseModel, extra="allow"):
    rate: float = 1


class Meter(BaseIntegration[Open]):
    manifest = Manifest("meter", "Meter")

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "me")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.mark.parametrize(
    "values",
    [
        {"rate": float("inf")},
        {"rate": "nan"},
        {"a\0b": 1},
        {"more": {"\ud800": 1}},
        {"more": [{"a": "\0"}]},
    ],
)
def test_a_config_that_cannot_be_stored_is_refused(values) -> None:
    with pytest.raises(InvalidInput, match="config"):
        config_of(Meter, values)


def test_a_config_that_can_be_stored_is_accepted() -> None:
    config_of(Meter, {"rate": 1e300, "more": {"é": [1, None, True, 10**30]}})
