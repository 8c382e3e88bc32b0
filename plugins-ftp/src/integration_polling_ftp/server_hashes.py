"""Hashes that FTP servers compute: the commands, and the replies that count.

A server may give the hash of other bytes, by another algorithm, or no hash at all. Only a reply
that names nothing else counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from integration_polling_ftp.control import Reply

MISMATCH = "differs from the server's hash"
"""The reason for a file whose bytes are not those of which the server computed the hash."""

BYTES_PER_SECOND = 50 * 1024**2
"""The bytes that a server should hash in a second. Larger files would exceed the timeout."""

HEX_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32, "crc32": 8}
"""The algorithms, the preferred one first, and the length of their hashes.

The engine computes SHA-256 for each file in any case.
"""

_NAMES = {"SHA-256": "sha256", "SHA-512": "sha512", "SHA-1": "sha1", "MD5": "md5", "CRC32": "crc32"}
"""The algorithms by their names in the command `HASH` (draft-bryan-ftpext-hash)."""

_COMMANDS = {
    "sha256": ("XSHA256",),
    "sha512": ("XSHA512",),
    "sha1": ("XSHA1", "XSHA"),
    "md5": ("XMD5", "MD5"),
    "crc32": ("XCRC",),
}
"""The older commands for each algorithm."""

_HASH = re.compile(
    r"213 (?P<name>[\w-]+) (?P<begin>\d+)-(?P<end>\d+) (?P<digest>[0-9A-Fa-f]+)(?: .*)?",
    re.ASCII | re.DOTALL,
)
_WORD = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8,128}(?![0-9A-Za-z])")


@dataclass(frozen=True, slots=True)
class Method:
    """A way to ask for a hash.

    Attributes:
      algorithm: A key of `HEX_DIGITS`.
      command: The command.
      option: The name to select before `HASH`; empty for other commands.
    """

    algorithm: str
    command: str
    option: str = ""

    def can_name(self, wire: str) -> bool:
        """Return True if the command can name a path.

        The older commands take words after a space for a range, and quotes for their own.
        """
        return bool(self.option) or not re.search(r'[\s"]', wire)

    def read(self, reply: Reply, wire: str, size: int) -> str:
        """Return the hash of a complete file as `algorithm:digits`; empty if the reply has none.

        Args:
          reply: The reply to the command.
          wire: The path, as it was sent.
          size: The size of the file.
        """
        digits = _read_hash(reply, self, size) if self.option else _read_word(reply, self, wire)
        return f"{self.algorithm}:{digits.lower()}" if digits else ""


def methods(features: Mapping[str, str]) -> list[Method]:
    """Return the ways to ask a server for hashes, the preferred one first.

    Args:
      features: The parameters of the server's features, by their names in upper case.
    """
    return list(_methods(features))


def _methods(features: Mapping[str, str]) -> Iterator[Method]:
    options = [each.strip(" *") for each in features.get("HASH", "").split(";")]
    named = {algorithm: each for each in options if (algorithm := _NAMES.get(each.upper()))}
    for algorithm in HEX_DIGITS:
        if algorithm in named:
            yield Method(algorithm, "HASH", named[algorithm])
        for command in _COMMANDS[algorithm]:
            if command in features:
                yield Method(algorithm, command)


def _read_hash(reply: Reply, method: Method, size: int) -> str:
    """Return the digits in a reply to `HASH`. Servers disagree whether a range has its end.

    ProFTPD sends a further line before the last one.
    """
    match = _HASH.fullmatch(reply.text.rpartition("\n")[2])
    if match is None or _NAMES.get(match["name"].upper()) != method.algorithm:
        return ""
    is_complete = int(match["begin"]) == 0 and 0 <= size - int(match["end"]) <= 1
    return match["digest"] if is_complete and _fits(match["digest"], method) else ""


def _read_word(reply: Reply, method: Method, wire: str) -> str:
    """Return the only word in a reply that may be the hash."""
    if reply.code not in ("213", "250", "251"):
        return ""
    text = reply.text[4:].replace(wire, " ")
    found = {word.lower() for word in _WORD.findall(text) if _fits(word, method)}
    return found.pop() if len(found) == 1 else ""


def _fits(digits: str, method: Method) -> bool:
    return len(digits) == HEX_DIGITS[method.algorithm]
