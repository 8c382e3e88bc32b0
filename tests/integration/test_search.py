"""Questions that people ask of mail, messages and files, and the text of files."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest
from support.indexing import index_all, read_texts

from core import TaskOutput
from core.content import document_texts
from core.search.documents import IndexedItem, document
from core.search.query import parse
from core.service.content import listing

MOMENT = """
SELECT s.moment FROM content_search s JOIN user_integration_content c ON c.id = s.content_id
WHERE c.external_id = 'zz'
"""
PLACE = "/v1/user-integration-content"


def at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def docx(text: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("word/document.xml", f"<d xmlns:w='w'><w:p><w:t>{text}</w:t></w:p></d>")
    return data.getvalue()


def message(id: str, text: str, **more: Any) -> TaskOutput:
    return TaskOutput(id, text, kind="message", **more)


ANN = {"name": "Ann", "address": "ann@lager.example"}
ITEMS = (
    TaskOutput("C1", kind="channel", name="#harbour"),
    TaskOutput("C2", kind="channel", name="#workshop"),
    TaskOutput("U1", kind="user", name="@Tool Keeper"),
    message("C1:1", "The crane is free.", parent="C1", metadata={"channel": "C1", "user": "U1"}),
    message("C1:2", "bollard 7", parent="C1:1", metadata={"channel": "C1", "files": [{"id": "F"}]}),
    message("C2:1", "In #harbour the crane stands.", parent="C2", metadata={"channel": "C2"}),
    message("m1", "Der Mietvertrag und die Lieferung sind da.", name="Übersicht",
            metadata={"from": [ANN], "labels": ["INBOX"]}),
    TaskOutput("m1/1", docx("onboarding buddy"), kind="attachment", parent="m1",
               name="Deckblatt.docx"),
    message("m2", "Crème brûlée in the canteen, the deckblatt of May", timestamp=at("2026-03-05")),
    message("m3", "请保存好发票。", timestamp=at("2026-04-05")),
    TaskOutput("/a", kind="directory", name="a", parent="/"),
    TaskOutput("/a/b.txt", "Zugfestigkeit der äußeren Schicht".encode("latin-1"), kind="file",
               parent="/a", name="b.txt"),
    TaskOutput("/a/cut.pdf", b"%PDF-1.7 cut", kind="file", parent="/a", name="cut.pdf"),
)  # fmt: skip


@pytest.fixture
def kept(api, desk) -> Any:
    account = desk.account("a", user_id="u")
    desk.keep(account, *ITEMS)
    desk.keep(desk.account("other", user_id="v"), message("x", "crane vertrag"))
    follow(api, desk)
    return account


def follow(api, desk) -> None:
    index_all(desk.conn)
    read_texts(api.backend)


def found(api, query: str, **more: Any) -> list[str]:
    answer = api.user("u").get(PLACE, params={"q": query, **more})
    assert answer.status_code == 200, answer.text
    return [item["external_id"] for item in answer.json()["items"]]


QUESTIONS = (
    ("in:#harbour crane", "C1:1"),
    ("in:harbour bollard", "C1:2"),
    ("in:inbox vertrag", "m1"),
    ("in:/a zugfestigkeit", "/a/b.txt"),
    ("from:keeper", "C1:1"),
    ("from:lager.example buddy", "m1/1"),
    ("has:file bollard", "C1:2"),
    ("has:attachments bollard", "C1:2"),
    ("filename:deckblatt", "m1/1"),
    ("filename:docx", "m1/1"),
    ('subject:"ubersicht"', "m1"),
    ("-subject:ubersicht vertrag", ""),
    ("in:a zugfestigkeit", "/a/b.txt"),
    ("(from:*@lager.example vertrag)", "m1"),
    ("has:file -bollard -buddy -kind:file vertrag", "m1"),
    ("vertrag", "m1"),
    ("Lieferungen", "m1"),
    ("ubersicht", "m1"),
    ("uebersicht", "m1"),
    ("creme brulee", "m2"),
    ("发票", "m3"),
    ("票发", ""),
    ("brul after:2026-03 before:2026-04", "m2"),
    ("brul before:2026-03-05", ""),
    ("äußere", "/a/b.txt"),
    ('"onboarding buddy"', "m1/1"),
    ('"buddy onboarding"', ""),
    ("-crane after:2026-03-05 before:2026-03-06", "m2"),
    ("!!! ((", ""),
)


@pytest.mark.parametrize(("query", "wanted"), QUESTIONS)
def test_a_question_finds_its_items(api, kept, query: str, wanted: str) -> None:
    assert sorted(found(api, query)) == wanted.split()


@pytest.mark.parametrize("source", listing.FOUND)
def test_each_source_of_matches_finds_the_same_items(api, kept, monkeypatch, source: str) -> None:
    def chosen(conn: Any, params: dict[str, Any], conditions: list[str]) -> tuple[str, str]:
        params["most_of_each"] = listing.MAX_EXAMINED
        return source, conditions[-1]

    monkeypatch.setattr(listing, "_source", chosen)
    answers = {query: " ".join(sorted(found(api, query))) for query, _ in QUESTIONS}
    assert answers == dict(QUESTIONS)


def test_a_common_word_is_searched_among_the_newest_items(api, desk, kept, monkeypatch) -> None:
    monkeypatch.setattr(listing, "MIN_COMMON", 0)
    monkeypatch.setattr(listing, "MIN_NEWEST", 1)
    monkeypatch.setattr(listing, "MAX_EXAMINED", 1)
    chosen = []
    choose = listing._source

    def source(*arguments: Any) -> tuple[str, str]:
        chosen.append(choose(*arguments))
        return chosen[-1]

    monkeypatch.setattr(listing, "_source", source)
    desk.keep(
        kept,
        message("a0", "a hawser and a hawser", timestamp=at("2099-08-01")),
        message("zz", "hawser", timestamp=at("2099-07-01")),
    )
    follow(api, desk)
    monkeypatch.setattr(listing, "HAS_MANY", "SELECT true AS has_many")
    assert found(api, "hawser") == ["a0"]
    assert found(api, "hawser before:2099-08-01") == ["zz"]
    assert found(api, "hawser", until="2099-08-01T00:00:00Z") == ["zz"]
    assert found(api, "hawser after:2099-09-01") == []
    assert found(api, "crane") == ["C1:1", "C2:1"]
    assert found(api, "crane after:2099-07-15") == []
    newest = "newest of accounts"
    assert [source for source, _ in chosen] == [newest, newest, newest, newest, "words", newest]
    desk.conn.execute("UPDATE content_search SET form = 1, moment = NULL")
    assert sorted(found(api, "hawser")) == ["a0", "zz"]
    assert chosen[-1][0] == "words"


def test_an_item_keeps_its_place_in_time_when_its_time_changes(api, desk, kept) -> None:
    for day in ("2026-07-01", "2026-09-01"):
        desk.keep(kept, message("zz", "hawser", timestamp=at(day)))
        follow(api, desk)
        assert desk.value(MOMENT) == at(day)


def test_the_index_searches_the_rarest_conditions(desk, monkeypatch) -> None:
    rows = {"common": 1_000_000, "rare": 10, "rather": 40, "seldom": 41}
    monkeypatch.setattr(listing, "_estimate", lambda _, condition: rows[condition])
    assert listing._rarest(desk.conn, list(rows)) == "rare & rather"


def test_a_match_in_a_name_comes_first(api, kept) -> None:
    assert found(api, "deckblatt") == ["m1/1", "m2"]


def test_the_word_itself_comes_before_its_other_forms(api, desk, kept) -> None:
    texts = {"p1": "The ports there", "p2": "A port there", "p3": "Portable things there"}
    desk.keep(kept, *(message(id, f"{text}, and more of it") for id, text in texts.items()))
    follow(api, desk)
    ids = found(api, "port")
    assert (ids[0], sorted(ids)) == ("p2", sorted(texts))


def test_pages_of_a_search_have_each_item_once(api, desk, kept) -> None:
    desk.keep(kept, *(message(f"n{n}", "needle " * (n % 3 + 1)) for n in range(23)))
    follow(api, desk)
    user, seen, after = api.user("u"), [], None
    while True:
        params = {"q": "needle", "limit": 5} | ({"after": after} if after else {})
        page = user.get(PLACE, params=params).json()
        seen += [item["external_id"] for item in page["items"]]
        after = page["cursor"]
        if after is None:
            break
    assert len(seen) == len(set(seen)) == 23


def test_a_search_shows_where_the_words_are(api, kept) -> None:
    (item,) = api.user("u").get(PLACE, params={"q": "buddy"}).json()["items"]
    assert item["snippet"] == "onboarding buddy"
    (item,) = api.user("u").get(PLACE, params={"external_id": "m2"}).json()["items"]
    assert "snippet" not in item


@pytest.mark.parametrize(
    ("query", "code"), [("has:wings", "search-has-unknown"), ("before:x", "search-date-invalid")]
)
def test_a_question_that_is_not_understood_says_why(api, kept, query: str, code: str) -> None:
    answer = api.user("u").get(PLACE, params={"q": query})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_changed_file_is_found_by_its_new_text_alone(api, desk, kept) -> None:
    desk.keep(kept, TaskOutput("/a/b.txt", b"feather", kind="file", parent="/a", name="b.txt"))
    follow(api, desk)
    assert found(api, "zugfestigkeit") == []
    assert found(api, "feather") == ["/a/b.txt"]


def test_a_deleted_file_is_found_among_the_deleted_items_alone(api, desk, kept) -> None:
    desk.keep(kept, TaskOutput.gone("/a/b.txt"))
    follow(api, desk)
    assert found(api, "zugfestigkeit") == []
    assert found(api, "zugfestigkeit", deleted="true") == ["/a/b.txt"]


def test_the_text_of_an_erased_file_goes(api, desk, kept) -> None:
    desk.conn.execute("DELETE FROM user_integration_content WHERE external_id = '/a/b.txt'")
    assert desk.value("SELECT count(*) FROM extracted_text WHERE text LIKE '%Zug%'") == 0


@pytest.mark.parametrize("query", ["eng", "ger", "fro", "kin", "has", "thr"])
def test_the_marks_of_the_index_are_not_words(api, kept, query: str) -> None:
    assert found(api, query) == []


def test_a_file_without_text_has_its_reason(desk, kept) -> None:
    reason = "SELECT reason FROM extracted_text JOIN user_integration_content ON id = content_id"
    assert "damaged" in desk.value(f"{reason} WHERE external_id = '/a/cut.pdf'")


def test_a_file_that_changes_while_it_is_read_is_read_again(api, desk, kept) -> None:
    desk.conn.execute(
        "UPDATE extracted_text SET extracted_at = NULL, text = NULL, claimed_until = NULL"
    )
    row = {"content_id": desk.content("id")["/a/b.txt"], "hash": "of another version"}
    document_texts.finish(desk.conn, row, "stale words", None)
    assert found(api, "stale") == []
    follow(api, desk)
    assert found(api, "zugfestigkeit") == ["/a/b.txt"]


def test_documents_of_the_version_before_are_written_again(api, desk, kept) -> None:
    desk.conn.execute("UPDATE content_search SET document = 'old', form = 0")
    follow(api, desk)
    assert sorted(found(api, "crane")) == ["C1:1", "C2:1"]


PHONE, TUG = "Call +49 30 5550142, or come", "Tug: +1 (555) 010-7788"
SPELLINGS = (
    (PHONE, "+49 (30) 555-0142 | 030/5550142 | 030 5550142 | +49305550142 | 5550142 | 555-0142"
            " | 0049 30 5550142 | +49 (0)30 5550142 | (030) 555 01 42"),
    ("030/5550142", "+49 30 5550142 | 0049305550142 | 030 55 50 142"),
    (TUG, "+15550107788 | 555.010.7788 | 5550107788 | 1-555-010-7788 | 010-7788 | (555) 010 7788"),
    ("1.284,50 and 8430 and 12'000", "1284,50 | 1.284,50 | 8,430 | 8.430 | 12,000"),
    ("48213 then 48211", "48211 48213"),
    ("Read https://wiki.haus.example/a/plan#end now",
        "wiki.haus.example | http://wiki.haus.example/a/plan | https://www.wiki.haus.example"
        " | <https://wiki.haus.example/a/plan> | haus.example/a"),
    ("to nord@haus.example", "mailto:nord@haus.example | <nord@haus.example> | haus.example"),
    ("4be71c0a9d2f83e6b5c0", "4BE71C0A9D | sha1:4be71c0a9d2f83e6b5c0 | 4be7"),
    ("open the valve slowly", "«valve slowly» | “valve slowly” | \uff02the valve\uff02"
                              " | „the valve“ | “valve slowly | open AND valve"
                              " | (valve) (open OR shut)"),
    ("会议室", "「会议室」"),
    ("新サーバーへの移行", "サーバー | サーバ | ｻｰﾊﾞｰ | さーばー | サーバーへの"),
    ("新サーバの移行", "サーバー | さーば"),
    ("Ahoi 🇩🇪", "flag-de | :flag-de: | germany"),
    ("Done 🎉", "tada | :tada: | party popper | «party popper» | :party_popper: | 🎉 | popper"),
    ("Das Zwischenlager ist mit dem Bus da", "lager | Lager | Zwischenlager"),
    ("Die Haustürschlüssel und die Waschmaschine", "Schlüssel | schluessel | Maschinen"),
    ("وصلت البضاعة إلى المستودع مع المبيعات",
        "بضاعة | مستودع | مبيعات | للمستودع | بالبضاعة | البضاعه"),
    ("في بيت", "البيت"),
    ("في البيت", "بيت"),
    ("ﷺ" * 50, "ﷺ"),
    ("steel", "valve OR steel | -valve steel | (-valve) steel"),
    ("2026-03-01 10:20", "2026-03-01 | 2026-03-01 10:20"),
)  # fmt: skip
DIFFERENT = (
    (PHONE, "+49 40 5550142 | +44 30 5550142 | 5550143 | 030 5550"),
    (TUG, "+1 (555) 010-7799 | +49 555 0107788"),
    ("Das ist der Vorschlag und mit dem Vertrag", "lager"),
    ("192.168.11.0", "192.168.1.10"),
    ("the slow valve", "«valve slow» | the \u2212valve | the \u2013valve | (\u2212valve) the"),
    ("サーフボード", "サーバー"),
    ("スキル", "スキー"),
    ("party of a popper", ":party_popper:"),
    ("subject: last call", "subject:last | filename:call"),
    ("1.284,50", "1.285,50 | 284.50.1"),
)


def is_found(desk, text: str, query: str) -> bool:
    parsed = parse(query, lambda *_: ())
    values = (document(IndexedItem("a", "file", "", text)), parsed.text)
    return desk.conn.execute("SELECT %s::tsvector @@ %s::tsquery", values).fetchone()[0]


def test_other_spellings_find_a_text(desk) -> None:
    pairs = [(text, query) for text, queries in SPELLINGS for query in queries.split(" | ")]
    assert [pair for pair in pairs if not is_found(desk, *pair)] == []


def test_a_text_with_other_words_is_not_found(desk) -> None:
    pairs = [(text, query) for text, queries in DIFFERENT for query in queries.split(" | ")]
    assert [pair for pair in pairs if is_found(desk, *pair)] == []


def test_other_matches_take_no_place_among_the_ranked(api, desk, kept, monkeypatch) -> None:
    monkeypatch.setattr(listing, "MAX_RANKED", 1)
    monkeypatch.setattr(listing, "_accounts", lambda *_: None)
    theirs = desk.account("theirs", user_id="v")
    desk.keep(theirs, message("y", "Der Mietvertrag"))
    desk.keep(kept, message("z", "Der Mietvertrag", timestamp=at("2020-01-01")))
    follow(api, desk)
    assert found(api, "mietvertrag before:2020-01-02") == ["z"]
    assert found(api, "mietvertrag after:2026") == ["m1"]
