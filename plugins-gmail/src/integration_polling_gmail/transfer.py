"""Decoders for Content-Transfer-Encoding (RFC 2045, section 6), line by line."""

from __future__ import annotations

import binascii
from typing import Protocol

from integration_polling_gmail.streaming import Base64Decoder


class TransferDecoder(Protocol):
    """A decoder that takes lines with their line ends, or pieces of overlong lines."""

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes that are complete."""
        ...

    def finish(self) -> bytes:
        """Return the rest."""
        ...


class QuotedPrintable:
    """Decodes quoted-printable with the library's decoder, which works on lines.

    It holds an escape back until it is complete.
    """

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes that are complete."""
        data, self._carry = self._carry + data, b""
        if not data.endswith(b"\n") and (mark := data.find(b"=", -2)) >= 0:
            data, self._carry = data[:mark], data[mark:]
        return binascii.a2b_qp(data)

    def finish(self) -> bytes:
        """Return the rest."""
        return binascii.a2b_qp(self._carry)


class Identity:
    """Leaves 7bit, 8bit, binary and unknown encodings as they are."""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes."""
        return data

    def finish(self) -> bytes:
        """Return nothing: this decoder holds no bytes back."""
        return b""


def decoder(encoding: str) -> TransferDecoder:
    """Return the decoder for the value of a Content-Transfer-Encoding header."""
    match encoding.strip().lower():
        case "base64":
            return Base64Decoder()
        case "quoted-printable":
            return QuotedPrintable()
    return Identity()
