"""Checksum files: files that differ from them are not kept, and the run says so."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from integration_polling_ftp import Ftp
from integration_polling_ftp.checksums import MISMATCH, Digest, Mismatch, expected
from integration_polling_ftp.download import _Head
from integration_polling_ftp.refusals import BUSY_PAUSE_SECONDS
from ssh_server import serve_ssh

from core.testing import Harness
from core.testing.blobs import MemoryStore, MemoryWriter

ALGORITHMS = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]


def kept(harness: Harness) -> dict[str, Any]:
    return {path: item.content for path, item in harness.content.items() if item.kind == "file"}


def proofs(harness: Harness) -> dict[str, str]:
    found = {path: item.metadata.get("checksum") for path, item in harness.content.items()}
    return {path: proof for path, proof in found.items() if proof}


def connect(server: Any, **config: Any) -> Harness:
    return Harness(Ftp, {**server.config, **config}, server.credentials)


def digest(algorithm: str, content: bytes) -> str:
    return hashlib.new(algorithm, content).hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("{0}SUMS", "{1}  a b.bin\n"),
        ("{0}sums.txt", "{1} *a b.bin\r\n"),
        ("CHECKSUMS", "# comment\n{0} (./a b.bin) = {1}\n"),
        ("release.{0}", "{1}  ./a b.bin"),
        ("a b.bin.{0}", "{1}\n"),
        ("a b.bin.{0}sum", "{1}  a b.bin\n"),
        ("A b.bin.{0}.txt", ""),
    ],
)
def test_each_form_of_a_checksum_file_proves_and_refuses(
    ftp_server: Any, algorithm: str, name: str, line: str
) -> None:
    content = b"x" * 5_000
    ftp_server.write("a b.bin", content)
    harness = connect(ftp_server)
    if not line:  # such a name has another meaning
        ftp_server.write(name.format(algorithm), b"")
        assert harness.sync().state == "succeeded"
        assert (proofs(harness), len(kept(harness))) == ({}, 2)
        return
    checksums = name.format(algorithm.upper() if "SUMS" in name else algorithm)
    ftp_server.write(
        checksums, line.format(algorithm.upper(), digest(algorithm, b"other")).encode()
    )
    result = harness.sync()
    assert (result.state, dict(result.skipped_items)) == ("succeeded", {MISMATCH: 1})
    assert set(kept(harness)) == {f"/{checksums}"}
    ftp_server.write("a b.bin", content + b"y")  # another version is tried immediately
    right = line.format(algorithm.upper(), digest(algorithm, content + b"y"))
    ftp_server.write(checksums, right.encode())
    assert dict(harness.sync().skipped_items) == {}
    assert kept(harness)["/a b.bin"] == content + b"y"
    assert proofs(harness) == {"/a b.bin": algorithm}


def test_sfv_files_are_read(ftp_server: Any) -> None:
    names = {"a b.bin": b"1" * 70, "c.bin": b"", "d.bin": b"3"}
    for name, content in names.items():
        ftp_server.write(name, content)
    lines = ["; made by hand", f"a b.bin {zlib.crc32(names['a b.bin']):08X}", "c.bin 00000000"]
    ftp_server.write("all.sfv", "\r\n".join([*lines, "d.bin 12345678"]).encode())
    harness = connect(ftp_server)
    assert dict(harness.sync().skipped_items) == {MISMATCH: 1}
    assert proofs(harness) == {"/a b.bin": "crc32", "/c.bin": "crc32"}
    assert "/d.bin" not in kept(harness)


def test_without_checksum_files_the_server_is_not_asked() -> None:
    """A request for an unused data connection would block some servers."""
    nowhere: Any = None
    assert expected(nowhere, "utf-8", "/", {"/a", "/b"}, ["/a"]) == {}
    assert expected(nowhere, "utf-8", "/", {"/a", "/a.md5", "/SHA256SUMS"}, []) == {}


def test_the_kept_version_stays_when_the_next_one_differs(ftp_server: Any) -> None:
    ftp_server.write("a", b"good")
    ftp_server.write("SHA256SUMS", f"{digest('sha256', b'good')}  a\n".encode())
    harness = connect(ftp_server)
    harness.sync()
    ftp_server.write("a", b"half of it")
    assert dict(harness.sync().skipped_items) == {MISMATCH: 1}
    assert kept(harness)["/a"] == b"good"
    harness.config = harness.config.model_copy(update={"checksum_files": False})
    ftp_server.write("a", b"half of it.")
    assert dict(connect(ftp_server, checksum_files=False).sync().skipped_items) == {}


def test_a_file_that_differs_is_tried_again_after_a_pause(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ftp_server.write("a", b"content")
    ftp_server.write("a.md5", b"0" * 32)
    harness = connect(ftp_server)
    for _ in range(2):
        assert dict(harness.sync().skipped_items) == {MISMATCH: 1}
    assert ftp_server.sent("RETR").count("RETR /a") == 1
    ftp_server.write("a.md5", digest("md5", b"content").encode())
    later = time.time() + BUSY_PAUSE_SECONDS + 60
    monkeypatch.setattr("integration_polling_ftp.refusals.time.time", lambda: later)
    assert dict(harness.sync().skipped_items) == {}
    assert kept(harness)["/a"] == b"content"


@pytest.mark.parametrize("size", [10, 600_000, 4_500_000])
@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_files_of_every_size_are_compared(
    ftp_server: Any, tmp_path: Path, size: int, algorithm: str
) -> None:
    good, bad = b"g" * size, b"b" * size
    ftp_server.write("good", good)
    ftp_server.write("bad", bad)
    lines = [f"{digest(algorithm, good)}  {name}\n" for name in ("good", "bad")]
    ftp_server.write(f"{algorithm}sums", "".join(lines).encode())
    harness = connect(ftp_server)
    assert dict(harness.sync().skipped_items) == {MISMATCH: 1}
    assert set(kept(harness)) == {"/good", f"/{algorithm}sums"}
    assert proofs(harness) == {"/good": algorithm}


@pytest.mark.parametrize("weak", ["MD5SUMS", "a.md5"])
def test_the_strongest_checksum_decides(ftp_server: Any, weak: str) -> None:
    ftp_server.write("a", b"content")
    ftp_server.write(weak, f"{'0' * 32}  a\n".encode())
    ftp_server.write("SHA256SUMS", f"{digest('sha256', b'content')}  a\n".encode())
    harness = connect(ftp_server)
    assert dict(harness.sync().skipped_items) == {}
    assert proofs(harness) == {"/a": "sha256"}


def test_bytes_that_differ_are_not_resumed(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = b"g" * 4_500_000, b"b" * 4_500_000
    file = ftp_server.write("a", bad)
    ftp_server.write("a.sha256", digest("sha256", good).encode())
    harness = connect(ftp_server)
    assert dict(harness.sync().skipped_items) == {MISMATCH: 1}
    modified = file.stat().st_mtime_ns
    file.write_bytes(good)
    os.utime(file, ns=(modified, modified))
    later = time.time() + BUSY_PAUSE_SECONDS + 60
    monkeypatch.setattr("integration_polling_ftp.refusals.time.time", lambda: later)
    assert dict(harness.sync().skipped_items) == {}
    assert kept(harness)["/a"] == good


@pytest.mark.parametrize(("algorithm", "proof"), [("sha256", "sha256"), ("md5", "")])
def test_bytes_of_an_earlier_attempt_count(algorithm: str, proof: str) -> None:
    """The engine hashes them with SHA-256 only."""
    for content, outcome in ((b"half and rest", nullcontext()), (b"x", pytest.raises(Mismatch))):
        wanted = f"{algorithm}:{digest(algorithm, content)}"
        with MemoryWriter(bytearray(b"half "), MemoryStore()) as blob:
            head = _Head(blob, wanted)
            head.write(memoryview(b"and rest"))
            with outcome if proof else nullcontext():
                assert head.proof(wanted, "checksum") == ({"checksum": proof} if proof else {})
                continue
            assert blob.tell() == 0  # the next attempt starts again


def test_a_second_look_reads_the_checksum_files_again(tmp_path: Path) -> None:
    """Programs write the checksum file after the file."""
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "a.md5").write_text("0" * 32)

    class Changing(asyncssh.SFTPServer):
        """Changes the checksum file before the second listing."""

        listings = 0

        async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
            Changing.listings += 1
            if Changing.listings == 2:
                (tmp_path / "a.md5").write_text(digest("md5", b"content"))
            async for name in super().scandir(path):
                yield name

    with serve_ssh(tmp_path, sftp=Changing) as server:
        harness = connect(server, root="/", settle_seconds=10)
        harness.sync()
        harness.close()
    assert proofs(harness) == {"/a": "md5"}


def test_a_selection_that_leaves_out_checksum_files_uses_them(ftp_server: Any) -> None:
    ftp_server.write("a.csv", b"content")
    ftp_server.write("a.csv.md5", b"0" * 32)
    harness = connect(ftp_server, include=["*.csv"])
    assert harness.sync().skipped_items[MISMATCH] == 1
    assert kept(harness) == {}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\0" * 1_000,
        b"-----BEGIN PGP SIGNED MESSAGE-----\n",
        b"0" * 31 + b"  a\n" + b"0" * 33 + b"  a\n",
        b"0" * 32 + b"  sub/a\n" + b"0" * 32 + b"  ../a\n" + b"0" * 32 + b"  /a\n",
        b"0" * 32 + b"  SHA256SUMS\n",
        b"(" * 50_000,
        b"MD5 (" * 20_000,
        b" " * 500_000,
    ],
)
def test_other_texts_have_no_checksums(ftp_server: Any, text: bytes) -> None:
    ftp_server.write("a", b"content")
    ftp_server.write("SHA256SUMS", text)
    harness = connect(ftp_server)
    assert dict(harness.sync().skipped_items) == {}
    assert (set(kept(harness)), proofs(harness)) == ({"/a", "/SHA256SUMS"}, {})


def test_a_long_line_costs_little(ftp_server: Any) -> None:
    """A pattern that tries each place of a line would take hours here."""
    ftp_server.write("a", b"content")
    for name in ("a.sfv", "a.md5", "MD5SUMS"):
        ftp_server.write(name, b"a" + b" " * 500_000 + b") = " * 100_000)
    harness = connect(ftp_server)
    assert dict(harness.sync().skipped_items) == {}
    assert proofs(harness) == {}


def test_names_with_escapes_and_other_charsets_are_found(tmp_path: Path) -> None:
    wanted = {b"new\nline": b"1", b"back\\slash": b"2", "ümlaut".encode(): b"3", b"\xff": b"4"}
    lines = []
    for name, content in wanted.items():
        (tmp_path / name.decode("utf-8", "surrogateescape")).write_bytes(content)
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        lines.append(b"\\" * (escaped != name) + digest("md5", content).encode() + b"  " + escaped)
    (tmp_path / "MD5SUMS").write_bytes(b"\n".join(lines))
    with serve_ssh(tmp_path) as server:
        harness = connect(server, root="/")
        assert dict(harness.sync().skipped_items) == {}
        harness.close()
    assert len(proofs(harness)) == len(wanted)


def test_follow_ups_and_second_looks_keep_the_checksums(
    facts_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("integration_polling_ftp.walking.MAX_BATCH_FILES", 3)
    monkeypatch.setattr("integration_polling_ftp.walking.BATCH_SECONDS", 0.0)
    monkeypatch.setattr("integration_polling_ftp.walking.Walk.is_over", lambda self: True)
    for number in range(8):
        facts_server.write(f"{number}", b"content")
        facts_server.write(f"{number}.md5", (f"{number % 2}" * 32).encode())
    right = digest("md5", b"content").encode()
    facts_server.write("3.md5", right)
    harness = connect(facts_server)
    assert dict(harness.sync().skipped_items) == {MISMATCH: 7}
    assert proofs(harness) == {"/3": "md5"}


def test_a_digest_has_the_algorithm_that_it_names() -> None:
    for algorithm in ALGORITHMS:
        computed = Digest(f"{algorithm}:{digest(algorithm, b'ab')}")
        computed.update(b"a")
        assert not computed.matches()
        computed.update(memoryview(b"b"))
        assert computed.matches()
