"""The files that the demo serves, those it leaves out, and a generated default tree."""

from __future__ import annotations

import hashlib
import os
import random
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAX_PATH_BYTES = 1_900
"""Bytes. An FTP command is one line, and servers end it at 2,048."""

MAX_DEPTH = 64
"""Directories below one another that the FTP integration enters."""

MAX_SHOWN_CHARS = 100

FILE = "file"
"""The kind of content that the FTP integration keeps a file as."""

_ESCAPED = re.compile(rb"%([0-9A-F]{2})")


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when the demo began.

    A file that changes during the demo cannot be compared.
    """

    size: int
    changed: int


@dataclass(slots=True)
class Tree:
    """What is in a directory.

    Attributes:
      root: Without symbolic links in it.
      files: By path below the root. Names that are no text hold surrogates, as `os.fsdecode` makes
        them.
      directories: How many there are below the root.
      left_out: How many things were left out, by reason.
      examples: One of them for each reason.
    """

    root: Path
    files: dict[str, File] = field(default_factory=dict)
    directories: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files.values())


def refusal(root: Path, path: Path) -> str | None:
    """Why the demo does not serve this; None if it does.

    The server and the comparison ask the same question.
    """
    below = os.fsencode(path.relative_to(root))
    if "\n" in path.name or "\r" in path.name:
        return "names with a line break"
    if len(below) > MAX_PATH_BYTES:
        return "paths too long for an FTP command"
    try:
        status = path.stat()
    except OSError:
        return (
            "broken links" if path.is_symlink() else "things that vanished or may not be looked at"
        )
    if path.is_symlink():
        if stat.S_ISDIR(status.st_mode):
            return "links to directories"
        if not path.resolve().is_relative_to(root):
            return "links that lead out of the directory"
    return _unservable(path, status.st_mode, below.count(b"/") + 1)


def _unservable(path: Path, mode: int, depth: int) -> str | None:
    if stat.S_ISDIR(mode):
        if depth > MAX_DEPTH:
            return "directories too deep"
        return None if os.access(path, os.R_OK | os.X_OK) else "unreadable directories"
    if not stat.S_ISREG(mode):
        return "sockets, pipes and devices"
    return None if os.access(path, os.R_OK) else "unreadable files"


def scan(root: Path) -> Tree:
    """Everything in a directory, as it is now."""
    tree = Tree(root)
    pending = [root]
    while pending:
        for path in pending.pop().iterdir():
            name = str(path.relative_to(root))
            if reason := refusal(root, path):
                tree.left_out[reason] += 1
                tree.examples.setdefault(reason, printable(name))
            elif path.is_dir():
                tree.directories += 1
                pending.append(path)
            else:
                status = path.stat()
                tree.files[name] = File(status.st_size, status.st_mtime_ns)
    return tree


def printable(name: str) -> str:
    """A name as a terminal can show it."""
    text = os.fsencode(name).decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def digest(path: Path) -> str | None:
    """The SHA-256 of a file; None if it cannot be read any more."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def has_changed(path: Path, file: File) -> bool:
    """Whether a file is another one than when the demo began."""
    try:
        status = path.stat()
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) != (file.size, file.changed)


def path_of(external_id: str) -> str:
    """The path below the root of what the FTP integration keeps under this id.

    It keeps names as they read in UTF-8, and bytes that are no UTF-8 as `%XX`.
    """
    wire = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), external_id.encode())
    return os.fsdecode(wire.removeprefix(b"/"))


def make_sample(root: Path) -> None:
    """Create some hundred files of many kinds, the same each time; existing files stay."""
    dice = random.Random(7)
    for name, content in _sample(dice):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
    link = root / "links" / "to a poem.txt"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to("../texts/0/poem 0.txt")


def _sample(dice: random.Random) -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "large.bin", dice.randbytes(5 * 1024 * 1024)
    yield "just over a mebibyte.bin", dice.randbytes(1024 * 1024 + 1)
    yield "every byte.bin", bytes(range(256)) * 16
    yield "a NUL in text.txt", b"before\0after\n"
    for name in (
        "Grüße aus Köln.txt",
        "日本語.txt",
        "🎈.txt",
        "100%25 & 'more'.txt",
        "-rf",
        ".hidden",
        "two  spaces ",
    ):
        yield f"names/{name}", f"This is {name}\n".encode()
    deep = "deep"
    for level in range(24):
        deep = f"{deep}/level {level}"
        yield f"{deep}/note.txt", f"{level} levels down\n".encode()
    for number in range(40):
        yield f"copies/copy {number}.txt", b"the same in every copy\n" * 40
    for number in range(240):
        yield f"texts/{number % 8}/poem {number}.txt", _poem(dice).encode()
    for number in range(60):
        yield f"pictures/{number % 5}/{number}.raw", dice.randbytes(dice.randrange(200, 60_000))


def _poem(dice: random.Random) -> str:
    words = (
        "moon",
        "river",
        "stone",
        "wind",
        "bread",
        "light",
        "house",
        "salt",
        "window",
        "rain",
        "ash",
        "wool",
    )
    return "".join(" ".join(dice.choices(words, k=6)) + "\n" for _ in range(dice.randrange(1, 80)))
