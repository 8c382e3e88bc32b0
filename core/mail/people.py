"""The people in address fields, as senders write them.

Every address has an `@`. Commas, colons, brackets and an `@` may stand in a name
without quotes: everything up to the next `<...>`  without an address of its own belongs to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from core.mail.charsets import decode
from core.mail.encoded_words import decode_words, one_line, unfolded
from core.mail.fields import Fields

MAX_PEOPLE = 5_000
MAX_CHARS = 400_000
"""The maximum number of characters of all people of one field."""

MAX_FIELD_BYTES = 2 * 1024 * 1024
MAX_NAME_CHARS = 998
MAX_NAME_BYTES = 16 * 1024

_WORD = rb"=\?[^?\s]{1,60}\?[BbQq]\?[^?]*\?="
_TOKEN = re.compile(
    rb"(?P<word>" + _WORD + rb")"
    rb'|(?P<quoted>"(?:[^"\\]|\\.)*")'
    rb"|(?P<angle><+[^<>]*>*)"
    rb"|(?P<comment>\((?:[^()\\]|\\.)*\))"
    rb"|(?P<mark>[,;:])"
    rb"|(?P<blank>\s+)"
    rb"|(?P<text>[^\s\"<(,;:=]+|.)",
    re.DOTALL,
)
_ADDRESS = re.compile(
    r"""(?:"(?:[^"\\]|\\.){1,64}"|[^\s<>()\[\]",;:@"]{1,200})@[^\s<>()",;:@]{1,255}"""
)
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
    angle: str | None = None
    after: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def bare(self) -> re.Match[str] | None:
        return _ADDRESS.search("".join(self.plain)) if self.angle is None else None


def people(fields: Fields, name: str) -> tuple[list[Person], bool]:
    """Return the people of all fields with this name, and True if some were cut off."""
    whole = b", ".join(unfolded(value) for value in fields.all(name) if value.strip())
    found = parse(whole[:MAX_FIELD_BYTES], fields.hints)
    is_cut = len(whole) > MAX_FIELD_BYTES or len(found) > MAX_PEOPLE
    room = MAX_CHARS
    kept: list[Person] = []
    for person in found[:MAX_PEOPLE]:
        room -= len(person.name) + len(person.address) + 30
        if room < 0:
            return kept, True
        kept.append(person)
    return kept, is_cut


def parse(  # noqa: C901  one state machine
    value: bytes, hints: tuple[str | None, ...] = ()
) -> list[Person]:
    """Return the people of an address list in one line."""
    if not value.isascii() or b"\x1b" in value:
        value = decode(value, hints=hints).text.encode("utf-8", "replace")
    found: list[Person] = []
    pending: list[str] = []
    fragment = _Fragment([], [], [])
    in_group = False
    ends = value.rfind(b";")  # a semicolon ends a group
    separator = ""
    for token in [*_TOKEN.finditer(value), None]:
        kind = "end" if token is None else token.lastgroup
        data = b"" if token is None else token[0]
        if kind == "angle":
            if fragment.angle is not None:
                _close(fragment, pending, found)
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
                _close(fragment, pending, found)
            elif fragment.text.strip():
                pending.extend([separator, fragment.text] if pending else [fragment.text])
            separator = f"{data.decode()} "
            if data == b";" or kind == "end":
                if in_group or kind == "end":
                    _leave(pending, found)
                in_group = in_group and data != b";"
            fragment = _Fragment([], [], [])
        elif kind is not None:
            _add(fragment, kind, data, hints)
        if len(found) > MAX_PEOPLE:
            break
    return found


def _add(fragment: _Fragment, kind: str, data: bytes, hints: tuple[str | None, ...]) -> None:
    if fragment.angle is not None and kind != "comment":
        fragment.after.append(" " if kind == "blank" else data.decode("utf-8", "replace"))
    elif kind == "comment":
        words = decode_words(data[1:-1], hints)
        fragment.comments.append(words)
        if not fragment.plain or "@" not in "".join(fragment.plain):
            fragment.words.append(f"({words})")
    elif kind == "quoted":
        inner = re.sub(rb"\\(.)", rb"\1", data[1:-1], flags=re.DOTALL)
        fragment.words.append(decode_words(inner, hints))
        fragment.plain.append(data.decode("utf-8", "replace"))
    elif kind == "blank":
        if fragment.words:
            fragment.words.append(" ")
        fragment.plain.append(" ")
    else:
        fragment.words.append(data.decode("utf-8", "replace"))
        if kind == "text":
            fragment.plain.append(data.decode("utf-8", "replace"))


def _angle(data: bytes, hints: tuple[str | None, ...]) -> str:
    text = one_line(decode_words(data.strip(b"<>"), hints)).strip("'\" ")
    text = re.sub(r"^(?:mailto|smtp):", "", text, flags=re.IGNORECASE)
    if text.startswith("@"):  # an obsolete route: <@relay,@other:local@domain>
        text = text.rpartition(":")[2]
    if re.search(r"\s*[@.]\s+|\s+[@.]\s*", text) and text.count("@") == 1:
        text = re.sub(r"\s*([@.])\s*", r"\1", text)
    return text


def _close(fragment: _Fragment, pending: list[str], found: list[Person]) -> None:
    if fragment.angle is not None:
        before = "".join([*(f"{part}" for part in _spaced(pending)), fragment.text])
        pending.clear()
        name, address = _name(before), fragment.angle
        if not name and fragment.comments:
            name = _name(" ".join(fragment.comments))
        name = name or _name("".join(fragment.after))
        if "@" not in address:
            if (inner := _ADDRESS.search(name)) is not None and not address:
                name, address = "", inner[0]
            else:
                name, address = (name or address), ""
    else:
        _leave(pending, found)
        match = fragment.bare
        if match is None:
            return
        address = match[0].strip(_ENDS.replace('"', "") if match[0].startswith('"') else _ENDS)
        plain = "".join(fragment.plain)
        rest = plain[: match.start()] + " " + plain[match.end() :]
        rest = re.sub(r"(?:mailto:|[\[\]{}<>\"']|^\s*[:=-])", " ", rest, flags=re.IGNORECASE)
        name = _name(" ".join(fragment.comments)) or _name(rest)
    if name or address:
        found.append(Person(name[:MAX_NAME_CHARS], address[:MAX_NAME_CHARS]))


def _spaced(pending: list[str]) -> list[str]:
    return [*pending, ", "] if pending else []


def _leave(pending: list[str], found: list[Person]) -> None:
    """Keep words without an address as names."""
    names = filter(None, map(_name, pending[::2]))
    found.extend(Person(name[:MAX_NAME_CHARS], "") for name in names)
    pending.clear()


def _name(words: str) -> str:
    """Return a name in one line: encoded words are decoded, quotes around it removed."""
    words = words[:MAX_NAME_BYTES]
    text = decode_words(words.encode("utf-8", "replace")) if "=?" in words else words
    text = one_line(text)
    if text.count('"') == 1:  # a quote that nothing closes
        text = text.strip('"')
    for quote in ("'", '"'):
        if len(text) > 1 and text[0] == text[-1] == quote:
            text = text[1:-1].strip()
    return text.strip(" ,;")
