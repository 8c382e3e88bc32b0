"""Copies are fast: they need few tasks and few round trips."""

from __future__ import annotations

from typing import Any

import pytest
from fault_proxy import proxied
from integration_polling_ftp import Config, Credentials, Ftp
from integration_polling_ftp.control import Control
from integration_polling_ftp.session import Session, Stat
from real_servers import serve

from core import TaskInfo
from core.testing import Harness


@pytest.fixture
def packets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Record the commands that are sent together."""
    sent: list[tuple[str, ...]] = []
    send = Control.send

    def recorded(control: Control, *commands: str) -> None:
        sent.append(tuple(command.partition(" ")[0] for command in commands))
        send(control, *commands)

    monkeypatch.setattr(Control, "send", recorded)
    return sent


def test_files_that_a_task_leaves_are_fetched_by_few_tasks(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task costs more than a small file."""
    monkeypatch.setattr("integration_polling_ftp.integration.FIRST_SECONDS", 0.0)
    for number in range(60):
        ftp_server.write(f"place/{number}", b"x")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    assert harness.sync().state == "succeeded"
    assert sum(item.kind == "file" for item in harness.content.values()) == 60
    fetches = [task for task in harness.tasks if task.type == "fetch"]
    assert len(fetches) <= 1, fetches


def test_a_suspect_leaves_most_of_its_work_to_follow_ups(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third death of its process parks a task, so a suspect leaves most to follow-ups."""
    monkeypatch.setattr("integration_polling_ftp.integration.SUSPECT_SECONDS", 0.0)
    for number in range(6):
        ftp_server.write(f"{number}/file", b"x")
    items = [(f"/{number}", ()) for number in range(6)]
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    kept = {}
    for is_suspect in (False, True):
        context = harness.context("walk")
        context.task = TaskInfo("1", "walk", 1, is_suspect)
        ftp = Ftp(Config(**ftp_server.config), Credentials(**ftp_server.credentials))
        result = ftp.walk(context, items)
        ftp.close()
        kept[is_suspect] = {each.id for each in result.output if each.kind == "file"}
        left = [item for task in result.tasks for item in task.payload["items"]]
        assert len(kept[is_suspect]) + len(left) == 6
    assert len(kept[False]) == 6
    assert len(kept[True]) <= 1


def test_commands_that_arrive_one_by_one_lose_nothing() -> None:
    """pure-ftpd replies 500 to a command that arrives during a transfer."""
    with serve("pure-ftpd") as server, proxied(server.port) as proxy:
        for number in range(40):
            (server.home / f"{number}").write_bytes(b"x" * number)
        harness = Harness(Ftp, {**server.config, "port": proxy.port}, server.credentials)
        result = harness.sync()
        assert (result.state, result.skipped_items.total()) == ("succeeded", 0)
        found = {item.name: len(item.content or b"") for item in harness.content.values()}
        assert found == {str(number): number for number in range(40)}
        assert harness.sync().outputs_unchanged == 40


SERVERS = ["vsftpd", "proftpd", pytest.param("pure-ftpd", marks=pytest.mark.long)]


@pytest.mark.parametrize("name", SERVERS)
def test_commands_before_a_transfer_travel_together(
    name: str, packets: list[tuple[str, ...]]
) -> None:
    with serve(name) as server:
        paths = []
        for number in range(70):
            (server.home / f"{number}").write_bytes(b"x" * number)
            paths.append(f"/{number}")
        config = Config(**{**server.config, "timeout_seconds": 20})
        session = Session(config, Credentials(**server.credentials))
        session.ping()
        packets.clear()
        assert len([each for each in session.entries("/") if not isinstance(each, str)]) >= 70
        assert packets[0] == ("CWD", "TYPE", "PASV")
        assert len(packets) == 2
        packets.clear()
        received: list[int] = []
        assert [
            error
            for _, error in session.retrieve_many(
                (path, lambda block: received.append(len(block))) for path in [*paths, "/absent"]
            )
        ][:-1] == [None] * 70
        assert sum(received) == sum(range(70))
        assert packets[0] == ("TYPE", "PASV")
        assert len(packets) == 72
        packets.clear()
        stats = session.stats([*paths, "/absent"])
        assert len(packets) <= 4
        assert stats.pop("/absent") == Stat()
        assert stats == {path: session.stat(path) for path in paths}
        assert session.is_directory("/")
        session.close()


@pytest.mark.parametrize("name", SERVERS)
def test_a_directory_that_is_refused_leaves_a_session_that_works(name: str) -> None:
    """The offered data connection of the refused listing is not used for the next transfer."""
    with serve(name) as server:
        (server.home / "file").write_bytes(b"content")
        session = Session(Config(**server.config), Credentials(**server.credentials))
        session.ping()
        for _ in range(2):
            with pytest.raises(Exception, match="550"):
                list(session.entries("/absent"))
            got = bytearray()
            session.retrieve("/file", got.extend)
            assert got == b"content"
            names = [entry.text for entry in session.entries("/") if not isinstance(entry, str)]
            assert "file" in names
        session.close()


@pytest.mark.parametrize("name", SERVERS)
def test_a_distant_server_is_copied_with_one_login_in_few_tasks(name: str) -> None:
    """A round trip takes 100 ms."""
    with serve(name) as server, proxied(server.port, latency=0.1) as proxy:
        wanted = {f"/file {number}": b"x" * number for number in range(8)}
        for path, content in wanted.items():
            (server.home / path[1:]).write_bytes(content)
        harness = Harness(Ftp, {**server.config, "port": proxy.port}, server.credentials)
        result = harness.sync()
        assert (result.state, result.skipped_items.total()) == ("succeeded", 0)
        assert {path: item.content for path, item in harness.content.items()} == wanted
        assert proxy.commands["USER"] == 1
        assert proxy.commands["RETR"] == len(wanted)
        assert len(harness.tasks) <= 3, harness.tasks
