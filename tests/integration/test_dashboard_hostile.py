"""Text from outside is only text on every page, and previews of foreign HTML can do nothing."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from selectolax.lexbor import LexborHTMLParser
from support import hostile_texts
from support.harmless import assert_harmless, nodes
from support.hostile_texts import LISTS, MAILS, REMOTE, TEXTS, fill, fill_all, fill_mails
from support.signed_in import signed_in

from core.dashboard.live import event
from core.scopes import ALL
from core.web import mail_preview as mail

SCRIPTS = ("/static/vendor/idiomorph-0.8.0.min.js", "/static/live.js")
ADDRESSES = {"href", "src", "action", "formaction"}
ACCOUNT_PAGES = ["", "/settings", "/credentials"]
PREVIEW_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def skeleton(html: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return every element with the names of its attributes, in order."""
    return [(node.tag, tuple(sorted(node.attributes))) for node in nodes(html)]


def words(html: str) -> str:
    """Return all text and all values of attributes, without spaces."""
    root = LexborHTMLParser(html).root
    values = [value or "" for node in nodes(html) for value in node.attributes.values()]
    return _dense(root.text(deep=True) + " ".join(values))


def _dense(text: str) -> str:
    return re.sub(r"[\s\x00-\x20\x7f-\x9f\ufffd]+", "", text)


def assert_ours(html: str) -> None:
    """Assert that nothing acts by itself, and that no address leads to another site."""
    for node in nodes(html):
        assert not node.tag.startswith(("!", "-")) or node.tag in (
            "!doctype",
            "-doctype",
        ), f"a comment: {node.html}"
        for name, value in node.attributes.items():
            assert not name.startswith("on"), f"{node.tag} {name}={value}"
            assert name not in ("style", "srcdoc"), f"{node.tag} {name}={value}"
            if name in ADDRESSES:
                assert value.startswith(("/", "#", "?")), f"{node.tag} {name}={value}"
                assert not value.startswith("//"), f"{node.tag} {name}={value}"
        if node.tag == "script":
            assert node.attributes in [{"src": source, "defer": None} for source in SCRIPTS]
            assert node.text() == ""


@pytest.fixture
def ours(dashboard, conn):
    """Return an operator's browser, and the elements of each page with harmless texts."""
    operator = signed_in(dashboard)
    plain = fill(conn, "plain", "plain words")
    return operator, [skeleton(operator.get(page).text) for page in plain.pages]


def test_every_text_is_only_text_on_every_page(ours, conn) -> None:
    operator, harmless = ours
    # The next tests cover texts that are empty or that decide which parts are shown.
    for filled in fill_all(conn):
        for page, made_of in zip(filled.pages, harmless, strict=True):
            html = operator.get(page).text
            assert_ours(html)
            if _dense(filled.text):
                assert skeleton(html) == made_of, f"{filled.name}: {page}"
                assert _dense(filled.text[:60])[:40] in words(html), (
                    f"{filled.name} is not on {page}"
                )


def test_every_text_is_only_text_in_every_list(dashboard, conn) -> None:
    fill_all(conn)
    operator = signed_in(dashboard, scopes=ALL)
    for page in LISTS:
        answer = operator.client.get(page)
        assert answer.status_code == 200, page
        assert_ours(answer.text)


def test_every_text_is_only_text_on_every_page_of_an_account(dashboard, conn) -> None:
    operator = signed_in(dashboard)
    for filled in fill_all(conn):
        for page in ACCOUNT_PAGES:
            answer = operator.client.get(f"/accounts/{filled.account}{page}")
            assert answer.status_code in (200, 404, 422), (filled.name, page, answer.status_code)
            assert_ours(answer.text)


def test_a_user_with_any_name_sees_their_own_accounts(dashboard, conn) -> None:
    for name, text in TEXTS:
        user = (hostile_texts.sanitize(text) or "")[:400].strip() or "u"
        filled = fill(conn, name, text, user=user)
        person = signed_in(dashboard, user)
        for page in (f"/runs/{filled.run}", "/runs", "/parked", "/content"):
            assert_ours(person.get(page).text)


@pytest.mark.parametrize(
    "path",
    [
        "/runs?account=", "/runs?domain=", "/runs?state=", "/runs?after=", "/runs?flash=",
        "/parked?account=", "/parked?domain=", "/parked?type=", "/parked?error=", "/parked?after=",
        "/content?q=", "/content?account=", "/content?kind=", "/content?domain=",
        "/content?deleted=", "/content?since=", "/content?until=", "/content?after=",
        "/sign-in?next=", "/no-such-page?",
    ],
)  # fmt: skip
def test_text_from_an_address_is_only_text(dashboard, conn, path) -> None:
    fill(conn, "plain", "plain words")
    operator = signed_in(dashboard)
    part, _, name = path.partition("?")
    for _, text in TEXTS:
        sent = text.encode("utf-8", "replace").decode()[:1_200]
        answer = operator.client.get(part, params={name.rstrip("=") or "x": sent})
        assert answer.status_code in (200, 404, 422), (answer.status_code, sent)
        assert_ours(answer.text)
        assert "set-cookie" not in answer.headers


def test_no_text_breaks_out_of_a_server_sent_event() -> None:
    for _, text in TEXTS:
        sent = event("live", text)
        assert sent.endswith("\n\n")
        lines = re.split(r"\r\n|\r|\n", sent)
        assert lines[0] == "event: live"
        assert all(line.startswith("data: ") for line in lines[1:-2]), lines[:8]
        assert lines[-2:] == ["", ""]


def test_the_preview_of_hostile_html_neither_acts_nor_loads(dashboard, conn) -> None:
    filled = [one for one in fill_all(conn) if one.text]
    mails = fill_mails(conn, filled[0].account)
    operator, seen = signed_in(dashboard), 0
    for id in [*(one.html for one in filled), *mails.values()]:
        answer = operator.client.get(f"/content/{id}/preview")
        if answer.status_code == 404:  # a mail without HTML
            continue
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith(PREVIEW_POLICY)
        assert re.search(r"; sandbox$", answer.headers["content-security-policy"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
        assert_harmless(answer.text)
        seen += 1
    assert seen > len(filled) + len(mails) / 2


@pytest.mark.parametrize(("name", "data"), MAILS, ids=[name for name, _ in MAILS])
def test_every_mail_of_the_corpus_is_shown(dashboard, conn, name, data) -> None:
    account = fill(conn, "plain", "plain words").account
    (id,) = fill_mails(conn, account, [(name, data)]).values()
    operator = signed_in(dashboard)
    assert_ours(operator.get(f"/content/{id}").text)
    assert operator.client.get(f"/content/{id}/preview").status_code in (200, 404)
    raw = operator.get(f"/content/{id}/raw")
    assert raw.content == data
    assert raw.headers["content-disposition"].startswith("attachment;")
    assert raw.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_the_texts_of_the_corpus_do_harm_when_not_escaped() -> None:
    """Assert that each of these texts does harm when it is not escaped."""
    acts = [
        text
        for _, text in TEXTS
        if not _harmless_unescaped(f"<p>{text.encode('utf-8', 'replace').decode()}</p>")
    ]
    assert len(acts) > 30
    assert mail.read(dict(MAILS)["html"]).html.count("<script>") == 1
    assert urlsplit(REMOTE).hostname.endswith(".invalid")


def _harmless_unescaped(html: str) -> bool:
    try:
        assert_ours(html)
    except AssertionError:
        return False
    return {node.tag for node in nodes(html)} <= {"html", "head", "body", "p"}
