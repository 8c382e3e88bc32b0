"""Tokens of an organization (Enterprise Grid): an account is one of its workspaces."""

from __future__ import annotations

from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.events import callback, posted
from fake_slack.server import BOT, USER
from integration_polling_slack import Config, Credentials, Slack
from integration_polling_slack.events import hints
from pydantic import ValidationError

from core import ConfigurationError, CredentialsInvalid
from core.testing import Harness

CHOICE = "T1 (Acme), T2 (Beta)"


@pytest.fixture
def organization(fake: Fake) -> Fake:
    """An organization with two workspaces, and channels in both."""
    fake.teams = {"T2": "Beta", "T1": "Acme"}
    for team in fake.teams:
        for type in ("public_channel", "private_channel"):
            name = f"{team}-{type}".lower().replace("_", "-")
            channel = fake.workspace.add_channel(name, id=f"C{team}{type[:2].upper()}",
                                                 team=team, type=type)  # fmt: skip
            fake.workspace.post(channel, f"in {name} for <@U2>")
    return fake


def texts(harness: Harness) -> set[str]:
    return {item.text for item in harness.content.values() if item.kind == "message"}


@pytest.mark.parametrize("token", [BOT, USER])
@pytest.mark.parametrize("team", ["T1", "T2"])
def test_an_account_copies_one_workspace(
    organization: Fake, connect: Any, sync: Any, token: str, team: str
) -> None:
    harness: Harness = connect(token, team=team)
    identity = harness.check()
    assert identity.id == f"{team}:{'UBOT' if token == BOT else 'U1'}"
    assert identity.name.startswith(organization.teams[team])
    assert (identity.group or "").startswith(f"{team}:")
    for trigger in ("schedule", "manual", "schedule", "resync"):
        sync(harness, trigger)
        low = team.lower()
        assert texts(harness) == {
            f"in {low}-public-channel for @Björn", f"in {low}-private-channel for @Björn"
        }  # fmt: skip
    channel = organization.workspace.channels[f"C{team}PU"]
    ts = organization.workspace.post(channel, "news")
    event = callback(posted(channel, ts), team=team, enterprise_id="E1")
    assert team in {hint.account for hint in hints(event)}
    assert harness.hint(channel.id).state == "succeeded"
    assert "news" in texts(harness)


def test_the_only_workspace_is_chosen(organization: Fake) -> None:
    """`check` completes the config, which the engine stores."""
    del organization.teams["T2"]
    slack = Slack(Config(), Credentials.model_validate({"token": BOT}))
    assert slack.check().id == "T1:UBOT"
    assert slack.config.team == "T1"


def test_a_workspace_has_to_be_chosen(organization: Fake, connect: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect().check()
    assert "several workspaces" in str(caught.value)
    assert caught.value.remedy == f"Set `team` to the one to copy: {CHOICE}"
    with pytest.raises(ConfigurationError, match="T9") as caught:
        connect(team="T9").check()
    assert caught.value.remedy == f"Set `team` to the one to copy: {CHOICE}"


def test_all_pages_of_workspaces_are_read(organization: Fake, connect: Any) -> None:
    organization.page_cap = 2
    organization.teams |= {f"T8{number}": f"Team {number}" for number in range(9)}
    assert connect(team="T88").check().name == "Team 8: polling"


def test_a_workspace_that_lost_the_app_stops_the_account(
    organization: Fake, connect: Any, sync: Any
) -> None:
    sync(harness := connect(team="T1"))
    del organization.teams["T1"]
    assert isinstance(harness.sync().error, CredentialsInvalid)


def test_an_organization_without_workspaces_says_whom_to_ask(fake: Fake, connect: Any) -> None:
    fake.teams = {"T1": "Acme"}
    fake.fail("auth.teams.list", body=b'{"ok": true, "teams": []}')
    with pytest.raises(ConfigurationError, match="without a workspace") as caught:
        connect().check()
    assert "administrator" in (caught.value.remedy or "")


def test_the_token_of_a_workspace_is_for_no_other(fake: Fake, connect: Any, sync: Any) -> None:
    fake.workspace.add_channel("general")
    assert connect(team="T1").check().id == "T1:UBOT"
    assert connect(team="").check().id == "T1:UBOT"
    with pytest.raises(ConfigurationError, match="not for T2"):
        connect(team="T2").check()
    sync(connect(team="T1"))


@pytest.mark.parametrize("team", ["E1", "t1", "T1/", "Acme", "T" * 99])
def test_the_team_is_an_id(team: str) -> None:
    with pytest.raises(ValidationError):
        Config(team=team)
