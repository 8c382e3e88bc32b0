"""Erasures that can be undone: hidden content, its deletion after a delay, and its return."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.rest import SECRET

from core import TaskOutput
from core.accounts import store
from core.dispatcher.maintenance import Maintenance
from core.errors import WrongState
from core.ledger import erasure, monotonic
from core.plugins import Registry
from core.service.accounts import disconnect
from core.service.accounts import erase as account_erase
from core.service.authorization import Principal
from core.service.content import changes
from core.states import Act

OPERATOR = Principal(uuid4(), None)
ITEMS = 1_200


@pytest.fixture
def account(desk: Any) -> UUID:
    account: UUID = desk.account("a", user_id="ann")
    desk.keep(account, TaskOutput("1", "one"), TaskOutput("2", "two"))
    return account


def hide(desk: Any, account: UUID, *, now: bool = False, keeps: bool = True) -> bool:
    act = Act.ACCOUNT_ERASE_CONTENT if keeps else Act.ACCOUNT_ERASE
    return disconnect.hide(desk.conn, account, act, erases_account=not keeps, now=now).has_begun


def restore(desk: Any, account: UUID) -> None:
    params = {"id": account, "credentials": "new", "group": None, "public_hosts_only": False}
    store.set_credentials(desk.conn, params)


def follow(desk: Any, after: str | None = None, **more: Any) -> tuple[list[str], str]:
    """Read the feed to its end: the items, or `erased`, and the cursor."""
    found: list[str] = []
    while True:
        page = changes.read(desk.conn, OPERATOR, after=after, **more)
        found += [one.content["external_id"] if one.content else one.kind for one in page.changes]
        after = page.cursor
        if not page.more:
            return found, after


def status(desk: Any) -> str:
    value: str = desk.value("SELECT sync_status FROM user_integration")
    return value


# The feed
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without_rereads", [False, True])
def test_every_reader_meets_the_items_of_a_restored_account(desk, account, without_rereads) -> None:
    """One reader had the items, one began while they were hidden, one has only new changes."""
    options = {"without_rereads": without_rereads}
    had, cursor = follow(desk, **options)
    assert had == ["1", "2"]
    hide(desk, account)
    assert follow(desk, cursor, **options)[0] == [], "nothing is reported until it is deleted"
    began, new = follow(desk, **options)
    assert began == []
    _, latest = follow(desk, changes.LATEST, **options)
    restore(desk, account)
    assert erasure.move_restored(desk.conn, 60)
    for after in (cursor, new, latest, None):
        assert follow(desk, after, **options)[0] == ["1", "2"], after
    assert desk.value("SELECT restored_after FROM user_integration") is None
    assert follow(desk, follow(desk, **options)[1], **options)[0] == []


def test_a_reader_between_two_portions_misses_nothing(desk, account, monkeypatch) -> None:
    monkeypatch.setattr(erasure, "ROWS_PER_STATEMENT", 1)
    hide(desk, account)
    _, cursor = follow(desk)
    restore(desk, account)
    found, moved = [], False
    while not moved:
        more, cursor = follow(desk, cursor)
        found += more
        moved = erasure.move_restored(desk.conn, 0)
    more, cursor = follow(desk, cursor)
    assert {*found, *more} == {"1", "2"}


def test_content_that_is_hidden_again_is_listed_again_as_a_whole(
    desk, account, monkeypatch
) -> None:
    monkeypatch.setattr(erasure, "ROWS_PER_STATEMENT", 1)
    hide(desk, account)
    restore(desk, account)
    assert not erasure.move_restored(desk.conn, 0)
    assert desk.value("SELECT restored_after FROM user_integration") == "1"
    hide(desk, account)
    assert erasure.move_restored(desk.conn, 60), "hidden items stay where they are"
    _, cursor = follow(desk)
    restore(desk, account)
    assert erasure.move_restored(desk.conn, 60)
    assert follow(desk, cursor)[0] == ["1", "2"]


def test_connecting_the_same_account_restores_it(desk, account) -> None:
    hide(desk, account)
    _, cursor = follow(desk)
    assert desk.account("a", user_id="ann") == account
    assert status(desk) == "active"
    assert erasure.move_restored(desk.conn, 60)
    assert follow(desk, cursor)[0] == ["1", "2"]


def test_a_download_of_hidden_content_ends(api, desk, account) -> None:
    content = desk.value("SELECT min(id) FROM user_integration_content")
    path = f"/v1/user-integration-content/{content}/raw"
    assert api.user("ann").get(path).text == "one"
    hide(desk, account)
    assert api.user("ann").get(path).status_code == 404


# The delay
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def leader(settings, database, queues) -> Maintenance:
    return Maintenance(uuid4(), settings, database, queues, Registry())


@pytest.mark.parametrize(
    ("minutes", "watched_minutes", "is_erased"),
    [(80, 80, True), (30, 30, False), (80, 30, False)],
    ids=["after the delay", "too early", "the clock stepped ahead"],
)
@pytest.mark.parametrize("keeps", [True, False], ids=["the content", "the account"])
def test_the_leader_erases_after_the_delay(
    desk, leader, account, keeps, minutes, watched_minutes, is_erased
) -> None:
    _, cursor = follow(desk)
    monotonic.sample(desk.conn, 0.0, 1e9)
    desk.conn.execute("UPDATE monotonic_sample SET at = now() - %s * interval '1 min'", (minutes,))
    hide(desk, account, keeps=keeps)
    desk.conn.execute(
        "UPDATE user_integration SET erasing_since = now() - (%s + 1) * interval '1 min'",
        (minutes,),
    )
    monotonic.sample(desk.conn, watched_minutes * 60.0, 1e9)
    leader._erase(desk.conn)
    left = desk.rows("SELECT sync_status, erasing_since IS NULL FROM user_integration")
    if not is_erased:
        assert (len(left), status(desk), follow(desk, cursor)[0]) == (1, "erasing", [])
        restore(desk, account)
        assert desk.alive() == {"1", "2"}
        return
    assert left == ([("disconnected", True)] if keeps else [])
    assert desk.rows("SELECT FROM user_integration_content") == []
    assert follow(desk, cursor)[0] == ["erased"]


def test_an_account_that_kept_its_row_connects_again(desk, account) -> None:
    hide(desk, account, now=True)
    assert erasure.erase_due(desk.conn, None, 60)
    assert desk.account("a", user_id="ann") == account
    desk.keep(account, TaskOutput("3", "three"))
    assert follow(desk)[0] == ["erased", "3"]


def test_an_erasure_that_has_begun_cannot_be_undone(backend, desk, account) -> None:
    assert hide(desk, account, now=True)
    for again in (lambda: restore(desk, account), lambda: desk.account("a", user_id="ann")):
        with pytest.raises(WrongState) as error:
            again()
        assert error.value.code == "account-erasure-begun"
    assert account_erase.erase_account(backend, account).accounts == 1
    assert desk.rows("SELECT FROM user_integration") == []


def test_a_slow_process_deletes_nothing_of_an_account_that_is_connected_again(
    desk, account, connect
) -> None:
    """Two processes erase the account: a request, and the leader."""
    hide(desk, account, now=True)
    slow = erasure.erase(connect(), account)
    next(slow)
    assert erasure.erase_due(desk.conn, None, 60)
    assert desk.account("a", user_id="ann") == account
    desk.keep(account, TaskOutput("3", "three"))
    _, cursor = follow(desk)
    sum(slow)
    assert erasure.finish(desk.conn, account)
    assert desk.alive() == {"3"}
    assert len(desk.runs()) == 1
    assert follow(desk, cursor)[0] == [], "the feed has no second entry"


def test_a_content_erasure_becomes_one_of_the_account(desk, account) -> None:
    hide(desk, account)
    hide(desk, account, keeps=False)
    hide(desk, account, now=True)
    assert erasure.erase_due(desk.conn, None, 60)
    assert desk.rows("SELECT FROM user_integration") == []


@pytest.mark.parametrize(("flag", "waits"), [(None, False), (True, True)])
def test_nothing_waits_while_an_api_of_the_earlier_version_may_run(
    backend, desk, account, flag, waits
) -> None:
    """It would show the content. It may be stopped, so an old heartbeat counts, too."""
    desk.conn.execute(
        "INSERT INTO process (id, kind, host, pid, queues, seen_at, hides_erasing)"
        " VALUES (gen_random_uuid(), 'api', 'h', 1, '{}', now() - interval '50 s', %s)",
        (flag,),
    )
    assert account_erase.hide_account(backend, account) is waits
    assert bool(desk.rows("SELECT FROM user_integration")) is waits


# The trail
# --------------------------------------------------------------------------------------------------


def test_each_request_leaves_one_row(desk, account) -> None:
    def acts() -> list[str]:
        rows = desk.rows("SELECT act FROM audit ORDER BY id")
        desk.conn.execute("DELETE FROM audit")
        return [act for (act,) in rows]

    acts()
    hide(desk, account)
    hide(desk, account)
    assert acts() == ["account.erase_content"], "a repeated request leaves no row"
    hide(desk, account, keeps=False)
    assert acts() == ["account.erase"]
    hide(desk, account, now=True, keeps=False)
    hide(desk, account, now=True, keeps=False)
    assert acts() == ["account.erase"]
    assert erasure.erase_due(desk.conn, None, 60)
    assert acts() == []


def test_an_account_is_restored_with_new_credentials(api, desk) -> None:
    body = {"integration_domain": "locked", "config": {"name": "me"}}
    body |= {"credentials": {"password": SECRET}}
    ann = api.user("ann")
    id = ann.post("/v1/user-integrations", json=body).json()["id"]
    place = f"/v1/user-integrations/{id}"
    ann.delete(f"{place}?content=delete")
    assert desk.value("SELECT credentials FROM user_integration") is None
    desk.conn.execute("DELETE FROM audit")
    answer = ann.patch(place, json={"credentials": {"password": SECRET}})
    assert answer.json()["sync_status"] == "active", answer.text
    assert answer.json()["erasing_since"] is None
    assert desk.rows("SELECT act FROM audit") == [("account.reconnect",)]


# A person
# --------------------------------------------------------------------------------------------------


def test_a_person_is_hidden_and_erased_with_the_last_account(api, desk) -> None:
    accounts = [desk.account(name, user_id="ann") for name in "ab"]
    for account in accounts:
        desk.keep(account, TaskOutput("1", "x"))
    ann = api.user("ann")
    _, cursor = follow(desk)
    desk.conn.execute("DELETE FROM audit")
    answer = ann.delete("/v1/users/ann")
    assert answer.json() == {"hidden": 2, "accounts": 0, "rows": 0, "blobs": 0}
    assert ann.delete("/v1/users/ann").json()["hidden"] == 2, "a repeated request changes nothing"
    assert ann.get("/v1/user-integration-content").json()["items"] == []
    assert ann.get("/v1/changes").json()["changes"] == []
    assert desk.rows("SELECT act FROM audit") == [("user.erase",)]
    assert erasure.erase_due(desk.conn, "infinity", 60)
    assert ann.get("/v1/user-integration-content").status_code == 401
    for table in ("user_integration", "user_integration_content", "api_token"):
        assert desk.rows(f"SELECT FROM {table} WHERE true") == [], table
    assert follow(desk, cursor)[0] == ["erased", "erased"]
    assert desk.rows("SELECT DISTINCT user_id FROM erased_account") == [(None,)]
    assert desk.rows("SELECT act FROM audit") == [("user.erase",)]


def test_a_person_with_a_restored_account_stays(api, desk, backend) -> None:
    kept, lost = (desk.account(name, user_id="ann") for name in "ab")
    for account in (kept, lost):
        desk.keep(account, TaskOutput("1", "x"))
    ann = api.user("ann")
    assert account_erase.hide_user(backend, "ann").hidden == 2
    restore(desk, kept)
    assert erasure.erase_due(desk.conn, "infinity", 60)
    assert desk.rows("SELECT id FROM user_integration") == [(kept,)]
    rows = ann.get("/v1/user-integration-content").json()["items"]
    assert [row["user_integration_id"] for row in rows] == [str(kept)]


def test_a_person_without_accounts_is_erased_immediately(api, desk, backend) -> None:
    ann = api.user("ann")
    account_erase.hide_user(backend, "ann")
    assert ann.get("/v1/user-integration-content").status_code == 401
    assert desk.rows("SELECT act FROM audit ORDER BY id DESC LIMIT 1") == [("user.erase",)]


# Kills
# --------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import psycopg
from core.db.pool import open_connection
from core.ledger import erasure

job, database = sys.argv[1:]
conn = open_connection(database)
portions = 0
leave = psycopg.Transaction.__exit__

def leaving(transaction, *error):
    global portions
    portions += 1
    if portions == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return leave(transaction, *error)

psycopg.Transaction.__exit__ = leaving
if job == "erase":
    erasure.erase_due(conn, None, 600)
else:
    erasure.move_restored(conn, 600)
"""


def kill_during(job: str, settings: Any) -> None:
    """Run a job of the leader in a process that is killed within its second transaction."""
    database = settings.database_url.get_secret_value()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, job, database],
        env=os.environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def many(desk: Any) -> UUID:
    account: UUID = desk.account("many", user_id="ann")
    desk.keep(account, *(TaskOutput(f"{number:05}", "x") for number in range(ITEMS)))
    return account


def test_a_killed_erasure_ends(desk, settings, leader) -> None:
    account = many(desk)
    _, cursor = follow(desk)
    hide(desk, account, now=True, keeps=False)
    kill_during("erase", settings)
    assert desk.rows("SELECT erasure_begun FROM user_integration") == [(True,)]
    assert follow(desk)[0] in ([], ["erased"]), "the rest of the content stays hidden"
    leader._erase(desk.conn)
    assert desk.rows("SELECT FROM user_integration") == []
    assert follow(desk, cursor)[0] == ["erased"]


def test_a_killed_restore_ends(desk, settings, until) -> None:
    account = many(desk)
    hide(desk, account)
    _, cursor = follow(desk)
    restore(desk, account)
    kill_during("restore", settings)
    found, cursor = follow(desk, cursor)
    assert 0 < len(found) < ITEMS
    until(lambda: erasure.move_restored(desk.conn, 60))
    more, _ = follow(desk, cursor)
    assert {*found, *more} == {f"{number:05}" for number in range(ITEMS)}
