"""Directories with more entries than one task works on."""

from __future__ import annotations

from typing import Any

import pytest
from integration_polling_ftp import Ftp

from core.testing import Harness


def test_a_large_directory_is_listed_in_portions(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The portions together are the complete listing: what vanished is marked deleted."""
    monkeypatch.setattr("integration_polling_ftp.directory.PORTION", 10)
    for number in range(95):
        ftp_server.write(f"place/{number}")
    for number in range(25):
        ftp_server.write(f"place/sub {number}/inside")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    assert harness.sync().state == "succeeded"
    assert sum(item.kind == "file" for item in harness.content.values()) == 120
    listed = sum(
        task.type == "list_directory" and bool(task.payload.get("after")) for task in harness.tasks
    )
    assert listed == 11
    for number in (3, 50, 94):
        (ftp_server.home / f"place/{number}").unlink()
    ftp_server.write("place/new")
    result = harness.sync()
    assert (result.outputs_saved, result.outputs_deleted) == (1, 3)


def test_listed_is_fetched_unchanged_and_skipped(ftp_server: Any) -> None:
    for number in range(20):
        ftp_server.write(f"d{number % 3}/{number}")
    (ftp_server.home / "d0/loop").symlink_to(ftp_server.home)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    first = harness.sync()
    listed = 20 + 3
    assert first.outputs_saved - 1 + first.skipped_items.total() in (listed, listed + 1)
    ftp_server.write("d1/new")
    ftp_server.write("d1/4", b"changed and longer")
    second = harness.sync()
    assert second.outputs_saved == 2
    total = second.outputs_saved + second.outputs_unchanged + second.skipped_items.total()
    assert total == first.outputs_saved + first.skipped_items.total() + 1
