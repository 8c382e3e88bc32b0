"""The secrets that this process knows, and their removal from text in every usual encoding.

A text of a task is searched for the secrets of its account (`KNOWN.scope`). Each text is also
searched for the longer secrets of all accounts that the process has loaded. A plugin's own thread
has no task. A client that several accounts share may log the token of another one. The operator's
secrets are always removed.
"""

from __future__ import annotations

import base64
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter

MIN_SECRET_CHARS = 4
"""The length of the shortest secret that is redacted.

A shorter secret would match parts of ordinary words.
"""

MIN_FOREIGN_CHARS = 8
"""The length of the shortest secret that is redacted in a text of another task, or of none.

A shorter password of one user would remove ordinary words from the lines of all others.
"""

MIN_UNDECLARED_CHARS = 8
"""The length of the shortest text that is redacted although no model declares it to be a secret.

Words of small letters, such as `service_account`, need 16 characters.
"""

MIN_BASE64_CHARS = 6
"""The length of the shortest part of a Base64-encoded secret that is redacted."""

MIN_LINE_CHARS = 16
"""The length of the shortest line of a longer secret, such as a private key, that is redacted."""

MAX_ENCODED_CHARS = 8_192
"""The length of the longest secret that is searched for in encodings other than Base64."""

MAX_GENERATIONS = 3
"""The number of the latest credentials of an account that are redacted, so that old tokens are."""

MAX_SCOPES = 256
"""The number of the latest scopes whose secrets are remembered after their end."""

OPERATOR = "operator"
"""The owner of the operator's secrets."""

REDACTED = "***"

SECRET_TYPES = (SecretStr, SecretBytes, Secret)
"""The types of fields that hold a secret."""

_PUBLIC = re.compile(
    r"[^\s@:/]+@[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}|https?://[^\s@/?#]+/?|(?=.{1,15}$)[a-z _.-]+"
)
"""An e-mail address, the address of a server, or some words. Messages contain them."""

_GRAM = 4
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]+")
_ENCODED = re.compile(r"[%\\&+]")
_NAMED = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a"}
_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}


class SecretForms:
    """One secret in all its forms: plain, in Base64, and as URLs, JSON, `repr` and HTML write it.

    Attributes:
      secret: The secret in clear.
      anchors: Short parts, of which each text that holds the secret has at least one. Empty if the
        secret has no such part.
    """

    __slots__ = ("_base64", "_pattern", "_special", "anchors", "secret")

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self._special = _UNRESERVED.fullmatch(secret) is None and len(secret) <= MAX_ENCODED_CHARS
        self._pattern: re.Pattern[str] | None = None
        self._base64 = sorted(
            _in_base64(secret.encode("utf-8", "surrogatepass")), key=len, reverse=True
        )
        runs = _UNRESERVED.findall(secret) if self._special else [secret]
        longest = max(runs, key=len, default="")
        has_anchor = len(longest) >= _GRAM
        self.anchors = {text[:_GRAM] for text in (longest, *self._base64)} if has_anchor else set()

    def __repr__(self) -> str:
        return "SecretForms(***)"

    def redact(self, text: str) -> str:
        """Replace each form of the secret by `***`."""
        if self._special and _ENCODED.search(text):
            # Compiled when it is first needed, because most secrets never occur in a text.
            self._pattern = self._pattern or re.compile(_pattern_of(self.secret))
            text = self._pattern.sub(REDACTED, text)
        text = text.replace(self.secret, REDACTED)
        for form in self._base64:
            text = text.replace(form, REDACTED)
        return text


class Redactor:
    """A function that replaces each of some secrets by `***`, the longest first."""

    __slots__ = ("forms",)

    def __init__(self, secrets: Iterable[str], cached: Iterable[SecretForms] = ()) -> None:
        cache = {form.secret: form for form in cached}
        forms = [cache.get(secret) or SecretForms(secret) for secret in set(_parts(secrets))]
        self.forms = tuple(sorted(forms, key=_length, reverse=True))

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        for form in self.forms:
            text = form.redact(text)
        return text


class KnownSecrets:
    """The secrets of this process by owner: an account's id, a scope, or the operator."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[str, Redactor] = {}
        self._generations: dict[str, tuple[frozenset[str], ...]] = {}
        self._scopes: OrderedDict[str, None] = OrderedDict()
        self._index: dict[str, tuple[SecretForms, ...]] = {}
        self._unanchored: tuple[SecretForms, ...] = ()
        self._current: ContextVar[tuple[str, ...]] = ContextVar("owners", default=())

    def remember(self, owner: str, secrets: Iterable[str]) -> Redactor:
        """Redact these secrets, and those that the owner had before.

        Returns:
          A redactor of the owner's secrets. It lasts, also after `forget`.
        """
        latest = frozenset(secrets)
        with self._lock:
            known, before = self._owners.get(owner), self._generations.get(owner, ())
            if known is not None and before[:1] == (latest,):
                return known
            generations = (latest, *(old for old in before if old != latest))[:MAX_GENERATIONS]
            redactor = Redactor(frozenset().union(*generations), known.forms if known else ())
            self._unlist(known)
            self._list(redactor, owner)
            self._owners[owner], self._generations[owner] = redactor, generations
            return redactor

    def forget(self, owner: str) -> None:
        """Stop redacting the secrets of an owner."""
        with self._lock:
            self._generations.pop(owner, None)
            self._unlist(self._owners.pop(owner, None))

    def learn(self, secrets: Iterable[str]) -> None:
        """Redact these secrets as the latest ones of the owner that this thread works for."""
        current = self._current.get()
        if current:
            self.remember(current[-1], secrets)

    def enter(self, owner: str) -> None:
        """Name the owner that this thread works for, until `leave`."""
        self._current.set((owner,))

    def leave(self) -> None:
        """End `enter`: this thread works for no owner."""
        self._current.set(())

    @contextmanager
    def scope(self, secrets: Iterable[str]) -> Iterator[None]:
        """Redact these secrets during the block, and in threads that outlast it."""
        owner = uuid4().hex
        self.remember(owner, secrets)
        token = self._current.set((*self._current.get(), owner))
        try:
            yield
        finally:
            self._current.reset(token)
            self._retire(owner)

    def redact(self, text: str) -> str:
        """Redact a text of this thread: the secrets of its task, and those of all owners."""
        for owner in self._current.get():
            redactor = self._owners.get(owner)
            if redactor is not None:
                text = redactor(text)
        return self.redact_all(text)

    def redact_all(self, text: str) -> str:
        """Redact the secrets of all owners. The cost does not depend on the number of accounts."""
        operator = self._owners.get(OPERATOR)
        text = operator(text) if operator is not None else text
        index, found = self._index, {id(form): form for form in self._unanchored}
        grams = {text[at : at + _GRAM] for at in range(len(text) - _GRAM + 1 if index else 0)}
        for gram in index.keys() & grams:
            found |= {id(form): form for form in index.get(gram, ())}
        for form in sorted(found.values(), key=_length, reverse=True):
            text = form.redact(text)
        return text

    def _retire(self, owner: str) -> None:
        with self._lock:
            self._scopes[owner] = None
            oldest = next(iter(self._scopes)) if len(self._scopes) > MAX_SCOPES else None
            if oldest is not None:
                del self._scopes[oldest]
        if oldest is not None:
            self.forget(oldest)

    def _list(self, redactor: Redactor, owner: str) -> None:
        for form in redactor.forms if owner != OPERATOR else ():
            if len(form.secret) < MIN_FOREIGN_CHARS:
                continue
            if not form.anchors:
                self._unanchored += (form,)
            for anchor in form.anchors:
                self._index[anchor] = (*self._index.get(anchor, ()), form)

    def _unlist(self, redactor: Redactor | None) -> None:
        for form in redactor.forms if redactor is not None else ():
            if not form.anchors:
                self._unanchored = tuple(other for other in self._unanchored if other is not form)
            for anchor in form.anchors:
                left = tuple(other for other in self._index.get(anchor, ()) if other is not form)
                if left:
                    self._index[anchor] = left
                else:
                    self._index.pop(anchor, None)


KNOWN = KnownSecrets()
"""The secrets of this process."""


def _length(form: SecretForms) -> int:
    return len(form.secret)


def secrets_of(value: object) -> Iterator[str]:
    """Yield every secret in a model in clear, for a redactor.

    The fields themselves are read: a model may have a serializer that reveals its secrets as texts.
    """
    if isinstance(value, SECRET_TYPES):
        yield from texts_in(value.get_secret_value())
        return
    for item in _items(value):
        yield from secrets_of(item)


def secrets_in(model: type[BaseModel], values: Mapping[str, object]) -> Iterator[str]:
    """Yield the secrets in values that are a part of a model, such as an organization's.

    In a valid field, a text is secret if the model declares it so. A text of another field may be
    secret if it has `MIN_UNDECLARED_CHARS`, and is not an address or a few words.
    """
    fields = dict(model.model_fields)
    fields |= {field.alias: field for field in fields.values() if field.alias}
    for name, value in values.items():
        try:
            declaration: Any = fields[name].annotation
            declared = TypeAdapter(declaration).validate_python(value)
        except Exception:  # noqa: BLE001  an unknown or invalid field; a model may raise anything
            yield from filter(_may_be_secret, texts_in(value))
        else:
            yield from secrets_of(declared)


def _may_be_secret(text: str) -> bool:
    return len(text) >= MIN_UNDECLARED_CHARS and not _PUBLIC.fullmatch(text)


def texts_in(value: object) -> Iterator[str]:
    """Yield the texts in the value of a secret, which may be a collection."""
    items = [value] if isinstance(value, str | bytes) else _items(value)
    if isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif items:
        for item in items:
            yield from [item] if isinstance(item, str) else texts_in(item)
    elif value is not None:
        yield str(value)


def _items(value: object) -> list[object]:
    """Return the values in a model, a dataclass or a collection; empty for anything else."""
    if isinstance(value, BaseModel):
        return [*vars(value).values(), *(value.__pydantic_extra__ or {}).values()]
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple | set | frozenset) else []


def clean(value: object, redact: Callable[[str], str]) -> object:
    """Return a value without secrets: a text, a collection, or another object as a text.

    A value whose text holds no secret is returned unchanged.
    """
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int | float):
        text = str(value)
        return value if redact(text) == text else redact(text)
    if isinstance(value, dict):
        return {clean(key, redact): clean(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(clean(item, redact) for item in value)
    shown = f"{value} {value!r}"
    return value if redact(shown) == shown else redact(str(value))


def _parts(secrets: Iterable[str]) -> Iterator[str]:
    """Yield the secrets that are long enough, and the longer lines of those with several lines.

    Plugins and libraries remove the space and the line end that a person has pasted with a secret.
    """
    for secret in secrets:
        bare = secret.strip()
        if len(bare) < MIN_SECRET_CHARS:
            continue
        yield from {secret, bare}
        lines = secret.splitlines()
        if len(lines) > 1:
            yield from (
                line
                for line in map(str.strip, lines)
                if len(line) >= MIN_LINE_CHARS and not line.startswith("-----")
            )


def _pattern_of(secret: str) -> str:
    """Return a pattern of a secret in which each special character is plain or encoded.

    Libraries disagree about the characters that they encode in URLs, so the pattern accepts any
    mixture.
    """
    parts = re.findall(r"[A-Za-z0-9_.~-]+|\\+|[\s\S]", secret)
    return "".join(
        re.escape(part) if _UNRESERVED.fullmatch(part) else _encoded(part) for part in parts
    )


def _encoded(char: str) -> str:
    """Return a pattern of one special character, or of a run of backslashes."""
    raw = char.encode("utf-8", "surrogatepass")
    escaped = ["".join(f"%(?:25)*{byte:02x}" for byte in raw)]
    if char.startswith("\\"):
        # A run is one part: adjacent parts that match several backslashes would backtrack.
        return rf"(?:\\{{{len(char)},{4 * len(char)}}}|(?i:{escaped[0]}))"
    units = char.encode("utf-16-be", "surrogatepass")
    pairs = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
    slash = r"\\{1,4}"
    escaped += ["".join(rf"{slash}u{pair}" for pair in pairs)]
    escaped += ["".join(rf"{slash}x{byte:02x}" for byte in raw)]
    escaped += [rf"{slash}U{ord(char):08x}", rf"&#0*{ord(char)};", rf"&#x0*{ord(char):x};"]
    if ord(char) < 256:
        escaped += [rf"{slash}x{ord(char):02x}", f"%{ord(char):02x}"]
    plain = re.escape(char)
    forms = [rf"{slash}{_NAMED[char]}"] if char in _NAMED else []
    forms += [rf"{slash}{plain}"] if char in "\"'/" else []
    forms += [rf"&{_ENTITIES[char]};"] if char in _ENTITIES else []
    forms += [r"\+"] if char == " " else []
    return f"(?:{'|'.join([*forms, plain])}|(?i:{'|'.join(escaped)}))"


def _in_base64(raw: bytes) -> set[str]:
    """Return the secret in Base64, and the part of it that does not depend on adjacent text.

    Adjacent text changes the encoding if the secret is encoded with it, as in `user:secret`.
    """
    forms = set()
    for before in range(3):
        padded = b"\0" * before + raw + b"\0" * (-(before + len(raw)) % 3)
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            middle = encode(padded).decode()[first:last]
            forms |= {middle} if len(middle) >= MIN_BASE64_CHARS else set()
    complete = {
        encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)
    }
    return forms | complete
