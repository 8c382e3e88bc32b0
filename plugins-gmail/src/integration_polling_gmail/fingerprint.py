"""A message's fingerprint in the content table.

It holds the policy under which the message was kept, and its labels.

`Context.fingerprints` returns it for any ids, so that a change of labels needs no call: the labels
that were, and what the history says was added and removed.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Of a message that is kept.

    Parameters:
      generation: The history id at which the listing began that it was kept by. Changes between the
        end of one history and the next listing are unknown, so the labels of another generation are
        not to be built upon.
      policy: How its attachments were kept, see `Config.policy`.
      labels: Their ids, sorted.
    """

    generation: str
    policy: str
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        return json.dumps([self.generation, self.policy, *self.labels], separators=(",", ":"))

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """None where it is no fingerprint of this version."""
        try:
            generation, policy, *labels = json.loads(text or "null")
        except (ValueError, TypeError):
            return None
        return cls(str(generation), str(policy), tuple(map(str, labels)))

    def with_labels(self, labels: Collection[str], generation: str | None = None) -> Fingerprint:
        return replace(self, labels=tuple(sorted(labels)), generation=generation or self.generation)
