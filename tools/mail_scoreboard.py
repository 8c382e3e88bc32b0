"""Write docs/explanation/mail.md: the cases of mail by family, ours beside other readers.

    python tools/mail_scoreboard.py

Readers that are not installed have no column.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from email import message_from_bytes, policy
from email.utils import getaddresses
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/explanation/mail.md"
FAMILIES = {
    "addr": "People", "cs": "Charsets", "ew": "Encoded words", "fn": "File names",
    "hd": "Headers and dates", "ht": "HTML to text", "st": "Structure and transfer encodings",
}  # fmt: skip
Value = dict[str, Any]


def cpython(source: bytes) -> Value:
    """Read with CPython's modern API; HTML stays as it is."""
    message: Any = message_from_bytes(source, policy=policy.default)
    body = message.get_body(("plain", "html"))
    files = list(message.iter_attachments()) if message.is_multipart() else []
    people = {
        name: [[p, a] for p, a in getaddresses([str(v) for v in message.get_all(name, [])])]
        for name in ("from", "to", "cc")
    }
    date = message["date"].datetime if message["date"] else None
    return {
        "text": body.get_content().replace("\r\n", "\n").strip() if body is not None else "",
        "subject": message["subject"], "from_": people["from"], "to": people["to"],
        "cc": people["cc"], "date": date.isoformat() if date else None,
        "filenames": [part.get_filename() for part in files], "attachments": len(files),
        "attachment_bytes": [part.get_payload(decode=True) or b"" for part in files],
    }  # fmt: skip


def mail_parser(source: bytes) -> Value:
    """Read with mail-parser."""
    mail = import_module("mailparser").parse_from_bytes(source)
    files = mail.attachments
    return {
        "text": "\n\n".join(mail.text_plain or mail.text_html).replace("\r\n", "\n").strip(),
        "subject": mail.subject, "from_": [[*p] for p in mail.from_], "to": [[*p] for p in mail.to],
        "cc": [[*p] for p in mail.cc], "date": mail.date.isoformat() if mail.date else None,
        "filenames": [each["filename"] for each in files], "attachments": len(files),
        "attachment_bytes": [str(each["payload"]).encode() for each in files],
    }  # fmt: skip


def fast_mail_parser(source: bytes) -> Value:
    """Read with fast-mail-parser."""
    mail = import_module("fast_mail_parser").parse_email(source)
    files = mail.attachments
    people = {
        name: [[p, a] for p, a in getaddresses([mail.headers.get(name.title(), "")])]
        for name in ("from", "to", "cc")
    }
    return {
        "text": "\n\n".join(mail.text_plain or mail.text_html).replace("\r\n", "\n").strip(),
        "subject": mail.subject, "from_": people["from"], "to": people["to"], "cc": people["cc"],
        "date": mail.date, "filenames": [each.filename for each in files],
        "attachments": len(files), "attachment_bytes": [bytes(each.content) for each in files],
    }  # fmt: skip


def score(reader: Callable[[bytes], Value]) -> tuple[dict[str, int], list[str]]:
    """Return the number of right cases by family, and the names of the wrong ones."""
    support: Any = import_module("support.mail_cases")
    right: defaultdict[str, int] = defaultdict(int)
    failed = []
    for name, source, expected in support.cases():
        try:
            bad = support.wrong(reader(source), expected)
        # A reader that raises has read nothing.
        except Exception as error:  # noqa: BLE001
            bad = [type(error).__name__]
        if bad:
            failed.append(name)
        else:
            right[name.split("-")[0]] += 1
    return right, failed


def page() -> str:
    """Return the page."""
    support: Any = import_module("support.mail_cases")
    readers: dict[str, Callable[[bytes], Value]] = {
        "`core.mail`": support.value, "CPython `email.policy.default`": cpython,
    }  # fmt: skip
    for name, module, reader in (
        ("mail-parser", "mailparser", mail_parser),
        ("fast-mail-parser", "fast_mail_parser", fast_mail_parser),
    ):
        try:
            import_module(module)
        except ImportError:
            continue
        readers[name] = reader
    scores = {name: score(reader) for name, reader in readers.items()}
    totals: defaultdict[str, int] = defaultdict(int)
    for name, _, _ in support.cases():
        totals[name.split("-")[0]] += 1
    rows = [
        [FAMILIES[f], str(totals[f]), *(str(s[0][f]) for s in scores.values())] for f in FAMILIES
    ]
    all_right = [str(sum(s[0].values())) for s in scores.values()]
    rows.append(["**All**", str(sum(totals.values())), *all_right])
    head = ["Family", "Cases", *scores]
    table = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
    return TEXT.format(table=lines)


TEXT = """# How mail is read

The package `core.mail` reads mail: for the Gmail plugin, for the dashboard's preview, and for mail
plugins to come. It streams, its memory and time are bounded, and it never raises. The message's
metadata has its guesses, replacements, cuts and repairs, as `reading`.

## Scoreboard

Each case is a mail made after a public bug report, with its correct values.
`python tools/mail_scoreboard.py` writes this table.

{table}

CPython, mail-parser and fast-mail-parser do not convert HTML to text, so most cases of this family
are not theirs to read.

## Rules

- **Charsets.** A byte order mark leads. The label follows the WHATWG table, as a superset. If the
  bytes do not fit, the order is: strict UTF-8, a detector, Windows-1252.
- **Alternatives.** The plain text leads. If it only says that the HTML has the message, the HTML
  leads. AMP parts are neither text nor files.
- **HTML.** Hidden elements, comments, scripts and zero-width padding are not text. Links keep their
  address, images their alternative text, quotes their mark.
- **Files.** A name in Content-Type alone does not make a text part a file. A forwarded mail is a
  file, and its words and files are read too.
- **Containers.** `winmail.dat` and signed S/MIME are opened. Others stay files, and `reading.cut`
  names them.
- **Time.** Gmail's `internalDate` leads, then `Date`, then the topmost `Received`.
  `timestamp_source` says which.
"""


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    PAGE.write_text(page())
    print(PAGE.read_text().partition("## Rules")[0])
