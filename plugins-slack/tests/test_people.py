"""Names: people of other organizations, bots, group messages, and channels with a new id."""

from __future__ import annotations

from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.workspace import Channel

from core.testing import Harness


def rows(harness: Harness) -> list[tuple[str | None, str | None]]:
    found = [item for item in harness.content.values() if item.kind == "message"]
    return [(item.name, item.text) for item in sorted(found, key=lambda item: item.id)]


def test_people_of_other_organizations_have_names(fake: Fake, connect: Any, sync: Any) -> None:
    """Slack Connect: `users.list` lacks them, `users.info` has them."""
    fake.workspace.add_user("U0EXT", "Carla", is_stranger=True)
    fake.workspace.add_user("W0GRID", "Dan", is_stranger=True)
    channel = fake.workspace.add_channel("shared")
    word = {"type": "user", "user_id": "W0GRID"}
    block = {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [word]}]}
    root = fake.workspace.post(channel, "ask <@U0EXT>")
    fake.workspace.post(channel, "hello", user="U0EXT")
    fake.workspace.post(channel, "", blocks=[block])
    fake.workspace.post(channel, "to <@W0GRID>", thread=root, user="U0EXT")
    harness = connect()
    sync(harness)
    assert rows(harness) == [
        ("#shared @Ann", "ask @Carla"),
        ("#shared @Carla", "hello"),
        ("#shared @Ann", "@Dan"),
        ("#shared @Carla", "to @Dan"),
    ]
    assert harness.content["U0EXT"].name == "@Carla"
    assert harness.charged["users.info"] == len(fake.called("users.info")) == 2
    fake.workspace.post(channel, "again <@U0EXT>")
    sync(harness)
    assert len(fake.called("users.info")) == 2, "a name is looked up once"
    fake.workspace.strangers["U0EXT"]["profile"]["display_name"] = "Carla B"
    del harness.state[f"channel/{channel.id}"]
    sync(harness, "resync")
    assert rows(harness)[0] == ("#shared @Ann", "ask @Carla B"), "a resync looks again"


@pytest.mark.parametrize(
    "fields",
    [
        {"blocks": [{"type": "actions", "elements": [
            {"type": "users_select", "initial_user": "U0EXT"}]}]},
        {"blocks": [{"type": "section", "accessory": {
            "type": "multi_users_select", "initial_users": ["U1", "U0EXT"]}}]},
        {"blocks": [{"type": "section", "accessory": {
            "type": "conversations_select", "initial_conversation": "U0EXT"}}]},
        {"blocks": [{"type": "section", "accessory": {
            "type": "multi_conversations_select", "initial_conversations": ["C1", "U0EXT"]}}]},
        {"attachments": [{"author_id": "U0EXT", "text": "hi", "is_share": True}]},
        {"attachments": [{"list_record": {"record": {"fields": [{"user": ["U0EXT"]}]}}}]},
        {"file": {"id": "F1", "initial_comment": {"comment": "for <@U0EXT>"}}},
        {"subtype": "channel_topic", "topic": "ask <@U0EXT>"},
        {"subtype": "huddle_thread", "room": {"participants": ["U0EXT"]}},
    ],
    ids=lambda fields: str(fields)[:60],
)  # fmt: skip
def test_a_stranger_is_named_wherever_a_message_shows_one(
    fake: Fake, connect: Any, sync: Any, fields: dict[str, Any]
) -> None:
    fake.workspace.add_user("U0EXT", "Carla", is_stranger=True)
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "", **fields)
    harness = connect()
    sync(harness)
    assert "@Carla" in str(rows(harness)[0][1])
    assert len(fake.called("users.info")) == 1


def test_an_unknown_person_is_looked_up_once(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "to <@U0GONE>")
    harness = connect()
    sync(harness)
    fake.workspace.post(channel, "and <@U0GONE>")
    sync(harness)
    assert [text for _, text in rows(harness)] == ["to @U0GONE", "and @U0GONE"]
    assert len(fake.called("users.info")) == 1


def test_names_are_unescaped(fake: Fake, connect: Any, sync: Any) -> None:
    fake.workspace.add_user("U5", "R&amp;D")
    fake.workspace.users["U5"]["profile"]["title"] = "Q&amp;A"
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "<@U5> &amp; co", user="U5")
    harness = connect()
    sync(harness)
    assert rows(harness) == [("#general @R&D", "@R&D & co")]
    assert (harness.content["U5"].name, harness.content["U5"].metadata["title"]) == ("@R&D", "Q&A")


def test_a_rate_limit_of_lookups_delays_names_only(fake: Fake, connect: Any, sync: Any) -> None:
    fake.workspace.add_user("U0EXT", "Carla", is_stranger=True)
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "to <@U0EXT>")
    fake.fail("users.info", "ratelimited", status=429, Retry_After="9")
    harness = connect()
    assert not sync(harness).failures
    assert rows(harness) == [("#general @Ann", "to @U0EXT")]
    fake.workspace.post(channel, "now <@U0EXT>")
    sync(harness)
    assert rows(harness)[1] == ("#general @Ann", "now @Carla")


def test_bots_without_a_name_in_the_message_have_names(fake: Fake, connect: Any, sync: Any) -> None:
    fake.workspace.bots["B9"] = {"id": "B9", "name": "Deploys", "app_id": "A9"}
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "one", user="", bot_id="B9", subtype="bot_message")
    fake.workspace.post(channel, "two", user="", bot_id="B9", username="night")
    fake.workspace.post(channel, "three", user="USLACKBOT")
    harness = connect()
    sync(harness)
    assert [name for name, _ in rows(harness)] == [
        "#general @Deploys",
        "#general @night",
        "#general @Slackbot",
    ]
    assert len(fake.called("bots.info")) == 1


def test_group_messages_are_named_by_their_people(fake: Fake, connect: Any, sync: Any) -> None:
    fake.workspace.users["U2"]["name"] = "bjorn-e"
    channel = fake.workspace.add_channel("mpdm-ann--bjorn-e--zoe-1", id="G1", type="mpim")
    fake.workspace.post(channel, "lunch?")
    harness = connect(types=["mpim"])
    sync(harness)
    assert harness.content["G1"].name == "@Ann, @Björn, @zoe"
    assert rows(harness) == [("@Ann, @Björn, @zoe @Ann", "lunch?")]


def renumbered(fake: Fake, channel: Channel, id: str) -> None:
    """Give a channel a new id, as a move to an Enterprise organization does."""
    del fake.workspace.channels[channel.id]
    channel.id = id
    fake.workspace.channels[id] = channel


def test_a_channel_with_a_new_id_keeps_one_history(fake: Fake, connect: Any, sync: Any) -> None:
    channel, other = fake.workspace.add_channel("general"), fake.workspace.add_channel("random")
    fake.workspace.post(other, "elsewhere")
    ts = fake.workspace.post(channel, "before")
    fake.workspace.post(channel, "in the thread", thread=ts)
    harness = connect()
    sync(harness)
    first, before = channel.id, set(harness.content)
    renumbered(fake, channel, "C0NEW")
    new = fake.workspace.post(channel, "after")
    fake.workspace.post(channel, "later", thread=ts)
    for trigger in ("manual", "resync"):
        sync(harness, trigger)
        added = set(harness.content) - before
        assert {id.partition(":")[0] for id in added} == {first}
        assert not harness.deleted & before
    assert harness.content[first].metadata["unreadable"] is None
    item = harness.content[f"{first}:{new}"]
    assert (item.parent, item.name, item.text) == (first, "#general @Ann", "after")
    assert str(item.metadata["permalink"]).startswith("https://acme.slack.com/archives/C0NEW/p")


def test_another_channel_of_the_same_name_is_another_history(
    fake: Fake, connect: Any, sync: Any, monkeypatch: Any
) -> None:
    channel = fake.workspace.add_channel("general")
    fake.workspace.post(channel, "old")
    harness = connect()
    sync(harness)
    del fake.workspace.channels[channel.id]
    again = fake.workspace.add_channel("general", id="C0NEW")
    described = again.described
    monkeypatch.setattr(again, "described", lambda: {**described(), "created": 1_700_000_000})
    fake.workspace.post(again, "new")
    sync(harness)
    assert harness.content[channel.id].metadata["unreadable"] == "channel_not_found"
    assert [item.text for item in harness.content.values() if item.parent == "C0NEW"] == ["new"]


def test_a_direct_message_is_named_by_a_partner_of_another_organization(
    fake: Fake, connect: Any, sync: Any
) -> None:
    fake.workspace.add_user("U0EXT", "Carla", is_stranger=True)
    channel = fake.workspace.add_channel("", id="D1", type="im", user="U0EXT")
    fake.workspace.post(channel, "hello")
    harness = connect(types=["im"])
    sync(harness)
    assert (harness.content["D1"].name, rows(harness)) == ("@Carla", [("@Carla @Ann", "hello")])
    assert harness.content["U0EXT"].name == "@Carla"


def test_a_renamed_channel_of_the_config_is_still_followed(
    fake: Fake, connect: Any, sync: Any, monkeypatch: Any
) -> None:
    channel = fake.workspace.add_channel("sales")
    fake.workspace.post(channel, "one")
    harness = connect(channels=["#sales"])
    sync(harness)
    channel.name, described = "sales-emea", channel.described
    monkeypatch.setattr(channel, "described", lambda: {**described(), "previous_names": ["sales"]})
    fake.workspace.post(channel, "two")
    sync(harness)
    assert [text for _, text in rows(harness)] == ["one", "two"]
    assert harness.content[channel.id].name == "#sales-emea"
    fake.workspace.post(fake.workspace.add_channel("sales"), "of another channel")
    sync(harness)
    assert rows(harness)[-1] == ("#sales @Ann", "of another channel")


def test_a_reread_renders_with_the_kept_names_and_without_slack(
    fake: Fake, connect: Any, sync: Any, monkeypatch: Any
) -> None:
    fake.workspace.add_user("U0EXT", "Carla", is_stranger=True)
    channel = fake.workspace.add_channel("shared")
    root = fake.workspace.post(channel, "ask <@U0EXT> :tada:")
    fake.workspace.post(channel, "fine", thread=root, user="U0EXT")
    harness = connect()
    sync(harness)
    calls, before = len(fake.calls), rows(harness)
    assert harness.reread().saved == 0, "nothing changed"
    monkeypatch.setattr(
        "integration_polling_slack.text.readable",
        lambda message, name: f"new form of {message['text']} for {name('U0EXT')}",
    )
    assert harness.reread().saved == 2
    assert rows(harness) != before
    assert rows(harness)[0][1] == "new form of ask <@U0EXT> :tada: for @Carla"
    assert len(fake.calls) == calls


@pytest.mark.parametrize(
    ("fields", "author"),
    [
        ({}, "@Dora"),  # an app that posts with the token of a person
        ({"username": "deploys"}, "@deploys"),
        ({"user": "U4"}, "@CI"),
        ({"bot_profile": {}}, "@Dora"),
    ],
)
def test_a_message_that_an_app_posts_for_a_person_has_this_person_as_author(
    fake: Fake, connect: Any, sync: Any, fields: dict[str, Any], author: str
) -> None:
    fake.workspace.add_user("U3", "Dora", is_bot=False)
    fake.workspace.add_user("U4", "ci-bot", is_bot=True)
    channel = fake.workspace.add_channel("general")
    profile = {"id": "B7", "name": "CI", "app_id": "A7"}
    message = {"user": "U3", "bot_id": "B7", "bot_profile": profile, **fields}
    ts = fake.workspace.post(channel, "hello", **message)
    sync(harness := connect())
    assert harness.content[f"{channel.id}:{ts}"].name == f"#general {author}"
    harness.reread()
    assert harness.content[f"{channel.id}:{ts}"].name == f"#general {author}"
