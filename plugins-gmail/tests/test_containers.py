"""Containers that the reader opens, made by another implementation: signed S/MIME, and TNEF."""

from __future__ import annotations

import base64
import struct
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID

from core.mail import Mail, Part, read

INNER = (
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße, signed\r\n"
    '--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="a.pdf"\r\n'
    "Content-Transfer-Encoding: base64\r\n\r\nUERG\r\n--b--\r\n"
)


def opened(content_type: str, data: bytes) -> tuple[Mail, dict[str | None, bytes]]:
    """Read a mail with one part; return it with its files by name."""
    files: list[tuple[Part, bytearray]] = []
    head = (
        f"From: ann@example.org\r\nMIME-Version: 1.0\r\nContent-Type: {content_type}\r\n"
        "Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )

    def take(part: Part) -> object:
        files.append((part, bytearray()))
        return files[-1][1].extend

    mail = read(head.encode() + base64.encodebytes(data), take, lambda _: None)  # type: ignore[arg-type]
    return mail, {part.filename: bytes(content) for part, content in files}


def signed(data: bytes) -> bytes:
    """Return the data in a PKCS #7 structure with its signature (RFC 8551, section 3.5.2)."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    begin = datetime(2026, 1, 1)  # noqa: DTZ001  the library takes UTC without a zone
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, begin)
    certificate = certificate.not_valid_after(begin + timedelta(days=1))
    builder = pkcs7.PKCS7SignatureBuilder().set_data(data)
    builder = builder.add_signer(certificate.sign(key, hashes.SHA256()), key, hashes.SHA256())
    return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])


def attribute(level: int, id: int, data: bytes) -> bytes:
    """Return an attribute of TNEF with its checksum (MS-OXTNEF, section 2.1.3)."""
    return struct.pack("<BII", level, id, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def test_the_words_and_files_of_signed_mail_are_read() -> None:
    kind = 'application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"'
    mail, files = opened(kind, signed(INNER.encode()))
    assert (mail.text, files) == ("Grüße, signed", {"a.pdf": b"PDF"})
    assert "opened-container" in mail.reading()["repaired"]


def test_the_words_and_files_of_winmail_dat_are_read() -> None:
    data = struct.pack("<IH", 0x223E9F78, 1)
    data += attribute(1, 0x0002800C, b"words of Outlook\0")
    data += attribute(2, 0x00069002, bytes(14))
    data += attribute(2, 0x00018010, b"report.txt\0") + attribute(2, 0x0006800F, b"the report")
    mail, files = opened("application/ms-tnef; name=winmail.dat", data)
    assert (mail.text, files) == ("words of Outlook", {"report.txt": b"the report"})


def test_a_container_that_cannot_be_read_stays_a_file() -> None:
    mail, files = opened("application/ms-tnef; name=winmail.dat", b"no TNEF at all")
    assert (mail.text, files) == ("", {"winmail.dat": b"no TNEF at all"})
