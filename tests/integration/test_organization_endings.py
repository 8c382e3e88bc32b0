"""The end of an organization: one short transaction, and portions that survive kills.

The members come from a made-up integration.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from core import AccountIdentity, BaseIntegration, Manifest, Member, NoFields, TaskOutput
from core.dispatcher.maintenance import Maintenance
from core.errors import NotFound, WrongState
from core.ledger import endings, erasure, scheduling
from core.ledger import organizations as ledger
from core.plugins import Registry
from core.results.signals import AccountStopped
from core.service import organizations
from core.service.accounts import actions
from core.service.accounts import disconnect as account_disconnect
from core.service.accounts import erase as account_erase
from core.service.authorization import Principal
from core.service.content import changes
from core.worker.accounts import Accounts

LARGE = 10_000
OPERATOR = Principal(uuid4(), None)
STATES = "SELECT identity, sync_status FROM user_integration ORDER BY identity"
COUNTS = "SELECT sync_status, count(*) FROM user_integration GROUP BY 1"
ACTS = "SELECT act, target_id, detail FROM audit WHERE act LIKE '%%disconnect%%'"


class Key(BaseModel, extra="ignore"):
    club: str = ""
    member: str = ""


class Club(BaseIntegration[NoFields, Key]):
    manifest = Manifest("shop", "Club")
    listed: ClassVar[list[Member]] = []

    @classmethod
    def members(
        cls, settings: Any, credentials: Mapping[str, Any], listed: Sequence[str] | None
    ) -> Iterable[Member]:
        return list(cls.listed)

    def check(self) -> AccountIdentity:
        return AccountIdentity("x", "x")


@pytest.fixture
def integrations() -> Sequence[Any]:
    return (Club,)


@pytest.fixture(autouse=True)
def three_members() -> None:
    Club.listed = [Member(f"id-{name}", name) for name in ("ann", "bob", "cid")]


@pytest.fixture
def connected(backend) -> Callable[..., organizations.Connected]:
    def connect(**more: Any) -> organizations.Connected:
        return organizations.connect(
            backend, "shop", **{"name": "club", "credentials": {"club": "1"}} | more
        )

    return connect


def fill(desk: Any, organization: UUID, number: int, running: int = 0) -> None:
    """Add accounts to an organization; the first ones have an open run."""
    desk.conn.execute(
        "INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config,"
        " credentials, next_sync_at, organization_id, member) SELECT gen_random_uuid(), 'default',"
        " 'shop', 'm' || n, 'm' || n, '{}', 'sealed', now(), %s, 'id-' || n"
        " FROM generate_series(1, %s) n",
        (organization, number),
    )
    for (account,) in desk.rows("SELECT id FROM user_integration ORDER BY id LIMIT %s", running):
        desk.run(account)


def end_all(desk: Any) -> None:
    while not endings.end_due(desk.conn, 60):
        continue


def feed(desk: Any, after: str | None = None) -> tuple[list[str], str]:
    page = changes.read(desk.conn, OPERATOR, after=after)
    found = [one.content["external_id"] if one.content else one.kind for one in page.changes]
    return found, page.cursor


# The request
# --------------------------------------------------------------------------------------------------


def test_a_request_locks_no_account_of_a_large_organization(backend, desk, connected) -> None:
    id = connected().id
    fill(desk, id, LARGE - 3, running=20)
    ((before,),) = desk.rows("SELECT pg_current_xact_id()::text::bigint")
    desk.conn.execute("DELETE FROM control_change")
    assert organizations.disconnect(backend, id) == LARGE
    touched = desk.value(
        "SELECT count(*) FROM user_integration WHERE xmin::text::bigint > %s"
        " OR xmax::text::bigint > %s",
        before,
        before,
    )
    assert touched == 0, "no account is changed or locked"
    assert desk.value("SELECT count(*) FROM control_change") == 20, "workers load these again"
    shown = organizations.one(desk.conn, id)
    assert organizations.sentence(shown) == "Disconnecting: 10,000 accounts left."
    assert desk.value("SELECT credentials FROM organization") is None
    assert desk.rows(ACTS) == [
        (
            "organization.disconnect",
            str(id),
            {"name": "club", "accounts": LARGE, "content": "kept"},
        )
    ]


def test_nothing_of_an_organization_that_ends_is_synced(backend, desk, connected) -> None:
    id = connected().id
    other = desk.account("other")
    registry = Registry()
    registry.integrations["shop"] = Club
    accounts = Accounts(backend.database, backend.vault, registry, {})
    [(account,)] = desk.rows("SELECT id FROM user_integration WHERE identity = 'ann'")
    assert accounts.get(str(account)).credentials == Key(club="1")
    organizations.disconnect(backend, id)
    assert scheduling.any_due(desk.conn)
    scheduling.poll(desk.conn, 2)
    assert desk.rows("SELECT user_integration_id FROM sync_run") == [(other,)]
    assert not scheduling.any_due(desk.conn)
    accounts.invalidate(None)
    with pytest.raises(AccountStopped, match="disconnected"):
        accounts.get(str(account))
    with pytest.raises(WrongState) as refused:
        scheduling.request_run(desk.conn, account)
    assert refused.value.code == "account-disconnected"


def test_an_organization_that_ends_is_not_listed_and_gets_no_accounts(
    backend, desk, connected
) -> None:
    id = connected().id
    organizations.disconnect(backend, id)
    for refused in (lambda: organizations.sync(backend, id), connected):
        with pytest.raises(WrongState) as error:
            refused()
        assert error.value.code == "organization-ending"
    desk.conn.execute("UPDATE organization SET members_due_at = now() - interval '1 hour'")
    assert ledger.claim(desk.conn, "shop") is None


def test_a_repeated_request_changes_nothing(backend, desk, connected) -> None:
    id = connected().id
    for _ in range(2):
        organizations.disconnect(backend, id)
    with pytest.raises(WrongState):
        organizations.disconnect(backend, id, hides_content=True)
    assert len(desk.rows(ACTS)) == 1
    end_all(desk)
    with pytest.raises(NotFound):
        organizations.disconnect(backend, id)
    assert len(desk.rows(ACTS)) == 1


# The portions
# --------------------------------------------------------------------------------------------------


def test_the_leader_ends_a_large_organization_in_portions(
    settings, database, queues, backend, desk, connected, monkeypatch
) -> None:
    id = connected().id
    fill(desk, id, LARGE - 3, running=70)
    other = desk.account("other")
    organizations.disconnect(backend, id)
    portions, first = [], endings._end

    def noted(conn: Any, organization: UUID, accounts: Sequence[UUID], **more: Any) -> None:
        first(conn, organization, accounts, **more)
        portions.append(len(accounts))

    monkeypatch.setattr(endings, "_end", noted)
    leader = Maintenance(uuid4(), settings, database, queues, Registry())
    rounds = 0
    while leader._ending.due == 0.0:
        leader._ending.due = 1.0
        leader._end_organizations(desk.conn)
        rounds += 1
        if rounds == 1:
            assert dict(desk.rows(COUNTS))["disconnected"] < LARGE
    assert rounds > 1, "the leader dispatches in between"
    assert max(portions) == endings.ROWS_PER_PORTION
    assert sum(portions) == LARGE
    assert dict(desk.rows(COUNTS)) == {"disconnected": LARGE, "active": 1}
    assert desk.rows("SELECT count(*) FROM organization") == [(0,)]
    assert desk.value("SELECT count(*) FROM user_integration WHERE credentials IS NOT NULL") == 1
    assert dict(desk.rows("SELECT state, count(*) FROM sync_run GROUP BY 1")) == {"cancelled": 70}
    assert len(desk.rows(ACTS)) == 1
    assert desk.value("SELECT sync_status FROM user_integration WHERE id = %s", other) == "active"


KILLED = """
import os, signal, sys

from core.db.pool import open_connection
from core.ledger import endings

url, after, moment = sys.argv[1:]
conn, left, end = open_connection(url), [int(after)], endings._end

def ending(*arguments, **more):
    left[0] -= 1
    if left[0] == 0 and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if left[0] == 0 and moment == "between":
        conn.execute("BEGIN")
    end(*arguments, **more)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

endings._end = ending
endings.end_due(conn, 600)
"""


@pytest.mark.parametrize("moment", ["before", "between", "after"])
@pytest.mark.parametrize("hides", [False, True], ids=["keeps", "hides"])
def test_another_leader_continues_after_a_kill(
    backend, desk, connected, database_url, hides, moment
) -> None:
    id = connected().id
    fill(desk, id, 297, running=150)
    organizations.disconnect(backend, id, hides_content=hides)
    expected = "erasing" if hides else "disconnected"
    for after in (1, 2, 2):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, database_url, str(after), moment],
            env=os.environ, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
    ended = dict(desk.rows(COUNTS)).get(expected, 0)
    portions = 5 if moment == "after" else 2
    assert ended == portions * endings.ROWS_PER_PORTION
    end_all(desk)
    assert dict(desk.rows(COUNTS)) == {expected: 300}
    assert dict(desk.rows("SELECT state, count(*) FROM sync_run GROUP BY 1")) == {"cancelled": 150}
    assert desk.rows("SELECT FROM organization") == []
    assert len(desk.rows(ACTS)) == 1


def test_a_run_that_opens_in_between_is_cancelled_too(
    backend, desk, connected, monkeypatch
) -> None:
    id = connected().id
    [(account,)] = desk.rows("SELECT id FROM user_integration WHERE identity = 'ann'")
    stop = endings.stop

    def with_a_run(conn: Any, stopped: UUID) -> None:
        stop(conn, stopped)
        monkeypatch.setattr(endings, "stop", stop)
        desk.conn.execute("UPDATE organization SET ending_since = NULL")
        desk.run(account)
        desk.conn.execute("UPDATE organization SET ending_since = now()")

    organizations.disconnect(backend, id)
    monkeypatch.setattr(endings, "stop", with_a_run)
    end_all(desk)
    assert desk.rows("SELECT state FROM sync_run") == [("cancelled",)]
    assert set(dict(desk.rows(STATES)).values()) == {"disconnected"}


def test_an_account_that_a_person_reconnects_in_between_stays(
    backend, desk, connected, monkeypatch
) -> None:
    id = connected().id
    stop = endings.stop

    def with_a_person(conn: Any, stopped: UUID) -> None:
        stop(conn, stopped)
        monkeypatch.setattr(endings, "stop", stop)
        monkeypatch.setattr(Club, "check", lambda _: AccountIdentity("bob", "bob"))
        [(bob,)] = desk.rows("SELECT id FROM user_integration WHERE identity = 'bob'")
        actions.reconnect(backend, bob, credentials={"club": "own"})

    organizations.disconnect(backend, id)
    monkeypatch.setattr(endings, "stop", with_a_person)
    end_all(desk)
    assert dict(desk.rows(STATES)) == {
        "ann": "disconnected",
        "bob": "active",
        "cid": "disconnected",
    }


# The content
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def content(desk, connected) -> Mapping[str, UUID]:
    """Connect the organization; each account has an item. Return the accounts by identity."""
    connected()
    accounts: dict[str, UUID] = dict(desk.rows("SELECT identity, id FROM user_integration"))
    for name, account in accounts.items():
        desk.keep(account, TaskOutput(name, f"about {name}"))
    return accounts


@pytest.mark.parametrize("erases", [False, True], ids=["content", "accounts"])
def test_content_is_hidden_and_deleted_after_the_delay(backend, desk, content, erases) -> None:
    id = desk.value("SELECT id FROM organization")
    organizations.disconnect(backend, id, hides_content=True, erases_accounts=erases)
    end_all(desk)
    assert set(dict(desk.rows(STATES)).values()) == {"erasing"}
    assert feed(desk)[0] == []
    assert erasure.erase_due(desk.conn, None, 60)
    assert desk.value("SELECT count(*) FROM user_integration_content") == 3, "the delay lasts"
    desk.conn.execute("UPDATE user_integration SET erasing_since = now() - interval '2 hours'")
    before = desk.value("SELECT now() - interval '1 hour'")
    assert erasure.erase_due(desk.conn, before, 60)
    assert desk.rows("SELECT FROM user_integration_content") == []
    assert len(desk.rows(STATES)) == (0 if erases else 3)
    assert desk.rows(ACTS) == [
        (
            "organization.disconnect",
            str(id),
            {"name": "club", "accounts": 3, "content": "deleted"},
        )
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"hides_content": True}, {"erases_accounts": True}],
    ids=["kept", "content", "accounts"],
)
def test_an_organization_that_is_connected_again_restores_its_accounts(
    backend, desk, content, connected, options
) -> None:
    _, cursor = feed(desk)
    id = desk.value("SELECT id FROM organization")
    organizations.disconnect(backend, id, **options)
    end_all(desk)
    again = connected()
    assert again.is_new
    assert (again.changes.returned, again.changes.added, again.changes.skipped) == (3, 0, 0)
    assert dict(desk.rows(STATES)) == dict.fromkeys(content, "active")
    assert dict(desk.rows("SELECT identity, id FROM user_integration")) == content
    assert erasure.move_restored(desk.conn, 60)
    assert sorted(feed(desk, cursor)[0]) == (sorted(content) if options else [])
    assert erasure.erase_due(desk.conn, desk.value("SELECT now() + interval '1 day'"), 60)
    assert desk.alive() == set(content)
    assert connected().changes.returned == 0


def test_what_a_person_has_decided_stays_when_the_organization_returns(
    backend, desk, content, connected
) -> None:
    id = desk.value("SELECT id FROM organization")
    account_disconnect.disconnect_account(backend, content["ann"])
    organizations.disconnect(backend, id)
    end_all(desk)
    account_erase.hide_account(backend, content["bob"])
    assert connected().changes.returned == 1
    assert dict(desk.rows(STATES)) == {"ann": "disconnected", "bob": "erasing", "cid": "active"}


def test_another_person_with_the_address_gets_no_old_content(
    backend, desk, content, connected
) -> None:
    organizations.disconnect(backend, desk.value("SELECT id FROM organization"))
    end_all(desk)
    Club.listed = [Member("id-new", "ann"), *Club.listed[1:]]
    changes = connected().changes
    assert (changes.returned, changes.skipped) == (2, 1)
    assert dict(desk.rows(STATES))["ann"] == "disconnected"


def test_a_full_quota_does_not_keep_accounts_from_returning(
    backend, desk, content, connected
) -> None:
    desk.conn.execute(
        "INSERT INTO user_quota (user_id, name, most) VALUES ('default', 'accounts', 3)"
    )
    organizations.disconnect(backend, desk.value("SELECT id FROM organization"))
    end_all(desk)
    Club.listed = [Member("id-new", "dan"), *Club.listed]
    changes = connected().changes
    assert (changes.returned, changes.added) == (3, 0)
    assert changes.problem is not None


def test_an_erasure_that_has_begun_is_not_undone(backend, desk, content, connected) -> None:
    id = desk.value("SELECT id FROM organization")
    organizations.disconnect(backend, id, hides_content=True)
    end_all(desk)
    desk.conn.execute("UPDATE user_integration SET erasure_begun = true WHERE identity = 'ann'")
    changes = connected().changes
    assert (changes.returned, changes.skipped) == (2, 1)
    assert dict(desk.rows(STATES))["ann"] == "erasing"


def test_an_old_api_would_show_hidden_content(backend, desk, content) -> None:
    desk.conn.execute(
        "INSERT INTO process (id, kind, host, pid, queues, seen_at)"
        " VALUES (gen_random_uuid(), 'api', 'h', 1, '{}', now())"
    )
    id = desk.value("SELECT id FROM organization")
    organizations.disconnect(backend, id, hides_content=True)
    end_all(desk)
    assert erasure.erase_due(desk.conn, None, 60)
    assert desk.rows("SELECT FROM user_integration_content") == []
