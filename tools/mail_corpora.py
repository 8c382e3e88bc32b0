"""Read corpora of mail, and print what other readers find and ours does not.

    python tools/mail_corpora.py [--node FOLDER] [--mutants N] [--all] PATH...

Each file below a path is a mail; a file `*.mbox` has several. The peers are CPython's modern API,
and node's mailparser and postal-mime from FOLDER, which has `node_modules`. A text of which we lack
words, and a file of which we lack the bytes, is a difference. The command prints each difference
that no rule explains, and the number of those that a rule does; `--all` prints these too. It exits
with 1 if a mail raised or a difference has no explanation.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import mailbox
import quopri
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from mail_readers import Node

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.mail import Mail, Part, read
from core.mail.transfer import decode_base64

MAX_BYTES = 20_000_000
_WORD = re.compile(r"\w{2,}")
_TAGS = re.compile(
    r"<!--.*?-->|<(script|style|title)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL
)
_STRIPPED = re.compile(r"[^A-Za-z0-9]+")
_FIELD = re.compile(rb"[!-9;-~]{1,60}[ \t]*:")
_MBOX = re.compile(rb">?From ")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_-]{4,}\s*\Z")
_UUENCODE = re.compile(rb"(?:begin [0-7]{3} |end\s*\Z|[ -`]{2,}\Z)")
_ESCAPED = re.compile(rb"=[0-9A-Fa-f]{2}\w*|\w*=+\w+")
_GARBLED = re.compile(r"\ufffd|\?\?")
_LAST = re.compile(rb"\r?\n--[^\r\n]{1,70}--[ \t]*\r?\n")
_NO_WORDS = re.compile(
    rb"--|[A-Za-z-]+:|[ \t]+[a-z0-9*]+=|[A-Za-z0-9+/=]{4,}\Z|This is a (?:multi|MIME)"
)


@dataclass(slots=True)
class Ours:
    """The mail as ours reads it: its words, its files, and the words that it leaves out."""

    source: bytes
    mail: Mail
    files: list[tuple[Part, bytes]]
    words: set[str] = field(default_factory=set)
    squeezed: str = ""

    def __post_init__(self) -> None:
        self.words = words(self.mail.text)
        self.squeezed = squeezed(self.mail.text)

    @property
    def hashes(self) -> set[str]:
        """The hashes of the files."""
        return {digest(data) for _, data in self.files}

    @property
    def others(self) -> str:
        """The texts of parts that were not chosen."""
        return "\n".join(each.read() for each in self.mail.texts)

    @property
    def unseen(self) -> str:
        """The HTML with its hidden elements, without tags."""
        return "\n".join(
            naked(each.decoded.text) for each in self.mail.texts if each.decoded is not None
        )

    @property
    def markup(self) -> str:
        """The texts as they are, with tags and addresses."""
        found = [each.decoded.text for each in self.mail.texts if each.decoded is not None]
        return "\n".join([*found, *map(html.unescape, found)])

    @property
    def in_files(self) -> str:
        """The words of the files."""
        return "\n".join(data.decode("utf-8", "replace") for _, data in self.files)


def ours(source: bytes) -> Ours:
    """Read with our reader."""
    files: list[tuple[Part, bytearray]] = []

    def opened(part: Part) -> Callable[[bytes], object]:
        files.append((part, bytearray()))
        return files[-1][1].extend

    mail = read(source, opened)
    for name in ("from", "to", "cc"):
        mail.people(name)
    mail.headers()
    mail.reading()
    return Ours(source, mail, [(part, bytes(data)) for part, data in files])


def words(text: str) -> set[str]:
    """Return the words of a text in lower case."""
    return set(_WORD.findall(text.casefold()))


def squeezed(text: str) -> str:
    """Return the letters and digits of a text, which lines and markup do not separate."""
    return _STRIPPED.sub("", text).lower()


def naked(source: str) -> str:
    """Return HTML without tags: all words, whether a person sees them or not."""
    return html.unescape(_TAGS.sub(" ", source))


def digest(data: bytes) -> str:
    """Return a hash that ignores the kind of line ends and the last one."""
    return hashlib.sha256(data.replace(b"\r\n", b"\n").rstrip(b"\n")).hexdigest()


Found = tuple[list[str], list[tuple[str, str, bytes]]]
"""The texts, and the files as name, type and bytes."""


def cpython(source: bytes) -> Found:
    """Return the texts and files that CPython's modern API finds."""
    texts: list[str] = []
    files: list[tuple[str, str, bytes]] = []
    for part in message_from_bytes(source, policy=policy.default).walk():
        if part.is_multipart():
            continue
        name, kind = part.get_filename(), part.get_content_type()
        if part.get_content_maintype() == "text" and not part.is_attachment():
            text = str(part.get_content())
            texts.append(naked(text) if kind == "text/html" else text)
        else:
            data = part.get_payload(decode=True)
            files.append((name or "", kind, data if isinstance(data, bytes) else b""))
    return texts, files


def node(found: dict[str, Any]) -> Found:
    """Return the texts and files that a reader of node's finds."""
    if "error" in found:
        return [], []
    texts = [found["text"] if not found["html"] else "", naked(found["html"])]
    if found["html"] and found["text"]:
        texts.append(found["text"])
    return texts, [(each["name"] or "", each["type"], base64.b64decode(each["data"]))
                   for each in found["files"]]  # fmt: skip


def missing_words(text: str, mine: Ours) -> set[str]:
    """Return the words of a text that ours lacks, also as parts of other words."""
    return {word for word in words(text) - mine.words
            if not (bare := squeezed(word)) or bare not in mine.squeezed}  # fmt: skip


def _rest(lost: set[str], text: str) -> set[str]:
    known, bare = words(text), squeezed(text)
    return {word for word in lost - known if not squeezed(word) or squeezed(word) not in bare}


def text_rule(lost: set[str], text: str, mine: Ours) -> str | None:
    """Return the rule that explains lost words; None if none does."""
    if not (lost := _rest(lost, mine.others)):
        return "alternative: the other form of the same message is shown"
    if not (lost := _rest(lost, mine.unseen)):
        return "hidden: the words are in markup that a person does not see"
    if not (lost := _rest(lost, mine.in_files)):
        return "file: the words are in a file that we keep"
    if not (lost := _rest(lost, mine.markup)):
        return "markup: the words are tags, or addresses of pictures"
    return _damage(lost, text, mine)


def _damage(lost: set[str], text: str, mine: Ours) -> str | None:
    """Return the rule for words that are there, read in another way."""
    if b"text/x-amp-html" in mine.source.lower():
        return "AMP: these parts are left out"
    if "\ufffd" in text and all("\ufffd" in text or not word.isascii() for word in lost):
        return "charset: the other reader has replacement characters"
    readings = [each.decoded for each in mine.mail.texts if each.decoded is not None]
    if all(not word.isascii() for word in lost) and any(
        each.how in ("detected", "utf-8", "meta") and each.replaced * 100 < len(each.text)
        for each in readings
    ):
        return "charset: the label is wrong, and the bytes fit the charset that we found"
    if (rule := _structure(lost, mine)) is not None:
        return rule
    if any(each.charset in ("utf_7", "hz") or "iso2022" in each.charset for each in readings) and (
        not _rest(lost, f"{mine.source.decode('latin-1')}")
    ):
        return "charset: the other reader shows the bytes of UTF-7 or ISO 2022"
    if any(each.replaced == 0 and each.how == "declared" for each in readings) and all(
        not word.isascii() for word in lost
    ):
        return "charset: the other reader does not know the label"
    if mine.mail.cut:
        return f"cut: {', '.join(sorted(mine.mail.cut))}"
    if mine.mail.forwarded and all(word.isdigit() for word in lost):
        return "forwarded: the other reader writes the date of a forwarded mail in its own form"
    return None


def _structure(lost: set[str], mine: Ours) -> str | None:
    """Return the rule for words of headers, boundaries, encoded lines or the epilogue."""
    lines = mine.source.replace(b"\r", b"\n").split(b"\n")
    fields = _fields(lines)
    behind = _LAST.split(mine.source, maxsplit=1)[1:]
    for rule, known in (
        ("structure: the other reader shows header fields or boundaries as text",
            f"{mine.markup}\n{mine.in_files}"),
        ("encoding: the other reader shows encoded text as it is", _encoded(lines)),
        ("epilogue: the words are behind the last boundary",
            b"".join(behind).decode("utf-8", "replace")),
    ):  # fmt: skip
        if not _rest(lost, f"{fields}\n{known}"):
            return rule
    used = {each.decoded.charset for each in mine.mail.texts if each.decoded is not None}
    source = "\n".join(mine.source.decode(each, "replace") for each in {"latin-1", *used})
    if "junk-line" in mine.mail.repaired and not _rest(lost, source):
        return "header: the other reader ends the header at an invalid line, and shows the rest"
    return None


def _fields(lines: list[bytes]) -> str:
    """Return the lines of header fields with their continuations, and the boundaries."""
    found: list[bytes] = []
    is_field = False
    for line in lines:
        is_field = bool(_FIELD.match(line)) or (is_field and line[:1] in (b" ", b"\t"))
        if is_field or line.startswith(b"--") or _MBOX.match(line):
            found.append(line)
    return b"\n".join(found).decode("latin-1")


def _encoded(lines: list[bytes]) -> str:
    """Return the lines that are base64 or uuencode, and the escapes of quoted-printable."""
    found = [line for line in lines if _BASE64.match(line) or _UUENCODE.match(line)]
    for line in lines:
        found += _ESCAPED.findall(line)
    return b"\n".join(found).decode("latin-1")


def _bodies(data: bytes) -> str:
    """Return the words of a multipart, without boundaries, headers and base64."""
    lines = [line for line in quopri.decodestring(data).splitlines() if not _NO_WORDS.match(line)]
    return naked(b"\n".join(lines).decode("utf-8", "replace"))


def _damaged(name: str, kind: str, data: bytes, mine: Ours) -> str | None:
    """Return the rule for a file that is there with other bytes; None if it is not there."""
    decoded = decode_base64(data)
    if any(own and (data.startswith(own) or decoded.startswith(own)) for _, own in mine.files):
        return "junk: the other reader takes the words behind the base64"
    if name and any(part.filename == " ".join(name.split()) for part, _ in mine.files):
        return "damage: the file is there, and its encoded bytes are damaged or undone otherwise"
    if _GARBLED.search(name) and any(part.content_type == kind for part, _ in mine.files):
        return "damage: the file is there, and its encoded bytes are damaged or undone otherwise"
    if "junk-line" in mine.mail.repaired and not _rest(words(data.decode("latin-1")),
        mine.source.decode("latin-1")):  # fmt: skip
        return "header: our reader skips an invalid line of a header"
    for _, own in mine.files:
        encoded = base64.b64encode(own).rstrip(b"=")[:-1]
        if own and (own in data or data.strip() in own or (len(encoded) > 3 and encoded in data)):
            return "structure: a reader takes headers, boundaries or base64 for bytes of the file"
        half = min(len(own), len(data)) // 2
        if half > 2 and own[:half] == data[:half]:
            return (
                "damage: the file is there, and its encoded bytes are damaged or undone otherwise"
            )
    return None


def file_rule(name: str, kind: str, data: bytes, mine: Ours) -> str | None:
    """Return the rule that explains a lost file; None if none does."""
    if not data.strip():
        return "empty: the file has no bytes"
    if kind == "text/x-amp-html":
        return "AMP: these parts are left out"
    if "opened-container" in mine.mail.repaired and (
        "tnef" in kind or "pkcs7-mime" in kind or name.lower() in ("winmail.dat", "smime.p7m")
    ):
        return "container: TNEF or signed S/MIME is opened"
    text = data.decode("utf-8", "replace")
    if kind.startswith("multipart/") or b"\n--" in data:
        whole = f"{mine.mail.text}\n{mine.others}\n{mine.markup}\n{mine.in_files}"
        if not _rest(words(_bodies(data)), whole):
            return "multipart: the other reader left it undivided"
    if any(data.strip() in bytes(each.data) for each in mine.mail.texts):
        return "shown: the words of the file are in the text"
    if (rule := _damaged(name, kind, data, mine) or _shown(kind, text, mine)) is not None:
        return rule
    return f"cut: {', '.join(sorted(mine.mail.cut))}" if mine.mail.cut else None


def _undone(text: str) -> str:
    """Return the text that base64 stands for."""
    return decode_base64(text.encode()).decode("utf-8", "replace")


def _shown(kind: str, text: str, mine: Ours) -> str | None:
    """Return the rule for a file whose words are in the text; None if they are not."""
    undone = words(_undone(text))
    if text.strip() in mine.mail.text or (undone and not _rest(undone, mine.mail.text)):
        return "shown: the words of the file are in the text"
    lost = words(naked(text))
    is_text = kind.startswith(("text/", "message/")) or (lost and "\ufffd" not in text)
    for what, whole in (
        ("shown: the words of the file are in the text", mine.mail.text),
        ("alternative: the other form of the same message is shown", mine.others),
        ("hidden: the words are in markup that a person does not see", mine.unseen),
    ):
        if is_text and not _rest(lost, whole):
            return what
    return None


def differences(mine: Ours, peers: dict[str, Found]) -> Iterator[tuple[str, str, str | None]]:
    """Yield peer, what is lost, and the rule that explains it, or None."""
    for peer, (texts, files) in peers.items():
        for text in texts:
            if lost := missing_words(text, mine):
                yield peer, f"words {sorted(lost)[:12]}", text_rule(lost, text, mine)
        for name, kind, data in files:
            if digest(data) not in mine.hashes:
                yield peer, f"file {name!r} {kind} {len(data)} B", file_rule(name, kind, data, mine)


def mails(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield name and source of each mail."""
    for top in paths:
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if not path.is_file() or path.stat().st_size > MAX_BYTES:
                continue
            if path.suffix == ".mbox":
                for key, source in enumerate(mailbox.mbox(path, create=False)):
                    yield f"{path}:{key}", source.as_bytes()
            else:
                yield str(path), path.read_bytes()


def mutants(source: bytes, count: int, seed: str) -> Iterator[bytes]:
    """Yield changed mails: cut, doubled, swapped, with other bytes; the same for each run."""
    rng = random.Random(seed)
    for _ in range(count):
        lines = source.split(b"\n")
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            match rng.randrange(7):
                case 0:
                    del lines[at]
                case 1:
                    lines.insert(at, lines[rng.randrange(len(lines))])
                case 2:
                    other = rng.randrange(len(lines))
                    lines[at], lines[other] = lines[other], lines[at]
                case 3:
                    lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
                case 4:
                    place = rng.randrange(len(lines[at]) + 1)
                    lines[at] = (
                        lines[at][:place] + bytes((rng.choice(b" \t\r\n\0=?\"';:<>@(),\xe9\x80-"),))
                        + lines[at][place:]
                    )  # fmt: skip
                case 5:
                    lines[at] = lines[at].swapcase()
                case _:
                    lines = lines[: max(at, 1)]
            lines = lines or [b""]
        yield b"\n".join(lines)


def main() -> int:
    """Compare, and print the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, help="folders or files with mail")
    parser.add_argument("--node", type=Path, help="the folder that has node_modules")
    parser.add_argument("--mutants", type=int, default=0, help="mutants of each mail (default: 0)")
    parser.add_argument("--all", action="store_true", help="print explained differences too")
    arguments = parser.parse_args()
    process = Node(arguments.node) if arguments.node else None
    rules: Counter[str] = Counter()
    count = raised = 0
    for name, original in mails(arguments.paths):
        sources = [(name, original)]
        changed = mutants(original, arguments.mutants, name.rpartition("/")[2])
        sources += [(f"{name}~{number}", each) for number, each in enumerate(changed)]
        for label, source in sources:
            count += 1
            try:
                mine = ours(source)
            # The command reports what our reader raises.
            except Exception as error:  # noqa: BLE001
                raised += 1
                print(f"RAISED {label}: {error!r}")
                continue
            for peer, what, rule in differences(mine, _peers(source, process)):
                rules[rule or "UNEXPLAINED"] += 1
                if rule is None or arguments.all:
                    print(f"{rule or 'UNEXPLAINED'}\n    {label}\n    {peer}: {what}")
    if process is not None:
        process.close()
    for rule, number in rules.most_common():
        print(f"{number:6} {rule}")
    print(f"{count} mails, {raised} raised, {rules['UNEXPLAINED']} differences without a rule")
    return 1 if raised or rules["UNEXPLAINED"] else 0


def _peers(source: bytes, process: Node | None) -> dict[str, Found]:
    peers: dict[str, Found] = {}
    try:
        peers["cpython"] = cpython(source)
    # A reader that raises has found nothing.
    except Exception:  # noqa: BLE001
        peers["cpython"] = [], []
    if process is not None:
        peers |= {name: node(found) for name, found in process.read(source).items()}
    return peers


if __name__ == "__main__":
    sys.exit(main())
