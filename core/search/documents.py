"""The document of an item in the search index, in the text form of a `tsvector`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from core.search import languages, numbers
from core.search.words import Word, folded, joined, spelled_out, words

FORM = 3
"""The version of the form of documents. The indexer writes documents of earlier forms again."""

MAX_TEXT_CHARS = 100_000
"""The number of characters of an item's text that are searchable."""

MAX_PEOPLE = 2_000
"""The number of an item's participants that are searchable."""

MAX_POSITION = 16_383
"""The largest position of a `tsvector`. Later words are found, but not in phrases."""

MAX_POSITIONS = 255
"""The number of positions of one word that a `tsvector` keeps."""

MAX_VALUE_CHARS = 200
"""The characters of an operator's value."""

ROLES: Mapping[str, Sequence[str]] = {
    "from": ("from",), "to": ("to",), "cc": ("to", "cc"), "bcc": ("to", "bcc"),
}  # fmt: skip
"""The operators that find the people of a role; `to:` finds all recipients."""

GAP = 20
"""The positions between two fields, so that no phrase reaches from one into the next."""

MIN_COMPOUND_CHARS = 7
"""Shorter words are not searched for as compounds."""


@dataclass(frozen=True, slots=True)
class IndexedItem:
    """An item as the index needs it.

    Attributes:
      account: The account's id.
      kind: The item's kind.
      name, text: The name, and the text as a person sees it. Default: none.
      is_message_of_place: True if the name has only the channel and the author.
      people: Lists of names and addresses by role. Default: none.
      thread: The id of the thread. Default: none.
      places: The ids of channels, labels and folders that the item is in. Default: none.
      authors: Ids of people who wrote it, where the item has no address. Default: none.
      has: Values of the operator `has:`. Default: none.
    """

    account: str
    kind: str
    name: str = ""
    text: str = ""
    is_message_of_place: bool = False
    people: Mapping[str, Any] = field(default_factory=dict)
    thread: str = ""
    places: Sequence[str] = ()
    authors: Sequence[str] = ()
    has: Sequence[str] = ()


def document(item: IndexedItem) -> str:
    """Return the item's document: each word with its positions, and the words of operators."""
    lexemes = defaultdict[str, list[str]](list)
    text = item.text[:MAX_TEXT_CHARS]
    name, body = list(words(item.name)), list(words(text))
    spoken = languages.detected(word.spelled for word in (*name, *body))
    weight = "C" if item.is_message_of_place else "A"
    position = _add(lexemes, name, 1, weight, spoken, _endings(item.name))
    people = list(_people(item.people))
    for _, shown in people:
        position = _add(lexemes, list(words(shown)), position + GAP, "C", ())
    _add(lexemes, body, position + GAP, "", spoken, _endings(text))
    for role, shown in people:
        for lexeme in person(shown):
            for operator in ROLES[role]:
                lexemes[operator_lexeme(operator, lexeme)] = []
    for operator, value in _operators(item):
        lexemes[operator_lexeme(operator, value)] = []
    lexemes[account_lexeme(item.account)] = []
    return " ".join(_entry(lexeme, places) for lexeme, places in lexemes.items())


def account_lexeme(account: str) -> str:
    """Return the word that all items of an account have."""
    return f"@{account.replace('-', '')}"


def operator_lexeme(operator: str, value: str) -> str:
    """Return the word of an operator's value. No word of a text begins with its sign."""
    return f"@{operator}:{value}"[:MAX_VALUE_CHARS]


def person(shown: str) -> Iterator[str]:
    """Yield the words of a person for `from:` and `to:`: of the name, the address, its domains."""
    for word in words(shown):
        yield from _forms(word, ())
    for part in shown.split():
        address = folded(part.strip("<>,;\"'()"))
        mailbox, at, domain = address.rpartition("@")
        if at and domain:
            yield address
            yield mailbox
            labels = domain.split(".")
            yield from (".".join(labels[index:]) for index in range(len(labels) - 1))


def quoted(lexeme: str) -> str:
    """Return a word in quotes, as in the text of a `tsvector` or a `tsquery`."""
    doubled = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def _endings(text: str) -> Mapping[int, Sequence[str]]:
    """Return other spellings of numbers and joined words, by the place where each one ends."""
    found = numbers.endings(text)
    for end, word in joined(text):
        found[end].append(word)
    return found


def _people(people: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield role, and name and address, of each participant."""
    for role in ROLES:
        found = people.get(role)
        for one in found[:MAX_PEOPLE] if isinstance(found, list) else []:
            if isinstance(one, dict):
                named = (one.get("name"), one.get("address"))
                yield role, " ".join(part[:1_000] for part in named if isinstance(part, str))


def _operators(item: IndexedItem) -> Iterator[tuple[str, str]]:
    yield "kind", folded(item.kind)
    if item.thread:
        yield "thread", item.thread
    yield from (("in", folded(place)) for place in item.places)
    yield from (("from", folded(author)) for author in item.authors)
    yield from (("has", value) for value in item.has)


def _add(
    lexemes: defaultdict[str, list[str]],
    found: Sequence[Word],
    start: int,
    weight: str,
    spoken: Sequence[str],
    endings: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> int:
    """Add words with their positions, and numbers by their ends; return the last position."""
    position = start - 1
    for word in found:
        position = min(position + 1, MAX_POSITION)
        place = f"{position}{weight}"
        for lexeme in dict.fromkeys((*_forms(word, spoken), *endings.get(word.end, ()))):
            places = lexemes[lexeme]
            if len(places) < MAX_POSITIONS:
                places.append(place)
    return position


def _forms(word: Word, spoken: Iterable[str]) -> Iterator[str]:
    """Yield the forms of a word at its position."""
    yield word.folded
    yield from word.others
    if not word.spelled:
        return
    if not word.spelled.isascii() and (long := spelled_out(word.spelled)) != word.folded:
        yield long
    for language, stem in languages.stems(word.spelled, spoken).items():
        bare = folded(stem)
        if bare != word.folded or len(bare) < languages.MIN_STEMMED_CHARS:
            yield f"~{languages.code(language)}:{bare}"
        if language in languages.COMPOUNDING and len(word.folded) >= MIN_COMPOUND_CHARS:
            for ending in dict.fromkeys((bare, word.folded)):
                yield f"<{languages.code(language)}:{ending[::-1]}"


def _entry(lexeme: str, places: Sequence[str]) -> str:
    return f"{quoted(lexeme)}:{','.join(places)}" if places else quoted(lexeme)
