"""A stateful fake of the Gmail API over real HTTP, written from the official reference.

mailbox   messages, labels and the history of what happens to them
tokens    the token endpoint: rotation, revocation
search    the part of Gmail's search that the tests use
parts     a message as Gmail takes it apart
server    HTTP, quotas, errors in their real shapes, a log of calls
mails     messages to fill a mailbox with
"""

from support.gmail.mailbox import Mailbox
from support.gmail.mails import mail
from support.gmail.server import FakeGmail

__all__ = ["FakeGmail", "Mailbox", "mail"]
