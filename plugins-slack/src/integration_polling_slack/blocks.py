"""The words of Block Kit's blocks, as a person sees them.

Sources: https://docs.slack.dev/reference/block-kit/blocks and
https://docs.slack.dev/reference/block-kit/block-elements
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from integration_polling_slack import dates, emoji, markdown, mrkdwn, numbering
from integration_polling_slack.markdown import BULLETS
from integration_polling_slack.mrkdwn import Name, linked, plain

DEEPEST = 20
"""The maximum nesting of blocks to read; Slack's own blocks are nested at most 6 deep."""

Element = Mapping[str, Any]

_PARTS = (
    "hero_image", "icon", "rich_text_title", "title", "subtitle", "label", "text",
    "author_name", "provider_name", "description", "caption", "body", "subtext", "fields", "rows",
    "elements", "blocks", "child_blocks", "tasks", "details", "output", "sources", "element",
    "hint", "accessory", "workflow", "options", "positive_button", "negative_button",
    "button_label", "actions", "alt_text",
)  # fmt: skip
"""The parts of a block that show words, in Slack's order."""

_BESIDE = {"context": " ", "actions": " | ", "context_actions": " | "}
"""The separators of elements that stand beside each other; others stand below each other."""

_CHOSEN = (
    "initial_option", "initial_options", "initial_user", "initial_users", "initial_channel",
    "initial_channels", "initial_conversation", "initial_conversations", "initial_date",
    "initial_time", "initial_value", "placeholder",
)  # fmt: skip
"""The parts that a menu or an input field shows: the chosen values, else the placeholder."""


class Blocks:
    """Renders the blocks of one message.

    Args:
      name: Returns names of people, channels and groups.
      text: The message's text, which may name people of other workspaces. Default: empty.
    """

    def __init__(self, name: Name, text: object = "") -> None:
        self._known = name
        self._labels = mrkdwn.labels(text)
        self._text = text if isinstance(text, str) else ""

    def name(self, id: str) -> str | None:
        """Return the name for an id, from the directory or from the message itself."""
        return self._known(id) or self._labels.get(id)

    def resolved(self, text: object) -> str:
        """Return marked-up text as plain text; empty if it is not a text."""
        return mrkdwn.resolved(text, self.name) if isinstance(text, str) else ""

    def unformatted(self, text: object) -> str:
        """Return a text that Slack does not format; empty if it is not a text."""
        return mrkdwn.unformatted(text, self.name) if isinstance(text, str) else ""

    def all(self, blocks: Any, depth: int = DEEPEST) -> str:
        """Return the text of a list of blocks, one below the other."""
        return _lines(self._each(blocks, depth))

    def _each(self, elements: Any, depth: int) -> list[str]:
        return [self.of(one, depth) for one in elements] if isinstance(elements, list) else []

    def of(self, element: Any, depth: int = DEEPEST) -> str:
        """Return the text of a block or of one of its elements."""
        if isinstance(element, str):
            return plain(element)
        if not isinstance(element, dict) or depth <= 0:
            return ""
        kind = str(element.get("type"))
        if (handler := _HANDLERS.get(kind)) is not None:
            return handler(self, element, depth - 1)
        if kind.endswith(("_select", "picker", "_input")):
            return self._field(element, depth - 1)
        return self._parts(element, depth - 1)

    def _parts(self, element: Element, depth: int) -> str:
        """Return the words of all parts of a block, in order, without repetitions in a row."""
        skipped = "title" if element.get("rich_text_title") else ""
        separator, found = _BESIDE.get(str(element.get("type")), "\n"), list[str]()
        for key in _PARTS:
            part = element.get(key)
            if key == skipped or part is None or part == element.get("type"):
                continue
            words = self._each(part, depth) if isinstance(part, list) else [self.of(part, depth)]
            if key == "title" and isinstance(address := element.get("title_url"), str):
                words = [linked(word, mrkdwn.unescaped(address)) for word in words]
            found += [word for word in words if word and word not in found[-1:]]
        return separator.join(found)

    # Text objects
    # ----------------------------------------------------------------------------------------------

    def _mrkdwn(self, element: Element, depth: int) -> str:
        return self.resolved(element.get("text"))

    def _plain(self, element: Element, depth: int) -> str:
        text = element.get("text")
        if not isinstance(text, str):
            return str(element.get("value", "")) if element.get("type") == "raw_number" else ""
        return mrkdwn.unescaped(text) if element.get("emoji") is False else plain(text)

    def _markdown(self, element: Element, depth: int) -> str:
        text = element.get("text")
        return markdown.shown(text, self.name) if isinstance(text, str) else ""

    # Rich text
    # ----------------------------------------------------------------------------------------------

    def _word(self, element: Element, depth: int) -> str:
        """Return a text of rich text. Some of Slack's answers escape it, others do not."""
        text = element.get("text")
        if not isinstance(text, str) or "&" not in text:
            return text if isinstance(text, str) else ""
        return text if mrkdwn.escaped(text) in self._text else mrkdwn.unescaped(text)

    def _inline(self, element: Element, depth: int) -> str:
        return "".join(self._each(element.get("elements"), depth))

    def _quote(self, element: Element, depth: int) -> str:
        return _quoted(self._inline(element, depth))

    def _preformatted(self, element: Element, depth: int) -> str:
        code = self._inline(element, depth)
        return _quoted(code) if _count(element.get("border")) else code

    def _rich(self, element: Element, depth: int) -> str:
        elements = numbering.continued(element.get("elements"))
        return _lines(one.strip("\n") for one in self._each(elements, depth))

    def _list(self, element: Element, depth: int) -> str:
        """Return a list with Slack's bullets or numbers: `1.`, below it `a.`, below it `i.`.

        A list with a border is in a quote.
        """
        indent, offset = (_count(element.get(key)) for key in ("indent", "offset"))
        indent = min(indent, DEEPEST)
        margin, found = "    " * indent, list[str]()
        for number, item in enumerate(self._each(element.get("elements"), depth), offset + 1):
            ordered = element.get("style") == "ordered"
            mark = f"{numbering.ordinal(number, indent)}." if ordered else BULLETS[indent % 3]
            found.append(f"{margin}{mark} " + item.replace("\n", f"\n{margin}   "))
        shown = "\n".join(found)
        return _quoted(shown) if _count(element.get("border")) else shown

    def _emoji(self, element: Element, depth: int) -> str:
        name, tone = str(element.get("name", "")), element.get("skin_tone")
        code = element.get("unicode")
        shown = emoji.decoded(code) if code else None
        tone = tone if isinstance(tone, int) else None
        if shown and tone and not set(shown) & set(emoji.TONES):
            shown = emoji.named(name, tone) or shown
        return shown or emoji.named(name, tone) or f":{name.strip(':')}:"

    def _link(self, element: Element, depth: int) -> str:
        label = element.get("text")
        url = mrkdwn.unescaped(str(element.get("url") or ""))
        return linked(self.of(label, depth) if label else "", url)

    def _user(self, element: Element, depth: int) -> str:
        return self._mention(element, "user_id", "@")

    def _channel(self, element: Element, depth: int) -> str:
        return self._mention(element, "channel_id", "#")

    def _group(self, element: Element, depth: int) -> str:
        return self._mention(element, "usergroup_id", "@")

    def _team(self, element: Element, depth: int) -> str:
        return self._mention(element, "team_id", "@")

    def _mention(self, element: Element, key: str, sigil: str) -> str:
        id = str(element.get(key) or "")
        return self.name(id) or f"{sigil}{id}"

    def _broadcast(self, element: Element, depth: int) -> str:
        return f"@{element.get('range')}"

    def _color(self, element: Element, depth: int) -> str:
        return str(element.get("value") or "")

    def _date(self, element: Element, depth: int) -> str:
        fallback, url = element.get("fallback"), element.get("url")
        pattern = str(element.get("format") or "{date}")
        other = plain(fallback) if isinstance(fallback, str) and fallback else ""
        zone = element.get("timezone")
        shown = dates.shown(element.get("timestamp"), pattern, other, zone)
        return linked(shown, mrkdwn.unescaped(url)) if isinstance(url, str) else shown

    def _reference(self, element: Element, depth: int) -> str:
        """Return the label of a mention of a canvas, file, message, list or workflow."""
        label = _first(element, "text", "title", "name", "label", "display_name", "fallback")
        url = _first(element, "url", "permalink", "link")
        value, record = element.get("value"), self.of(element.get("record"), depth)
        if label and isinstance(value, str | int | float):
            label = f"{label}: {value}"
        keys = ("user_id", "author_id", "channel_id")
        named = " in ".join(filter(None, (self.name(str(element.get(key))) for key in keys)))
        inner = element.get("file")
        inside = self._file_title(inner) if isinstance(inner, dict) else ""
        return linked(plain(label) or inside or record or named, url)

    # Blocks and elements
    # ----------------------------------------------------------------------------------------------

    def _table(self, element: Element, depth: int) -> str:
        rows = element.get("rows")
        shown = [self.of(element.get("caption"), depth)]
        for row in rows if isinstance(rows, list) else []:
            cells = row.get("cells", row.get("elements")) if isinstance(row, dict) else row
            shown.append(" | ".join(one.strip() for one in self._each(cells, depth)).strip(" "))
        return "\n".join(filter(None, shown))

    def _chart(self, element: Element, depth: int) -> str:
        """Return the labels and values of a chart."""
        chart = element.get("chart")
        chart, found = chart if isinstance(chart, dict) else {}, [self.of(element.get("title"))]
        axis = chart.get("axis_config")
        found += [
            self.of(axis.get(key)) for key in ("x_label", "y_label") if isinstance(axis, dict)
        ]
        found.append(", ".join(_points(chart.get("segments"))))
        for series in _dicts(chart.get("series")):
            found.append(
                f"{plain(_first(series, 'name'))}: {', '.join(_points(series.get('data')))}"
            )
        return "\n".join(filter(None, found))

    def _call(self, element: Element, depth: int) -> str:
        call = element.get("call")
        call = call.get("v1", call) if isinstance(call, dict) else {}
        if not isinstance(call, dict):
            return ""
        people = _dicts(call.get("all_participants") or call.get("active_participants"))
        names = [
            self.name(str(one.get("slack_id"))) or plain(_first(one, "display_name"))
            for one in people
        ]
        title = plain(_first(call, "name", "title") or "Call")
        shown = [
            linked(title, mrkdwn.unescaped(_first(call, "join_url"))),
            _first(call, "display_id"),
        ]
        return "\n".join(filter(None, [*shown, ", ".join(filter(None, names))]))

    def _image(self, element: Element, depth: int) -> str:
        words = [self.of(element.get(key), depth) for key in ("title", "alt_text")]
        return "\n".join(dict.fromkeys(filter(None, words)))

    def _file(self, element: Element, depth: int) -> str:
        file = element.get("file")
        return self._file_title(file if isinstance(file, dict) else element)

    def _file_title(self, file: Element) -> str:
        return plain(_first(file, "title", "name"))

    def _button(self, element: Element, depth: int) -> str:
        """Return a button's label, and the address that it opens."""
        label = self.of(element.get("text"), depth) or self.of(element.get("alt_text"), depth)
        return linked(label, mrkdwn.unescaped(_first(element, "url")))

    def _field(self, element: Element, depth: int) -> str:
        """Return the value or placeholder of a menu or an input field."""
        for key in _CHOSEN:
            value = element.get(key)
            shown = [
                self._value(one, depth) for one in (value if isinstance(value, list) else [value])
            ]
            if any(shown):
                return ", ".join(filter(None, shown))
        return dates.formatted(element.get("initial_date_time"), "{date_num} {time}")

    def _value(self, value: Any, depth: int) -> str:
        if isinstance(value, str):
            return self.name(value) or plain(value)
        return self.of(value, depth)

    def _nothing(self, element: Element, depth: int) -> str:
        return ""


_Handler = Callable[[Blocks, Element, int], str]
_HANDLERS: Mapping[str, _Handler] = {
    "mrkdwn": Blocks._mrkdwn,
    "plain_text": Blocks._plain,
    "raw_text": Blocks._plain,
    "raw_number": Blocks._plain,
    "markdown": Blocks._markdown,
    "text": Blocks._word,
    "rich_text": Blocks._rich,
    "rich_text_section": Blocks._inline,
    "rich_text_preformatted": Blocks._preformatted,
    "rich_text_quote": Blocks._quote,
    "rich_text_list": Blocks._list,
    "emoji": Blocks._emoji,
    "link": Blocks._link,
    "url": Blocks._link,
    "user": Blocks._user,
    "canvas_user_mention": Blocks._user,
    "channel": Blocks._channel,
    "usergroup": Blocks._group,
    "team": Blocks._team,
    "broadcast": Blocks._broadcast,
    "color": Blocks._color,
    "date": Blocks._date,
    "table": Blocks._table,
    "data_table": Blocks._table,
    "canvas_table": Blocks._table,
    "data_visualization": Blocks._chart,
    "call": Blocks._call,
    "image": Blocks._image,
    "file": Blocks._file,
    "button": Blocks._button,
    "workflow_button": Blocks._button,
    "icon_button": Blocks._button,
    "divider": Blocks._nothing,
} | dict.fromkeys(
    (
        "attachment_mention", "canvas", "canvas_message_unfurl", "citation", "list_record",
        "message_mention", "salesforce_data_field", "tag", "work_object_mention",
        "workflow_mention",
    ),
    Blocks._reference,
)  # fmt: skip


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text.strip()).strip("\n").rstrip()


def _dicts(items: Any) -> Iterator[Element]:
    yield from (one for one in (items if isinstance(items, list) else []) if isinstance(one, dict))


def _points(items: Any) -> list[str]:
    """Return the points of a chart as `label value`."""
    return [
        f"{plain(_first(one, 'label'))} {one.get('value', '')}".strip() for one in _dicts(items)
    ]


def _first(element: Element, *keys: str) -> str:
    """Return the first of these values that is a text and not empty."""
    values = (element.get(key) for key in keys)
    return next((value for value in values if isinstance(value, str) and value), "")


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1_000_000 else 0
