"""Content types of files, by their names and their first bytes."""

from __future__ import annotations

import codecs
from functools import cache
from mimetypes import MimeTypes

import puremagic
from puremagic.main import magic_header_array

HEAD_BYTES = 2_048
"""The number of bytes that decide."""

MIN_SIGNATURE_BYTES = 3
MIN_CONFIDENCE = 0.3
"""The length and the confidence from which a signature counts."""

BINARY = "application/octet-stream"
TEXT = "text/plain"

_TEXTS = ("application/json", "application/x-ndjson", "application/yaml", "application/toml")
_MARKUP = ("text/html", "text/rtf")
"""Texts that a reader shows without their markup."""

_OFFICE = "application/vnd.openxmlformats-officedocument"
_BY_NAME = MimeTypes()
for _type, _endings in {
    TEXT: ".log .ini .conf .cfg .env .sql .rst",
    "text/markdown": ".md .markdown",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".ndjson .jsonl",
    "application/yaml": ".yaml .yml",
    "application/toml": ".toml",
    "application/vnd.apache.parquet": ".parquet",
    "application/zstd": ".zst",
    "application/vnd.rar": ".rar",
    "application/epub+zip": ".epub",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.oasis.opendocument.presentation": ".odp",
    f"{_OFFICE}.wordprocessingml.document": ".docx",
    f"{_OFFICE}.spreadsheetml.sheet": ".xlsx",
    f"{_OFFICE}.presentationml.presentation": ".pptx",
    "application/x-7z-compressed": ".7z",
    "image/heic": ".heic",
    "image/webp": ".webp",
}.items():
    for _ending in _endings.split():
        _BY_NAME.add_type(_type, _ending)

_COMPRESSIONS = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "br": BINARY,
    "compress": "application/x-compress",
}
_CONTAINERS = {
    b"PK\x03\x04": "application/zip",
    b"\x1f\x8b": "application/gzip",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "application/x-ole-storage",
}
"""Signatures that many formats share. Only the name tells which one it is."""

_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b\b"))


def content_type(name: str, head: bytes | None) -> str | None:
    """Return the content type of a file.

    Text has no signature, so the name decides about it. For other files, the signature decides if
    it contradicts the name: a PDF with the name `report.txt` is a PDF.

    Args:
      name: The name.
      head: The first `HEAD_BYTES`; None if they are unknown.
    """
    named = _by_name(name)
    if not head:
        return named
    if is_text(head):
        return named or TEXT
    suffix = _suffix(name)
    if named and head.startswith(_signatures().get(suffix, ())):
        return named
    for signature, container in _CONTAINERS.items():
        if head.startswith(signature):
            return named if named and named.startswith("application/") else container
    return _by_signature(suffix, head) or named or BINARY


def as_text(data: bytes, content_type: str | None) -> str | bytes:
    """Return the content of a text file as text, if it is UTF-8; other content as bytes.

    Args:
      data: The complete content.
      content_type: Its type, as `content_type` returns it.
    """
    kind = content_type or ""
    if not data or not (kind.startswith("text/") or kind in _TEXTS) or kind in _MARKUP:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def is_text(head: bytes) -> bool:
    """Return True if bytes are the beginning of a text in UTF-8, or in UTF-16 with its mark."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    if head.translate(None, _CONTROLS) != head:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _suffix(name: str) -> str:
    """Return the last suffix; `.gz` for a short form such as `.tgz`."""
    _, dot, end = name.lower().rpartition(".")
    suffix = f".{end}" if dot and end else ""
    return f".{_BY_NAME.suffix_map.get(suffix, suffix).rpartition('.')[2]}" if suffix else ""


def _by_name(name: str) -> str | None:
    suffix = _suffix(name)
    if compression := _BY_NAME.encodings_map.get(suffix):
        return _COMPRESSIONS.get(compression, BINARY)
    usual, strict = _BY_NAME.types_map
    return strict.get(suffix) or usual.get(suffix)


def _by_signature(suffix: str, head: bytes) -> str | None:
    """Return the type of a signature; None if there is none. This takes up to a millisecond."""
    is_known = head[:MIN_SIGNATURE_BYTES] in _beginnings()
    if not is_known and head[4:8] != b"ftyp" and head[257:262] != b"ustar":
        return None
    try:
        found = puremagic.magic_string(head, f"x{suffix}")
    except (puremagic.PureError, ValueError):
        return None
    return next(
        (
            str(each.mime_type)
            for each in found
            if each.mime_type
            and len(each.byte_match) >= MIN_SIGNATURE_BYTES
            and each.confidence >= MIN_CONFIDENCE
        ),
        None,
    )


@cache
def _signatures() -> dict[str, tuple[bytes, ...]]:
    """Return the signatures at the beginning of files, by suffix."""
    found: dict[str, tuple[bytes, ...]] = {}
    for each in magic_header_array:
        if each.offset == 0 and len(each.byte_match) >= 2:
            found[each.extension] = (*found.get(each.extension, ()), each.byte_match)
    return found


@cache
def _beginnings() -> frozenset[bytes]:
    """Return the first bytes of all signatures."""
    known = (each for every in _signatures().values() for each in every)
    return frozenset(each[:MIN_SIGNATURE_BYTES] for each in known)
