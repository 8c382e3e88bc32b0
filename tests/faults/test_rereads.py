"""Rereads in a fleet of processes: upgrades, kills, pauses and newer downloads."""

from __future__ import annotations

import itertools
import signal
from contextlib import suppress
from random import Random
from uuid import UUID

import pytest
from support import letters
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import METERED, Fleet, send
from support.letters import Config, Letters, read, source

from core.accounts import store

OLD = METERED | {"POLLING_PLUGINS": "support.letters", "LETTERS_READER": "1"}
NEW = OLD | {"LETTERS_READER": "2"}
SLOW = NEW | {"LETTERS_SECONDS": "0.01"}
LETTERS = 300
DONE = "SELECT count(*) FROM sync_task WHERE type = 'reread' AND state = 'done'"


def expected(version: int, letters: int = LETTERS, marks: str = "") -> dict[str, str]:
    """Return the text of every live item, as this reader reads the letters."""
    found = {}
    for number in range(letters):
        id, text = f"letter-{number:06}", source(number)
        rows = read(id, text, Config(), version, marks)
        found |= {row.id: str(row.content) for row in rows} | {f"{id}/raw": text}
    return found


def content(deployment: Deployment) -> dict[str, str]:
    return dict(
        deployment.rows(
            "SELECT external_id, content_text FROM user_integration_content"
            " WHERE deleted_at IS NULL"
        )
    )


def kept(fleet: Fleet, deployment: Deployment, count: int = LETTERS) -> UUID:
    """Keep letters with the old reader, and stop its workers."""
    old = fleet.workers(processes=1, threads=4, **OLD)
    fleet.ready()
    # Connected before its reader is registered, the account would be read again once, for nothing.
    account = connect(deployment, Letters, {"letters": count})
    sync(deployment, account)
    fleet.until(
        lambda: deployment.rows("SELECT 1 FROM sync_run WHERE state = 'succeeded'"), "it is synced"
    )
    assert content(deployment) == expected(1, count)
    assert old.terminate() == 0
    fleet.programs.remove(old)
    deployment.rows(
        "UPDATE user_integration SET next_sync_at = now() + interval '1 day',"
        " poll_interval_minutes = 2880"
    )
    return account


def rereads(deployment: Deployment) -> list[str]:
    return [
        state
        for (state,) in deployment.rows(
            "SELECT state FROM sync_run WHERE trigger = 'reread' ORDER BY started_at"
        )
    ]


def is_reread(deployment: Deployment) -> bool:
    return rereads(deployment)[-1:] == ["succeeded"]


def test_an_upgrade_reads_everything_again_once(fleet: Fleet, deployment: Deployment) -> None:
    kept(fleet, deployment)
    xmins = dict(deployment.rows("SELECT external_id, xmin::text FROM user_integration_content"))
    fleet.workers(processes=2, threads=2, **NEW)
    fleet.until(lambda: is_reread(deployment), "the account is read again", 60)
    assert content(deployment) == expected(2)
    # Sources and equal letters were not written.
    after = dict(deployment.rows("SELECT external_id, xmin::text FROM user_integration_content"))
    alike = [id for id, text in expected(1).items() if expected(2).get(id) == text]
    assert len(alike) >= 2 * LETTERS
    assert {id for id in alike if xmins[id] != after[id]} == set()
    assert deployment.rows("SELECT count(*) FROM sync_task WHERE type = 'fetch'") == [
        (LETTERS // 50,)
    ]
    deployment.queues.wake()
    assert rereads(deployment) == ["succeeded"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_kills_during_a_reread_lose_and_repeat_nothing(
    fleet: Fleet, deployment: Deployment
) -> None:
    kept(fleet, deployment)
    random = Random(23)
    fleet.workers(processes=2, threads=2, **SLOW)
    fleet.until(lambda: rereads(deployment), "a reread has begun", 40)
    for _ in range(3):
        ((before,),) = deployment.rows(DONE)
        fleet.until(
            lambda now=before: is_reread(deployment) or deployment.rows(DONE)[0][0] > now,
            "it reads more", 90, replace=True,
        )  # fmt: skip
        if pids := fleet.worker_pids():
            with suppress(ProcessLookupError):
                send(signal.SIGKILL, random.choice(pids))
        fleet.let_the_lead_run_out(18)
    for program in fleet.programs:
        program.kill()
    fleet.let_the_lead_run_out()
    fleet.until(lambda: is_reread(deployment), "it ends", 90, replace=True)
    assert content(deployment) == expected(2)
    assert rereads(deployment) == ["succeeded"]
    saved = deployment.rows("SELECT outputs_saved FROM sync_run WHERE trigger = 'reread'")
    changed = [id for id, text in expected(2).items() if expected(1).get(id) != text]
    assert saved == [(len(changed),)]


def test_a_reread_pauses_and_resumes_with_its_account(fleet: Fleet, deployment: Deployment) -> None:
    account = kept(fleet, deployment)
    fleet.workers(processes=1, threads=2, **SLOW)
    fleet.until(lambda: deployment.rows(DONE)[0][0] >= 1, "a portion is read", 60)
    deployment.rows("UPDATE user_integration SET sync_status = 'paused' WHERE id = %s", account)
    fleet.until(
        lambda: not deployment.rows("SELECT 1 FROM sync_task WHERE state = 'queued'"),
        "nothing runs", 20,
    )  # fmt: skip
    paused = content(deployment)
    assert paused not in (expected(1), expected(2))
    ((waiting,),) = deployment.rows(
        "SELECT count(*) FROM sync_task WHERE type = 'reread' AND state = 'ready'"
    )
    assert waiting >= 1
    deployment.rows("UPDATE user_integration SET sync_status = 'active' WHERE id = %s", account)
    deployment.queues.wake()
    fleet.until(lambda: is_reread(deployment), "it ends", 60)
    assert content(deployment) == expected(2)


def test_newer_downloads_win_during_a_reread(fleet: Fleet, deployment: Deployment) -> None:
    account = kept(fleet, deployment)
    fleet.workers(processes=2, threads=2, **SLOW)
    fleet.until(lambda: rereads(deployment), "a reread has begun", 40)
    for mark in itertools.islice(itertools.count(1), 3):
        config = Config(letters=LETTERS, marks=f"download {mark}").model_dump_json()
        deployment.rows(
            "UPDATE user_integration SET config = %s, version = version + 1 WHERE id = %s",
            config, account,
        )  # fmt: skip
        run = sync(deployment, account)
        fleet.until(
            lambda run=run: deployment.rows(
                "SELECT 1 FROM sync_run WHERE id = %s AND state = 'succeeded'", run
            ),
            "the download ends", 60,
        )  # fmt: skip
    fleet.until(lambda: is_reread(deployment), "the reread ends", 90)
    assert content(deployment) == expected(2)
    marks = deployment.rows(
        "SELECT DISTINCT metadata->>'marks' FROM user_integration_content WHERE kind = 'letter'"
    )
    assert marks == [("download 3",)]


def test_a_changed_config_reads_everything_again_without_a_download(
    fleet: Fleet, deployment: Deployment
) -> None:
    account = kept(fleet, deployment)
    fleet.workers(processes=1, threads=2, **OLD)
    fleet.ready()
    with deployment.connection() as conn:
        conn.execute(
            store.SET_CONFIG,
            {
                "id": account,
                "config": Config(letters=LETTERS, files=False).model_dump_json(),
                "limits": "[]",
                "resync": False,
                "reread": True,
                "public_hosts_only": False,
                "instead_of": None,
            },
        )
    fleet.until(lambda: is_reread(deployment), "the account is read again", 60)
    assert content(deployment) == {
        id: text for id, text in expected(1).items() if id.count("/") == 0 or id.endswith("/raw")
    }
    assert deployment.rows("SELECT count(*) FROM sync_run") == [(2,)]


def test_during_a_deploy_no_reread_begins(fleet: Fleet, deployment: Deployment) -> None:
    kept(fleet, deployment)
    old = fleet.workers(processes=1, threads=2, **OLD)
    fleet.workers(processes=1, threads=2, **NEW)
    fleet.ready()
    fleet.until(
        lambda: (
            deployment.rows(
                "SELECT count(DISTINCT readers->>'letters') FROM process WHERE kind = 'worker'"
            )
            == [(2,)]
        ),
        "both versions beat",
    )
    assert rereads(deployment) == []
    assert old.terminate() == 0
    fleet.programs.remove(old)
    fleet.let_the_lead_run_out()
    fleet.until(lambda: is_reread(deployment), "the account is read again", 60)
    assert content(deployment) == expected(2)


@pytest.fixture(autouse=True)
def _this_process_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "SECONDS", 0.0)
