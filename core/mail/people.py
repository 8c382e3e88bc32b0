"""The people in address fields, as senders write them.

Every address has an `@`. Commas, colons, brackets and an `@` may stand in a name
without quotes: everything up to the next `<...>`  without an address of its own belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from core.mail.budget import STEPS_OF_ADDRESSES, STEPS_OF_QUOTED, Budget
from core.mail.charsets import Hints, decode
from core.mail.encoded_words import decode_words, one_line, unfolded
from core.mail.fields import Fields

MAX_PEOPLE = 5_000
MAX_CHARS = 400_000
"""The maximum number of characters of all people of one field."""

MAX_FIELD_BYTES = 2 * 1024 * 1024
MAX_NAME_CHARS = 998
MAX_UNCLOSED = 20
MAX_LOCAL_CHARS = 200
MAX_TRIES = 100
MAX_TOKENS = 150_000
MIN_TOKENS = 5_000
"""The number of tokens of a field that are read though the budget of the mail is used up."""

MAX_NAME_BYTES = 16 * 1024

_WORD = rb"=\?[^?\s]{1,60}\?[BbQq]\?[^?]*\?="
_TOKEN = re.compile(
    rb"(?P<word>" + _WORD + rb")"
    rb'|(?P<quoted>(?:"(?:[^"\\]|\\.)*+"(?=[\s<>,;:(@.=]|\Z)|"[^<>@]{1,300}?"(?=[ \t]{0,20}<)'
    rb'|"(?:[^"\\]|\\.)*+"))'
    rb"|(?P<angle><++[^<>]*+>*)"
    rb"|(?P<comment>\((?:[^()\\]|\\.)*+\))"
    rb"|(?P<mark>[,;:])"
    rb"|(?P<blank>\s+)"
    rb"|(?P<text>[^\s\"<(,;:=]+|.)",
    re.DOTALL,
)
_UNCLOSED = re.compile(_TOKEN.pattern.replace(rb"|(?P<quoted>", rb"|(?P<quoted>(?!)")
    .replace(rb"|(?P<comment>", rb"|(?P<comment>(?!)"), re.DOTALL)  # fmt: skip
_ADDRESS = re.compile(
    r"""(?:"(?:[^"\\]|\\.){1,64}"|[^\s<>()\[\]",;:@"]{1,200})@[^\s<>()",;:@]{1,255}"""
)
_AT = re.compile("@")
_LOCAL = re.compile(r"""[^\s<>()\[\]",;:@"]+""")
_QUOTED_LOCAL = re.compile(r'"(?:[^"\\]|\\.){1,64}"\Z')
_QUOTED_ADDRESS = re.compile(r'"(?:[^"\\]|\\.){1,64}"@[^\s"@]{1,255}')
_ENCODED_WHOLE = re.compile(r"(.*?)\s*<([^<>\s@]{1,200}@[^<>\s@]{1,255})>")
_ESCAPED = re.compile(r"\\([,;:()<>@\"\\])")
_INNER_COMMENT = re.compile(r"\([^()]*\)")
_SPACED_DOTS = re.compile(r"\s*[^\s@]+@[^\s@.]+(?:\s*\.\s*[^\s@.]+)+\s*")
"""An address alone with blanks around its dots (RFC 5322, section 4.4)."""

_ENDS = "'\"`.,;:<>()[]{}"


@dataclass(frozen=True, slots=True)
class Person:
    """A person of an address field; without an address if the field has none for them."""

    name: str
    address: str


@dataclass(slots=True)
class _Fragment:
    """The words between two separators."""

    words: list[str]
    plain: list[str]
    comments: list[str]
    separator: str = ""
    angle: str | None = None
    after: list[str] = field(default_factory=list)
    has_at: bool = False

    @property
    def mark(self) -> str:
        """The separator before the words, with the blank behind it."""
        return f"{self.separator} " if self.plain[:1] == [" "] else self.separator

    @property
    def is_comment(self) -> bool:
        """True if the fragment has only comments."""
        return bool(self.comments) and not _INNER_COMMENT.sub("", self.text).strip()

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def bare(self) -> re.Match[str] | None:
        if self.angle is not None or not self.has_at:
            return None
        plain = "".join(self.plain)
        if " ." in plain and _SPACED_DOTS.fullmatch(plain):
            self.plain = [re.sub(r"\s+", "", plain)]
            return _address(self.plain[0])
        return _address(plain)


def people(fields: Fields, name: str) -> tuple[list[Person], bool]:
    """Return the people of all fields with this name, and True if some were cut off."""
    whole = b", ".join(unfolded(value) for value in fields.all(name) if value.strip())
    found, is_cut = parse(whole[:MAX_FIELD_BYTES], fields.hints)
    is_cut = is_cut or len(whole) > MAX_FIELD_BYTES or len(found) > MAX_PEOPLE
    room = MAX_CHARS
    kept: list[Person] = []
    for person in found[:MAX_PEOPLE]:
        room -= len(person.name) + len(person.address) + 30
        if room < 0:
            return kept, True
        kept.append(person)
    return kept, is_cut


def parse(  # noqa: C901  one state machine
    value: bytes, hints: Hints
) -> tuple[list[Person], bool]:
    """Return the people of an address list in one line, and True if its end was not read."""
    if not value.isascii() or b"\x1b" in value:
        value = decode(value, hints=hints).text.encode("utf-8", "replace")
    found: list[Person] = []
    pending: list[str] = []
    fragment = _Fragment([], [], [])
    in_group = False
    ends = value.rfind(b";")  # a semicolon ends a group
    position = 0
    for token in chain(_tokens(value, hints.budget), [None]):
        position = token.end() if token is not None else position
        kind = "end" if token is None else token.lastgroup
        data = b"" if token is None else token[0]
        if kind == "angle":
            if fragment.angle is not None:
                _close(fragment, pending, found, hints)
                fragment = _Fragment(fragment.after, [], [])
            inner = _angle(data, hints)
            if inner or fragment.text.strip() or pending:
                fragment.angle = inner
        elif kind == "mark" and data == b":":
            if not pending and not in_group and token is not None and token.end() <= ends:
                in_group, fragment = True, _Fragment([], [], [])
            else:
                fragment.words.append(":")
                fragment.plain.append(" ")
        elif kind == "end" or (kind == "mark" and data in b",;"):
            if fragment.angle is not None or fragment.bare is not None:
                _close(fragment, pending, found, hints)
            elif fragment.text.strip() and not (in_group and fragment.is_comment):
                pending.extend([fragment.mark] * bool(pending) + [fragment.text])
            if data == b";" or kind == "end":
                if in_group or kind == "end":
                    _leave(pending, found, hints)
                in_group = in_group and data != b";"
            fragment = _Fragment([], [], [], data.decode())
        elif kind is not None:
            _add(fragment, kind, data, hints)
        if len(found) > MAX_PEOPLE:
            break
    return found, position < len(value)


def _tokens(value: bytes, budget: Budget) -> Iterator[re.Match[bytes]]:
    """Yield tokens. After too many quotes or brackets that nothing closes, they are text."""
    position = unclosed = 0
    for count in range(MAX_TOKENS):
        is_quoted = value[position : position + 1] == b'"'
        steps = STEPS_OF_QUOTED if is_quoted else STEPS_OF_ADDRESSES
        if not budget.take(steps) and count >= MIN_TOKENS:
            return
        pattern = _TOKEN if unclosed < MAX_UNCLOSED else _UNCLOSED
        token = pattern.match(value, position)
        if token is None:
            return
        unclosed += token.lastgroup == "text" and token[0] in (b'"', b"(")
        position = token.end()
        yield token


def _add(fragment: _Fragment, kind: str, data: bytes, hints: Hints) -> None:
    if fragment.angle is not None and kind != "comment":
        fragment.after.append(" " if kind == "blank" else data.decode("utf-8", "replace"))
    elif kind == "comment":
        words = decode_words(data[1:-1], hints)
        fragment.comments.append(words)
        if not fragment.has_at:
            fragment.words.append(f"({words})")
    elif kind == "quoted":
        inner = re.sub(rb"\\(.)", rb"\1", data[1:-1], flags=re.DOTALL)
        fragment.words.append(decode_words(inner, hints))
        fragment.has_at = fragment.has_at or b"@" in data
        fragment.plain.append(data.decode("utf-8", "replace"))
    elif kind == "blank":
        if fragment.words:
            fragment.words.append(" ")
        fragment.plain.append(" ")
    else:
        fragment.words.append(data.decode("utf-8", "replace"))
        if kind == "text":
            fragment.has_at = fragment.has_at or b"@" in data
            fragment.plain.append(data.decode("utf-8", "replace"))


def _angle(data: bytes, hints: Hints) -> str:
    text = one_line(decode_words(data.strip(b"<>"), hints)).strip()
    if "(" in text and '"' not in text:
        text = _INNER_COMMENT.sub("", text)
    if not _QUOTED_ADDRESS.fullmatch(text):
        text = text.strip("'\" ")
    text = re.sub(r"^(?:mailto|smtp):", "", text, flags=re.IGNORECASE)
    if text.startswith("@"):  # an obsolete route: <@relay,@other:local@domain>
        text = text.rpartition(":")[2]
    if re.search(r"\s*[@.]\s+|\s+[@.]\s*", text) and text.count("@") == 1:
        text = re.sub(r"\s*([@.])\s*", r"\1", text)
    return text


def _close(fragment: _Fragment, pending: list[str], found: list[Person], hints: Hints) -> None:
    if fragment.angle is not None:
        words = fragment.text
        if pending:
            words = "".join([*pending, fragment.mark, words])
        elif fragment.is_comment:
            words = ""  # the comment is the name
        pending.clear()
        name, address = _name(words, hints), fragment.angle
        if not name and fragment.comments:
            name = _name(" ".join(fragment.comments), hints)
        name = name or _name("".join(fragment.after), hints)
        if "@" not in address:
            if not address and (inner := _address(name)) is not None:
                name, address = "", inner[0]
            else:
                name, address = (name or address), ""
    else:
        _leave(pending, found, hints)
        match = fragment.bare
        if match is None:
            return
        ends = _ENDS.replace('"', "") if match[0].startswith('"') else _ENDS
        address = match[0].strip(ends.replace("]", "") if "@[" in match[0] else ends)
        plain = "".join(fragment.plain)
        rest = plain[: match.start()] + " " + plain[match.end() :]
        rest = re.sub(r"(?:mailto:|[\[\]{}<>\"']|^\s*[:=-])", " ", rest, flags=re.IGNORECASE)
        name = _name(" ".join(fragment.comments), hints) or _name(rest, hints)
    if name or address:
        found.append(Person(name[:MAX_NAME_CHARS], address[:MAX_NAME_CHARS]))


def _address(text: str) -> re.Match[str] | None:
    """Return the first address in a text; it looks back from each `@`."""
    for at in islice(_AT.finditer(text), MAX_TRIES):
        before = text[max(at.start() - MAX_LOCAL_CHARS, 0) : at.start()]
        local = _QUOTED_LOCAL.search(before[-70:]) or _LOCAL.match(before[::-1])
        if local is not None and (found := _ADDRESS.match(text, at.start() - len(local[0]))):
            return found
    return None


def _leave(pending: list[str], found: list[Person], hints: Hints) -> None:
    """Keep words without an address as names."""
    for name in filter(None, (_name(each, hints) for each in pending[::2])):
        if whole := _ENCODED_WHOLE.fullmatch(name[: 2 * MAX_NAME_CHARS]):
            found.append(Person(whole[1].strip("\"' ")[:MAX_NAME_CHARS], whole[2]))
        else:
            found.append(Person(name[:MAX_NAME_CHARS], ""))
    pending.clear()


def _name(words: str, hints: Hints) -> str:
    """Return a name in one line: encoded words are decoded, quotes around it removed."""
    words = words[:MAX_NAME_BYTES]
    text = decode_words(words.encode("utf-8", "replace"), hints) if "=?" in words else words
    text = one_line(text)
    if "\\" in text:
        text = _ESCAPED.sub(r"\1", text)
    if text.count('"') == 1:  # a quote that nothing closes
        text = text.strip('"')
    for quote in ("'", '"'):
        if len(text) > 1 and text[0] == text[-1] == quote:
            text = text[1:-1].strip()
    return text.strip(" ,;")
