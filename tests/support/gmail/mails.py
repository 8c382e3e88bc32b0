"""Messages for a mailbox: built with the standard library, or by hand if they must be malformed."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage

SENDER, OWNER = "Sender <sender@example.org>", "owner@example.com"


def mail(
    subject: str = "A subject",
    text: str = "The text.",
    *,
    html: str | None = None,
    attachments: Sequence[tuple[str, str, bytes]] = (),
    **fields: str,
) -> bytes:
    """Build a well-formed message.

    Args:
      subject: The subject.
      text: The text body.
      html: The HTML body, if any.
      attachments: The file name, media type and bytes of each attachment.
      fields: Further header fields, with `_` for `-`.
    """
    message = EmailMessage()
    given = {
        "From": SENDER,
        "To": OWNER,
        "Subject": subject,
        "Date": "Fri, 02 Jan 2026 03:04:05 +0100",
    }
    for name, value in (
        given | {name.replace("_", "-"): value for name, value in fields.items()}
    ).items():
        message[name] = value
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    for name, kind, data in attachments:
        maintype, _, subtype = kind.partition("/")
        message.add_attachment(data, maintype=maintype, subtype=subtype, filename=name)
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def plain(number: int) -> bytes:
    """Build a small message for a number, without the cost of the library."""
    return (
        f"From: {SENDER}\r\nTo: {OWNER}\r\nSubject: Message {number}\r\nMessage-ID:"
        f" <{number}@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThis is message"
        f" {number}.\r\n"
    ).encode()
