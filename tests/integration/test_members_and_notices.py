"""Items of the kind `members` end with the connection; and notices of plugins are shown."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from integration_polling_hello_world import HelloWorld

from core import MAX_INLINE_BYTES, MEMBERS, NOTICE, Notice, TaskOutput
from core.accounts import store
from core.service.accounts import disconnect
from core.service.accounts.partitions import MAX_NOTICE_CHARS
from core.service.authorization import Principal
from core.service.content import changes
from core.states import Deletions

WIPED = """
SELECT count(*) FROM user_integration_content
WHERE kind = 'members' AND deleted_at IS NOT NULL AND metadata = '{}'
"""


@pytest.fixture
def integrations() -> list[type[HelloWorld]]:
    return [HelloWorld]


def with_members(desk: Any) -> UUID:
    """Connect an account with a channel, a message and a list of members."""
    account: UUID = desk.account()
    members = TaskOutput("C1:members", kind=MEMBERS, parent="C1", metadata={"members": ["U1"]})
    desk.keep(account, TaskOutput("C1", kind="channel"), TaskOutput("C1:1", "hello"), members)
    return account


@pytest.mark.parametrize("deletions", [Deletions.MARK, Deletions.KEEP])
def test_a_disconnected_account_keeps_its_content_without_members(
    desk: Any, deletions: Deletions
) -> None:
    account = with_members(desk)
    store.set_deletions(desk.conn, account, deletions)
    disconnect.disconnect(desk.conn, account)
    assert desk.alive() == {"C1", "C1:1"}
    assert desk.value(WIPED) == 1, "nobody may read who was a member"


def test_a_long_list_of_members_is_not_kept_in_the_blob_store(desk: Any, api: Any) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("C1:members", b"U1" * MAX_INLINE_BYTES, kind=MEMBERS))
    [(id, blob)] = desk.rows("SELECT id, blob_key FROM user_integration_content")
    place, operator = f"/v1/user-integration-content/{id}/raw", api.client(api.token())
    first = operator.get(place)
    assert blob
    assert len(first.content) == 2 * MAX_INLINE_BYTES
    disconnect.disconnect(desk.conn, account)
    gone = operator.get(place, headers={"If-None-Match": first.headers["ETag"]})
    assert (gone.status_code, gone.content) == (200, b"")
    assert "ETag" not in gone.headers


def test_the_feed_tells_that_members_are_gone(desk: Any) -> None:
    account, everyone = with_members(desk), Principal(UUID(int=1), None)
    cursor = changes.read(desk.conn, everyone).cursor
    disconnect.disconnect(desk.conn, account)
    found = changes.read(desk.conn, everyone, after=cursor)
    told = [(one.kind, one.content and one.content["external_id"]) for one in found.changes]
    assert told == [("deleted", "C1:members")]


def test_a_result_after_the_disconnection_keeps_no_members(desk: Any) -> None:
    account = with_members(desk)
    late = desk.root(account)
    disconnect.disconnect(desk.conn, account)
    members = TaskOutput("C1:members", kind=MEMBERS, parent="C1", metadata={"members": ["U2"]})
    desk.finish(late, output=[members])
    assert desk.alive() == {"C1", "C1:1"}


def test_members_return_with_the_connection(desk: Any) -> None:
    account = with_members(desk)
    disconnect.disconnect(desk.conn, account)
    desk.conn.execute("UPDATE user_integration SET sync_status = 'active'")
    members = TaskOutput("C1:members", kind=MEMBERS, parent="C1", metadata={"members": ["U1"]})
    desk.keep(account, members)
    assert desk.content("metadata")["C1:members"] == {"members": ["U1"]}
    assert "C1:members" in desk.alive()


def test_other_accounts_keep_their_members(desk: Any) -> None:
    first, second = with_members(desk), desk.account("another")
    members = TaskOutput("C2:members", kind=MEMBERS, parent="C2", metadata={"members": ["U1"]})
    desk.keep(second, members)
    disconnect.disconnect(desk.conn, first)
    assert "C2:members" in desk.alive()


def test_notices_are_shown_with_the_account(desk: Any, api: Any, dashboard: Any) -> None:
    account = desk.account("a", user_id="u")
    place = f"/v1/user-integrations/{account}"
    assert api.user("u").get(place).json()["notice"] is None
    desk.finish(desk.root(account), state={NOTICE: Notice(text="A pass takes <b>21</b> min.")})
    assert api.user("u").get(place).json()["notice"] == "A pass takes <b>21</b> min."
    page = dashboard.sign_in().get(f"/accounts/{account}").text
    assert "A pass takes &lt;b&gt;21&lt;/b&gt; min." in page
    desk.finish(desk.root(account), state={NOTICE: Notice(text="x" * 5_000)})
    assert api.user("u").get(place).json()["notice"] == "x" * MAX_NOTICE_CHARS
    for value in (Notice(text=""), None):
        desk.finish(desk.root(account), state={NOTICE: value})
        assert api.user("u").get(place).json()["notice"] is None
