"""Compare the content of every file with the table.

The hash is computed from the stored content, not read from its row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from core.cli.demo.files import Tree, digest, has_changed, path_of, shown
from core.content.blobs import Blobs
from core.db.pool import Conn

# The hash of the stored bytes themselves; of a blob, its key.
STORED = """
SELECT external_id, blob_key, CASE
    WHEN content_text IS NOT NULL THEN encode(sha256(convert_to(content_text, 'UTF8')), 'hex')
    WHEN content_bytes IS NOT NULL THEN encode(sha256(content_bytes), 'hex') END
FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'file' AND deleted_at IS NULL
"""


@dataclass(slots=True)
class Comparison:
    """What came of it.

    Attributes: equal: Files whose stored bytes are those on disk. wrong: Paths of files that are
      missing or differ, and which of the two. changed: Paths of files that were written to while
      the demo ran: nobody can say what they should be.
    """

    equal: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def compare(conn: Conn, blobs: Blobs, account: UUID, tree: Tree) -> Comparison:
    """Compare every file of the tree with the content table."""
    stored = dict(_stored(conn, blobs, account))
    result = Comparison()
    for path, file in sorted(tree.files.items()):
        whole, name = tree.root / path, shown(path)
        on_disk, kept = digest(whole), stored.get(path)
        if kept is not None and kept == on_disk:
            result.equal += 1
        elif has_changed(whole, file):
            result.changed.append(name)
        else:
            result.wrong.append((name, "is missing" if path not in stored else "differs"))
    return result


def _stored(conn: Conn, blobs: Blobs, account: UUID) -> Iterator[tuple[str, str | None]]:
    for external_id, blob, sha256 in conn.execute(STORED, (account,)).fetchall():
        yield path_of(external_id), sha256 if blob is None else _blob_hash(blobs, blob)


def _blob_hash(blobs: Blobs, key: str) -> str | None:
    found = hashlib.sha256()
    try:
        for portion in blobs.stream(key):
            found.update(portion)
    except FileNotFoundError:
        return None
    return found.hexdigest()
