"""Write docs/explanation/mail.md: the cases of mail by family, ours beside other readers.

    python tools/mail_scoreboard.py [FOLDER]

FOLDER has `node_modules` with node's mailparser and postal-mime. Readers that are not installed
have no column.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mail_readers import Node, Value, cpython, fast_mail_parser, mail_parser

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/explanation/mail.md"
FAMILIES = {
    "addr": "People", "cs": "Charsets", "ew": "Encoded words", "fn": "File names",
    "hd": "Headers and dates", "ht": "HTML to text", "st": "Structure and transfer encodings",
    "sm": "S/MIME", "tn": "TNEF", "uu": "uuencode",
}  # fmt: skip


def score(
    reader: Callable[[bytes], Value], cases: list[tuple[str, bytes, Value]]
) -> dict[str, int]:
    """Return the number of right cases by family."""
    support: Any = import_module("support.mail_cases")
    right: defaultdict[str, int] = defaultdict(int)
    for name, source, expected in cases:
        try:
            found = reader(source)
            if _same_moment(found["date"], expected.get("date")):
                found["date"] = expected["date"]  # some readers return UTC alone
            bad = support.wrong(found, expected)
        # A reader that raises has read nothing.
        except Exception as error:  # noqa: BLE001
            bad = [type(error).__name__]
        if not bad:
            right[name.split("-")[0]] += 1
    return right


def _same_moment(found: str | None, expected: str | None) -> bool:
    try:
        return datetime.fromisoformat(found or "") == datetime.fromisoformat(expected or "")
    except (TypeError, ValueError):
        return False


def page(node: Node | None) -> str:
    """Return the page.

    Args:
      node: Node's readers; None if they are not installed.
    """
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
    if node is not None:
        readers |= {name: partial(node.value, name) for name in node.names}
    return TEXT.format(
        table=table(readers, support.cases()), relatives=table(readers, support.relatives())
    )


def table(
    readers: dict[str, Callable[[bytes], Value]], cases: list[tuple[str, bytes, Value]]
) -> str:
    """Return the table of some cases, by family and reader."""
    scores = {name: score(reader, cases) for name, reader in readers.items()}
    totals = Counter(name.split("-")[0] for name, _, _ in cases)
    rows = [
        [FAMILIES[f], str(totals[f]), *(str(s.get(f, 0)) for s in scores.values())]
        for f in FAMILIES
        if totals[f]
    ]
    all_right = [str(sum(s.values())) for s in scores.values()]
    rows.append(["**All**", str(totals.total()), *all_right])
    head = ["Family", "Cases", *scores]
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


TEXT = """# How mail is read

The package `core.mail` reads mail: for the Gmail plugin, for the dashboard's preview, and for mail
plugins to come. It streams, its memory and time are bounded, and it never raises. The message's
metadata has its guesses, replacements, cuts and repairs, as `reading`.

## Scoreboard

Each case is a mail made after a public bug report, with its correct values.
`python tools/mail_scoreboard.py FOLDER` writes this table; the folder has node's readers.

{table}

CPython, mail-parser, fast-mail-parser and postal-mime do not convert HTML to text, so most cases of
this family are not theirs to read.

The relatives of the cases have the same kinds of faults and other inputs: other charsets, zones,
quotes, tags and nestings. They were written for this project, so `core.mail` reads all of them
right, after repairs; the peers' numbers count. Where readers may differ, such as in the form of
links, a case takes `core.mail`'s form.

{relatives}

## Corpora

`python tools/mail_corpora.py --node FOLDER PATH...` reads folders of mail. It prints each text and
file that CPython, mailparser or postal-mime find and `core.mail` does not; `--mutants N` changes
each mail in N ways. A rule explains each difference: hidden text, AMP, opened containers, the other
form of an alternative, and so on. For the 735 mails and files of the tests of CPython, ruby-mail,
SpamAssassin and notmuch, no difference is without a rule, and nothing raises.

## Rules

- **Charsets.** A byte order mark leads. The label follows the WHATWG table, as a superset. If the
  bytes do not fit, the order is: strict UTF-8, a detector, Windows-1252.
- **Alternatives.** The plain text leads. If it only says that the HTML has the message, the HTML
  leads. AMP parts are neither text nor files.
- **HTML.** Hidden elements, text of size 0, classes that the mail's own styles hide, comments,
  scripts and zero-width padding are not text. Links keep their address, images their alternative
  text, quotes their mark.
- **Files.** A name in Content-Type alone does not make a text part a file. A forwarded mail is a
  file, and its words and files are read too.
- **Containers.** `winmail.dat` and signed S/MIME are opened. Others stay files, and `reading.cut`
  names them. The text or HTML within Outlook's compressed RTF is read, and so are messages within
  TNEF. Uuencoded files within plain text are files.
- **Cost.** A mail takes at most three times the time of CPython's parser plus 0.75 s, and 64 MiB
  beyond its own size. `python -m benchmarks mail` measures it with ordinary, changed and hostile
  mails. Longer parts are cut, and `reading.cut` names them.
- **Time.** Gmail's `internalDate` leads, then `Date`, then the topmost `Received`.
  `timestamp_source` says which.
"""


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    node = Node(Path(sys.argv[1])) if len(sys.argv) > 1 else None
    PAGE.write_text(page(node))
    if node is not None:
        node.close()
    print(PAGE.read_text().partition("## Rules")[0])
