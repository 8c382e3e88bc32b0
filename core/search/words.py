"""Text as the words of the search index.

A word has several forms at one position: the word without accents, its spelling without umlauts
(`ueber`), and its stem. In languages with compounds, the reversed stem finds `Mietvertrag` by
`Vertrag`. Identifiers and file names are split at case and digits. Chinese, Japanese, Korean and
Thai become overlapping pairs of characters. An emoji has the words of its names.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import emoji

MAX_WORD_CHARS = 100
"""The characters of a word that are searchable."""

MAX_PARTS = 4
"""The most parts of an identifier; a word with more, such as a hash, is not split."""

MAX_EMOJI_CHARS = 60
"""The characters of emoji that are read together. Joined emoji take square time."""

_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a"
    "\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u00ad\u200b-\u200d\u2060\ufe0e\ufe0f\ufeff"
)
"""Accents, vowel points and invisible characters: a word is the same with and without them."""

_SIGNS = (
    "\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd"
    "\u0a01-\u0a4d\u0a81-\u0acd\u0b01-\u0b4d\u0b82-\u0bcd\u0c00-\u0c4d\u0c81-\u0ccd"
    "\u0d00-\u0d4d\u0d82-\u0ddf"
)
"""The vowel signs of Indian scripts, which belong to their words."""

_DENSE = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035"
    "\u303b\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u318f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""The scripts that write no blanks between words, and Korean, whose words end in particles."""

_PICTURES = "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf" \
    "\u2934\u2935\u2b05-\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"  # fmt: skip

_CHUNK = re.compile(
    rf"(?P<emoji>[{_PICTURES}][{_PICTURES}\u200d\ufe0f\u20e3]{{0,{MAX_EMOJI_CHARS}}})"
    rf"|(?P<dense>[{_DENSE}]+)"
    rf"|(?P<word>(?:(?![{_DENSE}])[^\W_])(?:(?![{_DENSE}])[^\W_]|[{_MARKS}{_SIGNS}])*)"
)
_PART = re.compile(r"[^\W\d_]+|\d+")
_CASE = re.compile(r"(?<=[a-z\u00df-\u00ff])(?=[A-Z\u00c0-\u00de])|(?<=[A-Z])(?=[A-Z][a-z])")
_JOINED = re.compile(
    r"(?<![^\W_])[^\W\d_]+(?:['\u2019\u02bc._\u2010\u2011-][^\W\d_][^\W_]*){1,5}(?![^\W_])"
)
_STRIPPED = re.compile(f"[{_MARKS}]+")
_LETTERS = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th",
        "ħ": "h", "\u0131": "i", "ŋ": "n", "\u0671": "\u0627", "\u0649": "\u064a",
        "\u0629": "\u0647",
        "\u06cc": "\u064a", "\u06a9": "\u0643",
    }
)  # fmt: skip
"""Letters that are written with others on a keyboard without them."""

_KATAKANA = {place: place + 0x60 for place in range(0x3041, 0x3097)}
_LONG_END = re.compile(
    "(?<=[\u30a1-\u30fa\u30fc]{3})\u30fc(?![\u30a1-\u30fa\u30fc])"
    "|(?<=[\u3041-\u3096\u30fc]{3})\u30fc(?![\u3041-\u3096\u30fc])"
)
_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, or a part of one.

    Attributes:
      folded: The word without accents, in lower case.
      spelled: The word with its accents, in lower case.
      start, end: The word's place in the text.
      others: Other words at the same position: the identifier, names of an emoji.
      splits: True if the word belongs to its predecessor: the same identifier, or a pair of
        characters of one run.
      last: True for the last part of an identifier or run.
    """

    folded: str
    spelled: str
    start: int
    end: int
    others: tuple[str, ...] = ()
    splits: bool = False
    last: bool = True


def folded(text: str) -> str:
    """Return text in lower case, without accents and invisible characters."""
    if text.isascii():
        return text.lower()
    bare = _STRIPPED.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", bare.casefold().translate(_LETTERS))


def spelled_out(text: str) -> str:
    """Return text with umlauts as two letters, as on a keyboard without them: `ueber`."""
    return folded(unicodedata.normalize("NFC", text).casefold().translate(_UMLAUTS))


def words(text: str) -> Iterator[Word]:
    """Yield the words of a text in order."""
    for found in _CHUNK.finditer(text):
        kind, chunk, start = found.lastgroup, found[0], found.start()
        if kind == "word":
            yield from _identifier(chunk, start)
        elif kind == "dense":
            yield from _pairs(chunk, start, found.end())
        else:
            yield from _emoji(chunk, start)


def _identifier(chunk: str, start: int) -> Iterator[Word]:
    """Yield the parts of a word; all but the last also have the unsplit word from there on."""
    pieces = list(itertools.islice(_split(chunk), MAX_PARTS + 1))
    if not 1 < len(pieces) <= MAX_PARTS:
        whole = _folded(chunk)
        if whole:
            yield Word(whole, _spelled(chunk), start, start + len(chunk))
        return
    for number, (piece, at) in enumerate(pieces):
        yield Word(
            _folded(piece), _spelled(piece), start + at, start + at + len(piece),
            (_folded(chunk[at:]),) if number < len(pieces) - 1 else (), number > 0,
            number == len(pieces) - 1,
        )  # fmt: skip


def _split(chunk: str) -> Iterator[tuple[str, int]]:
    """Yield the parts of an identifier: `Q3Report2` is `Q`, `3`, `Report` and `2`."""
    if chunk.isdecimal() or (chunk.isalpha() and (chunk.islower() or chunk.isupper())):
        yield chunk, 0
        return
    is_upper = chunk.isupper()
    for found in _PART.finditer(chunk) if chunk.isalnum() else [re.match(r".*", chunk, re.DOTALL)]:
        assert found is not None
        place = found.start()
        for piece in _CASE.split(found[0]) if not is_upper else [found[0]]:
            yield piece, place
            place += len(piece)


def _folded(word: str) -> str:
    return folded(word[:MAX_WORD_CHARS])[:MAX_WORD_CHARS]


def _spelled(word: str) -> str:
    """Return the word in lower case; a sign that stands for words is written out, and cut."""
    spelled = unicodedata.normalize("NFKC", word[:MAX_WORD_CHARS]).casefold()[:MAX_WORD_CHARS]
    return unicodedata.normalize("NFC", spelled)


def _pairs(chunk: str, start: int, end: int) -> Iterator[Word]:
    run, places = _kana(folded(chunk))
    if len(run) < 2:
        yield Word(run, run, start, end)
        return
    for index in range(len(run) - 1):
        last = index == len(run) - 2
        place = min(start + places[index], end)
        yield Word(run[index : index + 2], "", place, min(place + 2, end), (), index > 0, last)


def _kana(run: str) -> tuple[str, Sequence[int]]:
    """Return a text with one kind of kana, without the long vowel that may end a word; and places.

    Words such as `サーバー` are also written `サーバ` (JIS Z 8301).
    """
    left_out = {found.start() for found in _LONG_END.finditer(run)}
    kept = [place for place in range(len(run)) if place not in left_out]
    return "".join(run[place] for place in kept).translate(_KATAKANA), kept


def _emoji(chunk: str, start: int) -> Iterator[Word]:
    for found in emoji.emoji_list(chunk):
        character = _TONES.sub("", found["emoji"])
        data = emoji.EMOJI_DATA.get(character) or emoji.EMOJI_DATA.get(found["emoji"], {})
        names = [name.strip(":") for name in (data.get("en", ""), *data.get("alias", []))]
        names += _flag(character)
        named = [part for name in names for part in (name, *re.split(r"[\W_]+", name)) if part]
        place = start + found["match_start"]
        others = tuple(dict.fromkeys(map(folded, named)))
        yield Word(character.replace("\ufe0f", ""), "", place, start + found["match_end"], others)


def _flag(character: str) -> list[str]:
    """Return the name of a country's flag by its letters, as in Slack: `flag-de`."""
    letters = [ord(letter) - 0x1F1E6 for letter in character]
    if len(letters) != 2 or not all(0 <= letter < 26 for letter in letters):
        return []
    return [f"flag_{''.join(chr(ord('a') + letter) for letter in letters)}"]


def joined(text: str) -> Iterator[tuple[int, str]]:
    """Yield words with signs between their parts, without the signs, and the place of their end.

    `e-mail` is also written `email`, `O'Brien` as `obrien`, and `max_count` as `maxcount`.
    """
    for found in _JOINED.finditer(text):
        word = _folded(re.sub(r"[\W_]", "", found[0]))
        if word and not is_dense(word):
            yield found.end(), word


def is_dense(word: str) -> bool:
    """Return True if a word is written in a script whose words are pairs of characters."""
    return re.match(f"[{_DENSE}]", word) is not None
