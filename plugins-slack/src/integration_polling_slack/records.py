"""The words of an item of a Slack list, and of a work object of an app, in the preview of a link.

Sources: https://docs.slack.dev/reference/methods/slackLists.items.list and
https://docs.slack.dev/messaging/work-objects-implementation
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from integration_polling_slack import dates
from integration_polling_slack.blocks import Blocks
from integration_polling_slack.mrkdwn import linked, plain

Record = Mapping[str, Any]

_TYPED = (
    "select", "user", "channel", "date", "timestamp", "link", "email", "phone", "number", "rating",
    "message", "value",
)  # fmt: skip
"""The keys that have the values of a cell, by the type of its column."""


def lines(attachment: Mapping[str, Any], blocks: Blocks) -> Iterator[str]:
    """Yield the cells of a linked item, each with the name of its column; the first one is bare."""
    shared = attachment.get("list_record")
    shared = shared if isinstance(shared, dict) else {}
    columns = _columns(shared.get("schema"))
    yield from _cells(shared.get("record"), columns, blocks)
    records, columns = attachment.get("list_records"), _columns(attachment.get("list_schema"))
    for record in records if isinstance(records, list) else []:
        yield from _cells(record, columns, blocks)


def fields_of(work_object: Record, blocks: Blocks) -> Iterator[str]:
    """Yield the fields of a work object with their labels."""
    named, custom = work_object.get("fields"), work_object.get("custom_fields")
    fields = list((named if isinstance(named, dict) else {}).items())
    fields += [("", one) for one in (custom if isinstance(custom, list) else [])]
    for key, field in fields:
        if isinstance(field, dict):
            label = field.get("label") or key.replace("_", " ").capitalize()
            words = _of_field(field, blocks)
            yield f"{plain(label)}: {words}" if words and isinstance(label, str) else words


def _of_field(field: Record, blocks: Blocks, *, is_item: bool = False) -> str:
    """Return the value of a field: a person, a link, a time, a list of them, text or a number."""
    value, user = field.get("value"), field.get("user")
    if isinstance(user, dict):
        id, text = user.get("user_id"), user.get("text")
        return blocks.name(str(id)) or (plain(text) if isinstance(text, str) else "")
    if isinstance(value, list) and not is_item:
        items = [_of_field(one, blocks, is_item=True) for one in value if isinstance(one, dict)]
        return ", ".join(filter(None, items))
    kind = "timestamp" if str(field.get("type")).endswith("timestamp") else ""
    link = field.get("link")
    return linked(_value(kind, value, {}, blocks), link if isinstance(link, str) else "")


def _columns(schema: Any) -> dict[str, Record]:
    """Return the columns by id and by key."""
    found = [one for one in (schema if isinstance(schema, list) else []) if isinstance(one, dict)]
    return {str(one[key]): one for key in ("key", "id") for one in found if one.get(key)}


def _cells(record: Any, columns: Mapping[str, Record], blocks: Blocks) -> Iterator[str]:
    fields = record.get("fields") if isinstance(record, dict) else None
    for field in fields if isinstance(fields, list) else []:
        if isinstance(field, dict):
            ids = (str(field.get(key)) for key in ("column_id", "key"))
            column = next((columns[id] for id in ids if id in columns), {})
            words, title = _words(field, column, blocks), column.get("name")
            is_bare = column.get("is_primary_column") or not isinstance(title, str)
            yield words if is_bare or not words else f"{plain(str(title))}: {words}"


def _words(field: Record, column: Record, blocks: Blocks) -> str:
    """Return the words of a cell."""
    if rich := blocks.all(field.get("rich_text")):
        return rich
    if isinstance(text := field.get("text"), str) and text:
        return plain(text)
    if isinstance(done := field.get("checkbox"), bool):
        return "✓" if done else "☐"
    for key in _TYPED:
        values = field.get(key)
        found = [
            _value(key, one, column, blocks)
            for one in (values if isinstance(values, list) else [values])
        ]
        if any(found):
            return ", ".join(filter(None, found))
    return ""


def _value(key: str, value: Any, column: Record, blocks: Blocks) -> str:
    if isinstance(value, dict):
        label, url = value.get("displayName"), value.get("originalUrl")
        return linked(plain(label) if isinstance(label, str) else "", str(url or ""))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if key == "timestamp":
        return dates.formatted(value, "{date_num} {time}")
    shown = _choices(column).get(str(value)) or blocks.name(str(value)) or str(value)
    return plain(shown)


def _choices(column: Record) -> dict[str, str]:
    """Return the labels of a column's choices by their values."""
    options = column.get("options")
    choices = options.get("choices") if isinstance(options, dict) else None
    return {
        str(one.get("value")): one["label"]
        for one in (choices if isinstance(choices, list) else [])
        if isinstance(one, dict) and isinstance(one.get("label"), str)
    }
