"""Other readers of mail, to compare with: CPython, mail-parser, fast-mail-parser and node's.

Each returns the values of `tests/support/mail_cases.py`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from email import message_from_bytes, policy
from email.utils import getaddresses
from importlib import import_module
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("mail_node.mjs")
Value = dict[str, Any]


def cpython(source: bytes) -> Value:
    """Read with CPython's modern API; HTML stays as it is."""
    message: Any = message_from_bytes(source, policy=policy.default)
    body = message.get_body(("plain", "html"))
    files = list(message.iter_attachments()) if message.is_multipart() else []
    people = {
        name: [[p, a] for p, a in getaddresses([str(v) for v in message.get_all(name, [])])]
        for name in ("from", "to", "cc")
    }
    date = message["date"].datetime if message["date"] else None
    return {
        "text": body.get_content().replace("\r\n", "\n").strip() if body is not None else "",
        "subject": message["subject"], "from_": people["from"], "to": people["to"],
        "cc": people["cc"], "date": date.isoformat() if date else None,
        "filenames": [part.get_filename() for part in files], "attachments": len(files),
        "attachment_bytes": [part.get_payload(decode=True) or b"" for part in files],
    }  # fmt: skip


def mail_parser(source: bytes) -> Value:
    """Read with mail-parser."""
    mail = import_module("mailparser").parse_from_bytes(source)
    files = mail.attachments
    return {
        "text": "\n\n".join(mail.text_plain or mail.text_html).replace("\r\n", "\n").strip(),
        "subject": mail.subject, "from_": [[*p] for p in mail.from_], "to": [[*p] for p in mail.to],
        "cc": [[*p] for p in mail.cc], "date": mail.date.isoformat() if mail.date else None,
        "filenames": [each["filename"] for each in files], "attachments": len(files),
        "attachment_bytes": [str(each["payload"]).encode() for each in files],
    }  # fmt: skip


def fast_mail_parser(source: bytes) -> Value:
    """Read with fast-mail-parser."""
    mail = import_module("fast_mail_parser").parse_email(source)
    files = mail.attachments
    people = {
        name: [[p, a] for p, a in getaddresses([mail.headers.get(name.title(), "")])]
        for name in ("from", "to", "cc")
    }
    return {
        "text": "\n\n".join(mail.text_plain or mail.text_html).replace("\r\n", "\n").strip(),
        "subject": mail.subject, "from_": people["from"], "to": people["to"], "cc": people["cc"],
        "date": mail.date, "filenames": [each.filename for each in files],
        "attachments": len(files), "attachment_bytes": [bytes(each.content) for each in files],
    }  # fmt: skip


class Node:
    """A process of node that reads mails with mailparser and postal-mime.

    Args:
      modules: The folder that has `node_modules`.
    """

    def __init__(self, modules: Path) -> None:
        self._process = subprocess.Popen(
            ["node", str(SCRIPT), str(modules.resolve())], stdin=subprocess.PIPE,  # noqa: S607
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._file = Path(tempfile.mkdtemp()) / "mail.eml"
        self._last: tuple[bytes, dict[str, Value]] = (b"", {})
        self.names = tuple(self.read(b"Subject: x\n\nx"))

    def read(self, source: bytes) -> dict[str, Value]:
        """Return the values of each reader; `error` if it raised."""
        if source != self._last[0]:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._file.write_bytes(source)
            self._process.stdin.write(f"{self._file}\n".encode())
            self._process.stdin.flush()
            self._last = source, json.loads(self._process.stdout.readline())
        return self._last[1]

    def value(self, name: str, source: bytes) -> Value:
        """Return the values of one reader by the names that the cases use."""
        found = self.read(source)[name]
        if "error" in found:
            raise ValueError(found["error"])
        date = found["date"]
        files = found["files"]
        return {
            "text": (found["text"] or found["html"]).replace("\r\n", "\n").strip(),
            "subject": found["subject"], "from_": found["from"], "to": found["to"],
            "cc": found["cc"], "date": date.replace(".000Z", "+00:00") if date else None,
            "filenames": [each["name"] for each in files], "attachments": len(files),
            "attachment_bytes": [base64.b64decode(each["data"]) for each in files],
        }  # fmt: skip

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        self._file.unlink(missing_ok=True)
        self._file.parent.rmdir()
