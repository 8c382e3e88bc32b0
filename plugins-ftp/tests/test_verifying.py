"""The verification: files that changed without a new size or time are found, slowly."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from integration_polling_ftp import Ftp, verifying
from integration_polling_ftp.checksums import MISMATCH
from integration_polling_ftp.directory import read as list_directory
from integration_polling_ftp.errors import Dropped, Missing
from integration_polling_ftp.verifying import PARTITION, Progress, Verification
from real_servers import RealServer, serve
from ssh_server import serve_ssh
from test_server_hashes import hashing, of_file

from core.testing import Harness

LARGE = 4_500_000
HOUR = timedelta(hours=1)


def kept(harness: Harness) -> dict[str, Any]:
    return {path: item.content for path, item in harness.content.items() if item.kind == "file"}


def connect(server: Any, **config: Any) -> Harness:
    config = {"verify_percent": 10, **server.config, **config}
    return Harness(Ftp, config, server.credentials)


def later(harness: Harness, pause: timedelta = HOUR) -> Any:
    """Sync on schedule, after a pause."""
    harness.now += pause
    return harness.sync("schedule")


def progress_of(harness: Harness) -> Progress:
    value = harness.state[PARTITION]
    return Progress.model_validate(value)


def rewrite(path: Path, content: bytes) -> None:
    """Replace the bytes of a file, and set its time back."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


TREE = {
    "a": b"aaaa", "empty": b"", "large": b"l" * LARGE, "z": b"zzzz",
    "d/one": b"1111", "d/e/two": b"2222", "d/e/large": b"m" * LARGE, "f/three": b"3333",
}  # fmt: skip


@pytest.fixture(params=["ftp", "sftp"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A server with MLSD, or SFTP. Neither computes hashes."""
    if request.param == "ftp":
        yield request.getfixturevalue("facts_server")
        return
    with serve_ssh(tmp_path) as running:
        yield running


def fill(server: Any) -> None:
    """Write files that are a month old, a minute apart."""
    for number, (path, content) in enumerate(TREE.items()):
        file = server.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        at = time.time() - 30 * 24 * 3600 + number * 60
        os.utime(file, (at, at))


@pytest.mark.parametrize("path", [path for path in TREE if path != "empty"])
def test_a_file_that_changed_in_secret_is_fetched_again(server: Any, path: str) -> None:
    fill(server)
    harness = connect(server, root="/")
    harness.sync("schedule")
    changed = TREE[path][:-1] + b"!"
    rewrite(server.home / path, changed)
    assert later(harness).outputs_saved == 1
    assert kept(harness) == {f"/{name}": content for name, content in TREE.items()} | {
        f"/{path}": changed
    }
    progress = progress_of(harness)
    assert (progress.last_files, progress.last_different) == (len(TREE), 1)
    assert (progress.percent, progress.unreadable, progress.began) == (100, 0, None)
    assert progress.last_ended is not None
    assert later(harness, timedelta(days=2)).outputs_saved == 0
    assert progress_of(harness).last_different == 0


def test_without_a_share_nothing_is_compared(facts_server: Any) -> None:
    """This is the default: some providers charge for each byte that is read."""
    facts_server.write("a", b"aaaa")
    harness = Harness(Ftp, facts_server.config, facts_server.credentials)
    harness.sync("schedule")
    rewrite(facts_server.home / "a", b"bbbb")
    assert later(harness).outputs_saved == 0
    assert PARTITION not in harness.state


@pytest.mark.parametrize("trigger", ["manual", "hint", "resync"])
def test_only_scheduled_runs_compare(facts_server: Any, trigger: str) -> None:
    facts_server.write("a", b"aaaa")
    harness = connect(facts_server)
    harness.sync(trigger)
    harness.now += HOUR
    harness.sync(trigger)
    assert PARTITION not in harness.state


def test_the_time_is_a_share_of_the_time_that_passed(facts_server: Any) -> None:
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    facts_server.commands.clear()
    assert progress_of(harness).seconds == 0
    later(harness, timedelta(seconds=0.1))
    assert not facts_server.sent("RETR"), "10 ms are too little to begin"
    later(harness)
    assert len(facts_server.sent("RETR")) == len(TREE)
    assert 300 < progress_of(harness).seconds <= 360


def test_a_long_pause_saves_up_a_bounded_time() -> None:
    progress = Progress()
    harness_now = datetime(2026, 1, 1, tzinfo=UTC)
    progress.earn(harness_now, 50)
    progress.earn(harness_now + timedelta(days=30), 50)
    assert progress.seconds == verifying.MAX_SAVED_SECONDS
    progress.earn(harness_now, 50)
    assert progress.seconds == verifying.MAX_SAVED_SECONDS, "the clock went back"


def test_a_pass_begins_once_a_day(facts_server: Any) -> None:
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    later(harness)
    facts_server.commands.clear()
    for _ in range(3):
        later(harness)
    assert not facts_server.sent("RETR")
    later(harness, timedelta(days=1))
    assert len(facts_server.sent("RETR")) == len(TREE)


def test_each_run_continues_where_the_one_before_stopped(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instance and its connection are new each time, as after a kill."""
    fill(server)
    harness = connect(server, root="/")
    harness.sync("schedule")
    files = len(TREE)
    seen = Progress()
    dice = random.Random(1)

    def is_over(self: Any) -> bool:
        return dice.random() < 0.35

    monkeypatch.setattr(verifying.Verification, "_is_over", is_over)
    original = verifying.Verification.run

    def run(self: Any) -> bool:
        original(self)
        return False  # one task in each run

    monkeypatch.setattr(verifying.Verification, "run", run)
    rewrite(server.home / "d/e/large", b"m" * (LARGE - 1) + b"!")
    saved = runs = 0
    while not (progress := progress_of(harness)).last_ended:
        assert progress.files >= seen.files
        assert progress.percent >= seen.percent
        seen = progress
        saved += later(harness, timedelta(minutes=1)).outputs_saved
        runs += 1
        assert runs < 300
    assert runs > 5
    assert (progress.last_files, progress.last_different, saved) == (files, 1, 1)
    assert kept(harness)["/d/e/large"][-1:] == b"!"


def test_a_position_that_is_gone_is_passed_over(
    facts_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    for directory, after, compared in (
        ("/d/e", "", {"/d/e/large", "/d/e/two", "/f/three"}),
        ("/d/e", "large", {"/d/e/two", "/f/three"}),
        ("/d/gone", "x", {"/f/three"}),
        ("/d/e/two", "x", {"/f/three"}),
        ("/c/gone", "", {"/d/one", "/d/e/large", "/d/e/two", "/f/three"}),
        ("/elsewhere", "", {"/f/three"}),
        ("/", "large", {"/z", "/d/one", "/d/e/large", "/d/e/two", "/f/three"}),
        ("zzz", "", {f"/{path}" for path in TREE}),
    ):
        now = harness.now
        state = Progress(at=now, began=now, directory=directory, after=after)
        harness.state[PARTITION] = state.model_dump(mode="json")
        facts_server.commands.clear()
        later(harness)
        assert {line[5:] for line in facts_server.sent("RETR")} == compared, directory


def test_changed_and_refused_files_are_left_to_the_listing(facts_server: Any) -> None:
    """A file with a new size or time is fetched once."""
    fill(facts_server)
    harness = connect(facts_server, settle_seconds=0)
    harness.sync("schedule")
    facts_server.write("a", b"longer")
    (facts_server.home / "f/three").unlink()
    facts_server.commands.clear()
    later(harness)
    assert facts_server.sent("RETR").count("RETR /a") <= 2
    assert kept(harness)["/a"] == b"longer"
    assert "/f/three" not in kept(harness)
    assert progress_of(harness).last_different == 0


def test_a_difference_is_compared_with_its_checksum_file(facts_server: Any) -> None:
    facts_server.write("a", b"good")
    digest = hashlib.sha256(b"good").hexdigest()
    facts_server.write("SHA256SUMS", f"{digest}  a\n".encode())
    harness = connect(facts_server)
    harness.sync("schedule")
    rewrite(facts_server.home / "a", b"evil")
    result = later(harness)
    assert dict(result.skipped_items) == {MISMATCH: 1}
    assert kept(harness)["/a"] == b"good"


def test_the_hash_of_the_server_replaces_the_read(facts_server: Any) -> None:
    hashing(facts_server, ("XSHA256",), of_file("sha256"))
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    rewrite(facts_server.home / "d/e/large", b"M" * LARGE)
    rewrite(facts_server.home / "z", b"ZZZZ")
    facts_server.commands.clear()
    assert later(harness).outputs_saved == 2
    assert sorted(facts_server.sent("RETR")) == ["RETR /d/e/large", "RETR /z"]
    assert kept(harness)["/d/e/large"] == b"M" * LARGE
    assert progress_of(harness).last_files == len(TREE)


def test_wrong_hashes_keep_the_copy(facts_server: Any) -> None:
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    hashing(facts_server, ("XSHA256",), of_file("sha256", other=b"other"))
    result = later(harness)
    assert (result.state, result.outputs_saved) == ("succeeded", 0)
    assert kept(harness) == {f"/{name}": content for name, content in TREE.items()}


@pytest.mark.parametrize("reply", ["502 no", "550 no", "250 nothing"])
def test_without_a_hash_the_file_is_read(facts_server: Any, reply: str) -> None:
    hashing(facts_server, ("XSHA256",), of_file("sha256", reply))
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    rewrite(facts_server.home / "z", b"ZZZZ")
    rewrite(facts_server.home / "large", b"L" * LARGE)
    assert later(harness).outputs_saved == 2
    assert progress_of(harness).last_files == len(TREE)


@pytest.mark.parametrize("path", ["d/one", "d/e/large"])
def test_a_lost_connection_stops_no_run_and_no_pass(facts_server: Any, path: str) -> None:
    """The same place loses the connection each time."""
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    retrieve = facts_server.handler.ftp_RETR

    def cut(self: Any, file: str) -> Any:
        return self.close() if file.endswith(f"/{path}") else retrieve(self, file)

    facts_server.handler.ftp_RETR = cut
    results = []
    for stops in (1, 2):
        results.append(later(harness))
        progress = progress_of(harness)
        assert (progress.stopped_at, progress.stops) == (f"/{path}", stops)
        assert progress.last_ended is None
    results.append(later(harness))
    assert [each.state for each in results] == ["succeeded"] * 3, results[0].failures
    progress = progress_of(harness)
    assert (progress.unreadable, progress.last_files) == (1, len(TREE) - 1)


def test_an_outage_leaves_nothing_out(facts_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost at another listing each time."""
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    original = list_directory
    left = [0]

    def read(session: Any, path: str, after: str) -> Any:
        if not left[0]:
            raise Dropped("an outage")
        left[0] -= 1
        return original(session, path, after)

    monkeypatch.setattr(verifying, "read", read)
    for listings in (0, 0, 0, 1, 3, 4):
        left[0] = listings
        assert later(harness).state == "succeeded"
        assert progress_of(harness).last_ended is None
        assert progress_of(harness).stops == 1
    left[0] = 100
    later(harness)
    progress = progress_of(harness)
    assert (progress.last_files, progress.unreadable) == (len(TREE), 0)


def test_a_directory_that_loses_the_connection_is_left_out(
    facts_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    original = Verification._read

    def read(self: Verification, path: str, after: str) -> Any:
        if path == "/d/e":
            raise Dropped("lost")
        return original(self, path, after)

    monkeypatch.setattr(Verification, "_read", read)
    for _ in range(3):
        assert later(harness).state == "succeeded"
    progress = progress_of(harness)
    assert (progress.last_files, progress.unreadable) == (len(TREE) - 2, 1)


def test_a_refused_directory_is_passed_over(
    facts_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    original = list_directory

    def read(session: Any, path: str, after: str) -> Any:
        if path == "/d":
            raise Missing("550 refused")
        return original(session, path, after)

    monkeypatch.setattr(verifying, "read", read)
    assert later(harness).state == "succeeded"
    assert progress_of(harness).last_files == len(TREE) - 3


def test_a_long_read_of_a_small_file_ends(
    facts_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(facts_server)
    harness = connect(facts_server)
    harness.sync("schedule")
    monkeypatch.setattr(verifying, "LATE_SECONDS", -1_000.0)
    assert later(harness).state == "succeeded"
    progress = progress_of(harness)
    # Empty and large files are not concerned.
    assert (progress.unreadable, progress.last_files) == (5, 3)


def test_many_files_of_one_directory(facts_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory is read in portions."""
    monkeypatch.setattr("integration_polling_ftp.directory.PORTION", 7)
    for number in range(40):
        facts_server.write(f"{number:02}", b"content")
        facts_server.write(f"{number:02}d/inner", b"content")
    harness = connect(facts_server)
    harness.sync("schedule")
    rewrite(facts_server.home / "33", b"CONTENT")
    rewrite(facts_server.home / "31d/inner", b"CONTENT")
    assert later(harness).outputs_saved == 2
    assert progress_of(harness).last_files == 80


@pytest.fixture(params=["vsftpd", "proftpd", "pure-ftpd", "openssh", "proftpd-sftp"])
def real(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with serve(request.param) as running:
        yield running


def test_real_servers_are_verified(real: RealServer) -> None:
    fill(real)
    harness = connect(real)
    harness.sync("schedule")
    for path in ("z", "d/e/large", "f/three"):
        rewrite(real.home / path, TREE[path][:-1] + b"!")
    result = later(harness)
    assert (result.state, result.outputs_saved) == ("succeeded", 3), result.failures
    progress = progress_of(harness)
    assert (progress.last_files, progress.last_different) == (len(TREE), 3)
    assert kept(harness)[f"{real.prefix}/d/e/large"][-1:] == b"!"
