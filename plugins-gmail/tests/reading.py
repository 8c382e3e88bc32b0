"""A reader for one message, as the plugin reads it, without Gmail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration_polling_gmail import Config, Gmail
from integration_polling_gmail.fingerprint import Fingerprint
from integration_polling_gmail.message import Envelope, MessageReader

from core import TaskOutput
from core.testing import Harness

ID = "19b0000000000001"
TOKEN = {"access_token": "a-token-of-the-tests"}


class Read:
    """The rows of a message.

    Args:
      raw: The source.
      chunk: The number of bytes to feed at a time. Default: 64 KiB.
      **config: Fields of the account's config.
    """

    def __init__(self, raw: bytes, chunk: int = 1 << 16, **config: Any) -> None:
        context = Harness(Gmail, config, TOKEN).context()
        with MessageReader(context, Config(**config), ID) as reader:
            for start in range(0, len(raw), chunk):
                reader.write(raw[start : start + chunk])
            reader.finish()
        resource = {"labelIds": ["INBOX"], "internalDate": "1767225600000", "snippet": "a &amp; b"}
        self.message = reader.message(Envelope.of_resource(resource))
        self.rows = {
            row.id: row for row in self.message.outputs(Fingerprint("1", "all:25", ("INBOX",)))
        }

    @property
    def row(self) -> TaskOutput:
        return self.rows[ID]

    @property
    def text(self) -> str:
        assert isinstance(self.row.content, str)
        return self.row.content

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.row.metadata

    @property
    def attachments(self) -> dict[str, bytes]:
        """The bytes of the attachments, by part."""
        rows = (
            (id.removeprefix(f"{ID}/"), row)
            for id, row in self.rows.items()
            if row.kind == "attachment"
        )
        return {part: row.content.data if row.content else b"" for part, row in rows}
