"""A reader of mail: from bytes to headers, text, people, files and defects.

It imports nothing of the engine. It streams, its memory and time are bounded, and it never raises.
"""

from core.mail.bodies import MAX_TEXT_BYTES, TextPart, readable_text
from core.mail.charsets import clean, decode
from core.mail.fields import Fields
from core.mail.html_text import text_of_html
from core.mail.mime import MAX_DEPTH, MAX_PARTS, Part, Write
from core.mail.people import Person
from core.mail.reader import READER_VERSION, Mail, MailReader, read
from core.mail.replies import Reply, split_reply
from core.mail.transfer import Base64Decoder

__all__ = [
    "MAX_DEPTH",
    "MAX_PARTS",
    "MAX_TEXT_BYTES",
    "READER_VERSION",
    "Base64Decoder",
    "Fields",
    "Mail",
    "MailReader",
    "Part",
    "Person",
    "Reply",
    "TextPart",
    "Write",
    "clean",
    "decode",
    "read",
    "readable_text",
    "split_reply",
    "text_of_html",
]  # fmt: skip
