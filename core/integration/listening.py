"""Events of providers, as plugins receive them: listeners and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import AwareDatetime, BaseModel

if TYPE_CHECKING:
    from core.integration.base import BaseIntegration

M = TypeVar("M", bound=BaseModel)

MAX_KEY_CHARS = 500
"""The length of a listener's key, and of an account's address."""


@dataclass(frozen=True, slots=True)
class ListenableAccount:
    """An active account of the integration, for `BaseIntegration.listeners`.

    Attributes:
      id: The account's id.
      user_id: The id of the account's owner in the product.
      identity: The id of `AccountIdentity`.
      group: The group of `AccountIdentity`, as far as it is proven.
      config: The account's config, as JSON.
    """

    id: str
    user_id: str
    identity: str
    group: str | None
    config: Mapping[str, Any]


class HintedAccount(Protocol):
    """An account for which a hint has arrived, for `BaseIntegration.follows`."""

    @property
    def id(self) -> str:
        """The account's id."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The account's config, as JSON."""
        ...

    def state(self, partition: str, model: type[M], /) -> M | None:
        """Return the value of a state partition, or None if it is empty.

        Raises:
          CursorExpired: The kept value does not fit the model.
        """
        ...


@dataclass(frozen=True, slots=True)
class Listener:
    """One source of events: an account, a subscription, or an app.

    Attributes:
      key: A stable key that is unique within the integration, such as the name of a subscription;
        at most 500 characters.
      accounts: The address of each account in the provider's events, by the account's id: a mail
        address, or the id of a workspace. Several accounts may have the same address. An account
        belongs to one listener.
      listens: False if its events arrive at `BaseIntegration.webhook` only. Nothing is then called
        for it; it makes the addresses of its accounts known. Default: True.
    """

    key: str
    accounts: Mapping[str, str]
    listens: bool = True


class Hints(Protocol):
    """The engine's side of a listener. Its methods may be called from several threads."""

    def add(self, account: str, part: str | None = None) -> None:
        """Report that an account has changed. The hint is stored when the call returns.

        Args:
          account: The account's address in the provider's events. The engine ignores an unknown
            one.
          part: The part of the account that has changed; see `Context.hints`. Default: the
            complete account.
        """

    def connected(self) -> None:
        """Report a connection: events arrive. Call it after every reconnection too.

        Each account of the listener gets one hint, because its events may have been missed.
        """

    def disconnected(self, reason: str) -> None:
        """Report a lost connection: events are missed. The end of `listen` has the same effect."""

    def instance(self, id: str) -> BaseIntegration[Any, Any]:
        """Return a new instance of the integration for an account, with its credentials.

        It is for providers that send the events of an account over a connection of its own. Call
        `initialize` and `close` yourself. The credentials are those of this moment: if the provider
        rejects them, end `listen` with the exception. After a pause, the engine calls it again.

        Args:
          id: The account's id, a key of `Listener.accounts`.

        Raises:
          Exception: The account is not active, or its credentials or config cannot be read.
        """
        ...


EVENTS = "events"
"""The state partition with the `EventDelivery` of the account."""


class EventDelivery(BaseModel):
    """The delivery of one account's events, if the provider grants it for each account.

    A plugin writes it to the state partition `EVENTS`. With a problem, or after `until`, the engine
    shows the account's listener as down. A subclass may hold more.

    Attributes:
      until: The time at which the provider stops sending events. Default: never.
      problem: The reason why no events arrive, as a clause for people. Default: events arrive.
    """

    until: AwareDatetime | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """An account that has changed, by its address; see `Hints.add`."""

    account: str
    part: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A request of a provider. Anyone can send it: check its signature.

    Attributes:
      body: The body, as it arrived; at most 1 MiB.
      headers: The headers. The names are lower-case.
      query: The parameters of the query.
      settings: The operator's settings: an instance of `Manifest.settings`, or None.
    """

    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str]
    settings: BaseModel | None = None


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """The answer to a request of a provider.

    Attributes:
      hints: The accounts that have changed, at most 100. Default: none.
      status: The HTTP status. Use 401 for a wrong signature. Default: 200.
      body: A short text, such as the challenge that some providers send first. Default: empty.
      content_type: The type of the body. Default: `text/plain`.
      id: The event's id, if the provider gives the same one when it sends the event again; at most
        500 characters. A process of the engine that has stored an event ignores it the next time.
        Default: empty, for none.
    """

    hints: Sequence[Hint] = field(default_factory=tuple)
    status: int = 200
    body: str = ""
    content_type: Literal["text/plain", "application/json"] = "text/plain"
    id: str = ""
