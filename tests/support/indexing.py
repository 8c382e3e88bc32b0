"""The search index, brought up to date beside the API's own indexer."""

from __future__ import annotations

from core.content.search_documents import WAIT_FOR_PROGRESS
from core.db.pool import Conn
from core.service.backend import Backend
from core.service.content import search_index
from core.worker.documents import DocumentReader


def index_all(conn: Conn) -> None:
    """Make all committed content searchable. Wait while another process updates the index."""
    while (batches := search_index.index_batch(conn)) != 0:
        if batches is None:
            conn.execute(WAIT_FOR_PROGRESS)


def read_texts(backend: Backend) -> list[str]:
    """Read the texts of all files that wait, and return their users in the order of the turns."""
    reader, users = DocumentReader(backend.database, backend.blobs), [""]
    while (user := reader.read_next(users[-1])) is not None:
        users.append(user)
    return users[1:]
