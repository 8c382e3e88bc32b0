"""A stateful fake of the Gmail API over real HTTP, written from the official reference.

* `mailbox`: messages, labels and their history.
* `tokens`: the token endpoint, with rotation and revocation.
* `search`: the part of Gmail's search that the tests use.
* `parts`: a message as Gmail parses it.
* `server`: HTTP, quotas, errors in Gmail's format, and a log of calls.
* `mails`: messages for a mailbox.
"""

from support.gmail.mailbox import Mailbox
from support.gmail.mails import mail
from support.gmail.server import FakeGmail

__all__ = ["FakeGmail", "Mailbox", "mail"]
