"""Files that stand as uuencode within plain text, as mail programs before MIME wrote them."""

from __future__ import annotations

import re

from core.mail.charsets import decode
from core.mail.transfer import UuDecoder

MAX_FILES = 100
_BLOCK = re.compile(
    rb"^begin [0-7]{3,4} ([^\r\n]{1,200})\r?\n((?:[ -`][^\r\n]{0,90}\r?\n)++)end[ \t]*\r?$",
    re.MULTILINE,
)


def take_files(text: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return a text without its uuencoded files, and these files as name and bytes.

    A block counts if its first line has the length that it names. A block without `end` is text.
    """
    found: list[tuple[str, bytes]] = []

    def take(block: re.Match[bytes]) -> bytes:
        first = block[2].split(b"\n", maxsplit=1)[0].rstrip(b"\r")
        length = -(-((first[0] - 32) & 63) // 3) * 4
        if len(found) == MAX_FILES or not length - 3 <= len(first) - 1 <= length + 1:
            return block[0]
        decoder = UuDecoder()
        lines = block[0].splitlines(keepends=True)
        data = b"".join(decoder.feed(line) for line in lines) + decoder.finish()
        found.append((decode(block[1].strip()).text, data))
        return b""

    return _BLOCK.sub(take, text), found
