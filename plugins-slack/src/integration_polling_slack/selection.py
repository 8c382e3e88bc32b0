"""The selection: which channels an account keeps, in the words of its config."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

_MENTION = re.compile(r"<[#@]([A-Z0-9]+)(?:\|[^>]*)?>")
_LINK = re.compile(
    r"(?:https?|slack)://\S*?(?:/archives/|/client/[A-Z0-9]+/|/messages/|/team/|[?&]id=)"
    r"([A-Za-z0-9_@-]+)"
)
"""Links to a channel, a message, a person or a channel in the app.

Source: https://docs.slack.dev/interactivity/deep-linking
"""


class Candidate(Protocol):
    """A channel, as the selection sees it."""

    @property
    def id(self) -> str:
        """The id of its row."""
        ...

    @property
    def words(self) -> Collection[str]:
        """Its ids and its present name."""
        ...

    @property
    def previous(self) -> Sequence[str]:
        """The names that it had before."""
        ...


C = TypeVar("C", bound=Candidate)


def plain(text: str) -> str:
    """Return a word of the config, or a name, in the form in which both are compared.

    A link and a pasted mention become the id. Names have one Unicode form, and no sigil, upper case
    or invisible character.
    """
    text = unicodedata.normalize("NFKC", text.strip())
    found = _MENTION.fullmatch(text) or _LINK.match(text)
    text = found[1] if found else text
    shown = "".join(one for one in text if unicodedata.category(one) != "Cf").strip().lstrip("#@")
    return unicodedata.normalize("NFKC", shown.casefold())


def is_pattern(word: str) -> bool:
    """Return True if the word is a glob for names."""
    return "://" not in word and any(sign in word for sign in "*?[")


@dataclass(frozen=True, slots=True)
class Selected:
    """The channels to keep.

    Attributes:
      ids: The ids of the channels to keep.
      absent: The words of the config that match no channel.
      by_word: The channel that each word names, for the time after the channel is renamed.
    """

    ids: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    by_word: dict[str, str] = field(default_factory=dict)


def select(
    found: Iterable[C],
    include: Sequence[str],
    exclude: Sequence[str],
    known: Mapping[str, str],
) -> Selected:
    """Select channels. `exclude` wins over `include`.

    A word names a channel by its present name, its id or a link. If no channel has the name, the
    word stands for the channel that had it before.

    Args:
      found: The listed channels.
      include: Words and globs; empty for all channels.
      exclude: Words and globs.
      known: `Selected.by_word` of an earlier selection.
    """
    listed = list(found)
    left_out, excluded = _matched(listed, exclude, known, is_strict=False)
    wanted, included = _matched(listed, include, known, is_strict=True)
    exact = {word for word in map(plain, include) if not is_pattern(word)}
    ids = wanted if include else {one.id for one in listed}
    return Selected(ids - left_out, exact - set(included), {**excluded, **included})


def _matched(
    listed: Sequence[Candidate], words: Sequence[str], known: Mapping[str, str], *, is_strict: bool
) -> tuple[set[str], dict[str, str]]:
    """Return the channels that words and globs match, and the channel of each word.

    Args:
      listed: The listed channels.
      words: Words and globs.
      known: The channels that words named before.
      is_strict: True if a previous name counts only if no channel has the name now.
    """
    ids, by_word, all_ids = set[str](), dict[str, str](), {one.id for one in listed}
    for word in map(plain, words):
        if is_pattern(word):
            glob = re.compile(fnmatch.translate(word))
            ids |= {one.id for one in listed if any(map(glob.match, one.words))}
            continue
        now = [one.id for one in listed if word in one.words]
        before = [one.id for one in listed if word in map(plain, one.previous)]
        if known.get(word) in all_ids:
            before.append(known[word])
        matched = now or before if is_strict else [*now, *before]
        ids |= set(matched)
        if matched:
            by_word[word] = matched[0]
    return ids, by_word
