"""Content-Transfer-Encoding, undone line by line."""

from __future__ import annotations

import binascii
from typing import Protocol

from integration_polling_gmail.streaming import Base64Decoder


class TransferDecoder(Protocol):
    """Takes whole lines with their ends, or pieces of overlong ones."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class QuotedPrintable:
    """Decode with the library's decoder, which works on lines; a piece never ends in an escape."""

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        data, self._carry = self._carry + data, b""
        if not data.endswith(b"\n") and (mark := data.find(b"=", -2)) >= 0:
            data, self._carry = data[:mark], data[mark:]
        return binascii.a2b_qp(data)

    def finish(self) -> bytes:
        return binascii.a2b_qp(self._carry)


class Identity:
    """7bit, 8bit, binary, and what nobody knows."""

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


def decoder(encoding: str) -> TransferDecoder:
    """The decoder for what a header says."""
    match encoding.strip().lower():
        case "base64":
            return Base64Decoder()
        case "quoted-printable":
            return QuotedPrintable()
    return Identity()
