"""How an integration describes itself: its manifest, its limits, and whose account it was given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal

from pydantic import BaseModel

from core.integration.operator import setting_names

Scope = Literal["account", "group", "integration"]

_DOMAIN = re.compile(r"[a-z][a-z0-9-]{0,62}")
RESERVED_DOMAINS = frozenset({"polling", "save-output"})


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `units` in any `per` seconds, one budget for the whole fleet.

    Parameters:
      name: What a task's `cost` and an operator's `POLLING_LIMITS` call it.
      units: Units in the window; 1 or more.
      per: The window, in seconds.
      by: Whose budget it is: each `account`, each `group` (see `AccountIdentity.group`), or the
        whole `integration`.
    """

    name: str
    units: int
    per: float
    by: Scope = "account"

    def __post_init__(self) -> None:
        if self.units < 1 or self.per <= 0:
            raise ValueError(
                f"limit {self.name!r}: units must be 1 or more, and per more than 0 seconds"
            )


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `tasks` under way at the same time in the whole fleet.

    Counts every task of the integration once, unless a task's `cost` names it: then that many
    times, and 0 exempts it.
    """

    name: str
    tasks: int
    by: Scope = "account"

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise ValueError(f"limit {self.name!r}: tasks must be 1 or more")


Limit = Rate | Concurrency


@dataclass(frozen=True, slots=True)
class OAuth:
    """What the engine needs to send a person through a provider's consent screen.

    Parameters:
      authorize_url, token_url: The provider's endpoints. Names in braces are settings of
        `Manifest.settings`, such as `{SLACK_API_URL}oauth.v2.access`: who sets where the provider
        is sets it for these too.
      scopes: What to ask for.
      client_id_setting, client_secret_setting: Names of the operator's settings that hold the OAuth
        client.
      extra: More parameters of the authorization request, such as `{"access_type": "offline"}`;
        they go before ours.
      pkce: Whether the code is bound to the flow by RFC 7636. False for providers that refuse it
        together with a client secret.
    """

    authorize_url: str
    token_url: str
    scopes: Sequence[str]
    client_id_setting: str
    client_secret_setting: str
    extra: Mapping[str, str] = field(default_factory=dict)
    pkce: bool = True

    @property
    def settings_named(self) -> set[str]:
        """The settings in braces."""
        urls = (self.authorize_url, self.token_url)
        return {
            name for url in urls for _, name, _, _ in Formatter().parse(url) if name is not None
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an integration is called and what holds for all of its accounts.

    Parameters:
      domain: Lower-case letters, digits and dashes, a letter first; at most 63. Also the name of
        its queue.
      name: For people.
      spec_version: The version of the plugin API it is written for.
      limits: Limits of every account; `BaseIntegration.limits` may answer by configuration.
      oauth: How accounts are connected in a browser, if they are.
      settings: The operator's settings that the plugin reads, a model of pydantic-settings; all
        fields have defaults. `polling doctor` checks and shows them, secrets as set or not.
      docs: Where its documentation stands.
      max_tasks: The most tasks one run may have, a bound for cycles whose tasks carry ever new
        keys.
    """

    domain: str
    name: str
    spec_version: int = 1
    limits: Sequence[Limit] = ()
    oauth: OAuth | None = None
    docs: str | None = None
    max_tasks: int = 5_000_000
    settings: type[BaseModel] | None = None

    def __post_init__(self) -> None:
        if not _DOMAIN.fullmatch(self.domain) or self.domain in RESERVED_DOMAINS:
            raise ValueError(
                f"domain {self.domain!r}: use lower-case letters, digits and dashes, a letter first"
            )
        known = set(setting_names(self.settings).values()) if self.settings is not None else set()
        unknown = self.oauth.settings_named - known if self.oauth is not None else set()
        if unknown:
            raise ValueError(
                f"domain {self.domain!r}: its OAuth endpoints name {min(unknown)}, which is none of"
                " its settings"
            )


@dataclass(frozen=True, slots=True)
class AccountIdentity:
    """Whose account these credentials open, as the provider says it.

    Parameters:
      id: Stable and unique within the integration: an address, a workspace and user id. Connecting
        it twice is one account.
      name: For people.
      group: What shares limits `by="group"`: a Slack workspace and app, a Google client.
    """

    id: str
    name: str
    group: str | None = None
