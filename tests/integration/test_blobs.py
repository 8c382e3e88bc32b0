"""Large content: stored under its hash, collected when no row names it, resumed after a failure."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from uuid import uuid4

import pytest
from support.s3 import S3, Fault, s3_server

from core import TaskOutput
from core.content.blobs import Blobs, SpooledWriter, clean_spool, open_store
from core.errors import SettingsError, StoreUnavailable
from core.integration.results import MAX_INLINE_BYTES
from core.service.fleet.doctor import local
from core.settings import Settings


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
def blobs(request, database, tmp_path, monkeypatch) -> Blobs:
    """Return a store in a folder, and one in a bucket of an S3 server."""
    if request.param == "folder":
        return Blobs(database, str(tmp_path / "blobs"), tmp_path / "spool")
    s3 = request.getfixturevalue("s3")
    return Blobs(database, in_bucket(s3, monkeypatch), tmp_path / "spool")


def in_bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a bucket, and return its URL."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"b-{uuid4().hex}"
    assert s3.ask("PUT", f"/{bucket}", b"", {})[0] == 200
    return s3.url(bucket)


LARGE = b"0123456789abcdef" * (MAX_INLINE_BYTES // 8)


def test_a_blob_is_read_back_by_its_hash(blobs) -> None:
    key = blobs.put(b"content")
    assert key.endswith(hashlib.sha256(b"content").hexdigest())
    assert blobs.get(key) == b"content"
    assert b"".join(map(bytes, blobs.stream(key))) == b"content"


def test_concurrent_writers_of_one_content_share_one_blob(blobs, conn, together) -> None:
    keys = together(*(lambda: blobs.put(LARGE) for _ in range(8)))
    assert len(set(keys)) == 1
    assert blobs.get(keys[0]) == LARGE
    assert conn.execute("SELECT count(*) FROM blob").fetchone() == (1,)


def test_a_blob_whose_upload_was_lost_is_uploaded_again(blobs, conn) -> None:
    key = blobs.put(b"content")
    import obstore

    obstore.delete(blobs.store, key)
    assert blobs.put(b"content") == key
    assert blobs.get(key) == b"content"


def test_a_blob_that_no_row_names_is_collected_after_its_grace(desk, blobs, conn) -> None:
    desk.keep(desk.account(), TaskOutput("a", LARGE))
    kept = desk.content("blob_key")["a"]
    stray = blobs.put(b"stray")
    assert blobs.collect() == 0
    age(conn)
    assert blobs.collect() == 0
    age(conn)
    assert blobs.collect() == 1
    assert blobs.get(kept) == LARGE
    with pytest.raises(FileNotFoundError):
        blobs.get(stray)


def age(conn) -> None:
    """Let two days pass for all blobs."""
    conn.execute(
        """
        UPDATE blob SET touched_at = touched_at - interval '2 days',
            unreferenced_at = unreferenced_at - interval '2 days'
        """
    )


def test_a_blob_stays_a_day_after_its_row_has_another_one(desk, blobs, conn) -> None:
    """A database that is restored to the day before has its row again."""
    account = desk.account()
    desk.keep(account, TaskOutput("a", LARGE))
    key = desk.content("blob_key")["a"]
    age(conn)
    desk.keep(account, TaskOutput("a", LARGE + b"!"))
    assert blobs.collect() == blobs.collect() == 0
    assert blobs.get(key) == LARGE
    blobs.put(LARGE)
    age(conn)
    assert blobs.collect() == 0
    age(conn)
    assert blobs.collect() == 1


def test_named_blobs_are_scanned_once_however_many_are_not_named(blobs, conn, database) -> None:
    count, stray = 2_000, 20
    conn.execute(
        """
        INSERT INTO blob (key, size, touched_at) SELECT 'k' || n, 1, now() - interval '2 days'
        FROM generate_series(1, %s) n
        """,
        (count,),
    )
    conn.execute(
        "INSERT INTO user_integration_content (user_integration_id, integration_domain,"
        " external_id, kind, digest, content_seq, metadata_seq, blob_key) SELECT gen_random_uuid(),"
        " 'shop', 'x', 'item', '', 1, 1, key FROM blob"
    )
    for number in range(stray):
        blobs.put(f"{number}".encode())
    conn.execute("""
        UPDATE blob SET key = 'z' || key, touched_at = now() - interval '2 days',
            unreferenced_at = now() - interval '2 days'
        WHERE key NOT LIKE 'k%'
        """)
    with database.connection() as only:
        blobs._database = SimpleNamespace(connection=lambda: nullcontext(only))
        with only.transaction():
            before = probes(only)
            assert blobs.collect(seconds=0) == 0
            assert blobs.collect() == stray
            assert probes(only) - before < 4 * count


def probes(conn) -> int:
    """Return how often this transaction has scanned an index of content."""
    query = (
        "SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'user_integration_content'"
    )
    return conn.execute(query).fetchall()[0][0]


def test_collecting_given_keys_leaves_the_other_blobs(blobs, conn) -> None:
    first, second, third = (blobs.put(data) for data in (b"1", b"2", b"3"))
    conn.execute("UPDATE blob SET touched_at = now() - interval '2 days'")
    assert blobs.collect(keys=[third, first]) == 2
    assert conn.execute("SELECT key FROM blob").fetchall() == [(second,)]


def test_a_blob_that_is_put_again_is_not_collected(blobs, conn) -> None:
    key = blobs.put(b"content")
    age(conn)
    assert blobs.collect() == 0
    age(conn)
    blobs.put(b"content")
    assert blobs.collect() == 0
    assert blobs.get(key) == b"content"


def test_a_writer_during_the_collection_waits_and_uploads_again(
    blobs, connect, blocked_in, together, until, conn
) -> None:
    import threading

    import obstore

    from core.content.blobs import DELETE_BLOB_ROW, UNNAMED

    key = blobs.put(b"content")
    collector = connect()
    keys: list[str] = []
    writer = threading.Thread(target=lambda: keys.append(blobs.put(b"content")))
    with collector.transaction():
        assert collector.execute(
            UNNAMED, {"grace": -60, "before": "infinity", "key": key}
        ).fetchone() == (key,)
        obstore.delete(blobs.store, key)
        writer.start()
        until(
            lambda: (
                conn.execute(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                ).fetchone()
                == (1,)
            )
        )
        collector.execute(DELETE_BLOB_ROW, (key,))
    writer.join()
    assert keys == [key]
    assert blobs.get(key) == b"content"


def test_an_invalid_store_is_refused_with_the_reason() -> None:
    with pytest.raises(SettingsError, match="POLLING_BLOB_URL"):
        open_store("gopher://x")
    with pytest.raises(SettingsError) as caught:
        open_store("gopher://someone:correct-horse@x")
    assert "correct-horse" not in str(caught.value)


# The writer
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "large"])
def test_a_writer_hashes_and_stores_its_content(blobs, resumable: bool, data: bytes) -> None:
    with SpooledWriter(blobs, "f", resumable=resumable) as f:
        for start in range(0, len(data), 700_000):
            assert f.write(data[start : start + 700_000]) == len(data[start : start + 700_000])
        assert f.tell() == len(data)
    blob = f.blob
    assert (blob.size, blob.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (blob.data if blob.key is None else blobs.get(blob.key)) == data
    assert (blob.key is None) == (len(data) <= MAX_INLINE_BYTES)
    assert list(blobs.spool.iterdir()) == []


def test_a_folder_takes_the_file_of_the_spool_itself(database, tmp_path) -> None:
    """A copy would read and write a large file once more."""
    blobs = Blobs(database, str(tmp_path / "blobs"), tmp_path / "spool")
    for is_known in (False, True):
        with SpooledWriter(blobs, "f", resumable=True) as f:
            f.write(memoryview(LARGE))
            inode = (blobs.spool / "f").stat().st_ino
            kept = tmp_path / "blobs" / f.blob.key
            assert (kept.stat().st_ino == inode) != is_known
            with pytest.raises(ValueError, match="finished"):
                f.write(b"more")
        assert blobs.get(f.blob.key) == LARGE
        assert list(blobs.spool.iterdir()) == []


def test_a_folder_on_another_file_system_gets_a_copy(database, tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    blobs = Blobs(database, str(tmp_path / "blobs"), tmp_path / "spool")
    with SpooledWriter(blobs, "f", resumable=False) as f:
        f.write(LARGE)
    assert blobs.get(f.blob.key) == LARGE


def test_the_next_attempt_resumes_where_a_failed_one_stopped(blobs) -> None:
    with suppress(ConnectionError), SpooledWriter(blobs, "f", resumable=True) as f:
        f.write(LARGE[:100])
        raise ConnectionError
    with SpooledWriter(blobs, "f", resumable=True) as f:
        assert f.tell() == 100
        f.write(LARGE[100:])
    assert blobs.get(f.blob.key) == LARGE
    assert f.blob.sha256 == hashlib.sha256(LARGE).hexdigest()


def test_a_writer_that_is_not_resumable_leaves_no_file(blobs) -> None:
    with suppress(ConnectionError), SpooledWriter(blobs, "f", resumable=False) as f:
        f.write(b"half")
        raise ConnectionError
    assert list(blobs.spool.iterdir()) == []


def test_the_hash_of_the_written_bytes_contains_those_of_earlier_attempts(blobs) -> None:
    with suppress(ConnectionError), SpooledWriter(blobs, "f", resumable=True) as f:
        f.write(b"half")
        raise ConnectionError
    with SpooledWriter(blobs, "f", resumable=True) as f:
        assert (f.tell(), f.sha256) == (4, hashlib.sha256(b"half").hexdigest())
        f.write(b" and the rest")
        assert f.sha256 == hashlib.sha256(b"half and the rest").hexdigest()
        f.restart()
        assert (f.tell(), f.sha256) == (0, hashlib.sha256().hexdigest())


def test_a_finished_file_is_not_emptied(blobs) -> None:
    """The store may have taken the file, and other items may have the same content."""
    data = b"x" * (MAX_INLINE_BYTES + 1)
    with SpooledWriter(blobs, "f", resumable=True) as f:
        f.write(data)
        key = f.blob.key
        with pytest.raises(ValueError, match="finished"):
            f.restart()
    assert blobs.get(key) == data


@pytest.mark.parametrize("resumable", [False, True])
def test_a_restart_discards_the_written_bytes(blobs, resumable: bool) -> None:
    with SpooledWriter(blobs, "f", resumable=resumable) as f:
        f.write(b"of the old version")
        f.restart()
        f.write(b"new")
    assert (f.blob.data, f.blob.size, f.blob.sha256) == (
        b"new",
        3,
        hashlib.sha256(b"new").hexdigest(),
    )


def test_concurrent_writers_of_one_key_do_not_mix(blobs) -> None:
    with (
        SpooledWriter(blobs, "f", resumable=True) as first,
        SpooledWriter(blobs, "f", resumable=True) as second,
    ):
        first.write(b"a" * 10)
        assert second.tell() == 0
        second.write(b"b" * 20)
        first.write(b"a" * 10)
    assert (first.blob.data, second.blob.data) == (b"a" * 20, b"b" * 20)
    assert list(blobs.spool.iterdir()) == []


def test_old_files_of_the_spool_are_deleted(blobs) -> None:
    blobs.spool.mkdir(parents=True)
    (blobs.spool / "left").write_text("x")
    clean_spool(blobs.spool)
    assert list(blobs.spool.iterdir())
    clean_spool(blobs.spool, older_than=-1)
    assert list(blobs.spool.iterdir()) == []


# An S3 server that fails
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["refused", "slow down", "expired", "full", "lost reply"])
@pytest.mark.parametrize("size", [10, 12_000_000], ids=["one request", "multipart"])
def test_a_bucket_that_fails_is_unavailable_and_takes_the_blob_later(
    fault: Fault, size: int, s3: S3, database, tmp_path, monkeypatch
) -> None:
    blobs = Blobs(database, in_bucket(s3, monkeypatch), tmp_path / "spool")
    data = b"x" * size
    s3.fault = fault
    try:
        with pytest.raises(StoreUnavailable) as failure:
            blobs.put(data)
    finally:
        s3.fault = None
    assert "http" not in str(failure.value), "an address of the store"
    key = blobs.put(data)
    assert blobs.get(key) == data


@pytest.mark.parametrize("size", [10, 12_000_000], ids=["one request", "multipart"])
def test_one_lost_reply_to_a_put_is_asked_again(
    size: int, s3: S3, database, tmp_path, monkeypatch
) -> None:
    blobs = Blobs(database, in_bucket(s3, monkeypatch), tmp_path / "spool")
    s3.fault, s3.most = "lost reply", 1
    try:
        key = blobs.put(b"y" * size)
    finally:
        s3.fault = s3.most = None
    assert blobs.get(key) == b"y" * size


def test_a_bucket_that_cannot_be_read_has_not_lost_its_blobs(
    s3: S3, database, tmp_path, monkeypatch, conn
) -> None:
    """The collection keeps its list, and a missing bucket is not a missing blob."""
    blobs = Blobs(database, in_bucket(s3, monkeypatch), tmp_path / "spool")
    key = blobs.put(b"content")
    age(conn)
    assert blobs.collect() == 0
    age(conn)
    nowhere = Blobs(database, s3.url("nowhere"), tmp_path / "spool")
    s3.fault = "slow down"
    try:
        for action in (lambda: blobs.get(key), blobs.collect):
            with pytest.raises(StoreUnavailable, match="SlowDown"):
                action()
    finally:
        s3.fault = None
    for action in (lambda: nowhere.get(key), lambda: nowhere.put(b"z")):
        with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
            action()
    assert conn.execute("SELECT count(*) FROM blob WHERE key = %s", (key,)).fetchone() == (1,)
    assert blobs.collect() == 1


def test_doctor_names_a_bucket_that_does_not_exist(s3: S3, monkeypatch, tmp_path) -> None:
    in_bucket(s3, monkeypatch)
    check = local._blobs(Settings(_env_file=None, home=tmp_path, blob_url="s3://nowhere"))
    assert check.status == "fail"
    assert check.message == "could not write to s3://nowhere: NoSuchBucket"
