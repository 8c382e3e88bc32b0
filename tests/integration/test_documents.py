"""The queue `polling-extract`: workers read the texts of files."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.indexing import index_all, read_texts
from support.waiting import until

from core import TaskOutput
from core.content import document_texts
from core.content.document_texts import MAX_ATTEMPTS
from core.errors import StoreUnavailable
from core.ledger import processes
from core.search import extraction
from core.search.extraction import ReaderFailed, ReaderStopped
from core.service.fleet.doctor import fleet
from core.transport.messages import EXTRACT_QUEUE
from core.worker.documents import DocumentReader

STATE = "SELECT text, reason, attempts, extracted_at IS NOT NULL AS is_read FROM extracted_text"
HASH = "SELECT hash FROM extracted_text"
EXPIRE = "UPDATE extracted_text SET claimed_until = clock_timestamp() - interval '1 second'"
PLACE = "/v1/user-integration-content"


@pytest.fixture
def file(desk) -> int:
    """Keep a file that a child process reads, and return its id."""
    output = TaskOutput("/a.pdf", b"%PDF-1.7 cut", kind="file", parent="/", name="a.pdf")
    desk.keep(desk.account("a", user_id="u"), output)
    index_all(desk.conn)
    id: int = desk.content("id")["/a.pdf"]
    return id


def state(desk) -> tuple[Any, ...]:
    return tuple(desk.conn.execute(STATE).fetchone())


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def in_child(*_: object) -> str:
        raise error

    monkeypatch.setattr(extraction, "in_child", in_child)


def test_a_reader_that_fails_is_tried_once_more(backend, desk, file, monkeypatch) -> None:
    fails(monkeypatch, ReaderFailed("it takes too much"))
    assert read_texts(backend) == ["u"]
    assert state(desk) == (None, None, 1, False)
    desk.conn.execute(EXPIRE)
    assert read_texts(backend) == ["u"]
    assert state(desk) == (None, "it takes too much", 2, True)


def test_a_damaged_file_is_not_tried_again(backend, desk, file) -> None:
    read_texts(backend)
    assert state(desk)[1:] == ("it is damaged (PdfStreamError)", 1, True)


def test_a_file_that_kills_its_processes_is_given_up(backend, desk, file) -> None:
    for _ in range(MAX_ATTEMPTS):
        assert document_texts.claim(desk.conn) is not None  # the process is killed
        assert document_texts.claim(desk.conn) is None
        desk.conn.execute(EXPIRE)
    assert read_texts(backend) == ["u"]
    assert state(desk)[1:] == ("the processes that read it ended", MAX_ATTEMPTS + 1, True)


@pytest.mark.parametrize(
    "error", [StoreUnavailable("blob-store-unavailable", detail="x"), ReaderStopped()]
)
def test_what_is_not_the_fault_of_a_file_counts_no_attempt(
    backend, desk, file, monkeypatch, error: Exception
) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        fails(monkeypatch, error)
        reader = DocumentReader(backend.database, backend.blobs)
        if isinstance(error, StoreUnavailable):
            with pytest.raises(StoreUnavailable):
                reader.read_next()
        else:
            assert reader.read_next() == "u"
        assert state(desk) == (None, None, 0, False)
        desk.conn.execute(EXPIRE)


def test_a_changed_file_has_new_attempts(backend, desk, file, monkeypatch) -> None:
    fails(monkeypatch, ReaderFailed("it takes too much"))
    read_texts(backend)
    desk.keep(
        desk.value("SELECT id FROM user_integration"),
        TaskOutput("/a.pdf", b"{\\rtf1 words}", kind="file", parent="/", name="a.pdf"),
    )
    index_all(desk.conn)
    monkeypatch.undo()
    read_texts(backend)
    assert state(desk) == ("words", None, 1, True)


def test_the_reason_is_shown(api, desk, file) -> None:
    read_texts(api.backend)
    item = api.user("u").get(f"{PLACE}/{file}").json()
    assert item["text_problem"] == "it is damaged (PdfStreamError)"
    (listed,) = api.user("u").get(PLACE).json()["items"]
    assert "text_problem" not in listed


def test_only_processes_with_the_queue_read(backend, desk, file) -> None:
    for serves in (["ftp", "save_output"], [EXTRACT_QUEUE]):
        reader = DocumentReader(backend.database, backend.blobs)
        reader.open(serves, lambda: True)
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("documents") == serves.count(EXTRACT_QUEUE)
        if EXTRACT_QUEUE in serves:
            until(lambda: state(desk)[-1], "the file is read")
        reader.close()


def test_doctor_reports_files_that_no_worker_reads(desk, healthy, file) -> None:
    serving = processes.serving(desk.conn)
    (check,) = fleet._texts(desk.conn, serving)
    assert (check.status, "1 file waits" in check.message) == ("warn", True)
    assert list(fleet._texts(desk.conn, serving | {EXTRACT_QUEUE: (1, 1)})) == []
    document_texts.finish(desk.conn, {"content_id": file, "hash": desk.value(HASH)}, "x", None)
    assert list(fleet._texts(desk.conn, serving)) == []


def test_a_process_that_takes_no_tasks_reads_none(backend, desk, file) -> None:
    asked = threading.Event()

    def may_read() -> bool:
        asked.set()
        return False

    reader = DocumentReader(backend.database, backend.blobs)
    reader.open([EXTRACT_QUEUE], may_read)
    assert asked.wait(10)
    reader.close()
    assert state(desk) == (None, None, 0, False)


def test_nothing_of_a_document_stays_in_the_file_system(
    backend, desk, file, monkeypatch, tmp_path
) -> None:
    """A killed process deletes nothing."""
    seen = []

    def in_child(document: Any, *_: object) -> str:
        seen.append((document.tell(), list(tmp_path.iterdir())))
        return "words"

    monkeypatch.setattr(extraction, "in_child", in_child)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read_texts(backend)
    assert seen == [(len(b"%PDF-1.7 cut"), [])]
