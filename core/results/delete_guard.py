"""The rule of the delete guard: whether a deletion is done, or waits for a person."""

from __future__ import annotations

from typing import NamedTuple


class DeleteGuard(NamedTuple):
    """The bound on deletions without a decision of a person.

    Attributes:
      max_share: The largest share that may be deleted, from 0 to 1; 1 disables the guard, and 0
        holds every deletion.
      min_items: The guard holds fewer deletions than this only if no item remains.
    """

    max_share: float = 0.5
    min_items: int = 20

    @property
    def is_off(self) -> bool:
        """True if the guard holds nothing."""
        return self.max_share >= 1

    @property
    def floor(self) -> int:
        """The number of deletions from which on the share matters.

        A held deletion of a share waits for a person. Another one held the last items, and is
        judged again with each listing.
        """
        return self.min_items if self.max_share > 0 else 0

    def is_small(self, lost: int) -> bool:
        """Return True if the share does not matter for so few deletions."""
        return lost < self.floor

    def exceeds(self, lost: int, total: int) -> bool:
        """Return True if the share is larger than the guard allows."""
        return lost > self.max_share * total


OFF = DeleteGuard(1.0)
"""The guard of a run for which a person turned it off."""
