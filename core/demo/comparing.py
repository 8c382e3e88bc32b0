"""Is every file's content in the table? Compared by hash, with the bytes that are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from core.demo.files import FILE, Tree, digest, has_changed, path_of, printable
from core.service.backend import Backend
from core.service.content.reader import digests


@dataclass(slots=True)
class Comparison:
    """What came of it.

    Attributes:
      equal: Files whose stored bytes are those on disk.
      wrong: Paths of files that are missing or differ, and which of the two.
      changed: Paths of files that were written to while the demo ran: nobody can say what they
        should be.
    """

    equal: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def compare(backend: Backend, account: UUID, tree: Tree) -> Comparison:
    """Compare every file of the tree with the content table."""
    stored = {path_of(id): sha256 for id, sha256 in digests(backend, account, FILE)}
    result = Comparison()
    for path, file in sorted(tree.files.items()):
        whole, name = tree.root / path, printable(path)
        on_disk, kept = digest(whole), stored.get(path)
        if kept is not None and kept == on_disk:
            result.equal += 1
        elif has_changed(whole, file):
            result.changed.append(name)
        else:
            result.wrong.append((name, "is missing" if path not in stored else "differs"))
    return result
