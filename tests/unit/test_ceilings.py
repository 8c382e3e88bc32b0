"""Ceilings of numbers in configs: shown by the schema, refused above, lowered where stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, PositiveInt

from core import BaseIntegration, Manifest, NoFields
from core.environment import Environment
from core.errors import InvalidInput
from core.integration.ceilings import bounded, numbers, within_ceilings
from core.plugins import Registry
from core.service.accounts.validation import config_of
from core.service.fleet.doctor.local import examine
from core.settings import Settings
from core.worker.accounts import validated


class Config(BaseModel, extra="forbid"):
    host: str = "here"
    connections: PositiveInt = Field(16, title="Connections", description="How many at a time")
    timeout: float | None = None
    passive: bool = False


@pytest.fixture
def shop() -> Any:
    class Shop(BaseIntegration[Config, NoFields]):
        manifest = Manifest("shop", "Shop")

    return Shop


@pytest.fixture
def registry(shop: Any) -> Registry:
    made = Registry(integrations={"shop": shop}, versions={"shop": "1"})
    made.bound({"shop": {"connections": 8, "timeout": 60}, "elsewhere": {"pages": 1}})
    return made


def test_a_config_above_a_ceiling_is_refused_with_the_name_of_its_field(registry, shop) -> None:
    for wrong in ({"connections": 9}, {"timeout": 60.1}, {"connections": 0}):
        with pytest.raises(InvalidInput) as raised:
            config_of(shop, wrong)
        assert next(iter(wrong)) in str(raised.value)
    most = config_of(shop, {"connections": 8, "timeout": 60.0})
    assert isinstance(most, Config)


def test_the_schema_shows_the_ceilings_and_a_lowered_default(registry, shop) -> None:
    fields = shop.config_model.model_json_schema()["properties"]
    assert (fields["connections"]["maximum"], fields["connections"]["default"]) == (8, 8)
    assert fields["connections"]["title"] == "Connections"
    assert fields["timeout"]["anyOf"][0]["maximum"] == 60
    assert config_of(shop, {}).model_dump()["connections"] == 8


def test_an_account_that_was_connected_before_continues_with_the_ceiling(registry, shop) -> None:
    stored = {"connections": 40, "timeout": None, "host": "there"}
    running = validated(shop.config_model, stored)
    assert running.model_dump(exclude={"passive"}) == stored | {"connections": 8}
    assert within_ceilings(Config, stored) == stored, "without ceilings, nothing changes"


def test_only_numbers_have_ceilings() -> None:
    assert numbers(Config) == {"connections", "timeout"}
    assert bounded(Config, {"host": 1, "passive": 0, "unknown": 1}) is Config


def test_the_doctor_shows_ceilings_and_names_those_that_bound_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    ceilings = {"shop": {"connections": 8.0}, "nowhere": {"pages": 1.0}}
    settings = Settings(_env_file=None, home=tmp_path, ceilings=ceilings)
    environment = Environment("postgresql://nobody", "redis://nobody", (), embedded=False)

    def shown() -> list[tuple[str, str]]:
        checks = [*examine(settings, environment, registry)]
        return [(each.status, each.message) for each in checks if each.name == "ceilings"]

    assert shown() == [
        ("warn", "POLLING_CEILINGS names nowhere, which is not installed"),
        ("ok", "shop: connections ≤ 8"),
    ]
    settings.ceilings["shop"]["host"] = 1.0
    assert ("warn", "POLLING_CEILINGS: shop has no number host in its config") in shown()
