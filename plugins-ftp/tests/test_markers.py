"""Files that wait for a marker, and names of unfinished files."""

from __future__ import annotations

from typing import Any

import pytest
from integration_polling_ftp import Config, Ftp
from pydantic import ValidationError

from core.testing import Harness


def kept(harness: Harness) -> dict[str, Any]:
    return {path: item.content for path, item in harness.content.items() if item.kind == "file"}


def connect(server: Any, **config: Any) -> Harness:
    return Harness(Ftp, {**server.config, **config}, server.credentials)


def test_a_file_waits_for_its_marker(ftp_server: Any) -> None:
    for name in ("a.csv", "a.csv.done", "b.csv", "sub/c.csv"):
        ftp_server.write(name, name.encode())
    harness = connect(ftp_server, ready_marker="*.done", include=["*.csv"])
    assert harness.sync().skipped_items["without ready_marker"] == 2
    assert kept(harness) == {"/a.csv": b"a.csv"}
    ftp_server.write("b.csv.done", b"")
    ftp_server.write("sub/c.csv.done", b"")
    assert "without ready_marker" not in harness.sync().skipped_items
    assert set(kept(harness)) == {"/a.csv", "/b.csv", "/sub/c.csv"}


def test_without_its_marker_a_kept_file_stays_as_it_is(ftp_server: Any) -> None:
    ftp_server.write("a", b"1")
    done = ftp_server.write("a.done", b"")
    ftp_server.write("b.done", b"")
    harness = connect(ftp_server, ready_marker="*.done")
    harness.sync()
    assert set(kept(harness)) == {"/a", "/a.done", "/b.done"}
    done.unlink()
    ftp_server.write("a", b"22")
    assert dict(harness.sync().skipped_items) == {"without ready_marker": 1}
    assert kept(harness)["/a"] == b"1"


def test_one_marker_stands_for_a_directory(ftp_server: Any) -> None:
    for name in ("done/a", "done/b", "done/_SUCCESS", "open/c"):
        ftp_server.write(name)
    harness = connect(ftp_server, ready_marker="_SUCCESS")
    assert dict(harness.sync().skipped_items) == {"without ready_marker": 1}
    assert set(kept(harness)) == {"/done/a", "/done/b", "/done/_SUCCESS"}


@pytest.mark.parametrize("marker", ["*.done", "zzz"])
def test_a_marker_may_stand_in_another_portion(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    monkeypatch.setattr("integration_polling_ftp.directory.PORTION", 3)
    for number in range(10):
        ftp_server.write(f"{number}")
        if number != 5:
            ftp_server.write(f"{number}.done")
    ftp_server.write("zzz")
    harness = connect(ftp_server, ready_marker=marker, include=["/[0-9]"])
    harness.sync()
    wanted = {f"/{number}" for number in range(10) if marker == "zzz" or number != 5}
    assert set(kept(harness)) == wanted


def test_names_of_unfinished_files_are_left_out(ftp_server: Any) -> None:
    for name in ("a.csv", "b.csv.part", "c.tmp", "d.tmp/e"):
        ftp_server.write(name)
    harness = connect(ftp_server)
    assert dict(harness.sync().skipped_items) == {"left out by unfinished_suffixes": 2}
    assert set(kept(harness)) == {"/a.csv", "/d.tmp/e"}
    (ftp_server.home / "b.csv.part").rename(ftp_server.home / "b.csv")
    harness.sync()
    assert set(kept(harness)) == {"/a.csv", "/b.csv", "/d.tmp/e"}
    everything = connect(ftp_server, unfinished_suffixes=[])
    everything.sync()
    assert len(kept(everything)) == 4


@pytest.mark.parametrize(
    "config",
    [{"ready_marker": "*"}, {"ready_marker": "a/*"}, {"ready_marker": "**.x"},
        {"unfinished_suffixes": ["a/b"]}, {"unfinished_suffixes": ["a\nb"]}],
)  # fmt: skip
def test_invalid_markers_and_suffixes_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config(host="example.org", **config)
