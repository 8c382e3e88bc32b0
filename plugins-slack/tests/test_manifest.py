"""The manifest of the Slack app has the scopes and events of a config."""

from __future__ import annotations

import json
from typing import Any

import pytest
from integration_polling_slack import Config, Slack, events, manifest, scopes

URL = "https://polling.example.com/v1/hints/slack"


def events_of(**config: Any) -> set[str]:
    found = manifest.manifest(Config(**config), events_url=URL)
    subscriptions = found["settings"]["event_subscriptions"]
    assert subscriptions.pop("request_url") == URL
    [(_, names)] = subscriptions.items()
    return set(names)


@pytest.mark.parametrize(
    ("config", "wanted", "unwanted"),
    [
        ({}, {"message.channels", "message.groups", "channel_left"}, {"message.im", "file_shared"}),
        ({"types": ["public"]}, {"message.channels"}, {"message.groups", "group_left"}),
        ({"types": ["private"]}, {"message.groups", "group_left"}, {"channel_left"}),
        ({"types": ["im", "mpim"]}, {"message.im", "message.mpim"}, {"member_left_channel"}),
        ({"files": "all"}, {"file_shared", "file_change"}, set()),
    ],
)
def test_the_events_follow_the_config(config: Any, wanted: set[str], unwanted: set[str]) -> None:
    found = events_of(**config)
    assert wanted | {"reaction_added", "app_uninstalled"} <= found
    assert not unwanted & found


def test_an_app_has_the_scopes_of_its_events() -> None:
    for config in (Config(), Config(types=["im"]), Config(files="all", connect_as="person")):
        found = manifest.manifest(config, events_url=URL)
        [(_, granted)] = found["oauth_config"]["scopes"].items()
        for event in events_of(**config.model_dump()):
            assert manifest.EVENTS.get(event) in (None, *granted)
        assert set(granted) >= scopes.needed(config)
        assert "reactions:read" in granted


def test_each_event_of_the_manifest_makes_a_hint() -> None:
    known = events.CHANNEL_EVENTS | events.MEMBER_EVENTS | events.REACTION_EVENTS
    known |= events.FILE_EVENTS | events.COMPLETE_EVENTS | {"file_shared", "message"}
    everything = {"types": ["public", "private", "im", "mpim"], "files": "all"}
    subscribed = events_of(**everything)
    assert {event.partition(".")[0] for event in subscribed} == known


def test_a_person_has_user_scopes_and_user_events() -> None:
    found = manifest.manifest(Config(connect_as="person"), events_url=URL)
    assert list(found["oauth_config"]["scopes"]) == ["user"]
    assert "user_events" in found["settings"]["event_subscriptions"]
    assert "features" not in found


def test_socket_mode_needs_no_address() -> None:
    settings = manifest.manifest(Config(), socket_mode=True)["settings"]
    assert settings["socket_mode_enabled"]
    assert list(settings["event_subscriptions"]) == ["bot_events"]
    assert set(settings["event_subscriptions"]["bot_events"]) == events_of()


def test_without_events_the_manifest_has_the_scopes_only() -> None:
    found = manifest.manifest(Config())
    assert "event_subscriptions" not in found["settings"]
    assert "reactions:read" not in found["oauth_config"]["scopes"]["bot"]


def test_the_command_prints_the_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    manifest.main(["--config", '{"types": ["im"]}', "--events-url", URL])
    printed = json.loads(capsys.readouterr().out)
    assert printed == manifest.manifest(Config(types=["im"]), events_url=URL)
    manifest.main(["--organization", "--rotation"])
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["org_deploy_enabled"]
    assert settings["token_rotation_enabled"]
    with pytest.raises(SystemExit):
        manifest.main(["--config", '{"types": ["nowhere"]}'])
    assert "types" in capsys.readouterr().err


@pytest.mark.parametrize("with_events", [True, False])
def test_a_browser_asks_for_the_scope_of_reactions_with_events_only(
    monkeypatch: pytest.MonkeyPatch, with_events: bool
) -> None:
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "secret" * with_events)
    asked = Slack.oauth_parameters(Config())["scope"].split(",")
    assert ("reactions:read" in asked) == with_events
