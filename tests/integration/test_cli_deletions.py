"""Held deletions as a new user meets them: an FTP server, and the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import cli as cli_support
from support.cli import Cli, Done, stop_servers, until
from support.deployment import YEARLY

COUNT = 30
"""The number of files in the folder that disappears."""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("cli"), forked=True, POLLING_CRON_SCHEDULE=YEARLY)
    try:
        with cli_support.up(cli):
            yield cli
    finally:
        stop_servers(cli.home)


@contextmanager
def account(cli: Cli, served: Path) -> Iterator[str]:
    """Connect an FTP server over this folder, and disconnect it at the end."""
    login = {"username": cli_support.USERNAME, "password": cli_support.PASSWORD}
    with cli_support.ftp_server(served) as port:
        words = ["--set", "host=127.0.0.1", "--set", f"port={port}", "--name", served.name]
        words += ["--set", "settle_seconds=0"]
        words += ["--credentials", "-", "--json"]
        id = str(cli.ok("connect", "ftp", *words, given=json.dumps(login)).json()["id"])
        yield id
        cli.ok("disconnect", id, "--delete-content", "--now", "--yes")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A folder with a large folder in it, and two files beside that one."""
    served = tmp_path / "mount"
    (served / "large").mkdir(parents=True)
    for number in range(COUNT):
        (served / "large" / f"{number:02}").write_text(f"file {number}")
    (served / "a").write_text("a")
    (served / "b").write_text("b")
    return served


def sync(cli: Cli, id: str) -> Done:
    return cli.ok("sync", id, "--wait")


def files(cli: Cli, id: str) -> set[str]:
    rows = cli.ok("content", "--account", id, "--json", "--limit", "100").rows()
    return {row["name"] for row in rows if row["kind"] == "file"}


def hold(cli: Cli, id: str) -> str:
    """Return the id of the only held deletion of an account."""
    (row,) = cli.ok("deletions", "--account", id, "--json").rows()
    return str(row["id"])


def test_a_held_deletion_is_listed_shown_refused_and_accepted(cli: Cli, served: Path) -> None:
    with account(cli, served) as id:
        sync(cli, id)
        shutil.rmtree(served / "large")
        assert (
            f"holds the deletion of {COUNT + 1} items until you accept or refuse it"
            in sync(cli, id).err
        )
        assert len(files(cli, id)) == COUNT + 2
        listed = cli.ok("deletions", "--account", id)
        number = hold(cli, id)
        assert listed.out.splitlines()[1].split()[:3] == [number, "mount", "held"]
        assert max(map(len, listed.out.splitlines())) <= 80
        shown = cli.ok("deletions", "show", number, "--limit", "10")
        assert "/large/00" in shown.out
        assert f"polling deletions accept {number}" in shown.err
        assert "Next page: polling deletions show" in shown.err
        items = {row["external_id"] for row in cli.ok("deletions", "show", number, "--json").rows()}
        assert {f"/large/{n:02}" for n in range(COUNT)} <= items
        assert not items & {"/a", "/b"}
        assert (
            f"Refused: {len(items)} items of mount stay"
            in cli.ok("deletions", "refuse", number).out
        )
        sync(cli, id)
        assert len(files(cli, id)) == COUNT + 2
        assert cli.ok("deletions", "--state", "refused", "--json").rows()[0]["id"] == int(number)
        accepted = cli.ok("deletions", "accept", number)
        assert f"Accepted: {len(items)} items of mount" in accepted.out
        assert "polling runs show" in accepted.out
        until(lambda: files(cli, id) == {"a", "b"})
        until(lambda: "No held deletions" in str(cli.ok("deletions", "--account", id)))


def test_an_empty_mount_after_the_acceptance_deletes_only_what_was_shown(
    cli: Cli, served: Path
) -> None:
    with account(cli, served) as id:
        sync(cli, id)
        shutil.rmtree(served / "large")
        sync(cli, id)
        number = hold(cli, id)
        (served / "a").unlink()
        (served / "b").unlink()
        cli.ok("deletions", "accept", number)
        until(lambda: files(cli, id) == {"a", "b"})
        sync(cli, id)
        assert files(cli, id) == {"a", "b"}
        until(lambda: hold(cli, id) != number)


def test_an_export_of_one_file_follows_its_source(cli: Cli, tmp_path: Path) -> None:
    served = tmp_path / "export"
    served.mkdir()
    with account(cli, served) as id:
        for day in range(3):
            (served / f"day-{day - 1}").unlink(missing_ok=True)
            (served / f"day-{day}").write_text(str(day))
            sync(cli, id)
            assert files(cli, id) == {f"day-{day}"}


def test_a_wrong_id_is_named(cli: Cli) -> None:
    assert "12345" in cli.fails("deletions", "accept", "12345")
    assert "error" in cli.fails("deletions", "show", "nonsense")
