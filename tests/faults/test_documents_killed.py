"""A worker is killed while it reads a document: another one reads it, and nothing of it stays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

from support.deployment import Deployment
from support.fleet import Fleet
from support.hostile_texts import fill

from core.content import search_documents

FILE = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    name, content_bytes, size, hash, digest, content_seq, metadata_seq)
VALUES (%s, 'locked', '/slow.docx', 'file', 'slow.docx', %s, %s, 'hash', 'd', 1, 1) RETURNING id
"""
ATTEMPTS = "SELECT attempts FROM extracted_text"
TEXT = "SELECT text FROM extracted_text"
EXPIRE = "UPDATE extracted_text SET claimed_until = clock_timestamp() - interval '1 second'"
FOUND = "SELECT count(*) FROM content_search WHERE document @@ 'tortoise'::tsquery"


def slow_document() -> bytes:
    """Return a document whose reading takes some seconds."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", "<d><t>tortoise</t>" + "<a/>" * 5_000_000 + "</d>")
    return data.getvalue()


def test_a_document_survives_its_reader(
    make_fleet: Callable[..., Fleet], deployment: Deployment, tmp_path: Path
) -> None:
    document, temporary = slow_document(), tmp_path / "temporary"
    temporary.mkdir()
    with deployment.connection() as conn:
        account = fill(conn, "plain", "words", user="u").account
        (id,) = conn.execute(FILE, (account, document, len(document))).fetchone() or ()
        conn.execute(search_documents.REQUEST_TEXTS, {"ids": [id]})
    fleet = make_fleet(TMPDIR=str(temporary))
    first = fleet.workers("polling-extract", processes=1)
    fleet.until(lambda: deployment.value(ATTEMPTS) == 1, "a worker reads")
    first.kill()
    assert list(temporary.iterdir()) == []
    assert deployment.value(TEXT) is None
    fleet.workers("polling-extract", processes=1)
    deployment.rows(EXPIRE)
    fleet.until(lambda: deployment.value(TEXT) is not None, "another worker reads")
    assert deployment.value(TEXT).strip() == "tortoise"
    assert (deployment.value(ATTEMPTS), deployment.value(FOUND)) == (2, 1)
