"""The conformance suite, with a mailbox of varied messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from integration_polling_gmail import Gmail
from support.gmail import FakeGmail, mail

from core.testing import Faults, Harness, IntegrationConformance


class TestGmail(IntegrationConformance):
    integration = Gmail

    @pytest.fixture
    def server(self, gmail: FakeGmail) -> Mapping[str, Any]:
        gmail.page_size = 5
        gmail.mailbox.create_label("Work")
        for number in range(12):
            gmail.mailbox.add(
                mail(
                    f"Subject {number}",
                    f"Text {number}",
                    attachments=[("a.bin", "image/png", b"\0" * 99)],
                )
            )
        gmail.mailbox.add(b"no header at all")
        self.gmail = gmail
        return {}

    def connect(
        self, server: Mapping[str, Any], faults: Faults | None = None, **options: Any
    ) -> Harness:
        return Harness(Gmail, {}, self.gmail.credentials(), faults=faults, **options)
