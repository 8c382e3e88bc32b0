"""Progress of a run, and the functions that the demo uses from the service layer."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import TaskOutput
from core.demo import engine
from core.errors import NotFound, ServerUnavailable
from core.service.accounts import queries as account_queries
from core.service.content import reader as content_reader
from core.service.runs.watch import MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS, RunWatcher

LARGE = b"\xff" * (2 * 1024 * 1024)


def test_a_watcher_shows_progress_and_reasons_to_wait(backend, desk) -> None:
    root = desk.root(desk.account())
    watcher = RunWatcher(backend, root.run_id)
    assert watcher.refresh() == "running"
    assert (watcher.now.known, watcher.now.tasks_done) == (1, 0)
    assert watcher.wait.blocker.reason == "no worker is running"
    assert watcher.stopped is None
    assert MIN_PAUSE_SECONDS <= watcher.pause <= MAX_PAUSE_SECONDS
    desk.finish(root, output=[TaskOutput("1", "x")])
    assert watcher.refresh() == "succeeded"
    assert (watcher.now.outputs_saved, watcher.wait) == (1, None)


def test_draining_workers_are_a_reason_to_wait(backend, desk, healthy) -> None:
    desk.conn.execute("UPDATE process SET draining = true")
    watcher = RunWatcher(backend, desk.run(desk.account()))
    watcher.refresh()
    blocker = watcher.wait.blocker
    assert blocker.reason == "all running workers are draining and take no tasks"
    assert blocker.advice is not None
    assert blocker.advice.code == "restart-draining-workers"


def test_a_watcher_reads_the_reasons_only_every_few_seconds(
    backend, desk, healthy, monkeypatch
) -> None:
    account = desk.account()
    watcher = RunWatcher(backend, desk.run(account))
    watcher.refresh()
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials'"
    )
    watcher.refresh()
    assert watcher.stopped is None, "the watcher read the reasons again within a second"
    monkeypatch.setattr("core.service.runs.watch.REASONS_SECONDS", 0)
    watcher.refresh()
    assert watcher.stopped is not None
    desk.conn.execute("UPDATE user_integration SET sync_status = 'active', status_reason = NULL")
    watcher.refresh()
    assert watcher.stopped is None


def test_a_watcher_that_has_seen_the_run_survives_an_outage(backend, desk, monkeypatch) -> None:
    run = desk.run(desk.account())
    watcher, late = RunWatcher(backend, run), RunWatcher(backend, run)
    watcher.refresh()

    @contextmanager
    def away(_self):
        raise ServerUnavailable("postgres-unreachable", detail="refused")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(type(backend.database), "connection", away)
        assert watcher.refresh() == "running"
        assert watcher.is_away
        with pytest.raises(ServerUnavailable):
            late.refresh()
    watcher.refresh()
    assert not watcher.is_away


def test_an_unknown_run_cannot_be_watched(backend, desk) -> None:
    with pytest.raises(NotFound):
        RunWatcher(backend, desk.me).refresh()


def test_digests_are_those_of_the_stored_bytes(backend, desk) -> None:
    kept = {"text": "Grüße", "bytes": b"\0\xff", "large": LARGE, "empty": b""}
    account = desk.account()
    desk.keep(
        account,
        *(TaskOutput(id, data, kind="file") for id, data in kept.items()),
        TaskOutput("other", "x", kind="note"),
        TaskOutput("gone", "x", kind="file"),
    )
    desk.conn.execute(
        "UPDATE user_integration_content SET deleted_at = now() WHERE external_id = 'gone'"
    )
    expected = {
        id: hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
        for id, data in kept.items()
    }
    assert dict(content_reader.digests(backend, account, "file")) == expected
    desk.conn.execute(
        "UPDATE user_integration_content SET content_text = 'Gruß' WHERE external_id = 'text'"
    )
    assert dict(content_reader.digests(backend, account, "file"))["text"] != expected["text"]


def test_a_missing_blob_has_no_digest(backend, desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("large", LARGE, kind="file"))
    desk.conn.execute("UPDATE user_integration_content SET blob_key = 'sha256/none'")
    assert dict(content_reader.digests(backend, account, "file")) == {"large": None}


def test_content_is_counted_by_kind(backend, desk) -> None:
    account = desk.account()
    desk.keep(
        account,
        TaskOutput("1", "x", kind="a"),
        TaskOutput("2", b"\xff\xfe", kind="a"),
        TaskOutput("3", LARGE, kind="b"),
    )
    assert account_queries.account_kinds(desk.conn, account) == [
        {"kind": "a", "items": 2, "bytes": 3, "texts": 1, "binaries": 1, "blobs": 0},
        {"kind": "b", "items": 1, "bytes": len(LARGE), "texts": 0, "binaries": 0, "blobs": 1},
    ]


def test_the_demo_serves_a_directory_at_its_previous_port(backend, desk) -> None:
    one, other = (engine.login(Path(root)) for root in ("/srv/one", "/srv/other"))
    assert one != other
    given = {"domain": "ftp", "user_id": engine.USER, "config": {"port": 4711}}
    assert engine.last_port(backend, one) is None
    desk.account("demo-ftp", identity=f"{one}@127.0.0.1:4711/", **given)
    assert engine.last_port(backend, one) == 4711
    assert engine.last_port(backend, other) is None
