"""The numbers of ordered lists, as Slack writes them: `1.`, below it `a.`, below it `i.`."""

from __future__ import annotations

_ROMAN = {
    1000: "m", 900: "cm", 500: "d", 400: "cd", 100: "c", 90: "xc", 50: "l", 40: "xl", 10: "x",
    9: "ix", 5: "v", 4: "iv", 1: "i",
}  # fmt: skip
_MAX_ROMAN = 3_999


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
