"""Numbers that people write in several ways: of telephones and accounts, and with thousands."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

MIN_PHONE_DIGITS = 7
"""The fewest digits of a telephone number."""

MAX_PHONE_DIGITS = 15
"""The most digits of a telephone number (E.164, section 6.1)."""

MAX_NUMBERS = 2_000
"""The most telephone numbers of a text that are found in other spellings."""

RUN = re.compile(
    r"(?<![^\W_])(?<![^\W_][-./+(])(?:\+|\(\+?)?"
    r"\d(?:[ \u00a0./()\u2010-\u2013-]{0,3}\d){6,19}(?![^\W_])"
)
"""Digits with the signs of a telephone number between them."""

_TRUNK = re.compile(r"(?<=\d)[ \u00a0]?\(0\)")
_GROUP = re.compile(r"\d+")
_OTHER = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,3}(?:\.\d{1,3}){3}")
_THOUSANDS = re.compile(
    r"(?<![\w.,])\d{1,3}(?:([.,'\u2019\u00a0\u202f])\d{3})(?:\1\d{3})*(?![^\W_])"
)


IBAN = re.compile(
    r"(?<![^\W_])[A-Za-z]{2}\d\d(?:[ \u00a0]?[A-Za-z0-9]{4}){2,7}"
    r"(?:[ \u00a0]?[A-Za-z0-9]{1,3})?(?![^\W_])"
)
"""The number of a bank account (ISO 13616), with or without blanks."""


def endings(text: str) -> defaultdict[int, list[str]]:
    """Return the words for the numbers of a text, by the place where each number ends.

    A telephone number is kept with its digits reversed, so that its last digits find it. Each
    group of digits may be the last one, because other numbers can follow.
    """
    found = defaultdict[int, list[str]](list)
    for number in _THOUSANDS.finditer(text):
        found[number.end()].append(re.sub(r"\D", "", number[0]))
    for number in IBAN.finditer(text):
        found[number.end()].append(without_blanks(number[0]))
    for count, run in enumerate(RUN.finditer(text)):
        if count >= MAX_NUMBERS:
            break
        shown = _TRUNK.sub(lambda trunk: " " * len(trunk[0]), run[0])
        digits = ""
        for group in _GROUP.finditer(shown):
            digits += group[0]
            if len(digits) >= MIN_PHONE_DIGITS:
                found[run.start() + group.end()].append(_reversed(digits))
    return found


def phone(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the words that find a telephone number, each with True if it is only a beginning.

    A number with a country code also finds the number without it, as it is dialled in the country.
    """
    run = RUN.fullmatch(text)
    if run is None or _OTHER.fullmatch(text):
        return
    digits = re.sub(r"\D", "", _TRUNK.sub("", text))
    is_international = "+" in text or digits.startswith("00")
    if len(digits) < MIN_PHONE_DIGITS:
        return
    digits = digits.lstrip("0")
    if len(digits) < 2:
        return
    yield _reversed(digits), True
    for code in (1, 2, 3) if is_international else ():
        if len(digits) - code >= MIN_PHONE_DIGITS:
            yield _reversed(digits[code:]), False
            yield _reversed(f"0{digits[code:]}"), False


def without_blanks(iban: str) -> str:
    """Return the number of a bank account as one word of the index."""
    return re.sub(r"\s", "", iban).lower()


def joined(text: str) -> str:
    """Return a text without the signs between thousands."""
    return _THOUSANDS.sub(lambda number: re.sub(r"\D", "", number[0]), text)


def _reversed(digits: str) -> str:
    return f"#{digits[-MAX_PHONE_DIGITS:][::-1]}"
