"""The numbers of ordered lists, as Slack writes them: `1.`, below it `a.`, below it `i.`."""

from __future__ import annotations

from typing import Any

_ROMAN = {
    1000: "m", 900: "cm", 500: "d", 400: "cd", 100: "c", 90: "xc", 50: "l", 40: "xl", 10: "x",
    9: "ix", 5: "v", 4: "iv", 1: "i",
}  # fmt: skip
_MAX_ROMAN = 3_999
_MAX_INDENT = 20


def continued(elements: Any) -> list[Any]:
    """Return the elements of a rich text, with an `offset` for each list that continues another.

    Slack splits an ordered list where its indentation changes, and an app may leave the offset out.
    Other text and a bullet list end the list, and a less indented list ends the inner ones.
    """
    found, counts = list[Any](), dict[int, int]()
    for one in elements if isinstance(elements, list) else []:
        if not isinstance(one, dict) or one.get("type") != "rich_text_list":
            counts.clear()
            found.append(one)
            continue
        given, items, shown = one.get("indent"), one.get("elements"), one
        indent = max(0, min(given, _MAX_INDENT)) if type(given) is int else 0
        start = one.get("offset") or counts.get(indent, 0)
        counts = {level: count for level, count in counts.items() if level < indent}
        if one.get("style") == "ordered" and type(start) is int and isinstance(items, list):
            counts[indent] = start + len(items)
            shown = {**one, "offset": start}
        found.append(shown)
    return found


def ordinal(number: int, indent: int) -> str:
    """Return a list's number in the style of its indentation."""
    if indent % 3 == 0 or number > _MAX_ROMAN:
        return str(number)
    return _letters(number) if indent % 3 == 1 else _roman(number)


def _letters(number: int) -> str:
    result = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        result = chr(ord("a") + rest) + result
    return result


def _roman(number: int) -> str:
    result = ""
    for value, sign in _ROMAN.items():
        count, number = divmod(number, value)
        result += sign * count
    return result
