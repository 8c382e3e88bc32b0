"""The thread that writes the blocks of a large file over SFTP."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

import pytest
from integration_polling_ftp import Config, Credentials
from integration_polling_ftp.sftp import SftpSession
from integration_polling_ftp.writer_thread import MAX_WAITING, WriterThread
from ssh_server import serve_ssh
from support.waiting import until

interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc
BLOCKS = [memoryview(bytes([number]) * 1000) for number in range(50)]


def write_all(writer: WriterThread, blocks: Sequence[memoryview] = BLOCKS) -> None:
    for block in blocks:
        writer.write(block)


def test_every_block_arrives_in_its_order_although_its_caller_fails() -> None:
    received: list[memoryview] = []

    def transfer() -> None:
        with WriterThread(received.append) as writer:
            write_all(writer)
            raise TimeoutError("lost")

    with pytest.raises(TimeoutError, match="lost"):
        transfer()
    assert received == BLOCKS


def test_a_receiver_that_fails_gets_no_further_block() -> None:
    """A gap in the middle of a file would not be seen."""
    received: list[memoryview] = []

    def fail_once(block: memoryview) -> None:
        received.append(block)
        if len(received) == 3:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), WriterThread(fail_once) as writer:
        write_all(writer)
    assert received == BLOCKS[:3]
    with pytest.raises(OSError, match="full"):
        writer.write(BLOCKS[0])


def test_an_error_for_the_last_block_is_raised() -> None:
    def fail(block: memoryview) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), WriterThread(fail) as writer:
        writer.write(BLOCKS[0])


def test_a_slow_receiver_stops_its_caller() -> None:
    """Memory is bounded."""
    passed, received, leads = list[memoryview](), list[memoryview](), list[int]()

    def receive(block: memoryview) -> None:
        if not received:
            until(lambda: len(passed) > MAX_WAITING, "the blocks wait")
        leads.append(len(passed) - len(received))
        received.append(block)

    with WriterThread(receive) as writer:
        for block in BLOCKS:
            writer.write(block)
            passed.append(block)
    assert received == BLOCKS
    assert MAX_WAITING < max(leads) <= MAX_WAITING + 2


def test_a_time_limit_leaves_no_thread_behind() -> None:
    """The engine raises it in the thread of the task, wherever this waits."""

    class TimeLimitError(BaseException):
        pass

    received, blocks = list[memoryview](), BLOCKS[: MAX_WAITING + 1]
    task = threading.get_ident()

    def receive(block: memoryview) -> None:
        if not received:
            until(writer._blocks.full, "the end waits for room")
            interrupt(ctypes.c_long(task), ctypes.py_object(TimeLimitError))
        received.append(block)

    with pytest.raises(TimeLimitError), WriterThread(receive) as writer:
        write_all(writer, blocks)
    assert received == blocks
    assert "sftp-writer" not in {thread.name for thread in threading.enumerate()}


def test_the_thread_has_the_context_of_its_task(tmp_path: Path) -> None:
    """The engine judges connections by their context, and a thread without one has fewer rights."""
    account: ContextVar[str] = ContextVar("account")
    account.set("of the task")
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    seen: set[tuple[str, bool]] = set()
    size = 0

    def receive(block: memoryview) -> None:
        nonlocal size
        seen.add((account.get(), threading.current_thread() is threading.main_thread()))
        size += len(block)

    with serve_ssh(tmp_path) as server:
        session = SftpSession(Config(**server.config), Credentials(**server.credentials))
        session.retrieve("/file", receive)
        assert "sftp-writer" not in {thread.name for thread in threading.enumerate()}
        session.close()
    assert seen == {("of the task", False)}
    assert size == 3_000_000
