"""The pages of content: the search, an item, and a preview that is useful and harmless."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from support.hostile_texts import PNG, REMOTE, SVG
from support.indexing import index_all
from support.signed_in import signed_in

from core import TaskOutput
from core.dashboard import previews
from core.integration.results import MAX_INLINE_BYTES
from core.web import mail_preview as mail
from core.web import sanitizer

DAY = datetime(2026, 3, 14, 23, 30, tzinfo=UTC)


@pytest.fixture
def keep(desk):
    """Return `keep(output, …)`, which keeps outputs in one account of the user `u`.

    It returns the ids by external id.
    """
    account = desk.account("A shop", user_id="u")

    def kept(*outputs: TaskOutput) -> dict[str, int]:
        desk.keep(account, *outputs)
        return desk.content("id")

    kept.account = account
    return kept


def listed(page) -> list[int]:
    return [
        int(id)
        for id in re.findall(r'<td(?: class="name")?>\s*<a href="/content/(\d+)"', page.text)
    ]


def letter(text: str | None = "as text", html: str | None = None) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "Zoë <zoe@x.invalid>", "b@x.invalid", "Grüße"
    if text is not None:
        made.set_content(text)
    if html is not None:
        (
            made.add_alternative(html, subtype="html")
            if text is not None
            else made.set_content(html, subtype="html")
        )
    return made


def test_content_is_searched_and_filtered(dashboard, desk, keep) -> None:
    ids = keep(
        TaskOutput("1", "the invoice of May", name="Bill", kind="message", timestamp=DAY),
        TaskOutput("2", b"\0", name="Pixels", kind="file"),
        TaskOutput("old", "an invoice that is gone"),
    )
    keep(TaskOutput.gone("old"))
    desk.keep(desk.account("other", user_id="v"), TaskOutput("3", "their invoice"))
    index_all(desk.conn)
    who = signed_in(dashboard, "u")

    def found(**filters):
        return listed(who.get("/content", **filters))

    assert found() == [ids["1"], ids["2"]]
    assert found(q="invoice") == found(q="bill") == [ids["1"]]
    assert sorted(found(q="invoice", deleted="also")) == [ids["1"], ids["old"]]
    assert found(deleted="only") == [ids["old"]]
    assert found(kind="file") == [ids["2"]]
    assert found(domain="shop") == [ids["1"], ids["2"]]
    assert found(account="A shop", since="2026-03-14", until="2026-03-14") == [ids["1"]]
    assert found(since="2026-03-15") == found(until="2026-03-13") == found(domain="caller") == []
    assert "Account other not found" in who.get("/content", account="other", status=422).text
    assert "is not a valid day" in who.get("/content", since="yesterday", status=422).text
    page = who.get("/content", q="invoice").text
    assert 'name="q" value="invoice"' in page
    assert "Bill" in page
    assert len(listed(signed_in(dashboard).get("/content"))) == 3


def test_pages_of_content_show_each_item_once(dashboard, keep) -> None:
    ids = keep(*(TaskOutput(f"{n:03}", "x") for n in range(120)))
    who, seen, path = signed_in(dashboard), [], "/content?kind=item"
    while path:
        page = who.get(path)
        seen += listed(page)
        found = re.search(r'href="(/content\?after=[^"]*)">Next', page.text)
        path = html.unescape(found[1]) if found else None
    assert seen == list(ids.values())


def test_the_page_of_an_item_shows_its_metadata_and_children(dashboard, keep) -> None:
    ids = keep(
        TaskOutput(
            "m", "words", name="A mail", metadata={"labels": ["inbox"], "size": 3}, timestamp=DAY
        ),
        TaskOutput("m/1", b"\x89PNG", name="A picture", parent="m"),
        TaskOutput("in a place", "x", parent="a folder"),
    )
    who = signed_in(dashboard, "u")
    page = who.get(f"/content/{ids['m']}").text
    assert "A mail" in page
    assert '<th scope="row">labels</th><td>[&#34;inbox&#34;]</td>' in page
    assert "2026-03-14 23:30:00 UTC" in page
    assert listed(who.get(f"/content/{ids['m']}")) == [ids["m/1"]]
    assert f'<a href="/content/{ids["m"]}">A mail</a>' in who.get(f"/content/{ids['m/1']}").text
    placed = who.get(f"/content/{ids['in a place']}").text
    assert re.search(r"<dt>Parent \(at the source\)</dt>\s*<dd>\s*a folder\s*</dd>", placed)
    stranger = signed_in(dashboard, "v")
    for rest in ("", "/preview", "/raw", "/raw?inline=1"):
        stranger.get(f"/content/{ids['m']}{rest}", status=404)


def test_text_is_shown_as_text_and_truncated(dashboard, keep) -> None:
    long = "<b>bold</b> " + "words " * 60_000
    ids = keep(
        TaskOutput("short", "<b>bold</b>"), TaskOutput("long", long), TaskOutput("empty", ""),
        TaskOutput(
            "latin", "Grüße".encode("latin-1"), content_type='text/plain; charset="latin-1"'
        ),
        TaskOutput("json", b'{"a": "\xc3\xa9"}'), TaskOutput("bytes", b"\0\1\2"),
        TaskOutput("not", b"\xff\xfe\xfd"),
    )  # fmt: skip
    who = signed_in(dashboard)
    assert (
        '<pre tabindex="0">&lt;b&gt;bold&lt;/b&gt;</pre>'
        in who.get(f"/content/{ids['short']}").text
    )
    page = who.get(f"/content/{ids['long']}").text
    assert "Preview truncated." in page
    assert previews.MAX_TEXT_CHARS < len(page) < previews.MAX_TEXT_CHARS + 10_000
    assert who.get(f"/content/{ids['long']}/raw").text == long
    assert "This item is empty." in who.get(f"/content/{ids['empty']}").text
    assert "Grüße" in who.get(f"/content/{ids['latin']}").text
    assert "é" in who.get(f"/content/{ids['json']}").text
    for name in ("bytes", "not"):
        assert "No preview for this content type." in who.get(f"/content/{ids[name]}").text
        who.get(f"/content/{ids[name]}/preview", status=404)


def test_only_raster_images_are_shown_with_their_real_type(dashboard, keep) -> None:
    ids = keep(
        TaskOutput("png", PNG, content_type="image/png"),
        TaskOutput("called html", PNG, content_type="application/octet-stream"),
        TaskOutput("svg", SVG, content_type="image/svg+xml"),
        TaskOutput("svg called png", SVG.encode(), content_type="image/png"),
        TaskOutput(
            "gif and script",
            b"GIF89a/*" + b"*/=1;alert('hacked')//",
            content_type="text/javascript",
        ),
    )
    who = signed_in(dashboard)
    for name, type in (
        ("png", "image/png"),
        ("called html", "image/png"),
        ("gif and script", "image/gif"),
    ):
        assert f'src="/content/{ids[name]}/raw?inline=1"' in who.get(f"/content/{ids[name]}").text
        shown = who.get(f"/content/{ids[name]}/raw?inline=1")
        assert shown.headers["content-type"] == type
        assert shown.headers["content-disposition"] == "inline"
        assert shown.headers["cross-origin-opener-policy"] == "unsafe-none"
        assert shown.headers["x-content-type-options"] == "nosniff"
        assert shown.headers["content-security-policy"] == "default-src 'none'; sandbox"
    for name in ("svg", "svg called png"):
        page = who.get(f"/content/{ids[name]}").text
        assert "raw?inline" not in page
        assert "&lt;svg" in page
        assert (
            who.get(f"/content/{ids[name]}/raw?inline=1")
            .headers["content-disposition"]
            .startswith("attachment;")
        )
    assert (
        who.get(f"/content/{ids['png']}/raw")
        .headers["content-disposition"]
        .startswith("attachment;")
    )


def test_html_is_shown_in_a_frame_without_permissions(dashboard, keep) -> None:
    body = f"""<base href="{REMOTE}"><meta http-equiv=refresh content="0;url={REMOTE}">
        <link rel=preload href="{REMOTE}">
        <h1 style="color: #123456; background: url({REMOTE}/b)">Title</h1>
        <a href="{REMOTE}/l" ping="{REMOTE}">a link</a>
        <img src="{REMOTE}/i.gif" alt="a picture">
        <table background="{REMOTE}"><tr><td>cell</table><script>1</script>"""
    ids = keep(TaskOutput("page", body, content_type="text/html; charset=utf-8"))
    who = signed_in(dashboard)
    page = who.get(f"/content/{ids['page']}").text
    assert f'<iframe class="preview" sandbox="" src="/content/{ids["page"]}/preview"' in page
    answer = who.get(f"/content/{ids['page']}/preview")
    assert REMOTE not in answer.text
    assert 'style="color:#123456"' in answer.text
    for words in ("Title", "a link", "a picture", "cell"):
        assert words in answer.text
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["cross-origin-opener-policy"] == "unsafe-none"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert who.get(f"/content/{ids['page']}").headers["x-frame-options"] == "DENY"


def test_a_mail_is_shown_as_its_best_part_with_inline_images(dashboard, keep) -> None:
    related = letter(
        "as <i>text</i>", f'<p>as html</p><img src="cid:pic"><img src="{REMOTE}/t.gif">'
    )
    related.get_payload()[1].add_related(PNG, "image", "png", cid="<pic>")
    related.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Übersicht.pdf")
    big = letter("big")
    big.add_attachment(
        b"\0" * MAX_INLINE_BYTES, maintype="application", subtype="zip", filename="big.zip"
    )
    ids = keep(
        TaskOutput("both", related.as_bytes(), content_type="message/rfc822"),
        TaskOutput("text", letter("plain <b>words</b>").as_bytes(), content_type="message/rfc822"),
        TaskOutput(
            "html", letter(None, "<p>only html</p>").as_bytes(), content_type="message/rfc822"
        ),
        TaskOutput("large", big.as_bytes(), content_type="message/rfc822"),
    )
    who = signed_in(dashboard)
    page = who.get(f"/content/{ids['both']}").text
    for shown in (
        "Zoë &lt;zoe@x.invalid&gt;",
        "Grüße",
        "as &lt;i&gt;text&lt;/i&gt;",
        "Übersicht.pdf",
        "<iframe",
    ):
        assert shown in page
    preview = who.get(f"/content/{ids['both']}/preview").text
    assert "as html" in preview
    assert '<img src="data:image/png;base64,iVBOR' in preview
    assert REMOTE not in preview
    page = who.get(f"/content/{ids['text']}").text
    assert "plain &lt;b&gt;words&lt;/b&gt;" in page
    assert "<iframe" not in page
    assert "plain &lt;b&gt;words&lt;/b&gt;" in who.get(f"/content/{ids['text']}/preview").text
    assert "only html" in who.get(f"/content/{ids['html']}/preview").text
    page = who.get(f"/content/{ids['large']}").text
    assert '<pre tabindex="0">big' in page
    assert "big.zip" in page


def test_a_blob_that_is_missing_from_the_store_is_reported(dashboard, desk, keep) -> None:
    ids = keep(TaskOutput("1", "x"))
    desk.rows("""
        UPDATE user_integration_content SET content_text = NULL, blob_key = 'aa/bb/gone', size = 9
        RETURNING 1
        """)
    who = signed_in(dashboard)
    assert "This item is missing from the blob store" in who.get(f"/content/{ids['1']}").text
    who.get(f"/content/{ids['1']}/raw", status=404)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("color: rgb(1, 2, 3)", "color:rgb(1,2,3)"),
        ("background: url(//x)", ""),
        ("background: u\\72l(//x)", ""),
        ("background: image-set('//x' 1x); color: red", "color:red"),
        ("position: fixed; top: 0", ""),
        ("color: red /* ; */; x: y", ""),
        ("font-family: 'A B', serif", "font-family:&quot;A B&quot;,serif"),
        ("--x: url(//x); color: var(--x)", ""),
    ],
)
def test_only_styles_that_load_nothing_are_kept(given, kept) -> None:
    shown, _ = sanitizer.sanitize(f'<p style="{given}">x</p>')
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", f'<p style="{kept}">x</p>')


def test_a_preview_that_takes_too_long_is_truncated() -> None:
    shown, cut = sanitizer.sanitize("<div>" * 1_000_000)
    assert cut
    assert shown.count("<div>") <= sanitizer.MAX_TAGS
    assert sanitizer.sanitize("<p>few</p>") == ("<p>few</p>", False)


@pytest.mark.parametrize(
    "charset",
    [None, "utf-8", "punycode", "idna", "undefined", "unicode_escape", "zip", "x" * 999, "\0", "é"],
)
def test_text_in_any_charset_is_decoded(charset) -> None:
    assert mail.decode_text(b"plain \xff words", charset).startswith("plain ")


def test_a_message_is_shown_with_its_people_new_words_files_and_reading(dashboard, keep) -> None:
    text = "Yes, Monday.\n\nOn Tuesday Ann wrote:\n> Shall we meet?"
    mail = letter(text, "<p>Yes, <b>Monday</b>.</p>")
    ids = keep(
        TaskOutput(
            "m", text, name="Re: Meeting", kind="message",
            metadata={
                "from": [{"name": "Ann", "address": "ann@x.invalid"}],
                "new_text": "Yes, Monday.",
                "reading": {"charsets": [{"used": "cp1252", "how": "detected"}], "replaced": 1},
            },
        ),
        TaskOutput(
            "m/raw", mail.as_bytes(), kind="source", parent="m", content_type="message/rfc822"
        ),
        TaskOutput("m/1", b"%PDF", kind="attachment", parent="m", name="Plan.pdf"),
        TaskOutput("m/2", None, kind="attachment", parent="m", name="Huge.zip"),
        TaskOutput("plain", "only words", kind="message", metadata={"new_text": 5}),
    )  # fmt: skip
    who = signed_in(dashboard, "u")
    page = who.get(f"/content/{ids['m']}").text
    assert "<dd>Ann &lt;ann@x.invalid&gt;</dd>" in page
    assert f'<iframe class="preview" sandbox="" src="/content/{ids["m"]}/preview"' in page
    assert re.search(r'New text</h3>\s*<pre tabindex="0">Yes, Monday.</pre>', page)
    assert re.search(r"<details>\s*<summary>Complete text, with quoted history", page)
    assert "&gt; Shall we meet?" in page
    assert "The text could not be decoded in 1 place" in page
    assert "Charset: windows-1252, guessed from the bytes; the mail declares none." in page
    assert f'<a href="/content/{ids["m/1"]}/raw">Download</a>' in page
    assert f'href="/content/{ids["m/2"]}/raw"' not in page
    assert '<span class="none">not kept</span>' in page
    assert "<b>Monday</b>" in who.get(f"/content/{ids['m']}/preview").text
    page = who.get(f"/content/{ids['plain']}").text
    assert '<pre tabindex="0">only words</pre>' in page
    for absent in ("<iframe", "New text", "Notes on reading this mail"):
        assert absent not in page
