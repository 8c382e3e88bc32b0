"""The config's words for channels, and the copies of channels that are no longer selected."""

from __future__ import annotations

from typing import Any
from unicodedata import normalize

import pytest
from fake_slack import Fake
from fake_slack.server import USER
from fake_slack.workspace import Channel
from integration_polling_slack import Config

from core import ConfigurationError
from core.testing import Harness

CAFE = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
DECOMPOSED = "cafe\N{COMBINING ACUTE ACCENT}"


def texts(harness: Harness) -> set[str]:
    return {item.text for item in harness.content.values() if item.kind == "message"}


def rows(harness: Harness) -> dict[str | None, Any]:
    found = [item for item in harness.content.values() if item.kind == "channel"]
    return {item.name: item.metadata["unreadable"] for item in found}


def posted(fake: Fake, name: str, **fields: Any) -> Channel:
    channel = fake.workspace.add_channel(name, **fields)
    fake.workspace.post(channel, f"in {name}")
    return channel


def configured(harness: Harness, **config: Any) -> None:
    """Change the account's config."""
    harness.close()
    harness.config = harness._worker._config = Config(**config)


@pytest.mark.parametrize(
    "word",
    [
        "sales", "#sales", " #Sales ", "SALES", "C0001", "<#C0001>", "<#C0001|sales>",
        "<#C0001|old-name>", "https://acme.slack.com/archives/C0001",
        "https://acme.slack.com/archives/C0001/p1700000000000100",
        "https://acme.enterprise.slack.com/archives/C0001/p1700000000000100?thread_ts=1700000000.0",
        "https://app.slack.com/client/T1/C0001", "https://app.slack.com/client/T1/C0001/thread/x",
        "slack://channel?team=T1&id=C0001", "https://acme.slack.com/messages/sales",
        "s*s", "sale?", "sal[ef]s", "#s*", "\u200bsales\ufeff",
    ],
)  # fmt: skip
def test_a_channel_can_be_written_in_many_ways(
    fake: Fake, connect: Any, sync: Any, word: str
) -> None:
    posted(fake, "sales")
    posted(fake, "other")
    sync(harness := connect(channels=[word]))
    assert texts(harness) == {"in sales"}
    assert rows(harness) == {"#sales": None}
    assert connect(channels=[word]).check().notice is None
    sync(harness := connect(exclude=[word]))
    assert texts(harness) == {"in other"}


@pytest.mark.parametrize(
    "name", [CAFE, DECOMPOSED, "straße", "\uff53\uff41\uff4c\uff45\uff53", "営業"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
def test_names_are_compared_in_one_form(
    fake: Fake, connect: Any, sync: Any, name: str, form: Any
) -> None:
    channel = posted(fake, name)
    posted(fake, "other")
    word = normalize(form, name).upper()
    sync(harness := connect(channels=[word]))
    assert texts(harness) == {f"in {name}"}
    assert channel.id in harness.content


@pytest.mark.parametrize("previous", [["sales"], []])
def test_a_renamed_channel_goes_on(
    fake: Fake, connect: Any, sync: Any, previous: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack names the previous names; without them, the id is known."""
    channel = posted(fake, "sales")
    posted(fake, "other")
    sync(harness := connect(channels=["#Sales"]))
    renamed(channel, "sales-eu", previous, monkeypatch)
    for number, trigger in enumerate(["schedule", "manual", "resync", "schedule"]):
        fake.workspace.post(channel, f"new {number}")
        result = sync(harness, trigger)
        assert f"new {number}" in texts(harness)
        assert rows(harness) == {"#sales-eu": None}
        assert not result.skipped_items
    if previous:
        assert connect(channels=["sales"]).check()
        sync(harness := connect(channels=["sales"]))
        assert "in sales" in texts(harness)
    else:
        with pytest.raises(ConfigurationError, match="sales"):
            connect(channels=["sales"]).check()


def renamed(
    channel: Channel, name: str, previous: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    described = type(channel).described
    channel.name = name
    monkeypatch.setattr(
        type(channel),
        "described",
        lambda one: described(one) | ({"previous_names": previous} if one is channel else {}),
    )


def test_an_excluded_channel_stays_excluded_after_it_is_renamed(
    fake: Fake, connect: Any, sync: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = posted(fake, "payroll")
    posted(fake, "other")
    sync(harness := connect(exclude=["payroll"]))
    renamed(channel, "wages", [], monkeypatch)
    for trigger in ("schedule", "resync"):
        sync(harness, trigger)
        assert texts(harness) == {"in other"}
    renamed(channel, "wages", ["payroll"], monkeypatch)
    sync(harness := connect(exclude=["payroll"]))
    assert texts(harness) == {"in other"}


def test_a_new_channel_with_the_old_name_takes_it(
    fake: Fake, connect: Any, sync: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = posted(fake, "sales")
    sync(harness := connect(channels=["sales"]))
    renamed(channel, "sales-old", ["sales"], monkeypatch)
    posted(fake, "sales")
    fake.workspace.post(channel, "in the old one")
    sync(harness)
    assert "in the old one" not in texts(harness)
    assert rows(harness)["#sales"] is None


@pytest.mark.parametrize("token", ["bot", "user"])
def test_an_unknown_channel_is_an_error_at_connect_and_shown_later(
    fake: Fake, connect: Any, sync: Any, token: str
) -> None:
    posted(fake, "sales")
    given = {} if token == "bot" else {"token": USER}
    for config in ({"channels": ["sales", "#slaes"]}, {"exclude": ["#slaes"]}):
        with pytest.raises(ConfigurationError, match="channels not found: #slaes"):
            connect(**given, **config).check()
    harness = connect(**given, channels=["sales", "#slaes"])
    for trigger in ("schedule", "schedule", "manual"):
        result = sync(harness, trigger)
        assert result.skipped_items == {"a channel that the config names was not found": 1}
        assert rows(harness) == {"#sales": None, "slaes": "not found"}
    posted(fake, "slaes")
    result = sync(harness)
    assert not result.skipped_items
    assert rows(harness) == {"#sales": None, "#slaes": None}


def test_a_deleted_channel_of_the_config_is_shown(fake: Fake, connect: Any, sync: Any) -> None:
    channel = posted(fake, "sales")
    posted(fake, "other")
    sync(harness := connect(channels=["sales"]))
    del fake.workspace.channels[channel.id]
    result = sync(harness, "schedule")
    assert result.skipped_items == {"a channel that the config names was not found": 1}
    assert rows(harness) == {"#sales": "channel_not_found", "sales": "not found"}
    assert texts(harness) == {"in sales"}


def test_a_named_channel_without_the_bot_says_to_invite_it(
    fake: Fake, connect: Any, sync: Any
) -> None:
    posted(fake, "sales", is_member=False)
    posted(fake, "other")
    harness = connect(channels=["sales", "other"])
    assert harness.check().notice == "The bot is not in #sales: invite it"
    reason = "the bot is not in a channel that the config names: invite it"
    for trigger in ("schedule", "schedule", "manual"):
        result = sync(harness, trigger)
        assert rows(harness) == {"#sales": "not_in_channel", "#other": None}
        assert result.skipped_items == {reason: 1}
    fake.workspace.channels["C0001"].is_member = True
    assert not sync(harness, "schedule").skipped_items
    assert rows(harness) == {"#sales": None, "#other": None}
    fake.workspace.channels["C0001"].is_member = False
    for _ in range(2):
        assert sync(harness, "schedule").skipped_items == {reason: 1}
    assert rows(harness) == {"#sales": "not_in_channel", "#other": None}


@pytest.mark.parametrize("config", [{}, {"channels": ["s*"]}])
def test_a_channel_that_vanishes_is_a_reason_of_its_run(
    fake: Fake, connect: Any, sync: Any, config: dict[str, Any]
) -> None:
    posted(fake, "sales", type="private_channel")
    posted(fake, "support")
    sync(harness := connect(**config))
    del fake.workspace.channels["C0001"]
    result = sync(harness, "schedule")
    assert result.skipped_items == {"a channel was deleted, or the token no longer sees it": 1}
    for trigger in ("schedule", "manual"):
        assert not sync(harness, trigger).skipped_items
        assert rows(harness) == {"#sales": "channel_not_found", "#support": None}


def test_a_bot_without_channels_asks_to_be_invited(fake: Fake, connect: Any) -> None:
    posted(fake, "sales", is_member=False)
    assert connect().check().notice == (
        "The bot is in no channel yet: invite it to the channels to copy"
    )
    assert connect(join_public=True).check().notice is None
    assert connect(USER).check().notice is None


def test_a_long_pass_is_announced(fake: Fake, connect: Any) -> None:
    for number in range(120):
        posted(fake, f"channel-{number}")
    assert connect().check().notice == "120 channels, 50 calls a minute: a pass takes 3 min"
    assert connect(exclude=["channel-??", "channel-???"]).check().notice is None
    notice = connect(app_kind="distributed", channels=["channel-1", "channel-2"]).check().notice
    assert notice is not None
    assert "Marketplace" in notice
    assert "https://slack.com/terms-of-service/api" in notice
    assert notice.endswith("2 channels, 1 call a minute: a pass takes 2 min")


@pytest.mark.parametrize("failure", [{"status": 500}, {"error": "ratelimited"}])
def test_an_account_connects_if_its_channels_cannot_be_listed(
    fake: Fake, connect: Any, failure: dict[str, Any]
) -> None:
    for method in ("users.conversations", "conversations.list"):
        fake.fail(method, times=9, **failure)
    assert connect(channels=["sales"]).check().notice is None


def test_names_of_people_are_not_checked_at_connect(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("", id="D1", type="im", user="U2")
    fake.workspace.post(channel, "to you")
    harness = connect(types=["im"], channels=["@Björn"])
    assert harness.check()
    sync(harness)
    assert texts(harness) == {"to you"}
    for word in ("<@U2>", "<@U2|björn>", "https://acme.slack.com/team/U2"):
        sync(harness := connect(types=["im"], channels=[word]))
        assert texts(harness) == {"to you"}


@pytest.mark.parametrize("words", [[], [""], [" ", ""]])
def test_an_empty_list_selects_all(fake: Fake, connect: Any, sync: Any, words: list[str]) -> None:
    posted(fake, "a")
    posted(fake, "b")
    sync(harness := connect(channels=["a"]))
    configured(harness, channels=words)
    sync(harness, "schedule")
    assert texts(harness) == {"in a", "in b"}


def test_patterns_select_new_channels_and_excludes_win(fake: Fake, connect: Any, sync: Any) -> None:
    for name in ("team-a", "team-b", "team-secret", "other"):
        posted(fake, name)
    harness = connect(channels=["team-*"], exclude=["*secret*", "#team-b"])
    assert harness.check()
    sync(harness)
    assert texts(harness) == {"in team-a"}
    posted(fake, "team-c")
    result = sync(harness, "schedule")
    assert texts(harness) == {"in team-a", "in team-c"}
    assert not result.skipped_items


NARROWED: list[dict[str, Any]] = [
    {"channels": ["a"]}, {"exclude": ["b", "secret"]}, {"channels": ["[a]"]},
]  # fmt: skip


@pytest.mark.parametrize("narrowed", NARROWED)
def test_a_deselected_channel_is_kept_or_deleted(
    fake: Fake, connect: Any, sync: Any, narrowed: dict[str, Any]
) -> None:
    posted(fake, "a")
    channel = posted(fake, "b")
    secret = posted(fake, "secret", type="private_channel")
    fake.workspace.post(channel, "reply", thread=channel.top[0])
    fake.workspace.upload(channel, b"bytes")
    sync(harness := connect(files="all"))
    everything = texts(harness)
    configured(harness, files="all", **narrowed)
    fake.workspace.post(channel, "unseen")
    sync(harness, "schedule")
    assert texts(harness) == everything, "kept"
    configured(harness, files="all", deselected="delete", **narrowed)
    sync(harness, "schedule")
    left = [item for item in harness.content.values() if item.kind != "user"]
    assert {item.id.partition(":")[0] for item in left} == {"C0001"}
    configured(harness, files="all")
    sync(harness, "schedule")
    assert texts(harness) == everything | {"unseen"}, "selected again"
    assert {channel.id, secret.id} <= set(harness.content)


def test_channels_of_a_deselected_type_are_deleted(fake: Fake, connect: Any, sync: Any) -> None:
    posted(fake, "a")
    posted(fake, "secret", type="private_channel")
    sync(harness := connect())
    configured(harness, types=["public"], deselected="delete")
    sync(harness, "schedule")
    assert texts(harness) == {"in a"}
    assert rows(harness) == {"#a": None}


def test_a_channel_that_vanished_is_not_deselected(fake: Fake, connect: Any, sync: Any) -> None:
    posted(fake, "a")
    channel = posted(fake, "b")
    sync(harness := connect(deselected="delete"))
    del fake.workspace.channels[channel.id]
    for trigger in ("schedule", "resync"):
        sync(harness, trigger)
        assert texts(harness) == {"in a", "in b"}


def test_a_lost_scope_deselects_nothing(fake: Fake, connect: Any, sync: Any) -> None:
    posted(fake, "a")
    posted(fake, "secret", type="private_channel")
    sync(harness := connect(deselected="delete"))
    fake.scopes = "users:read,channels:read,channels:history,groups:history"
    for trigger in ("schedule", "manual", "resync"):
        sync(harness, trigger)
        assert texts(harness) == {"in a", "in secret"}
