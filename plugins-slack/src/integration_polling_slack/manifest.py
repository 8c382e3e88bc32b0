"""The manifest of the Slack app: scopes and events for a config.

    python -m integration_polling_slack.manifest --socket-mode
    python -m integration_polling_slack.manifest --events-url https://…/v1/hints/slack

Source: https://docs.slack.dev/reference/app-manifest
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from integration_polling_slack import scopes
from integration_polling_slack.account import Config

_OF_CHANNELS = ("archive", "deleted", "left", "rename", "unarchive")

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "message.channels": "channels:history",
        "message.groups": "groups:history",
        "message.im": "im:history",
        "message.mpim": "mpim:history",
        **{f"channel_{change}": "channels:read" for change in _OF_CHANNELS},
        "channel_created": "channels:read",
        "channel_id_changed": "channels:read",
        "channel_shared": "channels:read",
        "channel_unshared": "channels:read",
        **{f"group_{change}": "groups:read" for change in _OF_CHANNELS},
        "reaction_added": "reactions:read",
        "reaction_removed": "reactions:read",
        "file_change": "files:read",
        "file_deleted": "files:read",
        "file_public": "files:read",
        "file_shared": "files:read",
        "file_unshared": "files:read",
    }
)
"""The scope that each event requires.

Source: https://docs.slack.dev/reference/events
"""

MEMBER_EVENTS = ("member_joined_channel", "member_left_channel")
"""The events that require the scope of any kind of channel that has members."""

LISTS_MEMBERS = frozenset({"channels:read", "groups:read"})

DESCRIPTION = {
    "name": "Integration Polling",
    "description": "Keeps a copy of messages, threads and files",
}


def events(granted: frozenset[str]) -> list[str]:
    """Return the events that an app with these scopes can receive, and that make hints."""
    found = {event for event, scope in EVENTS.items() if scope in granted}
    if granted & LISTS_MEMBERS:
        found.update(MEMBER_EVENTS)
    return sorted(found | {"app_uninstalled", "tokens_revoked"})


def manifest(
    config: Config,
    *,
    events_url: str = "",
    socket_mode: bool = False,
    organization: bool = False,
    rotation: bool = False,
) -> dict[str, Any]:
    """Return the manifest of an app for accounts with this config.

    Without an address and without Socket Mode, Slack sends no events.

    Args:
      config: The config.
      events_url: The address to which Slack sends events. Default: none.
      socket_mode: True to send events over connections of Socket Mode. Default: False.
      organization: True for an app that an organization installs for its workspaces. Default:
        False.
      rotation: True for tokens that expire. Slack cannot undo this. Default: False.
    """
    with_events = socket_mode or bool(events_url)
    granted = scopes.needed(config) | scopes.OPTIONAL
    granted |= scopes.REACTIONS if with_events else frozenset()
    is_person = config.connect_as == "person"
    granted |= scopes.SEARCH if is_person else frozenset()
    found: dict[str, Any] = {"display_information": DESCRIPTION}
    if not is_person:
        bot = {"display_name": "integration-polling", "always_online": False}
        found["features"] = {"bot_user": bot}
    found["oauth_config"] = {"scopes": {"user" if is_person else "bot": sorted(granted)}}
    settings: dict[str, Any] = {
        "org_deploy_enabled": organization,
        "socket_mode_enabled": socket_mode,
        "token_rotation_enabled": rotation,
    }
    if with_events:
        kind = "user_events" if is_person else "bot_events"
        address = {} if socket_mode else {"request_url": events_url}
        settings["event_subscriptions"] = {**address, kind: events(granted)}
    return {**found, "settings": settings}


def main(arguments: list[str] | None = None) -> None:
    """Print the manifest.

    Args:
      arguments: The arguments. Default: the command line of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m integration_polling_slack.manifest",
        description="Print the manifest of a Slack app.",
    )
    parser.add_argument("--config", default="{}", help="config of the accounts, as JSON")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--socket-mode", action="store_true", help="send events over Socket Mode")
    ways.add_argument("--events-url", default="", help="address to which Slack sends events")
    parser.add_argument(
        "--organization", action="store_true", help="let an organization install the app"
    )
    parser.add_argument("--rotation", action="store_true", help="let tokens expire")
    given = parser.parse_args(arguments)
    try:
        config = Config.model_validate_json(given.config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        parser.error(f"--config: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    found = manifest(
        config,
        events_url=given.events_url,
        socket_mode=given.socket_mode,
        organization=given.organization,
        rotation=given.rotation,
    )
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
