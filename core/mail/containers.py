"""Parts that contain mail or files: forwarded mails, TNEF, opaque S/MIME."""

from __future__ import annotations

import re

from core.mail import cms
from core.mail.mime import PIECE_BYTES, MessageParser, Part, Shared, Write
from core.mail.parameters import safe_name
from core.mail.tnef import SIGNATURE, Tnef, read_tnef
from core.mail.transfer import decode_base64

_TNEF = ("application/ms-tnef", "application/vnd.ms-tnef")
_PEM = re.compile(rb"-----(?:BEGIN|END) [A-Z0-9 ]{1,40}-----")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}[=\r\n]")
MAX_LABEL_BYTES = 200
MAX_UNDONE_BYTES = 4 * 1024 * 1024
"""The maximum size of a container whose base64 no field declares."""

_SMIME = ("application/pkcs7-mime", "application/x-pkcs7-mime")


class Forwarded:
    """A forwarded mail: a file with a name, and its words and files read beside it."""

    def __init__(self, shared: Shared, part: Part, nested: int) -> None:
        self._shared, self._part = shared, part
        self._parser = MessageParser(shared, part.id or "root", nested + 1, None, part.id or "root")
        self._write = shared.opened(part)

    def write(self, data: bytes) -> None:
        """Take decoded bytes."""
        if self._write is not None:
            self._write(data)
        self._parser.feed(data)

    def finish(self) -> None:
        """End the mail."""
        self._parser.finish()
        if self._part.filename is None:
            subject = self._parser.fields.text("subject")
            stem = (safe_name(subject) if subject else None) or "forwarded message"
            self._part.filename = f"{stem[:240]}.eml"
        self._shared.forwarded(self._part.id or "root", self._parser.fields)
        self._shared.closed(self._part)


def _undone(data: bytes) -> bytes:
    """Return a container's bytes without PEM lines, or base64 that no field declared."""
    start = data[:MAX_LABEL_BYTES].lstrip()
    if data[:4] == SIGNATURE or not start.isascii() or len(data) > MAX_UNDONE_BYTES:
        return data
    if _PEM.match(start) or _BASE64.match(start):
        return decode_base64(_PEM.sub(b"", data))
    return data


class Container:
    """TNEF or S/MIME: held back, opened at its end, and kept as a file if that fails."""

    def __init__(self, shared: Shared, part: Part, nested: int) -> None:
        self._shared, self._part, self._nested = shared, part, nested
        self._held: bytearray | None = bytearray()
        self._write: Write | None = None

    @staticmethod
    def opens(part: Part) -> bool:
        """Return True if the part may be a container."""
        name = (part.filename or "").lower()
        return part.content_type in (*_TNEF, *_SMIME) or (
            name == "winmail.dat"
            or (name == "smime.p7m" and part.content_type.startswith("application/"))
        )

    def write(self, data: bytes) -> None:
        """Take decoded bytes."""
        if self._held is None:
            if self._write is not None:
                self._write(data)
            return
        self._held += data
        self._shared.room -= len(data)
        if self._shared.room < 0:
            self._shared.cut.add("container")
            self._keep(bytes(self._held), len(self._held))

    def finish(self) -> None:
        """Open the container."""
        if self._held is None:
            self._shared.closed(self._part)
            return
        size, data = len(self._held), _undone(bytes(self._held))
        self._held.clear()
        if not self._tnef(data):
            content = cms.content_of(data, self._shared.budget)
            if content is None:
                is_encrypted = (
                    self._part.content_type in _SMIME and not self._shared.budget.is_spent
                )
                self._shared.cut.add("encrypted" if is_encrypted else "container")
                self._keep(data, size)
                self._shared.closed(self._part)
                return
            del data  # a mail within may be as large
            self._smime(content)
        self._shared.repaired.add("opened-container")
        self._shared.room += size
        if self._shared.budget.is_spent:
            self._shared.cut.add("container")

    def _keep(self, data: bytes, size: int) -> None:
        """Keep the container as a file, and give up the room of its bytes."""
        self._shared.room += size
        self._held = None
        self._write = self._shared.opened(self._part)
        if self._write is not None and data:
            self._write(data)

    def _smime(self, content: bytes) -> None:
        parser = MessageParser(
            self._shared, self._part.id, self._nested + 1, None, self._part.message
        )
        for start in range(0, len(content), PIECE_BYTES):
            parser.feed(content[start : start + PIECE_BYTES])
        parser.finish()

    def _tnef(self, data: bytes) -> bool:
        found = read_tnef(data, self._shared.budget)
        if found is None:
            return False
        self._emit_tnef(found, self._part.id or "root")
        return True

    def _emit_tnef(self, found: Tnef, id: str) -> None:
        texts = [
            ("text/plain", found.text, found.charset),
            ("text/html", found.html, found.charset),
        ]
        if found.rtf is not None:
            self._shared.cut.update(("text",) if found.rtf.is_cut else ())
            kind = "text/html" if found.rtf.is_html else "text/plain"
            if not any(text for other, text, _ in texts if other == kind):
                texts.append((kind, found.rtf.text.encode("utf-8", "replace"), "utf-8"))
        for kind, text, charset in texts:
            if text:
                self._emit(Part(f"{id}.{kind[5:]}", kind, charset, choice=f"{id}.text",
                    is_alternative=True, message=self._part.message), text)  # fmt: skip
        for number, file in enumerate(found.files):
            name = safe_name(file.name)
            self._emit(Part(f"{id}.{number}", file.content_type, filename=name,
                disposition="attachment", choice=f"{id}.{number}",
                message=self._part.message), file.data)  # fmt: skip
        for number, message in enumerate(found.messages, len(found.files)):
            self._emit_tnef(message, f"{id}.{number}")

    def _emit(self, part: Part, data: bytes) -> None:
        self._shared.parts += 1
        part.is_nested = True
        write = self._shared.opened(part)
        part.size = len(data)
        if write is not None:
            write(data)
        self._shared.closed(part)
