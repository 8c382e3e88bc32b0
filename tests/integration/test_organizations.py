"""An organization: the members have one account each, kept current, and the key is stored once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from integration_polling_gmail import Credentials, Gmail
from support.cli import Cli
from support.gmail import FakeGmail, Mailbox
from support.gmail.directory import ADMINISTRATOR, SCOPE
from support.gmail.service_accounts import private_key, service_account

from core import Member, PermanentError
from core.accounts import store
from core.accounts.vault import Vault
from core.egress import Egress
from core.errors import InvalidInput, PollingError
from core.ledger import endings
from core.ledger import organizations as ledger
from core.plugins import Registry
from core.service import organizations
from core.service.accounts import actions, key_rotation
from core.service.accounts import erase as account_erase
from core.settings import Settings
from core.worker.accounts import Accounts
from core.worker.member_listing import MemberListing
from core.worker.members import Members

ACCOUNTS = """
SELECT identity, sync_status, user_id, status_detail FROM user_integration
WHERE integration_domain = 'gmail' ORDER BY identity
"""
READONLY = "https://www.googleapis.com/auth/gmail.readonly"


@pytest.fixture
def integrations() -> Sequence[Any]:
    return (Gmail,)


@pytest.fixture
def gmail(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGmail]:
    with FakeGmail() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("ann", "bob", "cid"):
            address = f"{name}@example.com"
            fake.directory.add(address)
            fake.mailboxes[address] = Mailbox(address)
        yield fake


@pytest.fixture
def engine(api: Any, gmail: FakeGmail) -> Any:
    return api.backend


@pytest.fixture
def desk_rows(engine: Any) -> Any:
    def rows(statement: str = ACCOUNTS, *params: Any) -> list[Any]:
        with engine.database.connection() as conn:
            return conn.execute(statement, params).fetchall()

    return rows


@pytest.fixture
def worker(engine: Any, egress: Egress) -> Members:
    registry = Registry()
    registry.integrations["gmail"] = Gmail
    return Members(engine.database, engine.vault, registry, egress)


def given(**changes: Any) -> dict[str, Any]:
    return {"service_account": service_account(project_id="p"), "subject": ADMINISTRATOR} | changes


def connect(engine: Any, **changes: Any) -> organizations.Connected:
    return organizations.connect(
        engine, "gmail", **{"name": "example.com", "credentials": given()} | changes
    )


def statuses(rows: list[Any]) -> dict[str, str]:
    return {identity.partition("@")[0]: status for identity, status, *_ in rows}


def test_each_member_has_an_account_that_works(engine, gmail: FakeGmail, desk_rows) -> None:
    gmail.directory.page_size = 2
    connected = connect(engine)
    assert connected.changes.added == 3
    assert gmail.directory.calls == 2
    assert statuses(desk_rows()) == {"ann": "active", "bob": "active", "cid": "active"}
    for id, identity in desk_rows("SELECT id, identity FROM user_integration"):
        assert actions.check_account(engine, id).id == identity


def test_the_key_is_stored_once(engine, gmail: FakeGmail, desk_rows) -> None:
    connect(engine)
    vault, key = engine.vault, private_key()
    [(sealed,)] = desk_rows("SELECT credentials FROM organization")
    assert vault.open_json(sealed)["service_account"]["private_key"] == key
    for id, own in desk_rows("SELECT id, credentials FROM user_integration"):
        assert set(vault.open_json(own)) == {"subject"}
        actions.check_account(engine, id)  # gets an access token, which is stored
    for _, own in desk_rows("SELECT id, credentials FROM user_integration"):
        found = vault.open_json(own)
        assert set(found) == {"subject", "access_token", "access_token_expires"}
        assert key not in json.dumps(found)


def test_a_worker_reads_an_account_with_both_parts(engine, gmail: FakeGmail, desk_rows) -> None:
    connect(engine)
    registry = Registry()
    registry.integrations["gmail"] = Gmail
    accounts = Accounts(engine.database, engine.vault, registry, {})
    [(id,)] = desk_rows("SELECT id FROM user_integration WHERE identity = 'bob@example.com'")
    loaded = accounts.get(str(id))
    assert isinstance(loaded.credentials, Credentials)
    assert loaded.credentials.subject == "bob@example.com"
    assert loaded.credentials.service_account is not None
    assert private_key() not in loaded.redact(private_key())
    sealed = accounts.seal(loaded.account, loaded.credentials)
    assert set(engine.vault.open_json(sealed)) == {"subject"}
    assert accounts.renewed(loaded, sealed, 2).credentials == loaded.credentials


def test_members_come_leave_and_return(engine, gmail: FakeGmail, desk_rows) -> None:
    id = connect(engine).id
    gmail.directory.add("dan@example.com")
    first, second = list(gmail.directory.users)[:2]
    gone = gmail.directory.users.pop(first)
    gmail.directory.users[second]["suspended"] = True
    changes = organizations.sync(engine, id)
    assert (changes.added, changes.left, changes.members) == (1, 2, 2)
    assert statuses(desk_rows()) == {
        "ann": "paused", "bob": "paused", "cid": "active", "dan": "active"
    }  # fmt: skip
    assert desk_rows()[0][3] == ledger.LEFT
    assert organizations.sync(engine, id).left == 0
    gmail.directory.users |= {first: gone}
    gmail.directory.users[second]["suspended"] = False
    assert organizations.sync(engine, id).returned == 2
    assert set(statuses(desk_rows()).values()) == {"active"}


def test_a_persons_decision_stays_when_a_member_leaves_and_returns(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    id = connect(engine).id
    ids = dict(desk_rows("SELECT identity, id FROM user_integration"))
    members = list(gmail.directory.users.values())[:2]
    for member in members:
        member["suspended"] = True
    assert organizations.sync(engine, id).left == 2
    actions.pause(engine, ids["ann@example.com"])
    actions.resume(engine, ids["bob@example.com"])
    assert organizations.sync(engine, id).left == 0
    for member in members:
        member["suspended"] = False
    organizations.sync(engine, id)
    assert statuses(desk_rows()) == {"ann": "paused", "bob": "active", "cid": "active"}


def test_accounts_stay_if_a_person_names_members_before_or_afterwards(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    addresses = [f"{name}@example.com" for name in ("ann", "bob", "cid")]
    connect(engine, listed=addresses)
    for listed in (None, addresses, None):
        changes = connect(engine, listed=listed).changes
        assert (changes.added, changes.left, changes.skipped) == (0, 0, 0)
        assert set(statuses(desk_rows()).values()) == {"active"}
    next(iter(gmail.directory.users.values()))["id"] = "another person with the address"
    assert connect(engine).changes.left == 1


def test_a_member_who_leaves_twice_is_paused_twice(engine, gmail: FakeGmail, desk_rows) -> None:
    id = connect(engine).id
    [(ann,)] = desk_rows("SELECT id FROM user_integration WHERE identity = 'ann@example.com'")
    user = gmail.directory.users[next(iter(gmail.directory.users))]
    user["suspended"] = True
    organizations.sync(engine, id)
    actions.resume(engine, ann)
    organizations.sync(engine, id)
    assert statuses(desk_rows())["ann"] == "active", "a person's decision stays"
    user["suspended"] = False
    organizations.sync(engine, id)
    user["suspended"] = True
    assert organizations.sync(engine, id).left == 1
    assert statuses(desk_rows())["ann"] == "paused"


def test_an_account_that_a_person_has_stopped_stays_stopped(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    id = connect(engine).id
    ids = dict(desk_rows("SELECT identity, id FROM user_integration"))
    actions.pause(engine, ids["ann@example.com"])
    account_erase.erase_account(engine, ids["bob@example.com"])
    users = dict(gmail.directory.users)
    gmail.directory.users = {}
    with pytest.raises(Exception, match="no active member"):
        connect(engine)
    organizations.sync(engine, id)
    gmail.directory.users = users
    assert organizations.sync(engine, id).added == 0, "an erased account is not added again"
    assert connect(engine).changes.added == 0
    assert statuses(desk_rows()) == {"ann": "paused", "cid": "active"}


def test_a_renamed_user_keeps_the_account(engine, gmail: FakeGmail, desk_rows) -> None:
    id = connect(engine).id
    [(before,)] = desk_rows("SELECT id FROM user_integration WHERE identity = 'ann@example.com'")
    next(iter(gmail.directory.users.values()))["primaryEmail"] = "Anna@example.com"
    gmail.mailboxes["anna@example.com"] = Mailbox("anna@example.com")
    assert organizations.sync(engine, id).renamed == 1
    [(after,)] = desk_rows("SELECT id FROM user_integration WHERE identity = 'anna@example.com'")
    assert after == before
    assert actions.check_account(engine, after).id == "anna@example.com"


def test_a_list_of_members_needs_no_directory(engine, gmail: FakeGmail, desk_rows) -> None:
    listed = ["Ann@example.com", " bob@example.com "]
    credentials = given()
    del credentials["subject"]
    connected = connect(
        engine, listed=listed, credentials=credentials, user_id="of {member}", excluded=["x@y.z"]
    )
    assert connected.changes.added == 2
    assert gmail.directory.calls == 0
    assert [row[2] for row in desk_rows()] == ["of ann@example.com", "of bob@example.com"]


def test_an_account_with_its_own_sign_in_is_left_alone(engine, gmail: FakeGmail, desk_rows) -> None:
    gmail.mailbox.address = "ann@example.com"
    actions.connect(engine, "gmail", config={}, credentials=gmail.credentials())
    assert connect(engine).changes.skipped == 1
    [(organization,)] = desk_rows(
        "SELECT organization_id FROM user_integration WHERE identity = 'ann@example.com'"
    )
    assert organization is None


def test_an_account_that_is_reconnected_leaves_the_organization(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    connect(engine)
    gmail.mailbox.address = "ann@example.com"
    [(id,)] = desk_rows("SELECT id FROM user_integration WHERE identity = 'ann@example.com'")
    actions.reconnect(engine, id, credentials=gmail.credentials())
    with engine.database.connection() as conn:
        assert store.load(conn, id).shared_credentials is None
    assert actions.check_account(engine, id).id == "ann@example.com"


def test_a_new_key_reaches_all_accounts(engine, gmail: FakeGmail, desk_rows) -> None:
    first = connect(engine)
    versions = dict(desk_rows("SELECT id, version FROM user_integration"))
    desk_rows(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'configuration'"
        " WHERE identity LIKE 'ann%%' RETURNING 1"
    )
    again = connect(engine, credentials=given(service_account=service_account(project_id="q")))
    assert (again.id, again.is_new) == (first.id, False)
    assert all(
        version > versions[id]
        for id, version in desk_rows("SELECT id, version FROM user_integration")
    )
    assert set(statuses(desk_rows()).values()) == {"active"}
    [(sealed,)] = desk_rows("SELECT credentials FROM organization")
    assert engine.vault.open_json(sealed)["service_account"]["project_id"] == "q"


def test_keys_rotate_encrypts_the_organization_too(engine, gmail: FakeGmail, desk_rows) -> None:
    connect(engine)
    old = engine.vault
    new = Fernet.generate_key().decode()
    keys = [new, *(key.decode() for key in old._keys)]
    engine = replace(engine, vault=Vault(keys))
    with engine.database.connection() as conn:
        used = key_rotation.keys_in_use(conn, engine.vault)
        assert used[old.fingerprints[0]] == 4
        key_rotation._rotate_rows(
            engine,
            rotation := key_rotation.Rotation(),
            store.LOCK_SEALED_ORGANIZATIONS,
            store.RESEAL_ORGANIZATION,
        )
        assert rotation.done == 1
        assert key_rotation.keys_in_use(conn, engine.vault)[engine.vault.fingerprints[0]] == 1
    [(sealed,)] = desk_rows("SELECT credentials FROM organization")
    assert Vault([new]).open_json(sealed)["subject"] == ADMINISTRATOR


def test_a_full_quota_is_told_and_others_get_their_accounts(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    desk_rows(
        "INSERT INTO user_quota (user_id, name, most) VALUES ('default', 'accounts', 2) RETURNING 1"
    )
    connected = connect(engine)
    assert connected.changes.added == 2
    assert "quota" in str(connected.changes.problem)
    assert connect(engine, name="each", user_id="{member}").changes.added == 3


def listed(engine: Any, id: UUID) -> tuple[ledger.Organization, list[Member]]:
    """Return an organization and its members, as a listing that has just ended."""
    with engine.database.connection() as conn:
        one = ledger.load(conn, id)
    assert one is not None
    return one, MemberListing(engine.vault, engine.egress, Gmail, one).members().members


def end_all(engine: Any) -> None:
    """End the accounts of all disconnected organizations, as the leader does."""
    with engine.database.connection() as conn:
        assert endings.end_due(conn, 60)


def apply(engine: Any, one: ledger.Organization, members: list[Any]) -> ledger.Changes:
    with engine.database.connection() as conn:
        return ledger.apply(conn, engine.vault, Gmail, one, members)


def test_an_account_that_is_erased_during_a_listing_is_not_added_again(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    one, members = listed(engine, connect(engine).id)
    ids = dict(desk_rows("SELECT identity, id FROM user_integration"))
    account_erase.erase_account(engine, ids["bob@example.com"])
    assert apply(engine, one, members).added == 0
    assert statuses(desk_rows()) == {"ann": "active", "cid": "active"}


def test_a_listing_adds_nothing_to_an_organization_that_has_ended(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    one, members = listed(engine, connect(engine).id)
    members.append(Member("9", "new@example.com"))
    assert organizations.disconnect(engine, one.id) == 3
    assert apply(engine, one, members).added == 0
    end_all(engine)
    assert apply(engine, one, members).added == 0
    assert set(statuses(desk_rows()).values()) == {"disconnected"}


def test_values_that_cannot_be_stored_stop_no_other_member(
    engine, gmail: FakeGmail, desk_rows
) -> None:
    one, members = listed(engine, connect(engine).id)
    found: list[Any] = [
        Member("1", "dan@example.com", "Dan\0"),
        Member("2", "a@example.com", group=5),  # type: ignore[arg-type]
        Member("3", "b@example.com", group="\0"),
        Member("4", "c@example.com", credentials={"subject": object()}),
        Member(5, "d@example.com"),  # type: ignore[arg-type]
        Member("6", "e@example.com", name=6),  # type: ignore[arg-type]
        Member("7", "eve@example.com"),
    ]
    changes = apply(engine, one, [*members, *found])
    assert (changes.added, changes.skipped) == (2, 5)
    names = dict(desk_rows("SELECT identity, name FROM user_integration"))
    assert names["dan@example.com"] == "Dan\ufffd"
    assert names["eve@example.com"] == "eve@example.com"


REFUSALS = [
    ({"subject": "ann@example.com"}, {}, "may not list the users", "address of an administrator"),
    ({"subject": ""}, {}, "without an administrator", "name the members yourself"),
    ({"service_account": {}}, {}, "needs the key of a service account", "service_account"),
    ({}, {"delegated": {READONLY}}, "admin.directory.user.readonly", "Domain-wide delegation"),
    ({}, {"delegated": {SCOPE}}, "for the scope gmail.readonly", "Domain-wide delegation"),
    ({}, {"enabled": False}, "Admin SDK API is disabled", "Enable it"),
    ({}, {"refuses": 503}, "answered 503", "nothing to correct"),
]  # fmt: skip


def refuse(gmail: FakeGmail, fake: dict[str, Any]) -> None:
    gmail.tokens.delegated = fake.get("delegated")
    gmail.directory.enabled = fake.get("enabled", True)
    gmail.directory.refuses = fake.get("refuses", 0)


def test_rest_connects_and_says_why_not(api, gmail: FakeGmail) -> None:
    client = api.admin
    for changes, fake, says, remedy in REFUSALS:
        refuse(gmail, fake)
        body = {"integration_domain": "gmail", "name": "x", "credentials": given(**changes)}
        answer = client.post("/v1/organizations", json=body)
        assert answer.status_code == (502 if "refuses" in fake else 422), answer.text
        assert says in answer.json()["detail"], says
        assert remedy in answer.text, says
        assert private_key() not in answer.text
    refuse(gmail, {})
    assert client.get("/v1/organizations").json()["items"] == []
    body = {"integration_domain": "gmail", "name": "example.com", "credentials": given()}
    made = client.post("/v1/organizations", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["changes"]["added"] == 3
    assert client.post("/v1/organizations", json=body).status_code == 200
    path = f"/v1/organizations/{made.json()['id']}"
    assert client.get(path).json()["accounts"] == 3
    assert client.post(f"{path}/sync").json()["added"] == 0
    refuse(gmail, {"refuses": 503})
    assert client.post(f"{path}/sync").status_code == 502
    assert "503" in client.get(path).json()["problem"]
    assert client.delete(path).status_code == 204
    assert client.get(path).json()["ending_since"] is not None
    for again in (client.delete(path, params={"content": "delete"}), client.post(f"{path}/sync")):
        assert again.status_code == 409
    refuse(gmail, {})
    assert client.post("/v1/organizations", json=body).status_code == 409
    end_all(api.backend)
    assert client.get(path).status_code == 404


def test_a_users_token_reaches_no_organization(api, gmail: FakeGmail) -> None:
    user = api.user("ann")
    for request in (
        user.get("/v1/organizations"),
        user.get(f"/v1/organizations/{uuid4()}"),
        user.delete(f"/v1/organizations/{uuid4()}"),
        user.post("/v1/organizations", json={
            "integration_domain": "gmail", "name": "x", "credentials": given()
        }),
    ):  # fmt: skip
        assert request.status_code == 403


def test_the_dashboard_connects_and_says_why_not(dashboard, gmail: FakeGmail) -> None:
    browser = dashboard.sign_in()
    path = "/organizations"
    for changes, fake, says, remedy in REFUSALS:
        refuse(gmail, fake)
        form = {"domain": "gmail", "name": "x", "credentials": json.dumps(given(**changes))}
        text = unescape(browser.submit(path, path, form).text)
        assert says in text, (says, text)
        assert remedy in text, says
        assert private_key() not in text
    refuse(gmail, {})
    form = {"domain": "gmail", "name": "example.com", "members": "ann@example.com\nbob@example.com"}
    browser.submit(path, path, form | {"credentials": json.dumps(given())})
    page = browser.get(path).text
    assert "example.com" in page
    assert "2 members, listed" in page
    id = page.partition('formaction="/organizations/')[2][:36]
    assert browser.post(f"{path}/{id}/sync").status_code == 303
    assert browser.post(f"{path}/{id}/disconnect").status_code == 303
    page = browser.get(path).text
    assert "Disconnecting: 2 accounts left." in page
    assert "/disconnect" not in page
    end_all(dashboard.backend)
    assert "No organizations" in browser.get(path).text


def command_line(settings: Settings, tmp_path: Path) -> Cli:
    database, redis = settings.database_url, settings.redis_url
    assert database is not None
    assert redis is not None
    cli = Cli(
        tmp_path,
        forked=True,
        DATABASE_URL=database.get_secret_value(),
        REDIS_URL=redis.get_secret_value(),
        POLLING_SECRET_KEYS=settings.secret_keys[0].get_secret_value(),
    )
    cli.env |= {"POLLING_REDIS_NAMESPACE": settings.redis_namespace}
    return cli


def test_commands_connect_and_say_why_not(settings: Settings, api, gmail, tmp_path: Path) -> None:
    cli = command_line(settings, tmp_path)
    words = ["organizations", "connect", "gmail", "--name", "example.com", "--credentials", "-"]
    for changes, fake, says, remedy in REFUSALS:
        refuse(gmail, fake)
        sentence, advice = cli.fails(*words, given=json.dumps(given(**changes))).splitlines()
        assert says in sentence
        assert remedy in advice
    refuse(gmail, {})
    said = cli.ok(*words, "--except", "cid@example.com", given=json.dumps(given())).out
    assert "Connected: organization example.com. 2 members: 2 accounts added." in said
    assert "2 members, listed" in cli.ok("organizations").out
    assert "nothing has changed" in cli.ok("organizations", "sync", "example.com").out
    disconnect = ("organizations", "disconnect", "example.com")
    assert "needs --yes" in cli(*disconnect, "--delete-content").err
    assert "Disconnecting 2 accounts of example.com" in cli.ok(*disconnect, "--keep-content").out
    assert "Disconnecting: 2 accounts" in cli.ok("organizations").out
    assert "is being disconnected" in cli.fails("organizations", "sync", "example.com")
    end_all(api.backend)
    assert "No organizations" in cli.ok("organizations").out


def test_a_worker_process_lists_members_each_hour(
    engine, gmail: FakeGmail, desk_rows, worker: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, members = connect(engine).id, worker
    gmail.directory.add("dan@example.com")
    assert not members.list_next("gmail"), "the next listing is due in an hour"
    due = "UPDATE organization SET members_due_at = now() RETURNING 1"
    desk_rows(due)
    assert members.list_next("gmail")
    assert len(desk_rows()) == 4
    assert not members.list_next("gmail"), "the next listing is due in an hour"
    desk_rows(due)
    assert not members.list_next("other")
    gmail.directory.refuses = 503
    gmail.directory.users.clear()
    assert members.list_next("gmail")
    with engine.database.connection() as conn:
        assert "503" in organizations.one(conn, id)["problem"]
    assert set(statuses(desk_rows()).values()) == {"active"}, "a failed listing stops nobody"
    gmail.directory.refuses = 0
    for other in ((200, {}), (200, {"status": "ok"}), (404, {}), (403, {})):
        gmail.directory.other = other
        desk_rows(due)
        assert members.list_next("gmail")
        with engine.database.connection() as conn:
            assert organizations.one(conn, id)["problem"] is not None
        assert set(statuses(desk_rows()).values()) == {"active"}, "a proxy stops nobody"
    gmail.directory.other = None
    with monkeypatch.context() as broken:
        broken.setattr(Gmail, "limits", lambda _config: [1 / 0])
        desk_rows(due)
        assert members.list_next("gmail")
        with engine.database.connection() as conn:
            assert "ZeroDivisionError" in organizations.one(conn, id)["problem"]

        def refuse(*_: Any) -> list[Member]:
            raise PermanentError("no\0\n2026-01-01 ERROR forged")

        broken.setattr(Gmail, "members", refuse)
        desk_rows(due)
        assert members.list_next("gmail")
        with pytest.raises(PollingError):
            organizations.sync(engine, id)
        with engine.database.connection() as conn:
            problem = organizations.one(conn, id)["problem"]
        assert "no\ufffd 2026-01-01 ERROR forged" in problem
    desk_rows(due)
    assert members.list_next("gmail")
    assert set(statuses(desk_rows()).values()) == {"paused"}


# Large organizations


def test_a_request_reads_the_first_page_of_a_large_organization(
    engine, gmail: FakeGmail, desk_rows, worker: Members
) -> None:
    for number in range(2_000):
        gmail.directory.add(f"{number}@example.com")
    connected = connect(engine)
    assert not connected.changes.is_complete
    assert gmail.directory.calls == 1
    assert desk_rows() == []
    with engine.database.connection() as conn:
        shown = organizations.one(conn, connected.id)
    assert "not listed yet. A worker process lists them" in organizations.sentence(shown)
    assert worker.list_next("gmail")
    assert gmail.directory.calls == 1 + 5
    assert len(desk_rows()) == 2_003
    gmail.directory.add("new@example.com")
    assert not worker.list_next("gmail"), "the next listing is due in an hour"
    changes = organizations.sync(engine, connected.id)
    assert (changes.is_complete, changes.members, gmail.directory.calls) == (False, 0, 7)
    assert worker.list_next("gmail")
    assert len(desk_rows()) == 2_004


def test_a_request_leaves_a_slow_listing_to_a_worker_process(
    engine, gmail: FakeGmail, desk_rows, worker: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organizations, "LIST_SECONDS", 0.0)
    gmail.directory.page_size = 1
    assert not connect(engine).changes.is_complete
    assert gmail.directory.calls == 1
    assert worker.list_next("gmail")
    assert set(statuses(desk_rows())) == {"ann", "bob", "cid"}


def test_a_request_reads_on_until_it_can_check_an_account(
    engine, gmail: FakeGmail, desk_rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organizations, "MAX_AT_ONCE", 1)
    gmail.directory.page_size = 1
    users = list(gmail.directory.users.values())
    users[0]["suspended"] = True
    assert not connect(engine, excluded=["bob@example.com"]).changes.is_complete
    assert gmail.directory.calls == 3
    users[1]["archived"] = users[2]["suspended"] = True
    with pytest.raises(InvalidInput, match="no active member"):
        connect(engine, name="other")


def test_each_surface_says_that_a_worker_process_lists_a_large_organization(
    settings: Settings, dashboard, api, gmail, tmp_path: Path, worker: Members
) -> None:
    for number in range(organizations.MAX_AT_ONCE):
        gmail.directory.add(f"{number}@example.com")
    body = {"integration_domain": "gmail", "name": "x", "credentials": given()}
    made = api.admin.post("/v1/organizations", json=body).json()
    assert made["changes"]["is_complete"] is False
    assert (made["accounts"], made["listed_at"]) == (0, None)
    path = f"/v1/organizations/{made['id']}"
    assert api.admin.post(f"{path}/sync").json()["is_complete"] is False
    browser = dashboard.sign_in()
    form = {"domain": "gmail", "name": "x", "credentials": json.dumps(given())}
    for answer in (
        browser.submit("/organizations", "/organizations", form),
        browser.post(f"/organizations/{made['id']}/sync"),
    ):
        page = unescape(browser.get(answer.headers["location"]).text)
        assert "A worker process lists the members, and adds their accounts." in page
        assert "The members are not listed yet." in page
    cli = command_line(settings, tmp_path)
    words = ["organizations", "connect", "gmail", "--name", "x", "--credentials", "-"]
    for said in (
        cli.ok(*words, given=json.dumps(given())).out, cli.ok("organizations", "sync", "x").out
    ):  # fmt: skip
        assert "A worker process lists the members, and adds their accounts." in said
    assert worker.list_next("gmail")
    assert api.admin.get(path).json()["accounts"] == organizations.MAX_AT_ONCE + 3


def test_an_unknown_organization_is_not_found(engine) -> None:
    with pytest.raises(Exception, match="not found"):
        organizations.sync(engine, UUID(int=1))
