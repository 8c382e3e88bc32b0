"""The app manifest requests exactly the scopes that the calls need.

The documentation contains it unchanged.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fake_slack import Fake
from integration_polling_slack import Config, Slack, manifest, scopes

from core.testing import Harness

DOCS = Path(__file__).parents[2] / "docs"
TEXT = files("integration_polling_slack").joinpath("app_manifest.json").read_text("utf-8")
OF_EVENTS = "reactions:read"
"""The scope that no call needs."""

ASKED = [one for one in json.loads(TEXT)["oauth_config"]["scopes"]["bot"] if one != OF_EVENTS]
EVERYTHING = {"types": ["public", "private", "im", "mpim"], "files": "all", "join_public": True}


def everything(fake: Fake, connect: Any, granted: list[str]) -> tuple[str, Any]:
    """Sync a workspace of varied content with these scopes; return the state and the content."""
    workspace = fake.workspace
    workspace.groups["S1"] = "oncall"
    named = [
        ("general", "public_channel"),
        ("secret", "private_channel"),
        ("", "im"),
        ("mpdm-1", "mpim"),
    ]
    for name, kind in named:
        channel = workspace.add_channel(
            name, type=kind, user="U2", is_member=kind != "public_channel"
        )
        workspace.post(channel, f"in {kind} <!subteam^S1> <@U2>")
    workspace.upload(channel, b"bytes")
    fake.scopes = ",".join(granted)
    harness: Harness = connect(**EVERYTHING)
    return harness.sync().state, {
        item.id: (item.text, item.metadata) for item in harness.content.values()
    }


def test_the_manifests_scopes_are_sufficient(fake: Fake, connect: Any) -> None:
    state, content = everything(fake, connect, ASKED)
    assert state == "succeeded"
    texts = {text for text, _ in content.values()}
    assert texts >= {
        f"in {kind} @oncall @Björn" for kind in ("public_channel", "private_channel", "im", "mpim")
    } | {"bytes"}
    assert connect(**EVERYTHING).check()


@pytest.mark.parametrize("scope", ASKED)
def test_the_manifest_has_no_unnecessary_scope(fake: Fake, connect: Any, scope: str) -> None:
    """Without any one of the scopes, some content is missing."""
    state, content = everything(fake, connect, [one for one in ASKED if one != scope])
    whole = sum("@oncall @Björn" in text or text == "bytes" for text, _ in content.values())
    assert state != "succeeded" or whole < 5


def test_the_manifest_has_the_scopes_of_the_code() -> None:
    assert sorted(scopes.EVERY) == ASKED
    assert Slack.manifest.oauth is not None
    assert list(Slack.manifest.oauth.scopes) == ASKED
    assert json.loads(TEXT) == manifest.manifest(
        Config.model_validate(EVERYTHING), socket_mode=True
    )
    assert scopes.needed(Config.model_validate(EVERYTHING)) | scopes.OPTIONAL == scopes.EVERY
    assert scopes.needed(Config(types=["public"])) == {
        "users:read",
        "channels:read",
        "channels:history",
    }


def test_the_documentation_contains_the_manifest() -> None:
    page = (DOCS / "how-to" / "slack.md").read_text("utf-8")
    [block] = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block == TEXT
    assert not [scope for scope in [*ASKED, OF_EVENTS] if f"`{scope}`" not in page]
