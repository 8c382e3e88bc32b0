"""Hello World keeps the promises of its README."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from integration_polling_hello_world import HelloWorld, expected
from integration_polling_hello_world.bench import FAILURES, Config, failure
from integration_polling_hello_world.events import SIGNATURE, HelloSettings
from pydantic import SecretStr, ValidationError
from support.readme import config_fields, config_table

from core import (
    ConfigurationError,
    CredentialsInvalid,
    Hint,
    WebhookRequest,
    WebhookResponse,
)
from core.testing import Faults, Harness, IntegrationConformance, listening

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the test bench, as the deployments of the tests do."""
    monkeypatch.setenv("HELLO_WORLD_TEST_BENCH", "true")


class TestConformance(IntegrationConformance):
    integration = HelloWorld


class TestConformanceOfATree(IntegrationConformance):
    integration = HelloWorld
    config = {
        "pages": 2,
        "items": 3,
        "fanout_depth": 2,
        "fail_rate": {"transient": 0.3, "rate_limited": 0.2},
    }


def kept(harness: Harness) -> dict[str, str | None]:
    return {key: item.hash for key, item in harness.content.items()}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"pages": 0},
        {"items": 0},
        {"item_bytes": 0},
        {"item_bytes": 5000, "seed": 7},
        {"fanout_depth": 2, "items": 3},
        {"fail_rate": {"transient": 0.5, "crash": 0.2, "rate_limited": 0.3}, "fanout_depth": 1},
    ],
)
def test_the_kept_content_is_the_expected_content(config: dict[str, Any]) -> None:
    harness = Harness(HelloWorld, config)
    assert harness.sync().state == "succeeded"
    assert kept(harness) == expected(config)


def test_the_rehearsal_counts_pages_warns_and_refuses() -> None:
    said = Harness(HelloWorld, {"pages": 5, "items": 2}).rehearse()
    (section,) = said.sections
    assert said.bound is not None
    assert said.bound.items == 10
    assert section.facts == {"Pages": 5, "Items on a page": 2}
    assert [line.name for line in section.sample] == ["Page 1", "Page 2", "Page 3"]
    assert (section.omitted, said.warnings, said.refusal) == (2, [], None)
    risky = Harness(HelloWorld, {"fail_rate": {"transient": 0.25}}).rehearse()
    assert (risky.warnings, risky.refusal) == (["25% of the tasks fail on purpose."], None)
    assert Harness(HelloWorld, {"fail_rate": {"skip": 0.7, "exit": 0.7}}).rehearse().refusal


def test_expected_counts_every_item_of_a_tree() -> None:
    assert len(expected({"pages": 2, "items": 3})) == 2 * 3
    assert len(expected({"pages": 2, "items": 3, "fanout_depth": 2})) == 2 * (3 + 9 + 27)


def test_another_seed_gives_other_texts() -> None:
    assert expected({"seed": 1}) != expected({"seed": 2})
    assert expected({"seed": 1}) == expected({"seed": 1})


def test_items_that_fail_for_good_are_parked_and_not_expected() -> None:
    config = {"fanout_depth": 1, "items": 8, "fail_rate": {"permanent": 0.1, "skip": 0.1}}
    harness = Harness(HelloWorld, config)
    result = harness.sync()
    assert result.state == "partial"
    assert result.tasks_parked > 0
    assert result.skipped
    assert kept(harness) == expected(config)
    assert len(expected(config)) < len(expected({**config, "fail_rate": {}}))


def test_items_are_added_once_per_run_under_faults() -> None:
    config = {"grow": 4}
    harness = Harness(HelloWorld, config, faults=Faults.storm(3))
    for runs in (1, 2, 3):
        assert harness.sync().state == "succeeded"
        assert kept(harness) == expected(config, runs)


def test_only_new_items_are_returned_by_later_runs() -> None:
    harness = Harness(HelloWorld, {"pages": 0, "grow": 4})
    for saved, unchanged in ((0, 0), (4, 0), (4, 4), (4, 8)):
        result = harness.sync()
        assert (result.outputs_saved, result.outputs_unchanged) == (saved, unchanged)


def test_each_run_records_its_time() -> None:
    harness = Harness(HelloWorld, {"pages": 0, "grow": 1})
    harness.now = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
    harness.sync()
    assert harness.state == {"runs": {"count": 1, "latest": "2030-01-02T03:04:00Z"}}


@pytest.mark.parametrize("levels", [0, 1])
def test_hidden_items_are_counted_and_not_kept(levels: int) -> None:
    config = {"pages": 2, "items": 3, "fanout_depth": levels}
    harness = Harness(HelloWorld, {**config, "hidden": 5})
    result = harness.sync()
    assert result.skipped_items == {"hidden": 10}
    assert kept(harness) == expected(config)


def test_a_hint_looks_at_its_pages_only() -> None:
    harness = Harness(HelloWorld, {"pages": 4, "items": 2})
    assert harness.hint("2", "4").tasks_done == 3
    assert {id.partition("-")[0] for id in harness.content} == {"2", "4"}
    assert harness.hint().tasks_done == 5
    assert harness.sync().tasks_done == 5


def test_long_tasks_report_their_progress() -> None:
    harness = Harness(HelloWorld, {"pages": 1, "delay_ms": 1_000})
    harness.sync()
    assert harness.progress == [(step, 10) for step in range(1, 11)]


def test_pages_with_a_pause_start_one_after_another() -> None:
    harness = Harness(HelloWorld, {"pages": 3, "pause_ms": 1500})
    assert harness.sync().state == "succeeded"
    assert harness.clock == 3.0


@pytest.mark.parametrize(
    ("kind", "error"), [("credentials", CredentialsInvalid), ("configuration", ConfigurationError)]
)
def test_a_stopped_account_resumes_after_reconnecting(kind: str, error: type[Exception]) -> None:
    config = {"fanout_depth": 1, "items": 3, "fail_rate": {kind: 0.1}}
    harness = Harness(HelloWorld, config)
    stops = 0
    while isinstance(harness.sync().error, error):
        stops += 1
        harness.reconnect({})
    assert stops > 0
    assert kept(harness) == expected(config)


def test_every_failure_occurs_at_its_rate() -> None:
    rate = 1 / len(FAILURES)
    config = Config(fail_rate=dict.fromkeys(FAILURES, rate))
    drawn = [failure(config, str(number)) for number in range(8000)]
    assert all(abs(drawn.count(kind) / len(drawn) - rate) < 0.02 for kind in FAILURES)


def test_two_names_are_two_accounts() -> None:
    assert Harness(HelloWorld, {"name": "a"}).check() != Harness(HelloWorld, {"name": "b"}).check()


def test_the_readme_has_each_config_field_with_its_default() -> None:
    table = config_table(README)
    assert table == config_fields(Config, table)


@pytest.mark.parametrize(
    ("harmful", "harmless"),
    [
        ({"delay_ms": 30_001}, {"delay_ms": 30_000}),
        ({"item_bytes": 1_048_577}, {"item_bytes": 1_048_576}),
        ({"fail_rate": {"exit": 0.1}}, {"fail_rate": {"crash": 0.1}}),
        ({"pages": 10_001}, {"pages": 10_000}),
        *(({name: 1_001}, {name: 1_000}) for name in ("items", "hidden", "grow", "fanout_depth")),
    ],
)
def test_what_harms_others_needs_the_setting_of_the_operator(
    harmful: dict[str, Any], harmless: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Config.model_validate(harmful)
    for value in ("false", None):
        if value is None:
            monkeypatch.delenv("HELLO_WORLD_TEST_BENCH")
        else:
            monkeypatch.setenv("HELLO_WORLD_TEST_BENCH", value)
        with pytest.raises(ValidationError, match="HELLO_WORLD_TEST_BENCH"):
            Config.model_validate(harmful)
        Config.model_validate(harmless)


# Events


def test_lines_of_the_server_become_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HELLO_WORLD_EVENTS", f"127.0.0.1:{server.getsockname()[1]}")
        [listener] = Harness(HelloWorld).listeners().values()
        assert (listener.key, list(listener.accounts.values())) == ("events", ["hello"])
        with listening(HelloWorld, listener) as heard:
            client, _ = server.accept()
            with client:
                heard.wait_for(connections=1)
                client.sendall(b"hello 2\nhel")
                client.sendall(b"lo\n")
                heard.wait_for(hints=2)
    assert heard.hints == [Hint("hello", "2"), Hint("hello")]
    assert heard.error is None or isinstance(heard.error, ConnectionError)


def signed(body: bytes, secret: str = "the-secret") -> WebhookResponse:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    settings = HelloSettings(hello_world_webhook_secret=SecretStr("the-secret"))
    return HelloWorld.webhook(WebhookRequest(body, {SIGNATURE: signature}, {}, settings))


def test_the_webhook_accepts_signed_events_only() -> None:
    event = json.dumps({"name": "hello", "page": "2"}).encode()
    assert signed(event).hints == [Hint("hello", "2")]
    assert signed(b'{"challenge": "x"}').body == "x"
    for other in (signed(event, "another-secret"), signed(event, "")):
        assert (other.status, list(other.hints)) == (401, [])
    without = WebhookRequest(event, {SIGNATURE: "ü"}, {}, HelloSettings())
    assert HelloWorld.webhook(without).status == 401


def test_without_settings_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELLO_WORLD_EVENTS", raising=False)
    assert Harness(HelloWorld).listeners() == {}
    monkeypatch.setenv("HELLO_WORLD_WEBHOOK_SECRET", "the-secret")
    [listener] = Harness(HelloWorld).listeners().values()
    assert not listener.listens
