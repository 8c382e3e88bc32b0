"""Content types by name and content."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from typing import Any

import pytest
from integration_polling_ftp import Ftp
from integration_polling_ftp.content_types import content_type

from core.testing import Harness

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500)
GZIP = gzip.compress(b"a", mtime=0)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(zipfile.ZipInfo("notes"), "x" * 100)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "head", "wanted"),
    [
        ("a.pdf", PDF, "application/pdf"), ("A.PDF", PDF, "application/pdf"),
        ("photo.jpg", PNG, "image/png"), ("report.txt", PDF, "application/pdf"),
        ("no suffix", PNG, "image/png"), ("notes.docx", archive(),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("notes", archive(), "application/zip"), ("notes.zip", archive(), "application/zip"),
        ("old.xls", OLE, "application/vnd.ms-excel"), ("old.doc", OLE, "application/msword"),
        ("a.tar.gz", GZIP, "application/gzip"),
        ("a.tgz", GZIP, "application/gzip"),
        ("clip", b"\0\0\0\x18ftypmp42" + bytes(20), "video/mp4"),
        ("a.csv", b"a;b\n1;2\n", "text/csv"), ("page.HTML", b"<p>", "text/html"),
        ("notes.md", "ä".encode(), "text/markdown"), (".env", b"A=1\n", "text/plain"),
        ("README", b"read me", "text/plain"), ("a.log", b"\x1b[1mbold", "text/plain"),
        ("letter.txt", "Grüße".encode("latin-1"), "text/plain"),
        ("letter", "Gr\u00fc\u00dfe".encode("utf-16"), "text/plain"),
        ("cut", b"tail: " + "ä".encode()[:1], "text/plain"),
        ("data", b"\0\1\2\3", "application/octet-stream"),
        ("data.csv", b"\0\1\2\3", "text/csv"),
        ("empty.txt", b"", "text/plain"), ("empty", b"", None),
        ("unknown.jpg", None, "image/jpeg"), ("unknown", None, None),
        ("x.unheard-of", b"text", "text/plain"), (".", b"", None), ("", b"", None),
        ("a.b/c.txt?q", b"", None), ("http://x/y.txt", b"text", "text/plain"),
        ("data:text/html,x", b"\0", "application/octet-stream"),
    ],
)  # fmt: skip
def test_the_name_and_the_content_decide(name: str, head: bytes | None, wanted: str | None) -> None:
    assert content_type(name, head) == wanted


def test_files_of_any_size_have_a_type(ftp_server: Any) -> None:
    for size in (10, 700_000, 5_000_000):
        ftp_server.write(f"{size}", PNG + os.urandom(size))
        ftp_server.write(f"{size}.pdf", PDF + bytes(size))
    ftp_server.write("d/empty", b"")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    found = {path: item.content_type for path, item in harness.content.items()}
    for size in (10, 700_000, 5_000_000):
        assert found.pop(f"/{size}") == "image/png"
        assert found.pop(f"/{size}.pdf") == "application/pdf"
    assert found == {"/d": None, "/d/empty": None}


def test_a_log_keeps_its_type_when_its_rest_is_fetched(ftp_server: Any) -> None:
    """The first bytes are not fetched again, so the name decides."""
    path = ftp_server.write("a.log", b"line\n" * 1_000_000)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    with path.open("ab") as file:
        file.write(b"more")
    harness.sync()
    assert harness.content["/a.log"].content_type == "text/plain"


def test_text_files_are_kept_as_text(ftp_server: Any) -> None:
    files = {
        "a.txt": "Größe\r\n\ufeff".encode(), "b": b"no suffix", "c.json": b"{}", "d.csv": b"a;b",
        "latin.txt": "Größe".encode("latin-1"), "wide.txt": "Größe".encode("utf-16"),
        "page.html": b"<p>x", "empty.txt": b"", "nul.txt": b"x" * 5_000 + b"\0", "x.pdf": PDF,
    }  # fmt: skip
    for name, data in files.items():
        ftp_server.write(name, data)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    kept = {item.name: item for item in harness.content.values()}
    assert {name: kept[name].content or b"" for name in files} == files
    assert [name for name in files if kept[name].is_text] == ["a.txt", "b", "c.json", "d.csv"]
