"""`as=html`: an item as a person saw it, and harmless HTML from hostile authors."""

from __future__ import annotations

import base64
import re
from email.message import EmailMessage

import pytest
from support.harmless import assert_harmless
from support.hostile_texts import PNG, REMOTE, SVG

from core import TaskOutput
from core.rest.app import build
from core.web import html_documents, mail_preview, sanitizer

PLACE = "/v1/user-integration-content"
INLINE = f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"'
URL = f"{REMOTE}/x"


def html_mail(html: str, *, plain: str = "as text", images: dict[str, bytes] | None = None):
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "Zoë <zoe@x.invalid>", "Grüße"
    mail.set_content(plain)
    mail.add_alternative(html, subtype="html")
    for cid, data in (images or {}).items():
        mail.get_payload()[1].add_related(data, "image", "png", cid=f"<{cid}>")
    return mail


@pytest.fixture
def shown(api, desk):
    """Return a function that keeps an item with its source, and returns its HTML."""
    account = desk.account("A mailbox", user_id="u")

    def html(source: bytes | None, text: str = "kept text", **item) -> str:
        desk.keep(account, TaskOutput("m", text, kind="message", name="Grüße", **item))
        if source is not None:
            desk.keep(account, TaskOutput("m/raw", source, kind="source", parent="m",
                content_type="message/rfc822"))  # fmt: skip
        answer = api.user("u").get(f"{PLACE}/{desk.content('id')['m']}", params={"as": "html"})
        assert answer.status_code == 200, answer.text
        assert_harmless(answer.text)
        return answer.text

    return html


def test_a_message_is_shown_from_its_source_with_inline_images(shown) -> None:
    source = html_mail(
        f'<p>as <b>html</b></p><img src="cid:pic@x"><img src="cid:p%40x"><img src="{URL}">'
        '<img src="CID:pic%40x"><img src="cid:unknown">',
        images={"pic@x": PNG, "p@x": PNG},
    )
    found = shown(source.as_bytes())
    assert "as <b>html</b>" in found
    assert "as text" not in found
    assert found.count(INLINE) == 3


def test_the_document_has_headers_that_forbid_everything(api, desk) -> None:
    account = desk.account("A mailbox", user_id="u")
    desk.keep(account, TaskOutput("page", "<p>x</p>", content_type="text/html"))
    id = desk.content("id")["page"]
    answer = api.user("u").get(f"{PLACE}/{id}", params={"as": "html"})
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; sandbox")
    assert "script-src" not in policy
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "<p>x</p>" in answer.text
    stored = desk.rows("SELECT external_id FROM user_integration_content")
    assert stored == [("page",)]  # the document is not stored
    assert api.user("u").get(f"{PLACE}/{id}").json()["external_id"] == "page"
    assert api.user("v").get(f"{PLACE}/{id}", params={"as": "html"}).status_code == 404
    assert api.user("u").get(f"{PLACE}/{id}", params={"as": "pdf"}).status_code == 422


def test_mail_without_html_is_shown_as_text(shown) -> None:
    mail = EmailMessage()
    mail.set_content("one <b>&amp;\n  two\n")
    found = shown(mail.as_bytes())
    assert "one &lt;b&gt;&amp;amp;\n  two" in found


def test_a_text_footer_after_html_is_shown_too(shown) -> None:
    mail = EmailMessage()
    mail.make_mixed()
    for kind, text in (("html", "<p>first</p>"), ("plain", "then <text>"), ("html", "<p>last")):
        part = EmailMessage()
        part.set_content(text, subtype=kind)
        mail.attach(part)
    found = shown(mail.as_bytes())
    assert re.search(r"<p>first</p>.*then &lt;text&gt;.*<p>last", found, re.DOTALL)


def test_a_forwarded_mail_is_shown_below_with_its_sender(shown) -> None:
    outer = EmailMessage()
    outer.set_content("see <below>")
    outer.add_attachment(html_mail('<p>inner</p><img src="cid:p">', images={"p": PNG}))
    found = shown(outer.as_bytes())
    assert re.search(
        r"see &lt;below&gt;.*Zoë &lt;zoe@x.invalid&gt;.*<p>inner</p>", found, re.DOTALL
    )
    assert INLINE in found


def test_an_image_behind_large_files_is_found(shown) -> None:
    mail = html_mail('<img src="cid:late">')
    mail.make_mixed()
    mail.add_attachment(b"\0" * 6_000_000, "application", "zip", filename="big.zip")
    mail.add_attachment(PNG, "image", "png", cid="<late>")
    assert INLINE in shown(mail.as_bytes())


def test_items_without_a_source_are_shown_as_text(shown, api, desk) -> None:
    assert "kept &lt;text&gt;" in shown(None, "kept <text>")
    account = desk.account("Slack", user_id="u")
    desk.keep(
        account,
        TaskOutput("json", b'{"a": "<b>"}', content_type="application/json"),
        TaskOutput("page", b"<h1>Gr\xfc\xdfe", content_type="text/html; charset=latin-1"),
        TaskOutput("image", PNG, content_type="image/png"),
        TaskOutput("svg", SVG.encode(), content_type="image/svg+xml"),
        TaskOutput("nothing", None),
    )
    ids, user = desk.content("id"), api.user("u")

    def get(name):
        return user.get(f"{PLACE}/{ids[name]}", params={"as": "html"})

    assert "{&quot;a&quot;: &quot;&lt;b&gt;&quot;}" in get("json").text
    assert "<h1>Grüße</h1>" in get("page").text
    assert_harmless(get("svg").text)
    for name in ("image", "nothing"):
        problem = get(name)
        assert problem.status_code == 404
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json()["code"] == "content-has-no-preview"


def test_an_image_of_another_account_is_not_reached_by_a_content_id(shown, desk) -> None:
    other = desk.account("Another", user_id="v")
    secret = PNG + b"secret of v"
    desk.keep(
        other,
        TaskOutput("s", "x", kind="message"),
        TaskOutput("s/1", secret, kind="attachment", parent="s", content_type="image/png",
            metadata={"content_id": "theirs@v"}),
    )  # fmt: skip
    id = desk.content("id")["s/1"]
    tried = ["theirs@v", "s/1", "../s/1", str(id), f"/content/{id}/raw?inline=1", "theirs%40v"]
    found = shown(html_mail("".join(f'<img src="cid:{each}">' for each in tried)).as_bytes())
    assert "data:" not in re.sub(r"<head>.*</head>", "", found, flags=re.DOTALL)
    assert base64.b64encode(secret).decode() not in found


ATTACKS = {
    "script": f'<script src="{URL}"></script><script>fetch("{URL}")</script>',
    "handlers": f"<img src=x onerror=\"fetch('{URL}')\"><p onclick=1 oNmouseover=1>x</p>",
    "svg": f'<svg onload=1><script>1</script><image href="{URL}"/><use href="{URL}"/></svg>',
    "svg style": "<svg></p><style><a id='</style><img src=1 onerror=1>'>",
    "math": "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1"
    " onerror=1&gt;'>",
    "math form": "<form><math><mtext></form><form><mglyph><style></math><img src onerror=1>",
    "mutation noscript": '<noscript><p title="</noscript><img src=x onerror=1>">',
    "mutation select": "<select><template><style><!--</style><a rel='--></style></template>"
    "</select><img id=x src onerror=1>'>",
    "mutation textarea": '<textarea><p title="</textarea><img src=x onerror=1>">',
    "mutation title": '<title><p title="</title><img src=x onerror=1>">',
    "mutation xmp": '<xmp><p title="</xmp><img src=x onerror=1>">',
    "mutation comment": "<!--><img src=x onerror=1>--><!--!><img src onerror=1><? ><img src=x>",
    "cdata": "<![CDATA[<img src=x onerror=1>]]><svg><![CDATA[><img src=x onerror=1>]]></svg>",
    "nested tables": "<table><td><svg><foreignObject><table><style><img src=x onerror=1>",
    "annotation": '<math><annotation-xml encoding="text/html"><style><img src=x onerror=1>',
    "style": f"<style>@import '{URL}'; body {{ background: url({URL}) }}</style><p>x</p>",
    "style attribute": f"<p style=\"background: url('{URL}'); -moz-binding: url({URL})\">x",
    "style escapes": r'<p style="background:\75\72\6c(//x);width:expression(1)">x',
    "style image-set": f"<p style=\"background: image-set('{URL}' 1x); content: '{URL}'\">x",
    "style comment": f'<p style="color: red; background: u/**/rl({URL})">x',
    "style break": '<p style="color: red&quot;&gt;&lt;img src=x onerror=1&gt;">x',
    "cursor and list": f"<ul style='list-style-image:url({URL});cursor:url({URL}),auto'><li>x",
    "srcset": f'<img srcset="{URL} 1x" src="cid:p"><picture><source srcset="{URL}"></picture>',
    "image sources": f'<img src="{URL}" lowsrc="{URL}" dynsrc="{URL}" longdesc="{URL}">',
    "image without scheme": '<img src="//tracker.invalid/x"><img src="/v1/users"><img src="x">',
    "data url": '<img src="data:image/svg+xml,<svg onload=1>"><img src="data:text/html;base64,PA">',
    "data url with type": '<img src="data:image/png;base64,AAAA,<script>"><a href="data:x">x</a>',
    "data url svg base64": '<img src="data:image/svg+xml;base64,PHN2Zz4=">',
    "javascript": '<a href="javascript:1">x</a><img src="java\tscript:1">',
    "javascript after a control": '<img src="&#1;javascript:1"><a href="&#9;javascript:1">x</a>',
    "vbscript": '<a href="vbscript:1">x</a><iframe src="javascript:1"></iframe>',
    "links": f'<a href="{URL}" ping="{URL}">x</a><area href="{URL}"><map name=x></map>',
    "refresh": f'<meta http-equiv="refresh" content="0;url={URL}"><META HTTP-EQUIV=set-cookie>',
    "base": f'<base href="{URL}"><base target=_top><img src="x">',
    "form": f'<form action="{URL}"><input name=p type=password><button formaction="{URL}">',
    "frames": f'<iframe srcdoc="<script>1</script>"></iframe><frameset><frame src="{URL}">',
    "objects": f'<object data="{URL}"></object><embed src="{URL}"><applet code="{URL}">',
    "media": f'<video poster="{URL}" src="{URL}"><audio src="{URL}"><track src="{URL}">',
    "preload": f'<link rel="stylesheet" href="{URL}"><link rel="dns-prefetch" href="{URL}">',
    "background": f'<body background="{URL}"><table background="{URL}"><td background="{URL}">x',
    "clobbering": '<img name="body"><form id="cookie"><a id=x name=y><p class="nav">x',
    "end of document": "</body></html><script>1</script><p>after</p></div></div></head><meta>",
    "nul and controls": "<scr\0ipt>1</scr\0ipt><img/\0onerror=1 src=x><\x0bscript>1</script>",
    "utf-7": "+ADw-script+AD4-1+ADw-/script+AD4-",
    "template": '<template shadowrootmode="open"><script>1</script></template>',
    "marquee": '<marquee onstart=1><isindex action="javascript:1"><details open ontoggle=1>x',
    "xml": '<?xml-stylesheet href="javascript:1"?><xml id=x><x:script xmlns:x="w">1</x:script>',
    "css quotes": "<p style='font-family: \"a;}</style><img src=x onerror=1>'>x",
    "mso": f'<!--[if mso]><v:imagedata src="{URL}"/><![endif]--><v:rect href="{URL}">x</v:rect>',
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_neither_acts_nor_loads(attack) -> None:
    source = html_mail(f"<p>before</p>{attack}<p>after</p>", images={"p": PNG})
    document = html_documents.of_mail(source.as_bytes())
    assert "before" in document
    assert_harmless(document)
    # A document that is parsed and written again, as by an editor, stays harmless.
    again = sanitizer.sanitize(document)[0]
    assert "onerror" not in re.sub(r"(title|alt)=\"[^\"]*\"", "", again).replace("&lt;", "")


def test_hostile_names_and_texts_are_escaped() -> None:
    mail = EmailMessage()
    mail.set_content("</div></pre><script>1</script>")
    inner = EmailMessage()
    inner["From"] = '"</div><img src=x onerror=1>" <a@x.invalid>'
    inner["Subject"] = "<script>1</script>"
    inner.set_content("x")
    mail.add_attachment(inner)
    document = html_documents.of_mail(mail.as_bytes())
    assert_harmless(document)
    assert "&lt;script&gt;1&lt;/script&gt;" in document


def test_giant_and_deep_html_is_truncated_and_says_so() -> None:
    tags = ("<div>" * 300_000, "<p>word " * 100_000, "x" * 900_000, "<b><i>" * 90_000)
    for html in (f"{each}deep" for each in tags):
        mail = EmailMessage()
        mail.set_content(html, subtype="html", cte="8bit")
        document = html_documents.of_mail(mail.as_bytes())
        assert "Preview truncated." in document
        assert len(document) < sanitizer.MAX_REPEATED_CHARS


def test_the_limits_apply_to_all_parts_of_a_mail_together() -> None:
    parts = 200
    image = PNG + b"\0" * 200_000
    html = "<b title=1><font size=2>" + '<p>x<img src="cid:p">' * 400
    head = b'Content-Type: multipart/mixed; boundary="b"\n\n'
    picture = (
        b"--b\nContent-Type: image/png\nContent-ID: <p>\nContent-Transfer-Encoding: base64\n\n"
    )
    picture += base64.encodebytes(image)
    part = b"--b\nContent-Type: text/html\n\n" + html.encode() + b"\n"
    document = html_documents.of_mail([head, picture, *([part] * parts), b"--b--\n"])
    assert len(document) < sanitizer.MAX_REPEATED_CHARS + sanitizer.MAX_INLINE_IMAGES_CHARS
    assert "Preview truncated." in document
    assert document.count("<p>") <= sanitizer.MAX_TAGS
    assert document.count("data:image") < 100


def test_a_mail_beyond_the_limit_is_read_up_to_it(monkeypatch) -> None:
    monkeypatch.setattr(mail_preview, "MAX_MESSAGE_BYTES", 1_000)
    mail = EmailMessage()
    mail.set_content("<p>first</p>" + "<p>x</p>\n" * 1_000, subtype="html", cte="8bit")
    read = []

    def pieces():
        for at in range(0, len(mail.as_bytes()), 500):
            read.append(at)
            yield mail.as_bytes()[at : at + 500]

    document = html_documents.of_mail(pieces())
    assert "<p>first</p>" in document
    assert "Preview truncated." in document
    assert len(read) == 3


def test_a_mail_that_is_slow_to_parse_is_read_for_a_bounded_time(monkeypatch) -> None:
    monkeypatch.setattr(mail_preview, "MAX_PARSE_SECONDS", 0.2)
    read = []

    def pieces():
        yield b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfirst\n"
        for number in range(1_000):
            read.append(number)
            yield b"--b\n\nx\n" * 8_000

    assert "first" in (document := html_documents.of_mail(pieces()))
    assert "Preview truncated." in document
    assert len(read) < 500


def test_the_openapi_document_names_the_representation(api) -> None:
    document = build(api.backend).openapi()
    operation = document["paths"][f"{PLACE}/{{content_id}}"]["get"]
    (parameter,) = [each for each in operation["parameters"] if each["name"] == "as"]
    assert "html" in str(parameter["schema"])
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/html"}
