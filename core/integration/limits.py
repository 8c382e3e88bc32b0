"""The description of an integration: its manifest, its limits and the identity of an account."""

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


def is_domain(domain: str) -> bool:
    """Return True if an integration may have this domain."""
    return _DOMAIN.fullmatch(domain) is not None and domain not in RESERVED_DOMAINS


BACKFILL_SHARE = 0.25
"""The default of `Rate.backfill_share`."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `units` in any `per` seconds; one budget for all workers of the fleet.

    Attributes:
      name: The limit's name, in a task's `cost` and in the operator's `POLLING_LIMITS`.
      units: Units in the window; 1 or more.
      per: The length of the window, in seconds; more than 0.
      by: The scope of one budget: each `account`, each `group` (see `AccountIdentity.group`), or
        the `integration` as one. Default: `account`.
      backfill_share: The share of an account's units that its backfill has while live tasks of the
        account wait; from 0 to 1. Default: a quarter.

    Raises:
      ValueError: `units`, `per` or `backfill_share` is out of range.
    """

    name: str
    units: int
    per: float
    by: Scope = "account"
    backfill_share: float = BACKFILL_SHARE

    def __post_init__(self) -> None:
        if self.units < 1 or self.per <= 0:
            raise ValueError(
                f"limit {self.name!r}: units must be 1 or more, and per more than 0 seconds"
            )
        if not 0 <= self.backfill_share <= 1:
            raise ValueError(f"limit {self.name!r}: backfill_share must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `tasks` in progress at the same time, over all workers of the fleet.

    A task takes one place, unless its `cost` names the limit: then it takes that many. A cost of 0
    exempts it.

    Attributes:
      name: The limit's name, in a task's `cost` and in the operator's `POLLING_LIMITS`.
      tasks: The number of places; 1 or more.
      by: The scope of one count: each `account`, each `group` or the `integration`. Default:
        `account`.
      per_instance: True if an idle instance takes a place too, because it keeps a connection. Then
        the fleet has at most `tasks` instances, and a task waits for a process that has one.
        Default: False.

    Raises:
      ValueError: `tasks` is less than 1.
    """

    name: str
    tasks: int
    by: Scope = "account"
    per_instance: bool = False

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise ValueError(f"limit {self.name!r}: tasks must be 1 or more")


Limit = Rate | Concurrency


@dataclass(frozen=True, slots=True)
class OAuth:
    """How the engine sends a person through a provider's consent screen (RFC 6749, section 4.1).

    Attributes:
      authorize_url, token_url: The provider's endpoints. A name in braces is replaced with the
        value of that field of `Manifest.settings`, as in `{SLACK_API_URL}oauth.v2.access`. So the
        operator's setting for the provider's address applies to them too.
      scopes: The scopes to request.
      client_id_setting, client_secret_setting: The names of the operator's settings that hold the
        OAuth client.
      extra: Further parameters of the authorization request, such as `{"access_type": "offline"}`.
        They replace the engine's `scope` and `redirect_uri` if they have these names. Default:
        none.
      pkce: True to bind the code to the flow with PKCE (RFC 7636). False for a provider that
        refuses PKCE together with a client secret. Default: True.
      loopback: True if the provider also redirects to any port of 127.0.0.1 (RFC 8252, section
        7.3). Then `polling connect` signs in through a browser. Default: False.
    """

    authorize_url: str
    token_url: str
    scopes: Sequence[str]
    client_id_setting: str
    client_secret_setting: str
    extra: Mapping[str, str] = field(default_factory=dict)
    pkce: bool = True
    loopback: bool = False

    @property
    def settings_named(self) -> set[str]:
        """The names of settings in braces, in both URLs."""
        urls = (self.authorize_url, self.token_url)
        return {
            name for url in urls for _, name, _, _ in Formatter().parse(url) if name is not None
        }


@dataclass(frozen=True, slots=True)
class Reader:
    """The part of an integration that reads stored sources; see `BaseIntegration.reread`.

    Attributes:
      version: The version of the reader. Increase it when the reader returns something else for a
        stored source: the engine then reads all kept items again.
      kinds: The kinds of the items to read, such as `message`.
      sources: The kinds of the items whose content the reader needs: of the items themselves, or of
        items below them, such as `source`. The engine loads it ahead. Default: `kinds`.

    Raises:
      ValueError: The version is not positive, or there are no kinds.
    """

    version: int
    kinds: Sequence[str]
    sources: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 < self.version < 2**31:
            raise ValueError("the version of a reader is a positive 32-bit integer")
        if not self.kinds or isinstance(self.kinds, str):
            raise ValueError("a reader names the kinds of the items that it reads, as a sequence")
        object.__setattr__(self, "sources", tuple(self.sources or self.kinds))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The name of an integration, and the facts that hold for all of its accounts.

    Attributes:
      domain: The integration's id, and the name of its queue: lower-case letters, digits and
        dashes, starting with a letter; at most 63 characters. `polling` and `save-output` are
        reserved.
      name: The name for people.
      spec_version: The version of the plugin API that the integration is written for. Default: 1.
      limits: The limits of every account. Override `BaseIntegration.limits` if they depend on the
        config. Default: none.
      oauth: The OAuth flow that connects accounts in a browser. Default: none.
      docs: The address of the integration's documentation. Default: none.
      max_tasks: The maximum number of tasks in one run, a bound for cycles of tasks with ever new
        keys. Default: 5,000,000.
      settings: A pydantic-settings model of the operator's settings for the integration; every
        field has a default. `polling doctor` checks and shows them; of a secret it shows only
        whether it is set. Default: none.
      passing: Exceptions of the client library that mean "the provider does not answer". They have
        the effect of `TransientError`. Default: none. Connection errors of the standard library
        always have it.
      reader: The reader of stored sources. Default: none; kept items are never read again.

    Raises:
      ValueError: The domain is invalid, an OAuth URL names an unknown setting, or `passing` has a
        value that is not an exception class.
    """

    domain: str
    name: str
    spec_version: int = 1
    limits: Sequence[Limit] = ()
    oauth: OAuth | None = None
    docs: str | None = None
    max_tasks: int = 5_000_000
    settings: type[BaseModel] | None = None
    passing: Sequence[type[BaseException]] = ()
    reader: Reader | None = None

    def __post_init__(self) -> None:
        if not is_domain(self.domain):
            raise ValueError(
                f"domain {self.domain!r}: use lower-case letters, digits and dashes, starting with"
                " a letter"
            )
        if not all(isinstance(each, type) and issubclass(each, Exception) for each in self.passing):
            raise ValueError(f"domain {self.domain!r}: `passing` names exception classes")
        known = set(setting_names(self.settings).values()) if self.settings is not None else set()
        unknown = self.oauth.settings_named - known if self.oauth is not None else set()
        if unknown:
            raise ValueError(
                f"domain {self.domain!r}: the OAuth endpoints name {min(unknown)}, which"
                " Manifest.settings does not define"
            )


@dataclass(frozen=True, slots=True)
class AccountIdentity:
    """The account that credentials belong to, as the provider identifies it.

    Attributes:
      id: An id that is stable, and unique within the integration: an address, or a workspace id and
        a user id. Two accounts with the same id are one account.
      name: The account's name, for people.
      group: The id of the group that shares limits with `by="group"`: a Slack workspace and app, or
        a Google client. Default: none.
      notice: A fact that a person must know now, as a sentence: when this sign-in will end. The
        engine shows it when the account is connected. Later, it shows it with the account, until a
        run writes a `Notice`. Default: none.
    """

    id: str
    name: str
    group: str | None = None
    notice: str | None = None
