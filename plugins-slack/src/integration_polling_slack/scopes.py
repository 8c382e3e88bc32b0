"""The OAuth scopes that the calls need; `app_manifest.json` requests all of them.

Source: https://docs.slack.dev/reference/scopes
"""

from __future__ import annotations

from collections.abc import Mapping

from integration_polling_slack.account import Config

ALWAYS = frozenset({"users:read"})
OPTIONAL = frozenset({"usergroups:read"})
"""Scopes that may be missing. Without this one, mentions of groups keep the name in the message."""

BY_TYPE = {
    "public": frozenset({"channels:read", "channels:history"}),
    "private": frozenset({"groups:read", "groups:history"}),
    "im": frozenset({"im:read", "im:history"}),
    "mpim": frozenset({"mpim:read", "mpim:history"}),
}
LISTS = {
    "public": "channels:read", "private": "groups:read", "im": "im:read", "mpim": "mpim:read"
}  # fmt: skip
"""The scopes that list channels, by type."""

FILES = frozenset({"files:read"})
JOIN = frozenset({"channels:join"})
REACTIONS = frozenset({"reactions:read"})
"""The scope for the events of reactions. Without it, the lookback finds them."""

SEARCH = frozenset({"search:read"})
"""The scope with which a person's token searches for changes. Without it, polls find them."""

NO_REACTIONS = (
    "Slack sends no events of reactions: add the scope reactions:read to the app, and install it"
    " again"
)

EVERY = ALWAYS | OPTIONAL | FILES | JOIN | frozenset().union(*BY_TYPE.values())


def granted(headers: Mapping[str, str]) -> set[str]:
    """Return the token's scopes, as the headers of a response name them; empty if they do not."""
    return {scope.strip() for scope in headers.get("x-oauth-scopes", "").split(",")} - {""}


def needed(config: Config) -> frozenset[str]:
    """Return the scopes that an account with this config requires."""
    found = ALWAYS.union(*(BY_TYPE[kind] for kind in config.types))
    if config.files == "all":
        found |= FILES
    return found | JOIN if config.join_public and config.connect_as == "bot" else found


def requested(config: Config, *, with_events: bool = False) -> dict[str, str]:
    """Return the parameters of the authorization request: the scopes, separated by commas.

    Slack separates scopes with commas, where RFC 6749 requires spaces. A person's scopes are in
    another parameter than those of a bot. A person joins no channel for the copy.

    Source: https://docs.slack.dev/authentication/installing-with-oauth

    Args:
      config: The account's config.
      with_events: True if the app sends events. Default: False.
    """
    wanted = needed(config) | OPTIONAL | (REACTIONS if with_events else frozenset())
    if config.connect_as == "person":
        return {"scope": "", "user_scope": ",".join(sorted((wanted - JOIN) | SEARCH))}
    return {"scope": ",".join(sorted(wanted))}
