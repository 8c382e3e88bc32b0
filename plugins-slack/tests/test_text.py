"""Readable text: mentions, links, entities and authors. Hostile text does not break rows."""

from __future__ import annotations

from json import dumps, loads
from time import process_time
from typing import Any

import pytest
from fake_slack import Fake
from hypothesis import given, settings
from hypothesis import strategies as st
from integration_polling_slack import messages, names, timestamps
from integration_polling_slack.api import storable
from integration_polling_slack.attached import files_of
from integration_polling_slack.blocks import _HANDLERS
from integration_polling_slack.text import READER_VERSION, readable, resolved

NAMES = {"U1": "@Ann", "C1": "#general", "S1": "@oncall", "U2": "@<B&C>"}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("hello <@U1>", "hello @Ann"),
        ("<@U9>", "@U9"),
        ("<@U9|zoe>", "@zoe"),
        ("<@U1|old name>", "@Ann"),
        ("<#C1|old-name> <#C9|nine> <#C8>", "#general #nine #C8"),
        ("<!here> <!channel> <!everyone>", "@here @channel @everyone"),
        ("<!subteam^S1|@x> <!subteam^S2|@y> <!subteam^S3>", "@oncall @y @S3"),
        ("<!date^1392734382^{date}|Feb 18, 2014>", "February 18th, 2014"),
        ("<https://a.example/x?y=1&amp;z=2>", "https://a.example/x?y=1&z=2"),
        ("<https://a.example|the docs>", "the docs (https://a.example)"),
        ("<http://a.example|a.example>", "http://a.example"),
        ("<mailto:a@b.example|a@b.example>", "a@b.example"),
        ("1 &lt; 2 &amp;&amp; 3 &gt; 2", "1 < 2 && 3 > 2"),
        ("&amp;lt;", "&lt;"),
        ("<@U2>", "@<B&C>"),
        ("<", "<"),
        ("<>", ""),
        ("*a*b _snake_case_ *c*", "*a*b snake_case c"),
        ("*bold* `:smile:` :smile: :partyparrot:", "bold :smile: 😄 :partyparrot:"),
    ],
)
def test_mentions_links_and_entities_become_text(raw: str, shown: str) -> None:
    assert resolved(raw, NAMES.get) == shown


def test_a_message_shows_its_blocks_and_attachments() -> None:
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "see <@U1>"}}
    words = [
        {"type": "text", "text": "hi "},
        {"type": "user", "user_id": "U1"},
        {"type": "link", "url": "https://a.example"},
    ]
    rich = {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": words}]}
    attachment = {"title": "Build 7", "text": "failed in <#C1>", "fallback": "no"}
    shown = "see @Ann\nhi @Annhttps://a.example"
    assert readable({"text": "", "blocks": [section, rich]}, NAMES.get) == shown
    assert readable({"attachments": [attachment]}, NAMES.get) == "Build 7\nfailed in #general"
    assert (
        readable({"text": "said", "blocks": [section], "attachments": [attachment]}, NAMES.get)
        == "see @Ann\nBuild 7\nfailed in #general"
    )
    assert readable({"text": "said", "blocks": [{"type": "new"}]}, NAMES.get) == "said"


keys = st.sampled_from(
    [
        "type", "text", "elements", "fields", "user_id", "fallback", "blocks", "title", "rows",
        "name", "unicode", "skin_tone", "timestamp", "format", "url", "style", "indent", "offset",
        "options", "files", "file", "attachments", "message_blocks", "message", "call", "chart",
        "series", "from", "room", "participant_history", "date_start", "date_end", "mode",
        "actions", "slack_file", "id",
    ]
)  # fmt: skip
kinds = st.sampled_from([*_HANDLERS, "section", "actions", "static_select", "quip", "email"])
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | kinds,
    lambda below: st.lists(below) | st.dictionaries(keys, below),
)


@given(st.dictionaries(keys | st.sampled_from(["subtype", "reactions", "user", "bot_id"]), json))
@settings(max_examples=300, deadline=None)
def test_any_message_becomes_a_row_that_can_be_rendered_again(message: Any) -> None:
    whole = {**storable(message), "type": "message", "ts": "1.2"}
    row = messages.row(whole, messages.Place("C1", "https://a.example/", NAMES.get), "1")
    assert isinstance(row.content, str)
    assert row.content == storable(row.content)
    assert messages.reread(loads(dumps(row.metadata)), "1", NAMES.get) == row
    assert all(names.is_id(file["id"]) for file in files_of(whole))
    assert len(messages.own_version(whole)) == 18


@pytest.mark.parametrize(
    "sign",
    ["<", ">", "`", "```", ":", ":x:", "[", "<!date^1^", "&amp;", "|", "*", "*a ", "_a_", "~", "> ",
     "- ", "1. ", "| -", "``a", "[](", "\n- ", "<!--", "<a ", " "],
)  # fmt: skip
def test_a_long_text_takes_no_more_than_its_length(sign: str) -> None:
    started, text = process_time(), sign * (100_000 // len(sign))
    email = {"mode": "email", "simplified_html": text}
    readable({"text": text, "blocks": [{"type": "new"}]}, NAMES.get)
    readable({"blocks": [{"type": "markdown", "text": text}], "files": [email]}, NAMES.get)
    assert process_time() - started < 5, "quadratic time would be minutes"


@given(st.text(st.characters(exclude_characters=":*_~`")))
def test_text_without_markup_is_unchanged(text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert resolved(escaped, NAMES.get) == text


@given(st.integers(0, 2**32), st.integers(0, 999_999))
def test_timestamps_convert_exactly(seconds: int, micros: int) -> None:
    ts = f"{seconds}.{micros:06d}"
    assert timestamps.is_ts(ts)
    moment = timestamps.moment(ts)
    assert (moment.microsecond, int(moment.timestamp())) == (micros, seconds)
    assert timestamps.order(timestamps.before(moment)) < timestamps.order(ts) or ts == "0.000000"
    assert timestamps.after(timestamps.before(moment)) == moment or seconds == 0


def test_a_message_becomes_a_row(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    fake.workspace.groups["S1"] = "oncall"
    blocks = [{"type": "rich_text", "elements": []}]
    ts = fake.workspace.post(
        channel, "<!subteam^S1>, <@U2> &amp; all", blocks=blocks, subtype="me_message"
    )
    reply = fake.workspace.post(channel, "yes", thread=ts, user="U2")
    harness = connect()
    sync(harness)
    item = harness.content[f"{channel.id}:{ts}"]
    link = f"https://acme.slack.com/archives/{channel.id}/p{ts.replace('.', '')}"
    assert (item.kind, item.parent, item.name) == ("message", channel.id, "#general @Ann")
    assert item.text == "@oncall, @Björn & all"
    assert item.metadata == {
        "channel": channel.id, "ts": ts, "user": "U1", "subtype": "me_message", "permalink": link,
        "blocks": blocks, "thread_ts": ts, "reader": READER_VERSION,
        "raw": {
            "type": "message", "user": "U1", "text": "<!subteam^S1>, <@U2> &amp; all",
            "reply_count": 1, "reply_users": ["U2"], "latest_reply": reply,
        },
    }  # fmt: skip
    answer = harness.content[f"{channel.id}:{reply}"]
    assert (answer.parent, answer.name) == (item.id, "#general @Björn")
    where = f"archives/{channel.id}/p{reply.replace('.', '')}?thread_ts={ts}&cid={channel.id}"
    assert answer.metadata["permalink"] == f"https://acme.slack.com/{where}"


@pytest.mark.parametrize(
    ("fields", "author"),
    [
        ({"user": "U2"}, "@Björn"),
        ({"user": "UBOT", "bot_id": "B1", "bot_profile": {"name": "CI"}}, "@CI"),
        ({"user": "UBOT", "bot_id": "B1"}, "@polling"),
        ({"user": "", "bot_id": "B7", "username": "deploys"}, "@deploys"),
        ({"user": "", "bot_id": "B7"}, "@B7"),
        ({"user": "UEXT", "user_profile": {"real_name": "Eve Elsewhere"}}, "@Eve Elsewhere"),
        ({"user": "UGONE"}, "@UGONE"),
    ],
)
def test_the_rows_name_contains_the_author(
    fake: Fake, connect: Any, sync: Any, fields: dict[str, Any], author: str
) -> None:
    channel = fake.workspace.add_channel("general")
    ts = fake.workspace.post(channel, "hello", **fields)
    harness = connect()
    sync(harness)
    assert harness.content[f"{channel.id}:{ts}"].name == f"#general {author}"


def test_hostile_messages_do_not_affect_others(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    good = fake.workspace.post(channel, "good")
    odd = [
        {"text": None}, {"text": 7}, {"text": "\0 and \ud800"}, {"blocks": "no list"},
        {"files": [7, {"id": 5}, {}]}, {"reactions": "x"}, {"edited": [1]}, {"attachments": [[]]},
        {"user": None}, {"thread_ts": "nonsense"},
        {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 2_000_000}}]},
        {"reply_count": "many"}, {"user": {"a": 1}}, {"username": 5, "bot_id": 7},
        {"user_profile": "x"}, {"latest_reply": {}, "reply_count": 3},
        {"attachments": [{"ts": float("inf")}]}, {"edited": {"ts": float("nan")}},
    ]  # fmt: skip
    for fields in odd:
        ts = fake.workspace.post(channel, "odd")
        channel.messages[ts] |= fields
    fake.workspace.post(channel, "no timestamp")
    channel.messages[channel.top[-1]]["ts"] = "../../etc"
    channel.messages[channel.top[-1]]["ts"] = "9" * 30 + ".1"
    harness = connect(files="all")
    result = harness.sync()
    assert not result.parked, result.parked
    kept = [item for item in harness.content.values() if item.kind == "message"]
    assert len(kept) == 1 + len(odd)
    assert harness.content[f"{channel.id}:{good}"].text == "good"
    assert all(len(dumps(item.metadata)) < 1024 * 1024 for item in kept), (
        "the engine rejects larger metadata"
    )


def test_responses_are_made_storable() -> None:
    """PostgreSQL cannot store NULs, and UTF-8 cannot encode lone surrogates."""
    odd = {"a\0": ["b\0", "\ud800", {"c": "\0"}], "n": 7}
    assert storable(odd) == {"a\ufffd": ["b\ufffd", "?", {"c": "\ufffd"}], "n": 7}
    assert storable({"a": "b\0"}) == {"a": "b\ufffd"}
    assert storable({"a": [float("inf"), float("nan"), 1.5]}) == {"a": [None, None, 1.5]}
    whole = {"text": "ä 🎈", "list": [1, None, True]}
    assert storable(whole) is whole
