"""The search index, brought up to date beside the API's own indexer."""

from __future__ import annotations

from core.db.pool import Conn
from core.service.content import search_index


def index_all(conn: Conn) -> None:
    """Make all committed content searchable. Wait while another process updates the index."""
    while (batches := search_index.index_batch(conn)) != 0:
        if batches is None:
            conn.execute(search_index.WAIT_FOR_PROGRESS)
