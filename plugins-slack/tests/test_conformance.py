"""The conformance suite, with a workspace of varied messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fake_slack import Fake
from integration_polling_slack import Slack

from core.testing import IntegrationConformance


class TestConformance(IntegrationConformance):
    integration = Slack
    credentials = {"token": "xoxb-fake-token-1"}
    config = {"files": "all", "types": ["public", "private", "im", "mpim"]}

    @pytest.fixture
    def server(self, fake: Fake) -> Mapping[str, Any]:
        workspace = fake.workspace
        fake.page_cap = 7
        general, quiet = workspace.add_channel("general"), workspace.add_channel("quiet")
        workspace.add_channel("closed", is_member=False)
        workspace.add_channel("secret", type="private_channel")
        workspace.add_channel("", id="D1", type="im", user="U2")
        for number in range(30):
            ts = workspace.post(general, f"message {number} for <@U2> in <#{quiet.id}>")
            for reply in range(number % 4):
                workspace.post(
                    general, f"reply {reply}", thread=ts, user="U2", broadcast=reply == 2
                )
        workspace.post(quiet, "hello")
        workspace.upload(quiet, b"bytes" * 100)
        broken = workspace.add_channel("broken")
        broken.error = "channel_not_found"
        return {}
