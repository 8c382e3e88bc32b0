"""The fingerprint of a message in the content table: its attachment policy and its labels.

`Context.fingerprints` returns it for any ids. So a change of labels needs no call of the API: the
fingerprint has the old labels, and the history has the changes.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The fingerprint of a kept message.

    Attributes:
      generation: The generation of the listing under which the message was kept. Changes between
        the end of one history and the next listing are unknown. So labels of another generation are
        not a base for changes.
      policy: The attachment policy; see `Config.policy`.
      labels: The ids of the labels, sorted.
    """

    generation: str
    policy: str
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """The fingerprint as text."""
        return json.dumps([self.generation, self.policy, *self.labels], separators=(",", ":"))

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Parse a fingerprint; return None if it is missing or invalid."""
        try:
            generation, policy, *labels = json.loads(text or "null")
        except (ValueError, TypeError):
            return None
        return cls(str(generation), str(policy), tuple(map(str, labels)))

    def with_labels(self, labels: Collection[str], generation: str | None = None) -> Fingerprint:
        """Return a fingerprint with these labels, and with this generation if one is given."""
        return replace(self, labels=tuple(sorted(labels)), generation=generation or self.generation)
