"""Search queries: words, phrases, `or`, `-`, and operators such as `from:ann`.

All words must be present, and each may be the beginning of a word. `"a phrase"` has its words in
this order, `or` stands between alternatives, and `-` or `NOT` excludes a word or phrase.
Operators: `from:`, `to:`, `cc:`, `bcc:`, `in:`, `has:file`, `kind:`, `thread:`, `subject:`,
`filename:`, `before:` and `after:`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from core.errors import InvalidInput
from core.search import languages, numbers
from core.search.documents import operator_lexeme, quoted
from core.search.words import Word, folded, is_dense, joined, spelled_out, words

MAX_QUERY_WORDS = 64
"""The maximum number of words of a query."""

MIN_PREFIX_CHARS = 3
"""A shorter word of a query finds only itself."""

MIN_COMPOUND_PART_CHARS = 4
"""A shorter word of a query does not find compounds that end with it."""

MAX_EMOJI_WORDS = 8
"""The most words of the name of an emoji that is found as a phrase."""

PEOPLE = ("from", "to", "cc", "bcc")
NAMES = ("subject", "filename")
HAS = {
    "file": "file", "files": "file", "attachment": "file", "attachments": "file",
    "link": "link", "links": "link",
}  # fmt: skip
DATES = ("before", "after", "since", "until")

_QUOTES = '"\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02\u300c-\u300f'
_TOKEN = re.compile(
    r"\(*(?P<minus>(?<![^\s(])[-\u2212\u2013])?"
    r"(?:(?P<operator>from|to|cc|bcc|in|has|kind|thread|subject|filename|before|after|since|until)"
    rf":[ \t]*)?(?:[{_QUOTES}](?P<phrase>[^{_QUOTES}]*)(?:[{_QUOTES}]|$)"
    rf"|(?P<word>[^\s{_QUOTES}]+))",
    re.IGNORECASE,
)
_DAYS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<year>\d{4})(?:([-/.])(?P<month>\d{1,2})(?:\2(?P<day>\d{1,2}))?)?",
        r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)",
        r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})",
    )
)
_SCHEME = re.compile(
    r"<?(?:(?:https?|ftps?)://(?:www\.)?|(?:mailto|tel|sha\d+|md5):(?=\S))", re.IGNORECASE
)
_UNKNOWN = re.compile("[\0\ud800-\udfff]")
_LEXEME = re.compile(r"'(?:[^']|'')*'(:\*)?")

Resolve = Callable[[str, str], Sequence[str]]
"""Returns the ids of people or places by operator and name."""


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query.

    Attributes:
      conditions: The conditions, all of which must hold, each as a `tsquery`.
      ranked: The words that count for the rank, as a `tsquery`; empty if there are none.
      exact: The same words as a `tsquery`, without longer words and other forms.
      since, until: The range of the items' own times, without `until` itself. None: any.
      shown: The words that a snippet marks.
    """

    conditions: tuple[str, ...]
    ranked: str
    exact: str
    since: datetime | None
    until: datetime | None
    shown: tuple[str, ...]

    @property
    def text(self) -> str:
        """All conditions as one `tsquery`; empty if there are none."""
        return " & ".join(self.conditions)

    @property
    def has_conditions(self) -> bool:
        """Return True if the query restricts anything."""
        return bool(self.conditions) or self.since is not None or self.until is not None


def parse(query: str, resolve: Resolve) -> Query:
    """Parse a query.

    Args:
      query: The text that a person typed.
      resolve: Returns the ids of the people (`from`) and places (`in`) with a name.

    Raises:
      InvalidInput: An operator has a value that it does not know, or the query is too long.
    """
    parser = _Parser(resolve)
    query = _UNKNOWN.sub(" ", query)
    place = 0
    while token := _TOKEN.search(query, place):
        number = numbers.RUN.match(query, token.start()) or numbers.IBAN.match(query, token.start())
        if number is not None and number.end() > token.end():
            parser.add_number(number[0])
            place = number.end()
        else:
            parser.add(token)
            place = token.end()
    return parser.result()


class _Parser:
    """Collects the conditions of a query: groups of alternatives, all of which must hold."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._groups: list[list[str]] = []
        self._ranked: list[str] = []
        self._exact: list[str] = []
        self._shown: list[str] = []
        self._since: list[datetime] = []
        self._until: list[datetime] = []
        self._is_alternative = self._excludes = False
        self._count = 0

    def add(self, token: re.Match[str]) -> None:
        """Add a word, a phrase or an operator."""
        operator, minus = (token["operator"] or "").lower(), bool(token["minus"] or self._excludes)
        self._excludes = False
        is_phrase = token["phrase"] is not None
        value = token["phrase"] if is_phrase else token["word"]
        if operator and not is_phrase:
            value = value.rstrip("),;")
        elif not operator:
            value = _SCHEME.sub("", value, count=1) if _SCHEME.match(value) else value
        self._add_count(value)
        if operator in DATES:
            self._add_date(operator, value, minus=minus)
        elif not operator and not is_phrase and value.casefold() in ("or", "|"):
            self._is_alternative = bool(self._groups)
        elif not operator and not is_phrase and value in ("AND", "NOT"):
            self._excludes = value == "NOT"
        elif found := _condition(operator, value, self._resolve, is_phrase=is_phrase):
            self._add_condition(f"!{found}" if minus else found)
            if (not operator or operator in NAMES) and not minus:
                exact = _text(value, is_phrase=True)
                self._ranked.append(found)
                self._exact.append(_in_name(exact) if operator in NAMES else exact)
                self._shown += [word.folded for word in words(value)]

    def add_number(self, text: str) -> None:
        """Add a number with blanks: its parts, or the number in another spelling."""
        self._add_count(text)
        parts = [_words(list(words(part)), is_phrase=False) for part in text.split()]
        found = _any([f"( {' & '.join(filter(None, parts))} )", *_phone(text), *_iban(text)])
        self._add_condition(found)
        self._ranked.append(found)
        self._exact.append(found)
        self._shown += [word.folded for word in words(text)]

    def _add_date(self, operator: str, value: str, *, minus: bool) -> None:
        if minus:
            raise InvalidInput("search-date-excluded", operator=operator)
        (self._since if operator in ("after", "since") else self._until).append(day(value))

    def _add_count(self, value: str) -> None:
        """Count the words, and each operator: PostgreSQL bounds the depth of a query."""
        self._count += max(1, sum(1 for _ in itertools.islice(words(value), MAX_QUERY_WORDS + 1)))
        if self._count > MAX_QUERY_WORDS:
            raise InvalidInput("search-too-long", words=MAX_QUERY_WORDS)

    def _add_condition(self, condition: str) -> None:
        if self._is_alternative:
            self._groups[-1].append(condition)
        else:
            self._groups.append([condition])
        self._is_alternative = False

    def result(self) -> Query:
        """Return the query."""
        return Query(
            tuple(f"( {' | '.join(group)} )" for group in self._groups),
            " | ".join(self._ranked),
            " | ".join(self._exact),
            max(self._since, default=None),
            min(self._until, default=None),
            tuple(self._shown),
        )


def day(value: str) -> datetime:
    """Return the beginning of a day, month or year in UTC, or a time in ISO 8601.

    Raises:
      InvalidInput: The value is not such a date.
    """
    found = next((found for shape in _DAYS if (found := shape.fullmatch(value))), None)
    try:
        if found is None:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        year, month, number = (int(found[part] or 1) for part in ("year", "month", "day"))
        return datetime(year, month, number, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("search-date-invalid", value=value[:50]) from None


def _condition(operator: str, value: str, resolve: Resolve, *, is_phrase: bool) -> str:
    """Return one condition of a query in the syntax of `tsquery`; empty if it has no words."""
    if operator in PEOPLE:
        return _person(operator, value, resolve)
    if operator == "in":
        ids = [folded(value.lstrip("#@/")), folded(value), *map(folded, resolve("in", value))]
        return _any(_operator("in", id) for id in dict.fromkeys(ids) if id)
    if operator == "has":
        if value.lower() not in HAS:
            raise InvalidInput("search-has-unknown", value=value[:50], known=", ".join(HAS))
        return _operator("has", HAS[value.lower()])
    if operator == "kind":
        return _operator("kind", folded(value))
    if operator == "thread":
        return _operator("thread", value)
    found = _text(value, is_phrase=is_phrase)
    return _in_name(found) if operator in NAMES else found


def _text(value: str, *, is_phrase: bool) -> str:
    """Return the condition for a word or phrase of a text, in all its spellings."""
    letters = re.sub(r"[\W_]+", "", folded(value))
    whole = [word for _, word in joined(value) if word == letters]
    spellings = dict.fromkeys((value, numbers.joined(value), *whole))
    found = [_words(list(words(spelling)), is_phrase=is_phrase) for spelling in spellings]
    return _any([*filter(None, found), *_phone(value), *_emoji_name(value, is_phrase=is_phrase)])


def _emoji_name(value: str, *, is_phrase: bool) -> list[str]:
    """Return the name of an emoji as one word: its words all have the same position."""
    if not (is_phrase or "_" in value or value.lower().lstrip(":").startswith("flag-")):
        return []
    name = [word.folded for word in words(value)]
    return [quoted("_".join(name))] if 1 < len(name) <= MAX_EMOJI_WORDS else []


def _in_name(condition: str) -> str:
    """Return a condition that finds its words in names alone, which have the weight A."""
    return _LEXEME.sub(lambda found: f"{found[0]}{'A' if found[1] else ':A'}", condition)


def _phone(text: str) -> list[str]:
    found = numbers.phone(text.strip(".,;:!?"))
    return [quoted(form) + (":*" if is_beginning else "") for form, is_beginning in found]


def _iban(text: str) -> list[str]:
    return [quoted(numbers.without_blanks(text))] if numbers.IBAN.fullmatch(text) else []


def thread_query(thread: str) -> str:
    """Return the query for the items of a thread, in the syntax of `tsquery`."""
    return _operator("thread", thread)


def _person(operator: str, value: str, resolve: Resolve) -> str:
    named = [folded(value.strip("@<>*"))]
    whole = [_operator(operator, name) for name in named if name]
    ids = resolve("from", value) if operator == "from" else ()
    whole += [_operator("from", folded(id)) for id in ids]
    if re.search(r"[@.]", value.strip("@.")):
        return _any(whole)
    parts = [
        f"{_operator(operator, word.folded)}{':*' if len(word.folded) >= MIN_PREFIX_CHARS else ''}"
        for word in words(value)
    ]
    return _any([*whole, *([f"( {' & '.join(parts)} )"] if parts else [])])


def _words(found: Sequence[Word], *, is_phrase: bool) -> str:
    """Return the condition for the words of one token: one after the other."""
    if not found:
        return ""
    if len(found) == 1:
        return _any(_exactly(found[0]) if is_phrase else _loosely(found[0]))
    steps = [_any(_exactly(word)) for word in found[:-1]]
    last = found[-1]
    steps.append(_any(_exactly(last) if is_phrase else [*_exactly(last), *_beginning(last)]))
    parts = f"( {' <-> '.join(steps)} )"
    if len(found) <= 4 and all(word.splits for word in found[1:]) and found[0].others:
        return _any([*_beginning_of(found[0].others[0], is_phrase=is_phrase), parts])
    return parts


def _exactly(word: Word) -> list[str]:
    """Return the word as it is, with and without umlauts."""
    forms = [word.folded]
    if word.spelled and not word.spelled.isascii():
        forms.append(spelled_out(word.spelled))
    return [quoted(form) for form in dict.fromkeys(forms) if form]


def _loosely(word: Word) -> list[str]:
    """Return the conditions for longer words, other forms, and compounds that end with the word."""
    found = [*_exactly(word), *_beginning(word)]
    for language, stem in languages.stems(word.spelled).items() if word.spelled else ():
        code, bare = languages.code(language), folded(stem)
        found.append(quoted(f"~{code}:{bare}"))
        if len(bare) >= languages.MIN_STEMMED_CHARS:
            found.append(quoted(bare) + (":*" if language in languages.SHORT_STEMS else ""))
        if language in languages.COMPOUNDING:
            endings = [form for form in (bare, word.folded) if len(form) >= MIN_COMPOUND_PART_CHARS]
            found += [f"{quoted(f'<{code}:{ending[::-1]}')}:*" for ending in endings]
    return list(dict.fromkeys(found))


def _beginning(word: Word) -> list[str]:
    if is_dense(word.folded):
        return [f"{quoted(word.folded)}:*"] if len(word.folded) == 1 else []
    if len(word.folded) < MIN_PREFIX_CHARS or word.folded.isdecimal():
        return []
    return [f"{quoted(word.folded)}:*"]


def _beginning_of(whole: str, *, is_phrase: bool) -> list[str]:
    return [quoted(whole) if is_phrase or len(whole) < MIN_PREFIX_CHARS else f"{quoted(whole)}:*"]


def _operator(operator: str, value: str) -> str:
    return quoted(operator_lexeme(operator, value))


def _any(conditions: Iterator[str] | Sequence[str]) -> str:
    found = list(dict.fromkeys(conditions))
    return found[0] if len(found) == 1 else f"( {' | '.join(found)} )" if found else ""
