"""Checksum files beside other files, such as `report.csv.sha256`, `SHA256SUMS` and `files.sfv`."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Collection, Iterator, Sequence

from core import PermanentError
from integration_polling_ftp import names
from integration_polling_ftp.connection import Connection

MISMATCH = "differs from its checksum file"
"""The reason for a file whose bytes are not those that its checksum file describes."""

MAX_LISTS = 16
MAX_FILE_BYTES = 4 * 1024**2
"""Bounds of the checksum files that are read: their number in a directory, and the size of each."""

_BY_LENGTH = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
_CRC32 = "crc32"
_WEAKEST_FIRST = ("", _CRC32, *_BY_LENGTH.values())

_LIST = re.compile(
    r"(?:(?:md5|sha\d{0,3})[-_]?sums?|checksums?)(?:\.txt)?|.+\.sfv", re.IGNORECASE | re.DOTALL
)
_COMPANION = re.compile(
    r"(?P<name>.+)\.(?:md5|sha|sha1|sha224|sha256|sha384|sha512)(?:sums?)?",
    re.IGNORECASE | re.DOTALL,
)
_HEX = r"[0-9A-Fa-f]{32,128}"
_GNU = re.compile(rf"(?P<escaped>\\?)(?P<digest>{_HEX}) [ *](?P<name>.+)", re.DOTALL)
_BSD = re.compile(rf"[A-Z0-9/-]{{3,12}} \((?P<name>.+)\) = (?P<digest>{_HEX})", re.DOTALL)
_ALONE = re.compile(rf"(?P<digest>{_HEX})\s*")
_CRC = re.compile(r"[0-9A-Fa-f]{8}")
_ESCAPES = {"\\n": "\n", "\\r": "\r", "\\\\": "\\"}


class Mismatch(PermanentError):
    """The bytes of a file are not those that its checksum file or the server describes."""


class Digest:
    """The checksum of bytes, computed while they arrive.

    Args:
      expected: The algorithm and the checksum, as `sha256:9f86…`, or the algorithm alone.
    """

    def __init__(self, expected: str) -> None:
        self.algorithm, _, self._wanted = expected.partition(":")
        self._crc = 0
        self._hash = None
        if self.algorithm != _CRC32:
            self._hash = hashlib.new(self.algorithm, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        if self._hash is not None:
            self._hash.update(data)
        else:
            self._crc = zlib.crc32(data, self._crc)

    def matches(self) -> bool:
        """Return True if the bytes have the expected checksum."""
        return self.hexdigest() == self._wanted

    def hexdigest(self) -> str:
        """Return the checksum of the bytes so far, in lower-case hexadecimal."""
        return self._hash.hexdigest() if self._hash is not None else f"{self._crc:08x}"


def expected(
    session: Connection,
    encoding: str,
    parent: str,
    listed: Collection[str],
    wanted: Sequence[str],
) -> dict[str, str]:
    """Return the checksums of files, as far as checksum files in their directory have them.

    A checksum file that cannot be read has no checksums.

    Args:
      session: The connection.
      encoding: The charset of the server's names.
      parent: The path of the directory.
      listed: The paths of its files.
      wanted: The paths of the files to check.
    """
    targets = set(wanted)
    lists, companions = _sources(parent, listed, targets)
    found: dict[str, str] = {}
    for path, text in _read(session, [*sorted(lists)[:MAX_LISTS], *companions]):
        for name, digest in _parse(text, is_sfv=path.lower().endswith(".sfv")):
            about = companions.get(path, "")
            target = names.join(parent, names.to_text(name, encoding)) if name else about
            if target not in targets or target == path or (about and target != about):
                continue
            if _strength(digest) > _strength(found.get(target, "")):
                found[target] = digest
    return found


def _sources(
    parent: str, listed: Collection[str], targets: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Return the paths of checksum files: those for several files, and those for one of `targets`.

    A file with the name of another one and a suffix is for that one. If there is no such file, it
    is for several, such as `release.md5`.
    """
    lists: list[str] = []
    companions: dict[str, str] = {}
    for path in listed if targets else ():
        name = names.base_name(path)
        match = _COMPANION.fullmatch(name)
        target = names.join(parent, match["name"]) if match else ""
        if target in targets:
            companions[path] = target
        elif _LIST.fullmatch(name) or (match and target not in listed):
            lists.append(path)
    return lists, companions


def _read(session: Connection, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the texts of the checksum files that can be read, in latin-1."""
    if not paths:
        return  # the server would prepare a transfer that never comes
    texts = {path: bytearray() for path in paths}

    def job(path: str) -> tuple[str, object]:
        def write(block: memoryview) -> None:
            if len(texts[path]) <= MAX_FILE_BYTES:
                texts[path] += block

        return path, write

    for path, error in session.retrieve_many(map(job, paths)):  # type: ignore[arg-type]
        text = texts.pop(path)
        if error is None and len(text) <= MAX_FILE_BYTES:
            yield path, text.decode("latin-1")


def _parse(text: str, *, is_sfv: bool) -> Iterator[tuple[str, str]]:
    """Yield the names in a checksum file, in latin-1, with their checksums.

    The name is empty if the file has only a checksum. The names of files in other directories are
    left out. Lines that are not understood are left out too, such as comments and signatures.
    """
    for line in re.split(r"\r?\n", text):
        found = _parse_crc(line) if is_sfv else _parse_line(line)
        if found is not None and "/" not in found[0]:
            yield found


def _parse_crc(line: str) -> tuple[str, str] | None:
    """Return the name and the checksum in a line of an SFV file."""
    name, _, digest = line.rstrip().rpartition(" ")
    if name.startswith(";") or not name or not _CRC.fullmatch(digest):
        return None
    return name.rstrip().removeprefix("./"), f"{_CRC32}:{digest.lower()}"


def _parse_line(line: str) -> tuple[str, str] | None:
    """Return the name and the checksum in a line of GNU's or BSD's programs."""
    match = _GNU.fullmatch(line) or _BSD.fullmatch(line) or _ALONE.fullmatch(line)
    if match is None:
        return None
    parts = match.groupdict()
    name, digest = parts.get("name") or "", parts["digest"].lower()
    if parts.get("escaped"):
        name = re.sub(r"\\[nr\\]", lambda each: _ESCAPES[each[0]], name)
    algorithm = _BY_LENGTH.get(len(digest))
    return (name.removeprefix("./"), f"{algorithm}:{digest}") if algorithm else None


def _strength(digest: str) -> int:
    return _WEAKEST_FIRST.index(digest.partition(":")[0])
