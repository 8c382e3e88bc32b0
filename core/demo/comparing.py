"""Compare every file with its stored bytes, by hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from core.demo.files import FILE, Tree, digest, has_changed, path_of, printable
from core.service.backend import Backend
from core.service.content.reader import digests


@dataclass(slots=True)
class Comparison:
    """The result of the comparison.

    Attributes:
      equal: The number of files whose stored bytes equal the bytes on disk.
      wrong: The paths of other files, each with `is missing` or `differs`.
      changed: The paths of files that were written during the demo and cannot be compared.
    """

    equal: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def compare(backend: Backend, account: UUID, tree: Tree) -> Comparison:
    """Compare every file of the tree with the content table."""
    stored = {path_of(id): sha256 for id, sha256 in digests(backend, account, FILE)}
    result = Comparison()
    for path, file in sorted(tree.files.items()):
        full_path, name = tree.root / path, printable(path)
        on_disk, kept = digest(full_path), stored.get(path)
        if kept is not None and kept == on_disk:
            result.equal += 1
        elif has_changed(full_path, file):
            result.changed.append(name)
        else:
            result.wrong.append((name, "is missing" if path not in stored else "differs"))
    return result
