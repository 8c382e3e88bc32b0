"""Each kind of block, element, attachment and subtype: what a person sees of it in Slack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from integration_polling_slack import emoji, messages, raw
from integration_polling_slack.messages import Place
from integration_polling_slack.text import readable

NAMES = {
    "U01ANN": "@Ann", "U02BOB": "@Bob", "C01GEN": "#general", "S01OPS": "@oncall", "T01": "@Acme",
}  # fmt: skip
PLACE = Place("C01GEN", "https://acme.slack.com/", NAMES.get)
FOLDER = Path(__file__).with_name("cases")
CASES = json.loads(FOLDER.joinpath("messages.json").read_text("utf-8"))
SEEN = json.loads(FOLDER.joinpath("seen.json").read_text("utf-8"))


def block(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def plain(text: str) -> dict[str, Any]:
    return block("plain_text", text=text)


def mark(text: str) -> dict[str, Any]:
    return block("mrkdwn", text=text)


def words(*elements: dict[str, Any], kind: str = "rich_text_section", **more: Any) -> Any:
    return block(kind, elements=list(elements), **more)


def rich(*elements: dict[str, Any]) -> dict[str, Any]:
    return block("rich_text", elements=list(elements))


def said(text: str, **style: Any) -> dict[str, Any]:
    return block("text", text=text, **style)


def listed(*items: str, **fields: Any) -> dict[str, Any]:
    return block("rich_text_list", elements=[words(said(one)) for one in items], **fields)


def shown(*blocks: dict[str, Any], **message: Any) -> str:
    return readable({"blocks": list(blocks), **message}, NAMES.get)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_row_has_what_its_case_says(case: dict[str, Any]) -> None:
    row = messages.row(case["message"], PLACE, "1")
    content = (
        json.dumps(dict(row.metadata), ensure_ascii=False)
        if case["field"] == "metadata"
        else str(row.content)
    )
    assert [one for one in case["contains"] if one not in content] == []
    assert [one for one in case["lacks"] if one in content] == []


@pytest.mark.parametrize("case", SEEN, ids=[case["id"] for case in SEEN])
def test_a_row_has_all_that_a_person_sees(case: dict[str, Any]) -> None:
    """The texts were written from Slack's documentation and from recorded messages."""
    assert messages.row(case["message"], PLACE, "1").content == case["seen"]


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (block("header", text=plain("Q&amp;A :tada:")), "Q&A 🎉"),
        (block("header", text={**plain(":tada:"), "emoji": False}), ":tada:"),
        (block("section", text=mark("<@U01ANN>: *yes*")), "@Ann: yes"),
        (block("section", fields=[mark("a"), plain("b")]), "a\nb"),
        (
            block(
                "section",
                text=mark("Deploy?"),
                accessory=block("button", text=plain("Go"), url="https://go.example"),
            ),
            "Deploy?\nGo (https://go.example)",
        ),
        (block("divider"), ""),
        (block("image", title=plain("Chart"), alt_text="sales by month"), "Chart\nsales by month"),
        (block("image", title=plain("Chart"), alt_text="Chart"), "Chart"),
        (
            block("context", elements=[block("image", alt_text="logo"), mark("by <@U02BOB>")]),
            "logo by @Bob",
        ),
        (
            block(
                "actions",
                elements=[
                    block("button", text=plain("Approve")),
                    block("static_select", placeholder=plain("Pick one"), options=[]),
                    block("users_select", initial_user="U01ANN", placeholder=plain("Who")),
                    block("datepicker", initial_date="2026-05-01"),
                    block("datetimepicker", initial_date_time=1764000000),
                    block("overflow", options=[{"text": plain("Delete"), "value": "d"}]),
                    block("workflow_button", text=plain("Run")),
                ],
            ),
            "Approve | Pick one | @Ann | 2026-05-01 | 2025-11-24 4:00 PM | Delete | Run",
        ),
        (
            block(
                "actions",
                elements=[
                    block(
                        "radio_buttons",
                        options=[{"text": plain("Red"), "description": plain("stop")}],
                    ),
                    block("checkboxes", options=[{"text": mark("*milk*")}]),
                    block(
                        "multi_static_select",
                        initial_options=[{"text": plain("A")}, {"text": plain("B")}],
                    ),
                ],
            ),
            "Red\nstop | milk | A, B",
        ),
        (
            block(
                "input",
                label=plain("Your name"),
                hint=plain("as in the passport"),
                element=block("plain_text_input", placeholder=plain("Ann")),
            ),
            "Your name\nAnn\nas in the passport",
        ),
        (
            block("context_actions", elements=[
                block(
                    "feedback_buttons",
                    positive_button={"text": plain("Good")},
                    negative_button={"text": plain("Bad")},
                ),
                block("icon_button", icon="trash", text=plain("Remove")),
            ]),
            "Good\nBad | Remove",
        ),
        (
            block("markdown", text="# Plan\nsee [the docs](https://d.example) &amp; <@U01ANN>"),
            "Plan\nsee the docs (https://d.example) & @Ann",
        ),
        (
            block("video", title=plain("Tour"), title_url="https://v.example/1",
                  author_name="Ann", provider_name="Tube", description=plain("in five minutes"),
                  alt_text="a tour"),
            "Tour (https://v.example/1)\nAnn\nTube\nin five minutes\na tour",
        ),
        (
            block("call", call_id="R1", call={"v1": {
                "name": "Standup", "join_url": "https://call.example/1", "display_id": "123-456",
                "all_participants": [{"slack_id": "U01ANN"}, {"display_name": "Guest"}],
            }}),
            "Standup (https://call.example/1)\n123-456\n@Ann, Guest",
        ),
        (block("file", source="remote", file={"title": "Budget"}), "Budget"),
        (
            block("data_table", caption="Sales", rows=[
                [block("raw_text", text="Region"), block("raw_text", text="Sum")],
                [block("raw_text", text="North"), block("raw_number", value=7, text="7 €")],
                [rich(words(said("South"))), block("raw_number", value=8)],
            ]),
            "Sales\nRegion | Sum\nNorth | 7 €\nSouth | 8",
        ),
        (
            block("data_visualization", title="Candy", chart={
                "type": "pie", "segments": [{"label": "Twix", "value": 28}],
            }),
            "Candy\nTwix 28",
        ),
        (
            block("data_visualization", title="Pies", chart={
                "type": "bar", "axis_config": {"categories": ["W1"], "x_label": "Week",
                                               "y_label": "Visits"},
                "series": [{"name": "Web", "data": [{"label": "W1", "value": 32}]}],
            }),
            "Pies\nWeek\nVisits\nWeb: W1 32",
        ),
        (block("alert", level="warning", text=mark("disk full")), "disk full"),
        (
            block("card", title=mark("Plan A"), subtitle=mark("cheap"), body=mark("and slow"),
                  subtext=plain("since May"), hero_image=block("image", alt_text="a snail"),
                  actions=[block("button", text=plain("Take it"))]),
            "a snail\nPlan A\ncheap\nand slow\nsince May\nTake it",
        ),
        (
            block("container", title=plain("no"), rich_text_title=rich(words(said("Bulk")))
                  , subtitle=plain("2 records"), child_blocks=[block("section", text=mark("one"))]),
            "Bulk\n2 records\none",
        ),
        (
            block("plan", title="Trip", tasks=[
                block("task_card", title="Book", details=rich(words(said("a train"))),
                      output=rich(words(said("booked"))),
                      sources=[block("url", url="https://rail.example", text="Rail")]),
            ]),
            "Trip\nBook\na train\nbooked\nRail (https://rail.example)",
        ),
        (block("a_new_block", title="New", elements=[mark("and <@U01ANN>")]), "New\nand @Ann"),
    ],
)  # fmt: skip
def test_each_kind_of_block_shows_its_words(given: dict[str, Any], seen: str) -> None:
    assert shown(given) == seen


@pytest.mark.parametrize(
    ("element", "seen"),
    [
        (said("a & b"), "a & b"),
        (block("user", user_id="U01ANN"), "@Ann"),
        (block("user", user_id="U09EXT"), "@U09EXT"),
        (block("channel", channel_id="C01GEN"), "#general"),
        (block("channel", channel_id="C09"), "#C09"),
        (block("usergroup", usergroup_id="S01OPS"), "@oncall"),
        (block("team", team_id="T01"), "@Acme"),
        (block("broadcast", range="here"), "@here"),
        (block("color", value="#FF8800"), "#FF8800"),
        (block("link", url="https://a.example/?x=1&amp;y=2"), "https://a.example/?x=1&y=2"),
        (block("link", url="https://a.example", text="docs"), "docs (https://a.example)"),
        (block("link", url="https://a.example/", text="a.example"), "https://a.example/"),
        (block("link", url="mailto:a@b.example", text="a@b.example"), "a@b.example"),
        (block("link", url="mailto:a@b.example", text="Ann"), "Ann (a@b.example)"),
        (block("link", url="tel:+4930123", text="+49 30 123"), "+49 30 123"),
        (block("emoji", name="wave", unicode="1f44b-1f3fc", skin_tone=3), "👋🏼"),
        (block("emoji", name="wave", skin_tone=3), "👋🏼"),
        (block("emoji", name="wave::skin-tone-3"), "👋🏼"),
        (block("emoji", name="partyparrot"), ":partyparrot:"),
        (block("emoji", name="flag-us"), "🇺🇸"),
        (block("date", timestamp=1764000000, format="{date_long}, {time}"),
         "Monday, November 24th, 2025, 4:00 PM"),
        (block("date", timestamp=1764000000, format="{date_long_full}", fallback="soon"),
         "November 24th, 2025"),
        (block("date", timestamp=1764000000, format="{ago}", fallback="yesterday",
               url="https://cal.example"), "yesterday (https://cal.example)"),
        (block("canvas", text="Plans", url="https://c.example"), "Plans (https://c.example)"),
        (block("canvas_user_mention", user_id="U01ANN"), "@Ann"),
        (block("file", file={"title": "Budget"}), "Budget"),
        (block("tag", name="urgent"), "urgent"),
        (block("workflow_mention", title="Ask for leave"), "Ask for leave"),
        (block("attachment_mention", url="https://i.example/7", text="Issue 7"),
         "Issue 7 (https://i.example/7)"),
        (block("message_mention", channel_id="C01GEN"), "#general"),
        (block("list_record", record={"title": "Buy milk"}), "Buy milk"),
        (block("salesforce_data_field", label="Amount", value=10), "Amount: 10"),
    ],
)  # fmt: skip
def test_each_element_of_rich_text_shows_its_words(element: dict[str, Any], seen: str) -> None:
    assert shown(rich(words(element))) == seen


def test_lists_have_slacks_numbers_and_bullets() -> None:
    nested = rich(
        listed("stop", style="ordered", indent=0),
        listed("red", "amber", style="ordered", indent=1),
        listed("deep", style="ordered", indent=2, offset=3),
        listed("go", style="ordered", indent=0, offset=1),
        listed("tea", style="bullet", indent=0),
        listed("green", style="bullet", indent=1),
    )
    assert shown(nested) == (
        "1. stop\n    a. red\n    b. amber\n        iv. deep\n2. go\n• tea\n    ◦ green"
    )


def test_quotes_and_code_stand_on_their_own_lines() -> None:
    text = rich(
        words(said("he said:\n")),
        words(said("one\ntwo"), kind="rich_text_quote"),
        words(said("x = :smile:"), kind="rich_text_preformatted"),
    )
    assert shown(text) == "he said:\n> one\n> two\nx = :smile:"


@pytest.mark.parametrize(
    ("text", "word", "seen"),
    [("R&amp;D", "R&D", "R&D"), ("R&amp;D", "R&amp;D", "R&D"),
     ("R&amp;amp;D", "R&amp;D", "R&amp;D"),
     ("", "&lt;b&gt;", "<b>")],
)  # fmt: skip
def test_entities_of_rich_text_are_unescaped_once(text: str, word: str, seen: str) -> None:
    assert shown(rich(words(said(word))), text=text) == seen


def test_a_text_names_people_whom_its_blocks_only_number() -> None:
    blocks = rich(
        words(block("user", user_id="U09EXT"), said(" in "), block("channel", channel_id="C9"))
    )
    assert shown(blocks, text="<@U09EXT|carla> in <#C9|ideas>") == "@carla in #ideas"


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("man-shrugging", "🤷‍♂️"), ("man-shrugging::skin-tone-3", "🤷🏼‍♂️"), ("flag-us", "🇺🇸"),
        ("skin-tone-3", "🏼"), ("+1::skin-tone-6", "👍🏿"), ("thumbsup", "👍"), ("heart", "❤️"),
        ("heart::skin-tone-3", "❤️"), ("point_up::skin-tone-2", "☝🏻"),
        ("people_holding_hands::skin-tone-2", "🧑🏻‍🤝‍🧑🏻"), ("woman-golfing::skin-tone-2", "🏌🏻‍♀️"),
        ("partyparrot", None),
    ],
)  # fmt: skip
def test_emoji_have_slacks_names_and_skin_tones(name: str, seen: str | None) -> None:
    assert emoji.named(name) == seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (":wave::skin-tone-4: hi:tada:", "👋🏽 hi🎉"), ("at 10:30:00", "at 10:30:00"),
        ("00:ab:11", "00:ab:11"), ("1:100:2", "1:100:2"), (":unknown: :100:", ":unknown: 💯"),
        ("<https://a.example/:x:|:x: here>", "❌ here (https://a.example/:x:)"),
        ("```a :smile:\n<@U01ANN>```", "a :smile:\n@Ann"),
        ("call <tel:+49-30-123|+49 30 123>", "call +49 30 123"), ("<tel:123|us>", "us (123)"),
        ("<mailto:a@b.example|A@b.example>", "A@b.example"),
        ("<!date^1392734382^{date_num} {time_secs}>", "2014-02-18 2:39:42 PM"),
        ("<!date^1392734382^{date}^https://c.example|Feb 18>",
         "February 18th, 2014 (https://c.example)"),
        # Slack shows the fallback only where it cannot format the date.
        ("<!date^1764000000^Deadline {date_short} at {time}|24.11.2025>",
         "Deadline Nov 24, 2025 at 4:00 PM"),
        ("<!date^1764000000^{date_short_pretty}|yesterday>", "yesterday"),
        ("<!date^soon^{date}|next week>", "next week"),
        ("<!date^x^{date}>", "date"), ("&lt;@U01ANN&gt; &amp;amp;", "<@U01ANN> &amp;"),
    ],
)  # fmt: skip
def test_markup_in_a_message_becomes_readable_text(text: str, seen: str) -> None:
    assert readable({"text": text}, NAMES.get) == seen


def test_an_attachment_shows_what_was_chosen_and_the_button_of_a_workflow() -> None:
    menu = {
        "type": "select", "text": "Pick a game",
        "selected_options": [{"text": "Chess", "value": "c"}],
    }  # fmt: skip
    workflow = {
        "type": "share_shortcut", "button_label": "Start Workflow", "title": "Ask for leave",
        "description": "Fill the form",
    }  # fmt: skip
    shown = readable({"text": "", "attachments": [{"text": "One", "actions": [menu]}]}, NAMES.get)
    assert shown == "One\nChess"
    shown = readable({"text": "", "attachments": [{"blocks": [workflow]}]}, NAMES.get)
    assert shown.splitlines() == ["Ask for leave", "Fill the form", "Start Workflow"]


def test_an_attachment_shows_all_its_parts_once() -> None:
    attachment = {
        "pretext": "New :fire:", "service_name": "Tracker", "author_name": "Ann",
        "author_link": "https://t.example/ann", "title": "Issue 7", "title_link": "https://t.example/7",
        "text": "fails for <@U02BOB>", "fallback": "not shown", "footer": "Tracker 2",
        "fields": [{"title": "Owner:", "value": "<@U01ANN>"}, {"value": 5}], "ts": 1764000000,
        "blocks": [block("section", text=mark("TypeError"))],
        "actions": [{"type": "button", "text": "Close", "url": "https://t.example/close"}],
        "files": [{"id": "F1", "title": "trace.txt"}],
    }  # fmt: skip
    assert readable(
        {"text": "see https://t.example/7", "attachments": [attachment]}, NAMES.get
    ) == (
        "see https://t.example/7\nNew 🔥\nTracker Ann (https://t.example/ann)\nIssue 7\n"
        "fails for @Bob\nOwner: @Ann\n5\nTypeError\ntrace.txt\nClose (https://t.example/close)\n"
        "Tracker 2 | Nov 24, 2025"
    )


@pytest.mark.parametrize(
    ("attachment", "seen"),
    [
        ({"fallback": "a chart", "image_url": "https://i.example/1"}, "a chart"),
        ({"image_url": "https://i.example/1"}, "https://i.example/1"),
        ({"fallback": "[no preview available]"}, ""),
        ({"title": "T", "title_link": "https://t.example"}, "T (https://t.example)"),
        ({"author_id": "U02BOB", "text": "hi", "is_share": True}, "@Bob\nhi"),
        ({"entity_payload": {"attributes": {"title": {"text": "Case 9"}}}}, "Case 9"),
    ],
)  # fmt: skip
def test_an_attachment_without_words_shows_its_fallback(attachment: Any, seen: str) -> None:
    assert readable({"attachments": [attachment]}, NAMES.get) == seen


def test_a_forwarded_message_shows_its_blocks_attachments_and_files() -> None:
    inner = {
        "text": "not shown",
        "blocks": [rich(words(said("the numbers")))],
        "attachments": [{"title": "Source"}],
        "files": [{"id": "F2", "name": "may.xlsx"}],
    }
    share = {
        "is_share": True, "author_name": "Bob", "author_link": "https://acme.slack.com/team/U2",
        "text": "the numbers", "files": [{"name": "may.xlsx"}], "footer": "Posted in #may",
        "message_blocks": [{"message": inner}],
    }  # fmt: skip
    assert readable({"text": "look", "attachments": [share]}, NAMES.get) == (
        "look\nBob\nthe numbers\nSource\nmay.xlsx\nPosted in #may"
    )


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        (
            {"subtype": "huddle_thread", "text": "A huddle started", "room": {
                "participant_history": ["U01ANN", "U09"], "date_start": 1764000000,
                "date_end": 1764001500}},
            "A huddle started\nParticipants: @Ann, @U09\nDuration: 25 min",
        ),
        ({"subtype": "sh_room_created", "text": "", "room": {"name": "Retro"}},
         "A huddle started\nRetro"),
        ({"subtype": "channel_join", "text": "<@U01ANN> has joined", "inviter": "U02BOB"},
         "@Ann has joined\ninvited by @Bob"),
        ({"subtype": "channel_topic", "topic": "Q&amp;A"}, "set the channel topic: Q&A"),
        ({"subtype": "channel_name", "old_name": "a", "name": "b"},
         "renamed the channel from a to b"),
        ({"subtype": "tombstone"}, "This message was deleted."),
        ({"subtype": "file_comment", "text": "", "comment": {"comment": "nice <@U01ANN>"}},
         "nice @Ann"),
        ({"subtype": "assistant_app_thread", "text": "New chat",
          "assistant_app_thread": {"title": "Leave?"}}, "New chat\nLeave?"),
        ({"subtype": "channel_canvas_updated", "canvas": {"title": "Plans"}},
         "updated the channel canvas\nPlans"),
        ({"text": "see plan", "files": [{"title": "plan", "alt_txt": "a map"}]}, "see plan\na map"),
        ({"text": "planning", "files": [{"title": "plan"}]}, "planning\nplan"),
        ({"files": [{"name": "v.m4a", "transcription": {"preview": {"content": "hello"}}}]},
         "v.m4a\nhello"),
        ({"files": [{"mode": "snippet", "title": "x.py", "preview": "a &lt; b"}]}, "x.py\na < b"),
        ({"files": [{"mode": "tombstone", "id": "F1"}]}, "This file was deleted."),
        ({"files": [{"mode": "quip", "title": "Roadmap"}]}, "Roadmap"),
        ({"files": [{"mode": "email", "title": "Invoice", "subject": "Invoice",
                     "from": [{"address": "a@b.example", "name": "Acme"}],
                     "to": [{"address": "us@c.example", "name": "us@c.example"}],
                     "plain_text": "Pay &amp; go", "attachments": [{"filename": "12.pdf"}]}]},
         "Invoice\nFrom: Acme (a@b.example)\nTo: us@c.example\nPay & go\n12.pdf"),
        ({"files": [{"filetype": "email", "title": "Hi", "preview": "short"}]}, "Hi\nshort"),
        ({"subtype": "assistant_app_thread", "text": "New", "assistant_app_thread": {
            "title_blocks": [rich(words(said("Rich")))]}}, "New\nRich"),
        ({"text": "uploaded a file", "file": {"title": "Plan"}}, "uploaded a file\nPlan"),
        ({"file": {"title": "Plan", "initial_comment": {"comment": "at last"}}}, "Plan\nat last"),
        ({"subtype": "sh_room_created", "room": {"call_family": "zoom"}}, "A call started"),
    ],
)  # fmt: skip
def test_each_kind_of_message_shows_its_words(message: dict[str, Any], seen: str) -> None:
    assert readable(message, NAMES.get) == seen


@pytest.mark.parametrize("case", [*CASES, *SEEN], ids=[case["id"] for case in [*CASES, *SEEN]])
def test_a_kept_message_can_be_rendered_again(case: dict[str, Any]) -> None:
    row = messages.row(case["message"], PLACE, "1|2|3")
    assert messages.reread(json.loads(json.dumps(row.metadata)), "1|2|3", NAMES.get) == row


def test_a_message_can_be_rendered_again_with_new_names() -> None:
    message = {"type": "message", "ts": "1764000000.000100", "user": "U09", "text": "ask <@U08>"}
    row = messages.row(message, PLACE, "1")
    assert (row.name, row.content) == ("#general @U09", "ask @U08")
    again = messages.reread(row.metadata, "1", {**NAMES, "U09": "@Carla", "U08": "@Dan"}.get)
    assert again is not None
    assert (again.id, again.name, again.content) == (row.id, "#general @Carla", "ask @Dan")
    assert messages.reread({"channel": "C1"}, "1", NAMES.get) is None


@pytest.mark.parametrize("sign", ["x", "é", "漢"])
def test_a_large_message_is_kept_completely_within_the_engines_limit(sign: str) -> None:
    """Sizes count characters, but the engine counts escaped bytes: `raw` has the largest parts."""
    blocks = [block("section", text=mark(f"{number} {sign * 2_900}")) for number in range(90)]
    message = {"type": "message", "ts": "1764000000.000100", "text": "t", "blocks": blocks}
    row = messages.row(message, PLACE, "1")
    assert len(json.dumps(dict(row.metadata))) < 1024 * 1024
    assert ("blocks" in row.metadata) == (sign != "漢" and sign != "é")
    assert raw.unpacked(row.metadata) == message | {"blocks": blocks}
    assert messages.reread(row.metadata, "1", NAMES.get) == row


def test_reactions_keep_names_and_counts_when_people_do_not_fit() -> None:
    people = [f"U{number:09}" for number in range(50)]
    reactions = [{"name": f"e{n}", "count": 50, "users": people} for n in range(40)]
    message = {"type": "message", "ts": "1764000000.000100", "text": "hooray"}
    few = messages.row({**message, "reactions": reactions[:3]}, PLACE, "1").metadata["reactions"]
    many = messages.row({**message, "reactions": reactions}, PLACE, "1").metadata["reactions"]
    assert few == reactions[:3]
    assert isinstance(many, list)
    assert many == [{**one, "users": people[:20]} for one in reactions]


def test_the_most_reactions_keep_names_and_counts() -> None:
    reactions = [{"name": "é" * 99, "count": n, "users": ["U1"] * 99} for n in range(600)]
    message = {"type": "message", "ts": "1764000000.000100", "text": "x", "reactions": reactions}
    kept = messages.row(message, PLACE, "1").metadata["reactions"]
    assert kept == [{"name": "é" * 99, "count": n} for n in range(500)]


@pytest.mark.parametrize(
    ("message", "author"),
    [
        ({"subtype": "file_comment", "comment": {"user": "U02BOB", "comment": "nice"}}, "@Bob"),
        ({"bot_id": "B1", "username": "R&amp;D bot"}, "@R&D bot"),
        ({"bot_id": "B1", "bot_profile": {"name": "Q&amp;A"}, "user": "U01ANN"}, "@Q&A"),
    ],
)
def test_a_row_is_named_by_its_author(message: dict[str, Any], author: str) -> None:
    whole = {"type": "message", "ts": "1764000000.000100", "text": "x", **message}
    assert messages.row(whole, PLACE, "1").name == f"#general {author}"


def test_metadata_keeps_app_pin_title_and_event() -> None:
    message = {
        "type": "message", "ts": "1764000000.000100", "text": "x", "bot_id": "B1",
        "bot_profile": {"app_id": "A1"}, "pinned_to": ["C01GEN"],
        "metadata": {"event_type": "task", "event_payload": {"id": 1}},
        "assistant_app_thread": {"title": "Leave?"}, "client_msg_id": "c1",
    }  # fmt: skip
    kept = messages.row(message, PLACE, "1").metadata
    assert (kept["app_id"], kept["bot_id"], kept["pinned_to"]) == ("A1", "B1", ["C01GEN"])
    assert kept["metadata"] == message["metadata"]
    assert kept["assistant_app_thread"] == message["assistant_app_thread"]
    assert isinstance(kept["raw"], dict)
    assert kept["raw"]["client_msg_id"] == "c1"
