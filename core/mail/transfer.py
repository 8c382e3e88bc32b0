"""Decoders for Content-Transfer-Encoding (RFC 2045, section 6), line by line."""

from __future__ import annotations

import binascii
import re
from typing import Protocol

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_MAY_BE = _ALPHABET + b"=-_ \t"
_NO_BASE64 = bytes(sorted(set(range(256)) - set(_ALPHABET)))
_TRAILING = re.compile(rb"(?<![ \t\r])([ \t\r]++)\n")
_BLANK_ENDS = (b" \n", b" \r\n", b"\t\n", b"\t\r\n", b"\r\r\n")
_LONE_SIGN = re.compile(rb"=(?==|\r(?!\n)|\Z)")
_COMMENT = re.compile(r"\([^()]*\)")
_NAME = re.compile(r"[A-Za-z0-9-]+(?:[ _]printable)?")
_WORDS = re.compile(
    rb"\n[ \t\r]*\n[ \t]*[!-~]+ [!-~]+ [!-~]+[^\n]*\n"
    rb"|\n(?:-- ?|[-_]{10,})[ \t\r]*\n[^\n]*[!-~] [!-~]"
)
_SIGNS = re.compile(rb"=[=\s]*=")
_ENDING = re.compile(rb"\S")
_BEGIN = re.compile(rb"begin(?:-base64)?[ \t]+[0-7]{3,4}[ \t]")
_PLAIN_WORD = re.compile(rb"[A-Za-z]?[a-z]+[.,;:!?]?|[0-9]{1,4}[.,;:!?]?")
MAX_BLANKS = 100
"""The number of blanks before a piece of base64 that are kept, to find a blank line."""

MIN_WORDS = 5
SAMPLE_BYTES = 256
MAX_GROUPS = 100_000
"""The number of `=` at which a group of base64 ends; further ones are skipped."""


class TransferDecoder(Protocol):
    """A decoder that takes lines with their line ends, or pieces of overlong lines."""

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes that are complete."""
        ...

    def finish(self) -> bytes:
        """Return the rest."""
        ...


class Base64Decoder:
    """Decodes base64 in pieces of any length, in both alphabets of RFC 4648.

    It skips characters outside of the alphabets; `=` ends a group. Words behind a blank line, such
    as the footer of a list, end the data.
    """

    def __init__(self) -> None:
        self._carry = self._blank = b""
        self._is_over = False
        self._groups = 0

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes that are complete."""
        if self._is_over:
            return b""
        if data.isspace():
            self._blank = (self._blank + data)[-MAX_BLANKS:]
            return b""
        if b" " in data and (words := _WORDS.search(self._blank + data)) is not None:
            data, self._is_over = data[: max(words.start() - len(self._blank), 0)], True
        else:
            self._blank = _ENDING.split(self._blank + data[-8:])[-1][-MAX_BLANKS:]
        data = data.translate(_URL_SAFE)
        if b"==" in data:
            data = _SIGNS.sub(b"=", data)
        runs = data.split(b"=", max(MAX_GROUPS - self._groups, 0))
        self._groups += len(runs) - 1
        ended = b"".join(self._decode(run) + self.finish() for run in runs[:-1])
        return ended + self._decode(runs[-1])

    def finish(self) -> bytes:
        """Return the rest; a single character is less than a byte."""
        rest, self._carry = self._carry, b""
        return binascii.a2b_base64(rest + b"=" * (-len(rest) % 4)) if len(rest) > 1 else b""

    def _decode(self, data: bytes) -> bytes:
        whole = self._carry + data.translate(None, _NO_BASE64)
        end = len(whole) - len(whole) % 4
        self._carry = whole[end:]
        return binascii.a2b_base64(whole[:end])


def decode_base64(data: bytes) -> bytes:
    """Decode base64 as far as possible."""
    decoder = Base64Decoder()
    return decoder.feed(data) + decoder.finish()


class HonestBase64:
    """Decodes base64, unless the first bytes show that the text is not encoded."""

    def __init__(self) -> None:
        self._sample: bytearray | None = bytearray()
        self._decoder: TransferDecoder = Base64Decoder()

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes that are complete."""
        if self._sample is None:
            return self._decoder.feed(data)
        self._sample += data
        return self._begin() if len(self._sample) > SAMPLE_BYTES else b""

    def finish(self) -> bytes:
        """Return the rest."""
        return self._begin() + self._decoder.finish()

    def _begin(self) -> bytes:
        if self._sample is None:
            return b""
        data, self._sample = bytes(self._sample), None
        sample = data[:SAMPLE_BYTES]  # the same for pieces of any size
        if (footer := _WORDS.search(sample)) is not None:
            lines = [line.strip() for line in sample[: footer.start()].splitlines()]
        else:
            lines = [line.strip() for line in sample.splitlines()]
        lines = [line for line in lines if line]
        other = sum(len(line.translate(None, _ALPHABET + b"=-_")) for line in lines)
        words = sum(line.count(b" ") for line in lines)
        is_prose = words >= len(lines) > 0 and (
            other * 10 > sum(map(len, lines)) or _has_words(b" ".join(lines))
        )
        junk = [line[:2] == b"--" or bool(line.translate(None, _MAY_BE)) for line in lines]
        is_prose = is_prose or (len(lines) > 1 and junk[0] and sum(junk) * 3 >= len(lines))
        if is_prose and not _is_text(decode_base64(sample)):
            self._decoder = Identity()
        return self._decoder.feed(data)


def _has_words(text: bytes) -> bool:
    """Return True if most of the words are in lower case, unlike pieces of base64."""
    found = text.split()[:-1]  # the last word may be cut
    plain = sum(_PLAIN_WORD.fullmatch(word) is not None for word in found)
    return len(found) >= MIN_WORDS and plain * 5 > len(found) * 4


def _is_text(data: bytes) -> bool:
    """Return True if bytes are UTF-8 without control characters; the end may be cut."""
    text = data.decode("utf-8", "replace")
    return (
        len(text) > 1
        and text[:-3].replace("\n", " ").replace("\r", " ").isprintable()
        and ("\ufffd" not in text[:-3])
    )


class QuotedPrintable:
    """Decodes quoted-printable as RFC 2045, section 6.7, says.

    Blanks at the end of a line were added on the way, also behind a soft line break. A `=` that
    begins no escape stays. The decoder keeps an incomplete escape back.
    """

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes that are complete."""
        data, self._carry = self._carry + data, b""
        end = data.rfind(b"\n") + 1
        whole, data = data[:end], data[end:]
        if any(blank in whole for blank in _BLANK_ENDS):
            whole = _TRAILING.sub(lambda run: b"\r\n" if run[1].endswith(b"\r") else b"\n", whole)
        return _unescaped(whole) + self._incomplete(data)

    def _incomplete(self, data: bytes) -> bytes:
        kept = data.rstrip(b" \t\r")
        if len(data) - len(kept) > 10_000:
            kept = data
        if (mark := kept.find(b"=", -2 if len(kept) > 1 else 0)) >= 0:
            kept = kept[:mark]
        self._carry = data[len(kept) :]
        return _unescaped(kept)

    def finish(self) -> bytes:
        """Return the rest."""
        rest, self._carry = self._carry.rstrip(b" \t\r"), b""
        return _unescaped(rest[:-1] if rest.endswith(b"=") else rest)


def _unescaped(data: bytes) -> bytes:
    # The library drops what follows `==`, and a `=` before a bare CR.
    if b"==" in data or b"=\r" in data or data.endswith(b"="):
        data = _LONE_SIGN.sub(b"=3D", data)
    return binascii.a2b_qp(data)


class UuDecoder:
    """Decodes uuencode: the lines between `begin` and `end`."""

    def __init__(self) -> None:
        self._state = "before"
        self._line = b""

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes of a line."""
        self._line += data
        if not data.endswith(b"\n") and len(self._line) < 1_000:
            return b""
        line, self._line = self._line.rstrip(b"\r\n"), b""
        if self._state == "before":
            if _BEGIN.match(line):
                self._state = "base64" if line.startswith(b"begin-base64") else "within"
            return b""
        if self._state == "base64":
            if line.startswith(b"===="):
                self._state = "after"
                return b""
            return decode_base64(line)
        if self._state == "after" or not line or line == b"end":
            self._state = "after" if line == b"end" else self._state
            return b""
        return _uu(line)

    def finish(self) -> bytes:
        """Return the rest."""
        return self.feed(b"\n") if self._line else b""


def _uu(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        # A line with trailing junk, or without its trailing blanks.
        count = ((line[0] - 32) & 63) * 4 // 3 + 4
        try:
            return binascii.a2b_uu(line[:count].ljust(count))
        except binascii.Error:
            return b""


class Identity:
    """Leaves 7bit, 8bit, binary and unknown encodings as they are."""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes."""
        return data

    def finish(self) -> bytes:
        """Return nothing: this decoder holds no bytes back."""
        return b""


def encoding_of(value: str) -> str:
    """Return the encoding that a Content-Transfer-Encoding field means; empty for the identity.

    Comments, quotes and text after a semicolon do not count.
    """
    found = _NAME.search(_COMMENT.sub(" ", value[:1_000]).replace('"', " ").lower())
    name = found[0].replace("_", "-").replace(" ", "-") if found else ""
    return {
        "base64": "base64", "base-64": "base64", "b64": "base64", "b": "base64",
        "x-base64": "base64", "quoted-printable": "quoted-printable", "quotedprintable":
        "quoted-printable", "qp": "quoted-printable", "q": "quoted-printable",
        "x-uuencode": "uuencode", "uuencode": "uuencode", "x-uue": "uuencode", "uue": "uuencode",
        "x-uu": "uuencode", "uu": "uuencode",
    }.get(name, "")  # fmt: skip


def decoder(encoding: str, *, is_text: bool = False) -> TransferDecoder:
    """Return the decoder for an encoding of `encoding_of`."""
    match encoding:
        case "base64":
            return HonestBase64() if is_text else Base64Decoder()
        case "quoted-printable":
            return QuotedPrintable()
        case "uuencode":
            return UuDecoder()
    return Identity()


BULK = (Identity, Base64Decoder, HonestBase64, QuotedPrintable)
"""The decoders that take many lines in one call."""
