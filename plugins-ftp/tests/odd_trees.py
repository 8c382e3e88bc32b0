"""Trees with odd names, as people and programs create them, for servers on Linux."""

from __future__ import annotations

import hashlib
import os
import random
import unicodedata
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from integration_polling_ftp import names

NFD = unicodedata.normalize("NFD", "Übergröße Åland é ñ ガ")

SHAPES: list[bytes] = [
    b"plain %d.txt", b" leading %d", b"   three %d", b"trailing %d ", b"trailing %d   ",
    b"a  b  %d", b"it's %d", b'"quoted" %d', b'say ""%d""', b"back\\slash %d", b"\\%d", b"%d\\",
    b"-rf %d", b"--%d", b"-%d", b" -a %d", b"-la %d", b"*%d", b"?%d", b"[a-z]%d", b"{a,b}%d",
    b"~%d", b"~root%d", b"#%d", b"%d%%41", b"%d%%", b"%%2F%d", b"100%%0A%d", b"$HOME %d",
    b"`id` %d", b"$(id) %d", b"a;b=c;%d", b"type=dir;size=1; %d", b"a -> b %d", b" -> %d",
    b"total %d", b"226 failed %d", b"550 No such file %d",
    b"drwxr-xr-x   2 u g 4096 Jan  1 10:00 %d", b"-rw-r--r--   1 u g 7 Jan  1  2020 %d",
    b"04-27-00  12:09PM       <DIR>          %d", b"+i8388621.48594,m825718503,r,s280, %d",
    b"Jan 1 10:00 %d", b"2020 %d", b"%d.", b"..%d", b"...%d", b".hidden %d", b"caf\xe9 %d",
    b"\xff\xfe%d", b"\xff%d\xff", b"\x80%d", b"\xc3%d", b"\xa0%d\xa0", b"\x85%d",
    b"\x93\xfa\x96{ %d", b"\xed\xa0\x80%d", "日本語 %d.txt".encode(), f"{NFD} %d".encode(),
    "é %d".encode(), "e\u0301 %d".encode(), "\u202e%d".encode(), "\ufeff%d".encode(),
    "\u2028%d".encode(), "\u3000%d\u3000".encode(), "😀 %d".encode(), b"A %d", b"a %d",
    b"x" * 200 + b"%d",
    b"\xc3\xa9" * 120 + b"%d", b"%d", b"0%d", b"%d:%%s", b"&%d", b"|%d", b"<%d>", b"!%d",
    b"=%d", b"@%d", b"^%d", b",%d", b"a,b %d", b"(%d)", b"con.%d", b"%d;1", b"X.DIR;%d",
    b"http:%d",
]  # fmt: skip
"""Names with a place for a number."""

CONTROLS = [
    b"tab\there %d", b"\t%d", b"\x01%d", b"\x1b[31m%d", b"%d\x7f", b"bell\x07%d", b"\x0b%d",
    b"\x1c %d",
]  # fmt: skip
"""Names with control characters, which pure-ftpd does not list."""

LINES = [b"two\nlines %d", b"\n%d", b"%d\n", b"x\n-rw-r--r--    1 0 0 5 Jan 01  2020 ghost %d"]
"""Names with line breaks, for which only vsftpd and SFTP have a form."""

LINKS = 20
"""The number of links to files, and of links to the directory that contains them."""


def shapes(server: str) -> list[bytes]:
    """Return the names that a server lists and sends."""
    if server == "pure-ftpd":
        return [shape for shape in SHAPES if b"\\" not in shape]
    takes_lines = server in ("vsftpd", "openssh", "proftpd-sftp")
    return SHAPES + CONTROLS + (LINES if takes_lines else [])


def write_tree(home: Path, server: str, files: int) -> dict[str, str]:
    """Write a tree, and return the hash of each file by its path as it is stored.

    A directory has the same odd names as a file. The content of a file begins with its path, so
    that no two files are equal; some have 300 KB, and some 5 MB.
    """
    draw, wanted, root = random.Random(1), dict[str, str](), os.fsencode(home)
    forms = shapes(server)
    names_of = (form % number for number in count() for form in forms)
    for directory in _directories(root, forms, max(files // 100, 5), draw):
        for _ in range(-(-files // max(files // 100, 5))):
            if len(wanted) == files:
                break
            path = directory + b"/" + next(names_of)
            content = path[len(root) :] * draw.choice([0, 1, 1, 1, 5, 20])
            content += bytes(draw.choices([0, 300_000, 5_000_000], [2000, 20, 1])[0])
            Path(os.fsdecode(path)).write_bytes(content)
            wanted[_stored(path[len(root) :])] = hashlib.sha256(content).hexdigest()
    return wanted


def _directories(
    root: bytes, forms: list[bytes], number: int, draw: random.Random
) -> Iterator[bytes]:
    """Create directories below each other, and yield their paths, the root first."""
    made = [root]
    yield root
    for index in range(number - 1):
        parent = draw.choice(made)
        path = parent + b"/" + b"d" * (index % 2) + (forms[index % len(forms)] % (10**6 + index))
        if len(path) - len(root) > 1_200:
            path = root + b"/" + forms[index % len(forms)] % (10**6 + index)
        Path(os.fsdecode(path)).mkdir()
        made.append(path)
        yield path


def _stored(path: bytes) -> str:
    return names.to_text(path.decode("latin-1"))
