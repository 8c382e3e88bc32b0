"""The search finds the mail of a mailbox: people, words of any language, and text attachments."""

from __future__ import annotations

from typing import Any

import pytest
from integration_polling_gmail import Gmail
from support.gmail import FakeGmail, mail
from support.indexing import index_all, read_texts

from core import TaskOutput
from core.testing import Harness

PLACE = "/v1/user-integration-content"
BOX = "application/octet-stream"


FILES: tuple[tuple[str, str, bytes, str], ...] = (
    ("notes.txt", "text/plain", b"Der Kaulquappenteich ist leer.", "kaulquappenteich"),
    ("old.txt", "text/plain; charset=iso-8859-1", "Die Höllenhündin".encode("latin-1"),
     "höllenhündin"),
    ("no-charset.txt", "text/plain", "Das Überraschungsmenü".encode("cp1252"), "überraschungsmenü"),
    ("wide.txt", "text/plain", "Der Regenpfeifer ruht".encode("utf-16"), "regenpfeifer"),
    ("mark.txt", "text/plain", b"\xef\xbb\xbfSaatkr\xc3\xa4he", "saatkrähe"),
    ("japanese.txt", "text/plain; charset=shift_jis", "明日は会議に行く。".encode("cp932"),
     "会議"),
    ("table.csv", "text/csv", b"name;size\nAuerhahn;12\n", "auerhahn"),
    ("read.md", "text/markdown", b"# Wiedehopf\n\nA *bird*.", "wiedehopf"),
    ("data.json", "application/json", b'{"bird": "Zwergdommel"}', "zwergdommel"),
    ("data.xml", "application/xml", b"<bird><name>Eisvogel</name></bird>", "eisvogel"),
    ("server.log", BOX, b"2026-01-02 ERROR Steinadler missing\n", "steinadler"),
    ("page.html", "text/html", b"<p>Die <b>Sumpfohreule</b></p>", "sumpfohreule"),
    ("page2.html", "text/html", "<p>Die Rohrweihe</p>".encode("utf-16"), "rohrweihe"),
    ("meet.ics", "text/calendar", b"BEGIN:VCALENDAR\r\nSUMMARY:Turmfalke\r\nEND:VCALENDAR\r\n",
     "turmfalke"),
    ("ann.vcf", "text/vcard", b"BEGIN:VCARD\r\nFN:Beutelmeise\r\nEND:VCARD\r\n", "beutelmeise"),
    ("inner.eml", BOX, mail("Inner", "Der Bienenfresser singt."), "bienenfresser"),
    ("without", BOX, b"Ein Ziegenmelker schweigt.\n", "ziegenmelker"),
)  # fmt: skip
"""Text attachments: name, media type, bytes, and a word of the text."""

MAILS = {
    "person": mail("Angebot", "Siehe unten.", From="Jörg Weiß-Łukasz <joerg.weiss@lager.example>",
                   To="Renée Größl <renee@hof.example>", Cc="Kim <kim.o@werft.example>"),
    "quoted": mail("Re: Angebot", "Ja.", From='"Okonkwo, Ngozi" <n.okonkwo@mail.kontor.example>'),
    "encoded": mail("Termin", "Morgen.", From="=?utf-8?b?55Sw5Lit5aSq6YOO?= <tana@kyo.example>"),
    "bare": mail("Status", "Fertig.", From="bot+deploy@ci.example"),
    "chinese": mail("通知", "请在本周五之前把上个月的发票寄给财务部的王先生。"),
    "japanese": mail("お知らせ", "来週の水曜日に新しいサーバーへの移行を行います。"),
    "korean": mail("안내", "다음 주 수요일에 회의실에서 계약서를 검토하겠습니다."),
    "thai": mail("แจ้ง", "กรุณาส่งใบแจ้งหนี้ภายในวันศุกร์นี้"),
    "cafe": mail("Treffen", "Wir sehen uns im Café Zoë, naïve Idee."),
    "bills": mail("Buchhaltung", "Die Rechnung ist da, und der Vertrag liegt bei."),
    "many": mail("Buchhaltung", "Alle Häuser und die Mahnungen sind da."),
    "english": mail("Billing", "The invoice for the delivery is in the box with you."),
    "french": mail("Compta", "La facture et les chevaux sont dans la boîte pour vous."),
}  # fmt: skip

QUESTIONS = (
    # The sender's name or address, and parts of them
    ("Jörg", "person"), ("jorg", "person"), ("joerg weiss", "person"), ("Weiß", "person"),
    ("Lukasz", "person"), ("joerg.weiss@lager.example", "person"), ("lager.example", "person"),
    ("<joerg.weiss@lager.example>", "person"), ("from:jörg", "person"), ("weiss@lager", "person"),
    ('"Jörg Weiß-Łukasz" <joerg.weiss@lager.example>', "person"), ("from:lager.example", "person"),
    # Names and addresses of recipients
    ("Größl", "person"), ("groessl", "person"), ("renee@hof.example", "person"),
    ("kim.o@werft.example", "person"), ("to:werft.example", "person"),
    ("Ngozi Okonkwo", "quoted"), ("Okonkwo, Ngozi", "quoted"), ("n.okonkwo@mail.kontor.example",
     "quoted"), ("kontor.example", "quoted"), ("okonkwo", "quoted"),
    ("田中", "encoded"), ("田中太郎", "encoded"), ("tana", "encoded"),
    ("from:田中太郎", "encoded"),
    ("bot+deploy@ci.example", "bare"), ("deploy", "bare"), ("ci.example", "bare"),
    # Words within a sentence that has no blanks
    ("发票", "chinese"), ("财务部", "chinese"), ("王先生", "chinese"), ("上个月", "chinese"),
    ("月", "chinese"), ("サーバー", "japanese"), ("移行", "japanese"), ("水曜日", "japanese"),
    ("ｻｰﾊﾞｰ", "japanese"), ("회의실", "korean"), ("계약서", "korean"), ("ใบแจ้งหนี้", "thai"),
    # Without accents, with others, in other forms
    ("cafe", "cafe"), ("CAFÉ", "cafe"), ("zoe", "cafe"), ("naive", "cafe"),
    ("cafe\u0301", "cafe"), ("rechnungen", "bills"), ("Rechnung", "bills"), ("Verträge", "bills"),
    ("vertraege", "bills"), ("Haus", "many"), ("mahnung", "many"), ("invoices", "english"),
    ("deliveries", "english"), ("factures", "french"), ("cheval", "french"), ("boite", "french"),
)  # fmt: skip


@pytest.fixture
def mailbox(api, desk, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Copy a mailbox with these mails, make them searchable, and return the ids of the mails."""
    with FakeGmail() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        ids = {fake.mailbox.add(source, ["INBOX"]): name for name, source in MAILS.items()}
        ids[fake.mailbox.add(mail("Files", "Nothing.", attachments=[f[:3] for f in FILES]))] = ""
        harness = Harness(Gmail, {}, fake.credentials())
        assert harness.sync().state == "succeeded"
        kept = [
            TaskOutput(
                item.id,
                item.content.decode() if item.is_text and item.content else item.content,
                item.kind, item.parent, item.name, item.timestamp, item.content_type, item.metadata,
            )
            for item in harness.content.values()
        ]  # fmt: skip
        assert len([item for item in kept if item.kind == "attachment"]) >= len(FILES)
    desk.keep(desk.account(user_id="u"), *kept)
    index_all(desk.conn)
    read_texts(api.backend)
    return ids


def found(api, query: str) -> list[dict[str, Any]]:
    answer = api.user("u").get(PLACE, params={"q": query})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_mail_is_found(api, mailbox: dict[str, str]) -> None:
    missed = [
        (query, wanted)
        for query, wanted in QUESTIONS
        if wanted not in [mailbox.get(item["external_id"]) for item in found(api, query)]
    ]
    assert missed == []


def test_text_attachments_are_found(api, mailbox: dict[str, str]) -> None:
    missed = [
        (name, word)
        for name, _, _, word in FILES
        if name not in [item["name"] for item in found(api, word)]
    ]
    assert missed == []
