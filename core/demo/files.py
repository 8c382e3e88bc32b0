"""Find the files that the demo serves, skip others, and generate the sample files."""

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
"""The maximum length of a path. Servers limit an FTP command to one line of 2,048 bytes."""

MAX_DEPTH = 64
"""The maximum depth of directories that the FTP integration enters."""

MAX_SHOWN_CHARS = 100
"""The maximum length of a name that is printed."""

FILE = "file"
"""The kind of content that the FTP integration saves for a file."""

_ESCAPED = re.compile(rb"%([0-9A-F]{2})")


@dataclass(frozen=True, slots=True)
class File:
    """A file's size and time of change (ns) at the start of the demo.

    A file that changes during the demo cannot be compared.
    """

    size: int
    changed: int


@dataclass(slots=True)
class Tree:
    """The content of a directory.

    Attributes:
      root: The directory's path, without symbolic links.
      files: The files, by path below the root. Names that are not valid UTF-8 contain surrogates,
        as `os.fsdecode` returns them.
      directories: The number of directories below the root.
      left_out: The number of skipped entries, by reason.
      examples: The path of one skipped entry, by reason.
    """

    root: Path
    files: dict[str, File] = field(default_factory=dict)
    directories: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The total size of the files."""
        return sum(file.size for file in self.files.values())


def refusal(root: Path, path: Path) -> str | None:
    """Return the reason why the demo skips this path, or None if it serves it.

    The server and the comparison use the same rule.
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
            "broken links" if path.is_symlink() else "entries that vanished or cannot be accessed"
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
    """Read a directory and everything below it."""
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
    """Return a name that a terminal can show."""
    text = os.fsencode(name).decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if it can no longer be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def has_changed(path: Path, file: File) -> bool:
    """Return true if the file has changed or vanished since the start of the demo."""
    try:
        status = path.stat()
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) != (file.size, file.changed)


def path_of(external_id: str) -> str:
    """Return the path below the root that belongs to an id of the FTP integration.

    The id is the name in UTF-8. Bytes that are not valid UTF-8 are written as `%XX`.
    """
    wire = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), external_id.encode())
    return os.fsdecode(wire.removeprefix(b"/"))


def make_sample(root: Path) -> None:
    """Create several hundred files of many kinds. Each call creates the same files."""
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
