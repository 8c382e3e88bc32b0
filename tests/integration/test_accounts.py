"""Accounts: one identity is one account, and one task at a time refreshes its credentials."""

from __future__ import annotations

import threading

import pytest

from core.accounts import store
from core.accounts.refresh import Sealed, refresh
from core.errors import CredentialsInvalid, NotFound


def test_connecting_twice_is_one_account_with_the_new_credentials(desk) -> None:
    first = desk.account("me", credentials="old")
    desk.conn.execute(
        """
        UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials',
            status_detail = 'x'
        """
    )
    assert desk.account("me", credentials="new") == first
    account = store.load(desk.conn, first)
    assert (account.credentials, account.credentials_version, account.version) == ("new", 2, 2)
    assert (account.sync_status, account.status_reason) == ("active", None)


def test_another_user_or_domain_is_another_account(desk) -> None:
    assert (
        len(
            {
                desk.account("me"),
                desk.account("me", user_id="v"),
                desk.account("me", domain="other"),
            }
        )
        == 3
    )


def test_concurrent_connects_make_one_account(desk, connect, together) -> None:
    conns = [connect() for _ in range(6)]
    given = {
        "user_id": "u",
        "domain": "shop",
        "name": "me",
        "identity": "me",
        "group": None,
        "config": {},
        "limits": [],
    }
    answers = together(
        *(lambda conn=conn: store.connect(conn, credentials="x", **given) for conn in conns)
    )
    assert len({account for account, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1


def test_an_unknown_account_is_not_found(desk) -> None:
    with pytest.raises(NotFound):
        store.load(desk.conn, "11111111-1111-4111-8111-111111111111")


def test_eight_concurrent_refreshes_call_the_provider_once(desk, database, together) -> None:
    account, asked = desk.account(), []

    def renew() -> str:
        asked.append(threading.get_ident())
        assert desk_state(database, account)[1] == 1
        return "renewed"

    answers = together(*(lambda: refresh(database, account, 1, renew) for _ in range(8)))
    assert answers == [Sealed("renewed", 2)] * 8
    assert len(asked) == 1


def desk_state(database, account):
    with database.connection() as conn:
        return conn.execute(
            """
            SELECT credentials, credentials_version, refresh_holder FROM user_integration
            WHERE id = %s
            """,
            (account,),
        ).fetchone()


def test_new_credentials_are_stored_before_they_are_returned(desk, database) -> None:
    account = desk.account()
    answer = refresh(database, account, 1, lambda: "renewed")
    assert answer == Sealed(*desk_state(database, account)[:2])
    assert desk_state(database, account)[2] is None
    assert desk.value("SELECT version FROM user_integration") == 2


def test_no_transaction_is_open_while_the_provider_is_called(desk, database) -> None:
    account = desk.account()

    def renew() -> str:
        desk.conn.execute("SET lock_timeout = '1s'")
        desk.conn.execute("UPDATE user_integration SET name = 'free'")
        open_ones = desk.value(
            """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state = 'idle in transaction'
            """
        )
        assert open_ones == 0
        return "renewed"

    assert refresh(database, account, 1, renew).version == 2


def test_a_task_with_old_credentials_gets_the_newer_ones_without_a_call(desk, database) -> None:
    account = desk.account()
    refresh(database, account, 1, lambda: "renewed")
    assert refresh(database, account, 1, lambda: pytest.fail("asked")) == Sealed("renewed", 2)


def test_a_refusal_is_raised_and_the_next_refresh_may_try_immediately(desk, database) -> None:
    account = desk.account()

    def refused() -> str:
        raise CredentialsInvalid("revoked")

    with pytest.raises(CredentialsInvalid):
        refresh(database, account, 1, refused)
    assert refresh(database, account, 1, lambda: "renewed") == Sealed("renewed", 2)


def test_another_task_refreshes_when_the_lease_of_a_dead_one_has_expired(desk, database) -> None:
    account = desk.account()
    desk.conn.execute(
        """
        UPDATE user_integration SET refresh_holder = gen_random_uuid(),
            refresh_until = now() - interval '1 s'
        """
    )
    assert refresh(database, account, 1, lambda: "renewed").version == 2


def test_a_reconnect_during_a_refresh_wins(desk, database) -> None:
    account = desk.account()

    def renew() -> str:
        desk.conn.execute(
            store.SET_CREDENTIALS,
            {"id": account, "credentials": "by hand", "group": None, "public_hosts_only": False},
        )
        return "renewed"

    assert refresh(database, account, 1, renew) == Sealed("by hand", 2)
    assert desk_state(database, account)[0] == "by hand"


def test_an_edited_configuration_restarts_only_accounts_that_it_had_stopped(desk) -> None:
    account = desk.account()
    for reason, after in (("configuration", "active"), ("credentials", "error")):
        desk.conn.execute(
            "UPDATE user_integration SET sync_status = 'error', status_reason = %s", (reason,)
        )
        desk.conn.execute(
            store.SET_CONFIG,
            {
                "id": account,
                "config": "{}",
                "limits": "[]",
                "resync": True,
                "reread": False,
                "public_hosts_only": False,
                "instead_of": None,
            },
        )
        assert desk.rows("SELECT sync_status, resync_due FROM user_integration") == [(after, True)]


def test_disconnecting_deletes_the_credentials_immediately(desk) -> None:
    account = desk.account()
    desk.conn.execute(store.DISCONNECT, (account,))
    assert desk.rows(
        "SELECT sync_status, credentials, credentials_version, next_sync_at FROM user_integration"
    ) == [("disconnected", None, 2, None)]
