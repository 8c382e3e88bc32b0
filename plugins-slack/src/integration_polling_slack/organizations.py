"""Tokens of an organization (Enterprise Grid): an account copies one of its workspaces.

Source: https://docs.slack.dev/enterprise/developing-for-enterprise-orgs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core import ConfigurationError
from integration_polling_slack.api import Answer
from integration_polling_slack.names import is_id

NEEDS_TEAM = frozenset(
    {
        "bots.info", "conversations.list", "search.messages", "usergroups.list",
        "users.conversations", "users.list",
    }
)  # fmt: skip
"""The methods that need the workspace (`team_id`) with the token of an organization.

With a token of a workspace, Slack ignores it.

Source: https://docs.slack.dev/reference/methods/conversations.list, and so on
"""

MAX_PAGES = 10
MAX_NAMED = 20
"""The maximum number of workspaces to name in a text."""


def workspace(ask: Callable[..., Answer], wanted: str | None) -> tuple[str, str]:
    """Return the id and the name of the workspace to copy.

    Args:
      ask: Calls a method of Slack.
      wanted: The id in the config; None for the only workspace.

    Raises:
      ConfigurationError: The token cannot read this workspace, or one has to be chosen.
    """
    teams = _teams(ask)
    if wanted is None and len(teams) == 1:
        return next(iter(teams.items()))
    if wanted in teams:
        return wanted, teams[wanted]
    if not teams:
        raise ConfigurationError(
            "the token is for an organization without a workspace that has the app",
            remedy="Ask an administrator of the organization to add the app to the workspace",
        )
    reason = "the token is for an organization with several workspaces"
    if wanted is not None:
        reason = f"the app is not in the workspace {wanted} of the organization"
    raise ConfigurationError(reason, remedy=f"Set `team` to the one to copy: {_named(teams)}")


def _teams(ask: Callable[..., Answer]) -> dict[str, str]:
    """Return the names of the organization's workspaces that have the app, by id.

    Source: https://docs.slack.dev/reference/methods/auth.teams.list
    """
    found, cursor = dict[str, str](), ""
    for _ in range(MAX_PAGES):
        answer = ask("auth.teams.list", cursor=cursor, limit=1_000)
        found |= {
            one["id"]: str(one.get("name") or one["id"])
            for one in answer.items("teams")
            if is_id(one.get("id"))
        }
        cursor = answer.cursor
        if not cursor:
            break
    return found


def _named(teams: Mapping[str, str]) -> str:
    names = [f"{id} ({name})" for id, name in sorted(teams.items(), key=lambda one: one[1])]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def of_workspace(owner: Mapping[str, Any], wanted: str | None) -> tuple[str, str]:
    """Return the id and the name of the workspace of a workspace's token.

    Args:
      owner: The response of `auth.test`.
      wanted: The id in the config; None for any.

    Raises:
      ConfigurationError: The config names another workspace.
    """
    id, name = str(owner.get("team_id")), str(owner.get("team"))
    if wanted not in (None, id):
        raise ConfigurationError(
            f"the token is for the workspace {id} ({name}), and not for {wanted}",
            remedy="Clear `team`, or use a token of that workspace",
        )
    return id, name
