"""Export content as a stream of records, from one cursor of the change feed to another.

An export ends at the latest change of the moment when it began. So it ends even beside busy
writers, and the next export continues from its cursor. A record has the latest state of an item.
If an item changes before the export reads it, the export leaves it to the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID

from core.content.visible import visible
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import NotFound
from core.service.authorization import Authorize, Principal, always
from core.service.backend import Backend
from core.service.content import changes
from core.service.content import reader as content_reader
from core.service.content.export_formats import FIELDS

PAGE_ROWS = 1_000

TEXT_BYTES = 8 * 1024 * 1024
"""The size of the texts that are read in one query, in bytes, unless one text alone is larger."""

USERS_OF_ACCOUNTS = "SELECT id, user_id FROM user_integration WHERE id = ANY(%(accounts)s)"
TEXTS = f"""
SELECT id, changed_xid, content_text, content_text IS NULL AS is_file
FROM user_integration_content WHERE id = ANY(%(ids)s) AND {visible()}
"""


@dataclass(frozen=True, slots=True)
class Export:
    """What to export.

    Attributes:
      after: The cursor of the export before. None: everything from the beginning.
      until: The cursor at which the export ends. The next export starts there.
      account: Only this account. None: all accounts that the principal may see.
    """

    after: str | None
    until: str
    account: UUID | None = None


def begin(conn: Conn, *, after: str | None = None, account: UUID | None = None) -> Export:
    """Return an export from a cursor to the latest change."""
    return Export(after, changes.end(conn), account)


def batches(
    backend: Backend,
    principal: Principal,
    export: Export,
    *,
    authorize: Authorize = always,
    keep: Callable[[Row], str | None] | None = None,
) -> Iterator[list[Row]]:
    """Yield the records of an export in batches of bounded size, the oldest change first.

    Between two batches, it holds no connection.

    Args:
      backend: The backend.
      principal: Whose accounts are exported.
      export: The range and the account.
      authorize: Raises if the principal may not read any more. It is called for each page.
      keep: Stores the bytes of an item, and returns the value of `file`; see `Files.keep`. Default:
        no bytes are stored.

    Raises:
      InvalidInput: A cursor is invalid or outdated.
    """
    after = export.after
    while True:
        with backend.database.connection() as conn:
            authorize(conn)
            feed = changes.read(
                conn,
                principal,
                after=after,
                until=export.until,
                account=export.account,
                limit=PAGE_ROWS,
            )
            owners = _owners(conn, feed.changes)
        for portion in _portions(feed.changes):
            with backend.database.connection() as conn:
                texts = _texts(conn, portion)
            records = [
                record
                for change in portion
                if (record := _record(change, owners, texts, keep)) is not None
            ]
            if records:
                yield records
        after = feed.cursor
        if not feed.more:
            return


def _owners(conn: Conn, found: Sequence[changes.Change]) -> dict[UUID, str]:
    accounts = list({change.account for change in found})
    return {
        row["id"]: row["user_id"] for row in fetch(conn, USERS_OF_ACCOUNTS, {"accounts": accounts})
    }


def _portions(found: Sequence[changes.Change]) -> Iterator[list[changes.Change]]:
    """Divide a page into portions whose texts are at most `TEXT_BYTES`."""
    portion: list[changes.Change] = []
    used = 0
    for change in found:
        size = _inline_bytes(change)
        if portion and used + size > TEXT_BYTES:
            yield portion
            portion, used = [], 0
        portion.append(change)
        used += size
    if portion:
        yield portion


def _inline_bytes(change: changes.Change) -> int:
    row = change.content
    return 0 if row is None or row["blob_key"] is not None else row["size"] or 0


def _texts(conn: Conn, portion: Sequence[changes.Change]) -> dict[tuple[int, int], Row]:
    """Return the texts of rows, by the row's id and the transaction of its latest change."""
    ids = [
        change.content["id"]
        for change in portion
        if change.content is not None and change.kind != "deleted"
    ]
    if not ids:
        return {}
    return {(row["id"], row["changed_xid"]): row for row in fetch(conn, TEXTS, {"ids": ids})}


def _record(
    change: changes.Change,
    owners: Mapping[UUID, str],
    texts: Mapping[tuple[int, int], Row],
    keep: Callable[[Row], str | None] | None,
) -> Row | None:
    """Return the record of a change; None if the item has changed since."""
    row = change.content
    record: Row = {name: None if row is None else row.get(name) for name in FIELDS} | {
        "change": change.kind,
        "user_id": owners.get(change.account),
        "user_integration_id": str(change.account),
    }
    if row is None:
        return record
    record["content_id"] = row["id"]
    if change.kind == "deleted":
        return record
    text = texts.get((row["id"], row["changed_xid"]))
    if text is None:
        return None
    record["content"] = text["content_text"]
    if text["is_file"] and row["size"] and keep is not None:
        try:
            record["file"] = keep(row)
        except ItemChanged:
            return None
    return record


class ItemChanged(Exception):
    """The bytes of an item are not those of its row any more."""


class Files:
    """A folder for the bytes of exported items. Equal bytes are stored once.

    A file has the name of its SHA-256, so no name from outside becomes a path. It appears only
    when it is complete. A file that exists is not written again.

    Args:
      backend: The backend.
      folder: The folder. It is made if it does not exist.

    Attributes:
      missing: The number of items whose bytes could not be read.
    """

    def __init__(self, backend: Backend, folder: Path) -> None:
        self._backend = backend
        self._folder = folder
        self.missing = 0

    def keep(self, row: Row) -> str | None:
        """Store the bytes of an item.

        Returns:
          The path of the file within the folder. None: the bytes do not exist any more.

        Raises:
          ItemChanged: The stored bytes are newer than the row.
        """
        name = f"{row['hash'][:2]}/{row['hash']}"
        path = self._folder / name
        if path.is_file() and path.stat().st_size == row["size"]:
            return name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(path, content_reader.read(self._backend, row["id"]), row["hash"])
        except NotFound:
            self.missing += 1
            return None
        return name


def _write(path: Path, portions: Iterator[bytes], sha256: str) -> None:
    """Write a file that appears only when it is complete.

    Raises:
      ItemChanged: The bytes have another hash.
    """
    digest = hashlib.sha256()
    with NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
        part = Path(file.name)
        try:
            for portion in portions:
                digest.update(portion)
                file.write(portion)
            if digest.hexdigest() != sha256:
                raise ItemChanged
            file.close()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
