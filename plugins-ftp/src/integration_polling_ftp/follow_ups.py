"""Follow-ups: the work that a task leaves, in portions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from core import Task as FollowUp

MAX_FOLLOW_UP_BYTES = 44 * 1024
"""The size of the paths in one follow-up."""

Place = tuple[str, tuple[str, ...]]
"""A directory: its path, and the `unique` facts of the directories from the root to it."""

NewFile = tuple[str, str, bool]
"""A file to fetch: its name as it is stored, its listed version, and whether it is a link."""

ListedFile = NewFile | tuple[str, str, bool, str]
"""A file in a follow-up, with the checksum that it should have, if that is known."""


def task_of(type: str, **payload: object) -> FollowUp:
    """Return a follow-up with a payload of JSON values."""
    return FollowUp(type, payload)  # type: ignore[arg-type]


def batches(type: str, items: Sequence[object], most: int, **payload: object) -> Iterator[FollowUp]:
    """Return follow-ups for portions of some items, each below the maximum size of a payload."""
    portion: list[object] = []
    size = 0
    for item in items:
        plain = list(item) if isinstance(item, tuple) else item
        length = len(json.dumps(plain))
        if portion and (len(portion) >= most or size + length > MAX_FOLLOW_UP_BYTES):
            yield task_of(type, items=portion, **payload)
            portion, size = [], 0
        portion.append(plain)
        size += length
    if portion:
        yield task_of(type, items=portion, **payload)


def split(places: Sequence[Place], parts: int, seconds: float) -> Iterator[FollowUp]:
    """Return follow-ups that share the directories which are left.

    Args:
      places: The directories.
      parts: The number of shares.
      seconds: The seconds that each follow-up works.
    """
    shares: Iterable[Sequence[Place]] = [places[part::parts] for part in range(parts)]
    for share in shares:
        items = [(path, list(trail)) for path, trail in share]
        yield from batches("walk", items, 1_000, seconds=seconds)
