"""Content over the API: listings, search, bytes, and hostile names and types in headers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from support.indexing import index_all
from support.old_clocks import OLD, YOUNG

from core import TaskOutput
from core.content.search_documents import WAIT_FOR_PROGRESS
from core.errors import WrongState
from core.ledger import erasure
from core.service.accounts import erase as account_erase
from core.service.content import listing as content_listing
from core.service.content import search_index
from core.service.pagination import encode_cursor

NOTHING = {"hidden": 0, "accounts": 0, "rows": 0, "blobs": 0}
PLACE = "/v1/user-integration-content"
EVIL = 'a"\r\nSet-Cookie: x=y\r\n\r\n<script>.html'


def names(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["external_id"] for item in answer.json()["items"]]


def test_content_is_filtered_by_each_parameter(api, desk) -> None:
    now = datetime.now(UTC)
    mine, other = desk.account("a", user_id="u"), desk.account("b", user_id="u", domain="caller")
    desk.keep(
        mine,
        TaskOutput("m1", "hello", kind="message", timestamp=now - timedelta(days=2)),
        TaskOutput("m1/1", b"\0bytes", kind="attachment", parent="m1", timestamp=now),
        TaskOutput("old", "gone", timestamp=now),
    )
    desk.keep(mine, TaskOutput.gone("old"))
    desk.conn.execute(
        "INSERT INTO user_integration_content (user_integration_id, integration_domain,"
        " external_id, kind, digest, content_seq, metadata_seq) VALUES (%s, 'caller', 'z', 'item',"
        " '', 1, 1)",
        (other,),
    )
    user = api.user("u")

    def find(**params):
        return set(names(user.get(PLACE, params=params)))

    assert find() == {"m1", "m1/1", "z"}
    assert find(user_integration_id=str(mine)) == {"m1", "m1/1"}
    assert find(integration_domain="caller") == {"z"}
    assert find(external_id="m1") == {"m1"}
    assert find(parent="m1") == {"m1/1"}
    assert find(kind="message") == {"m1"}
    assert find(deleted="true") == {"old"}
    assert find(since=(now - timedelta(days=1)).isoformat()) == {"m1/1"}
    assert find(until=(now - timedelta(days=1)).isoformat()) == {"m1"}
    assert find(updated_since=(now + timedelta(days=1)).isoformat()) == set()
    assert find(user_id="u") == {"m1", "m1/1", "z"}
    assert names(api.user("v").get(PLACE)) == []
    assert names(api.admin.get(PLACE, params={"user_id": "v"})) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_pages_across_accounts_return_each_item_once(api, desk, limit) -> None:
    wanted = set()
    for account in range(4):
        id = desk.account(f"a{account}", user_id="u" if account else "other")
        desk.keep(id, *(TaskOutput(f"{item}", "x") for item in range(account)))
        wanted |= {(str(id), f"{item}") for item in range(account)}
    user, found, after = api.user("u"), [], None
    while True:
        page = user.get(PLACE, params={"limit": limit} | ({"after": after} if after else {})).json()
        assert len(page["items"]) <= limit
        found += [(item["user_integration_id"], item["external_id"]) for item in page["items"]]
        after = page["cursor"]
        if after is None:
            break
    assert set(found) == wanted
    assert len(found) == len(wanted)


def test_content_is_found_when_it_is_indexed(api, desk, connect) -> None:
    indexer = connect()
    with indexer.transaction():
        indexer.execute(WAIT_FOR_PROGRESS)  # the API's own indexer must wait
        desk.keep(desk.account("a", user_id="u"), TaskOutput("1", "the invoice of May"))
        assert names(api.user("u").get(PLACE, params={"q": "invoice"})) == []
    index_all(desk.conn)
    assert names(api.user("u").get(PLACE, params={"q": "invoice"})) == ["1"]


def test_a_search_finds_words_in_the_users_own_content_only(api, desk) -> None:
    mine, other = desk.account("a", user_id="u"), desk.account("b", user_id="v")
    desk.keep(
        mine, TaskOutput("1", "the invoice of May", name="Bill"), TaskOutput("2", "a draft invoice")
    )
    desk.keep(other, TaskOutput("3", "another invoice"))
    index_all(desk.conn)
    user = api.user("u")
    assert sorted(names(user.get(PLACE, params={"q": "invoice"}))) == ["1", "2"]
    assert names(user.get(PLACE, params={"q": "invoice -draft"})) == ["1"]
    assert names(user.get(PLACE, params={"q": "BILL"})) == ["1"]
    assert names(api.admin.get(PLACE, params={"q": "invoice", "limit": 2})) != []
    desk.keep(mine, TaskOutput("1", "something else"))
    index_all(desk.conn)
    assert names(user.get(PLACE, params={"q": "invoice"})) == ["2"]
    assert names(user.get(PLACE, params={"q": "'\\ ) & ! :* ("})) == []


def test_a_running_api_indexes_new_content_by_itself(api, desk, until) -> None:
    desk.keep(desk.account("a", user_id="u"), TaskOutput("1", "needle"))
    user = api.user("u")
    until(lambda: names(user.get(PLACE, params={"q": "needle"})) == ["1"])


def test_a_huge_text_is_indexed_at_its_start(api, desk) -> None:
    words = " ".join(f"word{number}" for number in range(90_000))
    desk.keep(desk.account("a", user_id="u"), TaskOutput("1", words))
    index_all(desk.conn)
    assert names(api.user("u").get(PLACE, params={"q": "word7"})) == ["1"]


def test_content_that_cannot_be_indexed_does_not_stop_the_rest(api, desk, until) -> None:
    desk.conn.execute(
        "ALTER TABLE content_search ADD CHECK (NOT document @@ to_tsquery('simple', 'poison'))"
    )
    items = [
        TaskOutput("1", "first"),
        TaskOutput("2", "poison", name="second"),
        TaskOutput("3", "third"),
    ]
    desk.keep(desk.account("a", user_id="u"), *items)
    user = api.user("u")
    for word, id in (("third", "3"), ("second", "2"), ("first", "1")):
        until(lambda word=word, id=id: names(user.get(PLACE, params={"q": word})) == [id])


def test_bytes_are_returned_unchanged(api, desk) -> None:
    blob = bytes(range(256)) * 5_000  # more than a megabyte, so it is in the blob store
    account = desk.account("a", user_id="u")
    desk.keep(
        account,
        TaskOutput("t", "Grüße"),
        TaskOutput("b", b"\0\xff"),
        TaskOutput("l", blob),
        TaskOutput("n"),
    )
    user = api.user("u")
    for item in user.get(PLACE).json()["items"]:
        raw = user.get(f"{PLACE}/{item['id']}/raw")
        assert raw.status_code == 200
        wanted = {"t": "Grüße".encode(), "b": b"\0\xff", "l": blob, "n": b""}[item["external_id"]]
        assert raw.content == wanted
        assert user.get(f"{PLACE}/{item['id']}").json() == item | {"text_problem": None}


@pytest.mark.parametrize(
    "type",
    [
        "text/html",
        'text/html"\r\nX-Evil: 1',
        "text/html; charset=\r\nX-Evil: 1",
        "\r\nX-Evil: 1",
        "",
        "x" * 300,
    ],
)
def test_names_and_types_cannot_inject_headers(api, desk, type) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "<script>alert(1)</script>", name=EVIL, content_type=type))
    user = api.user("u")
    id = user.get(PLACE).json()["items"][0]["id"]
    raw = user.get(f"{PLACE}/{id}/raw")
    assert not {"set-cookie", "x-evil"} & set(raw.headers)
    assert raw.headers["content-disposition"].startswith("attachment; filename*=UTF-8''a%22%0D%0A")
    assert raw.headers["x-content-type-options"] == "nosniff"
    assert raw.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert raw.headers["content-type"].partition(";")[0] in (
        "text/html",
        "application/octet-stream",
    )


def test_a_missing_blob_is_reported_before_the_answer_begins(api, desk) -> None:
    desk.keep(desk.account("a", user_id="u"), TaskOutput("l", b"\xff" * 2_000_000))
    desk.conn.execute("UPDATE user_integration_content SET blob_key = '00/00/' || repeat('0', 64)")
    user = api.user("u")
    id = user.get(PLACE).json()["items"][0]["id"]
    assert user.get(f"{PLACE}/{id}/raw").status_code == 404


def test_erasing_a_user_leaves_no_row_and_no_blob(api, desk, blobs) -> None:
    mine, other = desk.account("a", user_id="u/1"), desk.account("b", user_id="v")
    shared, own = b"\x01" * 2_000_000, b"\x02" * 2_000_000
    desk.keep(mine, TaskOutput("1", "needle"), TaskOutput("s", shared), TaskOutput("o", own))
    desk.keep(other, TaskOutput("s", shared))
    desk.conn.execute("UPDATE blob SET touched_at = now() - interval '2 hours'")
    desk.conn.execute(OLD)
    index_all(desk.conn)
    token = api.token("u/1")
    new = {"integration_domain": "locked", "user_id": "u/1", "credentials": {"password": "x"}}
    assert (
        api.admin.post(
            "/v1/user-integrations", json=new, headers={"Idempotency-Key": "k"}
        ).status_code
        == 201
    )
    assert api.user("v").delete("/v1/users/u/1?now=true").status_code == 403
    gone = api.client(token).delete("/v1/users/u%2F1?now=true")
    assert gone.status_code == 200, gone.text
    assert (gone.json()["accounts"], gone.json()["blobs"]) == (2, 1)
    # The response of the connection is only the ID of an account. Repeated, it connects none.
    assert desk.rows("SELECT ARRAY(SELECT jsonb_object_keys(answer)), location"
                     " FROM idempotency_key") == [(["erased"], None)]  # fmt: skip
    assert api.client(token).get(PLACE).status_code == 401
    assert desk.value("SELECT count(*) FROM user_integration") == 1
    assert desk.value("SELECT count(*) FROM user_integration_content") == 1
    assert desk.value("SELECT count(*) FROM content_search") == 1
    assert desk.value("SELECT count(*) FROM sync_run WHERE user_integration_id = %s", mine) == 0
    assert desk.value("SELECT count(*) FROM blob") == 1
    (row,) = api.user("v").get(PLACE).json()["items"]
    assert api.user("v").get(f"{PLACE}/{row['id']}/raw").content == shared
    assert api.admin.delete("/v1/users/u%2F1?now=true").json() == NOTHING


def test_blobs_of_an_erased_user_are_deleted_within_an_hour(api, desk) -> None:
    desk.keep(desk.account("a", user_id="u"), TaskOutput("o", b"\x02" * 2_000_000))
    assert api.admin.delete("/v1/users/u?now=true").json()["blobs"] == 0
    left = desk.value(
        "SELECT extract(epoch FROM touched_at - now() + interval '24 hours')::float FROM blob"
    )
    assert 0 < left <= 3600


def test_an_erasure_keeps_a_blob_that_only_a_wrong_clock_calls_old(api, desk) -> None:
    """A result that is not saved yet may have the same bytes."""
    desk.keep(desk.account("a", user_id="u"), TaskOutput("o", b"\x02" * 2_000_000))
    desk.conn.execute(YOUNG)
    desk.conn.execute("UPDATE blob SET touched_at = touched_at - interval '1 day'")
    assert api.admin.delete("/v1/users/u?now=true").json()["blobs"] == 0
    assert desk.value("SELECT count(*) FROM blob") == 1
    kept = {"grace": 1.0, "keys": [desk.value("SELECT key FROM blob")]}
    assert (
        api.backend.blobs.collect(**kept, before=desk.value("SELECT now() - interval '9 days'"))
        == 0
    )
    assert api.backend.blobs.collect(**kept) == 1


def test_a_query_that_takes_too_long_releases_its_connection(api, desk, monkeypatch) -> None:
    desk.keep(desk.account("a", user_id="u"), TaskOutput("1", "x"))
    monkeypatch.setattr(content_listing, "MAX_SEARCH_SECONDS", 0.2)
    pages = content_listing.PAGES_OF_USER
    slow = pages["kind"].replace("c.kind =", "pg_sleep(30) IS NOT NULL AND c.kind =")
    monkeypatch.setitem(pages, "kind", slow)
    user = api.user("u")
    answer = user.get(PLACE, params={"kind": "item"})
    assert (answer.status_code, "too long" in answer.json()["detail"]) == (422, True)
    assert names(user.get(PLACE)) == ["1"]
    with api.backend.database.connection() as conn:
        assert conn.execute("SHOW statement_timeout").fetchone() == ("30s",)


@pytest.fixture
def after_erasing(monkeypatch):
    """Return `after_erasing(act)`, which calls `act` once during an erasure.

    At that moment the last portion of an account is deleted, and its own row is not.
    """
    erase = erasure.erase

    def install(act) -> None:
        left = [act]

        def and_then(conn, account):
            yield from erase(conn, account)
            if left:
                left.pop()()

        monkeypatch.setattr(erasure, "erase", and_then)

    return install


def test_an_account_is_not_reconnected_during_its_erasure(api, desk, after_erasing) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"))
    refused = []

    def again() -> None:
        with pytest.raises(WrongState) as error:
            desk.account("a", user_id="u")
        refused.append(error.value.code)

    after_erasing(again)
    assert api.admin.delete("/v1/users/u?now=true").status_code == 200
    assert refused == ["account-erasure-begun"]
    for table in ("user_integration_content", "sync_run", "sync_task", "user_integration"):
        assert desk.value(f"SELECT count(*) FROM {table}") == 0, table


def test_concurrent_erasures_of_one_user_succeed(api, desk, after_erasing) -> None:
    _, second = (desk.account(name, user_id="u") for name in "ab")
    after_erasing(lambda: account_erase.erase_account(api.backend, second))
    assert api.admin.delete("/v1/users/u?now=true").status_code == 200
    assert desk.value("SELECT count(*) FROM user_integration") == 0


def test_erasing_during_indexing_neither_deadlocks_nor_leaves_words(
    api, desk, connect, together
) -> None:
    """Both lock many rows of content in the same order, so that neither has to abort."""
    accounts = [desk.account(f"a{number}", user_id="u") for number in range(3)]
    for account in accounts:
        desk.keep(account, *(TaskOutput(f"{item:04}", f"needle {item}") for item in range(400)))
    conn = connect()

    def follow_all() -> int:
        portions = 0
        while search_index.index_batch(conn, 50) != 0:
            portions += 1
        return portions

    answers = together(follow_all, lambda: api.admin.delete("/v1/users/u?now=true").status_code)
    assert answers[1] == 200, answers
    assert isinstance(answers[0], int), answers
    assert desk.value("SELECT count(*) FROM user_integration_content") == 0
    assert desk.value("SELECT count(*) FROM content_search") == 0


def test_words_are_found_again_after_a_restore_into_another_cluster(api, desk, until) -> None:
    desk.conn.execute("UPDATE search_progress SET changed_xid = 9e15, content_id = 5")
    desk.keep(desk.account("a", user_id="u"), TaskOutput("1", "needle"))
    user = api.user("u")
    until(lambda: names(user.get(PLACE, params={"q": "needle"})) == ["1"])


@pytest.mark.parametrize(
    "place",
    [
        [1, 2],
        [{}, {}],
        ["\ud800", "\ud800"],
        ["\0", "\0"],
        [[], []],
        [True, "x"],
        [None, None],
        [1.5, 10**300],
        ["x", {}],
        [1],
    ],
)
def test_a_forged_cursor_is_an_invalid_request(api, desk, place) -> None:
    account = desk.account("a", user_id="u")
    desk.keep(account, TaskOutput("1", "x"))
    run, cursor = desk.run(account), encode_cursor(place)
    around = "/v1/user-integrations"
    for path in (
        PLACE,
        f"{PLACE}?q=x",
        around,
        f"{around}/{account}/runs",
        f"/v1/runs/{run}/tasks",
        "/v1/changes",
    ):
        answer = api.user("u").get(
            path, params={"after": cursor} | ({"q": "x"} if "?" in path else {})
        )
        if len(place) == 2 or "tasks" not in path:
            assert answer.status_code == 422, (path, answer.text)
            assert answer.json()["detail"].startswith("invalid cursor"), (path, answer.text)
        assert answer.status_code < 500


def test_a_cursor_is_valid_for_its_own_listing_only(api, desk) -> None:
    account = desk.account("a", user_id="u")
    desk.account("b", user_id="u")
    run = desk.run(account)
    desk.add(run, "1", "2")
    desk.keep(account, TaskOutput("1", "x"), TaskOutput("2", "x"))
    user, around = api.user("u"), "/v1/user-integrations"
    paths = [PLACE, around, f"/v1/runs/{run}/tasks", "/v1/changes"]
    cursors = [user.get(path, params={"limit": 1}).json()["cursor"] for path in paths]
    assert None not in cursors
    for own, cursor in zip(paths, cursors, strict=True):
        for path in paths:
            answer = user.get(path, params={"after": cursor})
            assert answer.status_code == (200 if path == own else 422), (own, path)
            assert path == own or answer.json()["detail"].startswith("invalid cursor")


@pytest.mark.parametrize(
    "words",
    ["-" * 1000, "- " * 500, "\U0001f600" * 1000, '"' * 1000, "or " * 333, r"'\:*&|!()<->" * 80],
)
def test_a_meaningless_search_causes_no_server_error(api, words) -> None:
    assert api.user("u").get(PLACE, params={"q": words}).status_code in (200, 422)
