"""The rehearsal of a connection: a description of an account before it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a sample: an item that would be kept, or a folder of such items.

    Attributes:
      name: The name, for people.
      level: The depth in a tree; 0 is the top. Default: 0.
    """

    name: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class RehearsalSection:
    """Plain facts about one part of the account.

    Attributes:
      title: The heading, such as `Folders`.
      facts: Facts by their label, such as `{"Messages": 1200}`. A fact is a text or an integer. At
        most 50 are shown. Default: none.
      sample: Some of the items that would be kept, or a short tree of them. At most 100 lines are
        shown. Default: none.
      omitted: The number of items that the sample leaves out. The engine adds the lines that it
        does not show. Default: 0.
    """

    title: str
    facts: Mapping[str, str | int] = field(default_factory=dict)
    sample: Sequence[Sample] = ()
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    """The size of the first copy, as far as the provider tells it before the copy begins.

    Attributes:
      items: The number of items, about; 0 or more.
      noun: Their name in the plural, such as `messages`.
      cost: The units of each `Rate` limit that one item takes, by the limit's name. The engine
        derives the fastest pace from it. Default: no limit bounds the pace.
      background: True if new items arrive while the first copy loads. Default: False.
      per_minute: The fastest pace that the limits allow. The engine sets it. Default: unknown.
    """

    items: int
    noun: str
    cost: Mapping[str, float] = field(default_factory=dict)
    background: bool = False
    per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A description of an account before it is stored; see `BaseIntegration.rehearse`.

    All texts are plain and short: one line of at most 500 characters.

    Attributes:
      sections: The facts. At most 20 sections are shown. Default: none.
      warnings: Facts to which a person should agree, as sentences, such as "The folder is empty.".
        At most 20 are shown. Default: none.
      refusal: The reason why this account cannot be connected. The account is then not stored. The
        reason is a clause, such as `the folder does not exist`. Default: none.
      bound: The size of the first copy. Alone, it is shown and asks nobody. Default: unknown.
    """

    sections: Sequence[RehearsalSection] = ()
    warnings: Sequence[str] = ()
    refusal: str | None = None
    bound: Bound | None = None

    def __bool__(self) -> bool:
        return bool(self.sections or self.warnings or self.refusal)
