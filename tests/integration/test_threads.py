"""Participants and threads: the search operators, and reading a thread together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.indexing import index_all
from support.signed_in import signed_in

from core import TaskOutput
from core.search import query as search_query

PLACE = "/v1/user-integration-content"
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def person(name: str, address: str) -> dict[str, str]:
    return {"name": name, "address": address}


ANN, BOB = person("Ann Bee", "ann@example.com"), person("Bob's \\ Müller", "bob@mail.example.org")


def mail(id: str, text: str, hours: int, **metadata: Any) -> TaskOutput:
    when = NOON + timedelta(hours=hours)
    return TaskOutput(id, text, kind="message", name=text, timestamp=when, metadata=metadata)


WORDS = ("earlier note", "first invoice", "second invoice")


@pytest.fixture
def mailbox(desk) -> Any:
    account = desk.account("a", user_id="u")
    desk.keep(
        account,
        mail("m1", "first invoice", 3, thread_id="t1", **{"from": [ANN], "to": [BOB]}),
        mail("m0", "second invoice", 5, thread_id="t1", **{"from": [BOB], "to": [], "cc": [ANN]}),
        mail("m2", "earlier note", 1, thread_id="t1", **{"from": [ANN], "bcc": [BOB]}),
        mail("m3", "ann writes about from:ann", 2, thread_id="t'2\\", **{"from": "nobody"}),
        mail("m4", "other", 2, **{"from": [None, 5, {"name": None}], "to": {"a": 1}}),
    )
    index_all(desk.conn)
    return account


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("from:ann", "m1 m2"),
        ("FROM:ANN", "m1 m2"),
        ("from:ann@example.com", "m1 m2"),
        ("from:example.com", "m1 m2"),
        ('from:"Ann Bee"', "m1 m2"),
        ('from:"Bee Ann"', "m1 m2"),
        ("from:bee invoice", "m1"),
        ("from:müller", "m0"),
        ("from:bob", "m0"),
        ("to:bob", "m1 m2"),
        ("to:ann", "m0"),
        ("cc:ann", "m0"),
        ("bcc:bob", "m2"),
        ("cc:bob", ""),
        ("-from:ann invoice", "m0"),
        ("from:ann or from:bob", "m0 m1 m2"),
        ("from:ann or other", "m1 m2 m4"),
        ("thread:t1", "m0 m1 m2"),
        ("thread:t1 -to:bob", "m0"),
        ("thread:t'2\\", "m3"),
        ('thread:"t\'2\\"', "m3"),
        ('"from:ann"', "m3"),
        ("ann", "m0 m1 m2 m3"),
        ("xfrom:ann", ""),
        ("from:", "m3"),
        ("from: ann", "m1 m2"),
        ("-from: ann invoice", "m0"),
        ('from: "ann" thread: t1', "m1 m2"),
        ("from:!!!", ""),
        ("operator0placeholder", ""),
        ("operator0placeholder from:ann", ""),
        ("from:nobody", ""),
    ],
)
def test_people_and_threads_are_found(api, mailbox, query: str, found: str) -> None:
    answer = api.user("u").get(PLACE, params={"q": query})
    assert answer.status_code == 200, answer.text
    assert " ".join(sorted(item["external_id"] for item in answer.json()["items"])) == found


@pytest.mark.parametrize(
    "query", ["from:'", "from:\\", "from:'':*&|!()", "thread:')) | ('", "from:a\x01b:c:d"]
)
def test_a_strange_operator_is_no_server_error(api, mailbox, query: str) -> None:
    answer = api.user("u").get(PLACE, params={"q": query})
    assert answer.status_code in (200, 422)
    assert answer.status_code == 422 or answer.json()["items"] == []


def test_only_the_own_people_are_found(api, mailbox) -> None:
    assert api.user("stranger").get(PLACE, params={"q": "from:ann"}).json()["items"] == []


def test_a_thread_is_read_together_in_order(api, desk, mailbox) -> None:
    ids = desk.content("id")
    user = api.user("u")
    answer = user.get(f"{PLACE}/{ids['m0']}/thread").json()
    assert [item["external_id"] for item in answer["items"]] == ["m2", "m1", "m0"]
    assert [item["text"] for item in answer["items"]] == [
        "earlier note", "first invoice", "second invoice"
    ]  # fmt: skip
    assert not any(item["truncated"] for item in answer["items"])
    first = user.get(f"{PLACE}/{ids['m0']}/thread", params={"limit": 2}).json()
    rest = user.get(
        f"{PLACE}/{ids['m0']}/thread", params={"limit": 2, "after": first["cursor"]}
    ).json()
    shown = [item["external_id"] for page in (first, rest) for item in page["items"]]
    assert (shown, rest["cursor"]) == (["m2", "m1", "m0"], None)


def test_a_thread_has_only_live_items_of_its_account(api, desk, mailbox) -> None:
    other = desk.account("b", user_id="u")
    desk.keep(other, mail("x", "elsewhere", 0, thread_id="t1"))
    desk.keep(mailbox, TaskOutput.gone("m1"))
    index_all(desk.conn)
    answer = api.user("u").get(f"{PLACE}/{desk.content('id')['m0']}/thread").json()
    assert [item["external_id"] for item in answer["items"]] == ["m2", "m0"]


def test_an_item_without_a_thread_says_so(api, desk, mailbox) -> None:
    id = desk.content("id")["m4"]
    answer = api.user("u").get(f"{PLACE}/{id}/thread")
    assert (answer.status_code, answer.json()["code"]) == (404, "content-has-no-thread")
    assert api.user("stranger").get(f"{PLACE}/{id}/thread").json()["code"] != answer.json()["code"]


def test_an_item_with_very_many_participants_is_searchable(api, desk) -> None:
    account = desk.account("a", user_id="u")
    people = [person(f"Name{n} Family{n}", f"user{n}@host{n}.example") for n in range(4_000)]
    desk.keep(account, mail("m", "words", 0, thread_id="t", to=people, cc=people))
    index_all(desk.conn)
    user = api.user("u")
    for query in ("words", "thread:t", "to:user0@host0.example"):
        assert len(user.get(PLACE, params={"q": query}).json()["items"]) == 1, query


def test_a_reread_makes_its_changes_searchable(desk, mailbox) -> None:
    """The indexer follows every change, and indexes metadata again."""
    desk.keep(mailbox, TaskOutput.update("m4", metadata={"from": [ANN]}))
    index_all(desk.conn)
    query = search_query.parse("from:ann", lambda *_: ())
    found = desk.rows(
        "SELECT c.external_id FROM content_search s JOIN user_integration_content c"
        " ON c.id = s.content_id WHERE s.document @@ %s::tsquery ORDER BY 1", query.text,
    )  # fmt: skip
    assert [id for (id,) in found] == ["m1", "m2", "m4"]


def test_the_dashboard_shows_a_thread(dashboard, desk, mailbox) -> None:
    ids = desk.content("id")
    browser = signed_in(dashboard)
    page = browser.get(f"/content/{ids['m1']}").text
    assert f"/content/{ids['m1']}/thread" in page
    thread = browser.get(f"/content/{ids['m1']}/thread")
    assert thread.status_code == 200
    texts = thread.text.split("<pre")[1:]
    assert [words in text for text, words in zip(texts, WORDS, strict=True)] == [True] * 3
    assert "Ann Bee &lt;ann@example.com&gt;" in thread.text
    assert "/thread" not in browser.get(f"/content/{ids['m4']}").text
