"""Relatives of the usual questions: the wanted item is among the first three."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.indexing import index_all, read_texts

from core import TaskOutput

PLACE = "/v1/user-integration-content"


def mail(id: str, subject: str, text: str, **metadata: Any) -> TaskOutput:
    return TaskOutput(id, text, kind="message", name=subject, metadata=metadata,
                      timestamp=datetime(2026, 3, 5, tzinfo=UTC))  # fmt: skip


def file(path: str, text: str | bytes) -> TaskOutput:
    data = text if isinstance(text, bytes) else text.encode()
    name = path.rpartition("/")[2]
    return TaskOutput(path, data, kind="file", parent="/", name=name)


def person(name: str, address: str) -> dict[str, str]:
    return {"name": name, "address": address}


ITEMS = (
    TaskOutput("C1", kind="channel", name="#größe-und-maß"),
    TaskOutput("C2", kind="channel", name="#team_ops"),
    TaskOutput("U1", kind="user", name="@İlker Yılmaz"),
    TaskOutput("U2", kind="user", name="@Søren Ångström"),
    TaskOutput("C1:1", "Die Straße ist gesperrt.", kind="message", parent="C1",
               metadata={"channel": "C1", "user": "U2"}),
    TaskOutput("C2:1", "deploy of node-42 finished, see PR #1187 and ABC-1234", kind="message",
               parent="C2", metadata={"channel": "C2", "user": "U1"}),
    # Languages
    mail("ko", "회의록", "내일 오전에 프로젝트 일정을 논의합니다. 견적서는 첨부했습니다."),
    mail("th", "ใบเสนอราคา", "กรุณาส่งใบกำกับภาษีภายในวันศุกร์"),
    mail("el", "Τιμολόγιο", "Σας στέλνω το τιμολόγιο για τις υπηρεσίες του Μαΐου."),
    mail("ru", "Счёт за июль", "Пожалуйста, оплатите счёт до пятницы. Договоры приложены."),
    mail("uk", "Рахунок", "Надсилаю рахунок-фактуру за п'ятницю, під'їзд 4."),
    mail("ar", "فاتورة", "أرسلت الفاتورة إلى قسم المحاسبة بالأمس."),
    mail("he", "חשבונית", "שלחתי את החשבונית למחלקת הנהלת חשבונות."),
    mail("hi", "चालान", "कृपया इस महीने का चालान भेज दें।"),
    mail("de", "Kündigungsfrist", "Die Haftpflichtversicherung wurde überprüft, die"
         " Fußbodenheizung läuft. Wir haben den Wasserschaden der Waschküche gemeldet."),
    mail("tr", "İzmir'de toplantı", "Işıklar açık. Sözleşmeyi İstanbul'da imzaladık."),
    mail("da", "Rødgrød", "Smørrebrød på færgen til Ærø, og jeg har betalt regningen."),
    mail("sv", "Räksmörgås", "Lägenhetens hyreskontrakt är klart och vi har fakturan."),
    mail("no", "Årsrapport", "Vi har sendt årsrapporten og lønnsoversikten på e-post til deg."),
    mail("fi", "Laskun eräpäivä", "Se on että vuokrasopimuksessa ei ole kaikki. Lähetin laskun."),
    mail("pl", "Faktura za usługę", "Żółta łódka została naprawiona w Gdańsku."),
    mail("cs", "Smlouva", "Příloha obsahuje nájemní smlouvu a účet za říjen."),
    mail("hu", "Számla", "A szerződést és a számlát elküldtem, hogy aláírja."),
    mail("ro", "Factură", "Vă trimit factura și contractul pentru luna mai."),
    mail("fr", "Relevé d'identité", "L'école n'a pas reçu l'attestation d'assurance. Voici les"
         " travaux prévus, où est Noël ?"),
    mail("es", "Reunión", "Mañana enviaré los presupuestos y las facturas del piñón."),
    mail("pt", "Orçamento", "As informações de pagamento estão na conta de João."),
    mail("it", "Città", "Il preventivo è pronto, perché gli ordini sono arrivati."),
    mail("nl", "Huurovereenkomst", "De zorgverzekering en de rekeningen zijn niet betaald."),
    mail("vi", "Hóa đơn", "Tôi đã gửi hợp đồng thuê nhà cho chị Nguyễn."),
    mail("zh-tw", "會議紀錄", "請於週五前繳交發票與收據。"),
    mail("zh", "项目", "合同已经签了，增值税专用发票明天寄出。"),
    mail("ja", "請求書", "お世話になっております。御見積書とデータベースの設計書をお送りします。"),
    # Names of files
    file("/HTTPServerConfig.yaml", "listen: 80"),
    file("/max_retry_count_v2.py", "def parse_invoice_lines(rows): return OrderLineItem(rows)"),
    file("/getUserById.ts", "export const userIdFromToken = 1"),
    file("/2026-04-17_Protokoll_Beirat.txt", "Anwesend: alle"),
    file("/IMG_20260417_1033.jpg", b"\xff\xd8\xff" + bytes(50)),
    file("/Angebot 4711-B (final).txt", "nichts"),
    file("/Vertragsentwurf.v3.1.txt", "nichts"),
    file("/naïve-Bayes.txt", "nichts"),
    file("/Übergabeprotokoll.txt", "nichts"),
    file("/README", "Run make install in usr_local_bin."),
    # Numbers and addresses
    mail("bill", "Invoice INV-0042/2026", "Total: 1.234.567,89 EUR, VAT DE123456789,"
         " IBAN DE89 3704 0044 0532 0130 00, due 17.04.2026, article 00815-A."),
    mail("bill2", "Invoice INV-0043/2026", "Total: 1.234,00 EUR, article 00816-A."),
    mail("phone-fr", "Rappel", "Appelez le 01 23 45 67 89 ou +33 6 12 34 56 78."),
    mail("phone-ch", "Anruf", "Tel. 044 668 18 00, intern -12"),
    mail("url", "Link", "See https://docs.python.org/3/library/asyncio-task.html?highlight=gather#x"
         " and ftp.mirror-one.example:2121/pub and C:\\Users\\ann\\notes.txt and 10.20.30.40"),
    mail("mail", "Kontakt", "Write to first.last+tag@sub.kontor-nord.example, or @oncall."),
    mail("hyphen", "Follow-up", "The well-known e-mail about state-of-the-art check-in."),
    mail("apostrophe", "O'Brien", "Don't forget Peter's and the Müllers\u2019 keys."),
    mail("sign", "C++ and C#", "We use C++, C#, .NET and R&D at AT&T, node.js 50% off $99.95"),
    mail("version", "Release", "Version 2.10.3-rc1 of libssl1.1 fixes CVE-2026-12345."),
    mail("ligature", "The eﬃcient oﬃce", "Ｆｕｌｌｗｉｄｔｈ ﬁle Ⅳ"),
    mail("people", "Note", "nothing", **{
        "from": [person("Dr. María-José Núñez (HR)", "mj.nunez@people.kontor.example")],
        "to": [person("Łukasz Żółć", "lukasz@zolc.example"), person("", "team+all@list.example")],
        "cc": [person("'van der Berg, Jan'", "jan@berg.example")],
        "labels": ["INBOX", "Label_7"],
    }),
    TaskOutput("label/Label_7", kind="label", name="Kunden/Süd"),
)  # fmt: skip

QUESTIONS = r"""
회의록 ko | 견적서 ko | 프로젝트 일정 ko | 일정 ko
ใบกำกับภาษี th | ใบเสนอราคา th | ภาษี th
τιμολόγιο el | ΤΙΜΟΛΟΓΙΟ el | τιμολογια el | υπηρεσία el | Μαιου el
счёт ru | счет ru | СЧЕТА ru | договор ru | пятница ru | рахунок uk
فاتورة ar | الفاتورة ar | محاسبة ar | חשבונית he | החשבונית he | चालान hi
versicherung de | Haftpflicht de | fussbodenheizung de | Heizung de | wasserschäden de
kuendigungsfrist de | Frist de | waschkueche de
izmir tr | İZMİR tr | IŞIKLAR tr | isiklar tr | istanbul tr | sozlesme tr
smorrebrod da | smoerrebroed da | aero da | ærø da | regning da | rodgrod da
raksmorgas sv | hyreskontrakt sv | kontrakt sv | faktura sv | lagenhet sv
arsrapport no | rapport no | årsrapporter no | lasku fi
faktura pl | uslugi pl | zolta lodka pl | gdansk pl | smlouva cs | smlouvy cs | rijen cs
szamla hu | szerződés hu | factura ro | contracte ro | si ro
école fr | ecole fr | assurance fr | noel fr | identite fr
presupuesto es | factura es | manana es | pinon es | reunion es | joao pt
preventivi it | ordine it | citta it | rekening nl | verzekering nl | overeenkomst nl
hop dong vi | nguyen vi | hoa don vi | hợp đồng vi
發票 zh-tw | 會議 zh-tw | 週五 zh-tw | 发票 zh | 合同 zh | 增值税 zh
請求書 ja | 見積 ja | データベース ja | ﾃﾞｰﾀﾍﾞｰｽ ja | 設計書 ja | でーた ja
http /HTTPServerConfig.yaml | HTTPServer /HTTPServerConfig.yaml | config /HTTPServerConfig.yaml
serverconfig /HTTPServerConfig.yaml | server config /HTTPServerConfig.yaml
yaml /HTTPServerConfig.yaml | HTTPServerConfig.yaml /HTTPServerConfig.yaml
retry_count /max_retry_count_v2.py | retry count /max_retry_count_v2.py | v2 /max_retry_count_v2.py
max_retry_count_v2 /max_retry_count_v2.py | parse_invoice_lines /max_retry_count_v2.py
OrderLineItem /max_retry_count_v2.py | orderline /max_retry_count_v2.py
parse invoice /max_retry_count_v2.py | maxretrycount /max_retry_count_v2.py
getuserbyid /getUserById.ts | user by id /getUserById.ts | userIdFromToken /getUserById.ts
protokoll beirat /2026-04-17_Protokoll_Beirat.txt | 2026-04-17 /2026-04-17_Protokoll_Beirat.txt
20260417 /IMG_20260417_1033.jpg | jpg /IMG_20260417_1033.jpg
4711 /Angebot 4711-B (final).txt | 4711-B /Angebot 4711-B (final).txt
angebot final /Angebot 4711-B (final).txt | vertragsentwurf /Vertragsentwurf.v3.1.txt
entwurf /Vertragsentwurf.v3.1.txt | v3.1 /Vertragsentwurf.v3.1.txt | naive /naïve-Bayes.txt
naive bayes /naïve-Bayes.txt | uebergabe /Übergabeprotokoll.txt | protokoll /Übergabeprotokoll.txt
filename:readme /README | usr_local /README
INV-0042/2026 bill | INV-0042 bill | inv 0042 bill | 0042 bill | 1234567,89 bill | 1.234.567,89 bill
1234567.89 bill | 1,234,567.89 bill | 1234567 bill | DE123456789 bill | DE 123456789 bill
DE89370400440532013000 bill | DE89 3704 0044 0532 0130 00 bill | 17.04.2026 bill
00815-A bill | 00815 bill
0123456789 phone-fr | 01.23.45.67.89 phone-fr | +33 1 23 45 67 89 phone-fr | 0612345678 phone-fr
+33612345678 phone-fr | 0446681800 phone-ch | +41 44 668 18 00 phone-ch | 044/668 18 00 phone-ch
docs.python.org url | python.org url | https://docs.python.org/3/library/asyncio-task.html url
asyncio-task url | asyncio url | ftp.mirror-one.example url | mirror-one url | 2121 url
C:\\Users\\ann\\notes.txt url | 10.20.30.40 url | 10.20.30 url | highlight=gather url
first.last+tag@sub.kontor-nord.example mail | kontor-nord.example mail | kontor-nord mail
first.last mail | @oncall mail | <first.last+tag@sub.kontor-nord.example> mail
follow-up hyphen | follow up hyphen | followup hyphen | e-mail hyphen | email hyphen
well known hyphen | well-known hyphen | state-of-the-art hyphen | "state of the art" hyphen
checkin hyphen | check-in hyphen
o'brien apostrophe | obrien apostrophe | O’Brien apostrophe | don't apostrophe | dont apostrophe
peter apostrophe | peters apostrophe | müller apostrophe | muellers apostrophe
c++ sign | c# sign | .net sign | R&D sign | AT&T sign | node.js sign | $99.95 sign | 99.95 sign
50% sign | nodejs sign
2.10.3 version | 2.10.3-rc1 version | libssl version | libssl1.1 version | CVE-2026-12345 version
cve 12345 version | rc1 version
efficient ligature | office ligature | fullwidth ligature | file ligature
from:nunez people | from:"maria jose" people | from:maria-jose people | from:núñez people
from:mj.nunez@people.kontor.example people | from:kontor.example people
from:@kontor.example people
to:lukasz people | to:zolc people | to:team+all@list.example people | to:list.example people
cc:berg people | to:"van der berg" people | to:jan@berg.example people | from:hr people
FROM:Nunez people | from: nunez people | in:"Kunden/Süd" people | in:kunden/sued people
in:label_7 people | in:INBOX people | in:#größe-und-maß C1:1 | in:#groesse-und-mass C1:1
in:team_ops C2:1 | in:#team_ops abc-1234 C2:1 | from:ilker C2:1 | from:"İlker Yılmaz" C2:1
from:soren C1:1 | from:ångström C1:1 | strasse C1:1 | STRASSE C1:1 | pr 1187 C2:1 | #1187 C2:1
"node-42" C2:1 | node42 C2:1 | “state-of-the-art hyphen | "follow-up hyphen | follow-up" hyphen
'follow-up' hyphen | (follow-up) hyphen | follow-up, hyphen | follow-up? hyphen
subject:"follow up" hyphen | -kontrakt first.last mail | "e-mail" -nothing hyphen
follow-up after:2026-03-05 before:2026-03-06 hyphen | follow-up since:2026-03 hyphen
follow-up after:2026-3-1 until:2026/04/01 hyphen | follow-up before:01.04.2026 hyphen
follow-up kind:message hyphen | NOT invoice follow-up hyphen | follow-up OR nowhere hyphen
"""
"""Questions, each with the item that they want."""


@pytest.fixture
def kept(api, desk) -> None:
    desk.keep(desk.account("a", user_id="u"), *ITEMS)
    index_all(desk.conn)
    read_texts(api.backend)


IDS = sorted((item.id for item in ITEMS), key=len, reverse=True)


def pairs() -> list[tuple[str, str]]:
    found = []
    for question in QUESTIONS.strip().replace("\n", " | ").split(" | "):
        wanted = next((id for id in IDS if question.endswith(f" {id}")), "")
        found.append((question.removesuffix(f" {wanted}") if wanted else question, wanted))
    return found


def test_the_wanted_item_is_among_the_first_three(api, kept) -> None:
    client, missed = api.user("u"), []
    for query, wanted in pairs():
        answer = client.get(PLACE, params={"q": query})
        assert answer.status_code == 200, (query, answer.text)
        ids = [item["external_id"] for item in answer.json()["items"]]
        if wanted and wanted not in ids[:3]:
            missed.append((query, wanted, ids[:5]))
    assert not missed, "\n".join(map(str, missed))
