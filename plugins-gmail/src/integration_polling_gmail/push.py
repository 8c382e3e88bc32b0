"""Events of Gmail: a watch of each mailbox, and one subscription of Pub/Sub for all accounts.

An event is a hint: it makes the account due, and nothing that it says is kept. The runs of an
account renew its watch. Polling continues.

Source: https://developers.google.com/workspace/gmail/api/guides/push
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from contextvars import copy_context
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, BaseModel

from core import (
    EVENTS,
    Bound,
    ConfigurationError,
    Context,
    CredentialsInvalid,
    EventDelivery,
    HintedAccount,
    Hints,
    IntegrationError,
    ListenableAccount,
    Listener,
    PermanentError,
    RateLimited,
    Rehearsal,
    Task,
    TaskResult,
    TransientError,
    task,
)
from integration_polling_gmail.answers import is_over
from integration_polling_gmail.api import GET_UNITS, LIST_UNITS, PAGE_SIZE, WATCH_UNITS
from integration_polling_gmail.comparison import GmailComparison
from integration_polling_gmail.errors import PROJECT, QUOTA, Missing
from integration_polling_gmail.pubsub import Subscription
from integration_polling_gmail.scope import HISTORY, History
from integration_polling_gmail.settings import GmailSettings, load_settings

RENEW_EVERY = timedelta(hours=20)
"""The time after which a watch is renewed. Google recommends a day; a watch ends after seven."""

TRY_AGAIN_EVERY = timedelta(hours=1)
"""The time after which a refused watch is tried again."""

LOOK_EVERY_SECONDS = 24 * 3600.0
"""Seconds after which each account gets a hint, so that rarely polled ones renew their watch."""

CHECK_SECONDS = 0.5
"""Seconds between two looks at `stopping`."""

MAX_ADDRESS_CHARS = 500

PUBLISHER = "gmail-api-push@system.gserviceaccount.com"
"""The service account with which Gmail publishes events."""

GRANT = f"grant the role Pub/Sub Publisher on it to {PUBLISHER}"


class Watched(EventDelivery):
    """The watch of a mailbox.

    Attributes:
      at: The time of the latest attempt.
      subscription: The subscription to whose topic Gmail publishes.
    """

    at: AwareDatetime
    subscription: str


class GmailPush(GmailComparison):
    """The part of the integration that receives events."""

    @classmethod
    def listeners(
        cls, settings: BaseModel | None, accounts: Iterable[ListenableAccount]
    ) -> Sequence[Listener]:
        """Receive the events of all accounts from the operator's subscription.

        Raises:
          ConfigurationError: Only one of its two settings is given.
        """
        if not isinstance(settings, GmailSettings):
            return []
        if bool(settings.gmail_pubsub_subscription) != bool(settings.gmail_pubsub_credentials):
            raise ConfigurationError(
                "set both GMAIL_PUBSUB_SUBSCRIPTION and GMAIL_PUBSUB_CREDENTIALS, or neither"
            )
        if not settings.receives_events:
            return []
        addresses = {
            one.id: one.identity.lower()
            for one in accounts
            if len(one.identity.lower()) <= MAX_ADDRESS_CHARS
        }
        return [Listener(settings.gmail_pubsub_subscription, addresses)]

    @classmethod
    # One subscription has the events of all accounts.
    def listen(cls, listener: Listener, hints: Hints, stopping: threading.Event) -> None:  # noqa: ARG003
        """Pull events until `stopping` is set.

        Pub/Sub holds a pull for more than a minute, so a second thread waits for it. After the end
        of `listen` it handles the answer to its last pull.
        """
        receiver = _Receiver(load_settings(), hints, stopping)
        context = copy_context()  # has the check of outgoing connections
        thread = threading.Thread(target=context.run, args=(receiver.run,), daemon=True)
        thread.start()
        while not stopping.is_set():
            if receiver.ended.wait(CHECK_SECONDS) and receiver.error is not None:
                raise receiver.error

    @classmethod
    def follows(cls, part: str, account: HintedAccount) -> bool:
        """Return False if the account has already read the history up to this id."""
        history = account.state(HISTORY, History)
        if history is None or history.is_listing or not part.isdigit():
            return True
        return int(part) > int(history.id)

    def rehearse(self) -> Rehearsal:
        """Tell how long the first copy takes, and try a watch, if the operator has set one."""
        warnings = []
        if self.settings.receives_events:
            try:
                self.api.watch(_topic(self.settings))
            except IntegrationError as error:
                problem = _problem(error)
                warnings = [f"New mail arrives with the next poll, because {problem}."]
        return Rehearsal(warnings=warnings, bound=self._bound())

    def _bound(self) -> Bound | None:
        """Return the size of the mailbox; None if the config selects a part of it."""
        if type(self._total) is not int or self.config.search or self.config.labels:
            return None
        cost = GET_UNITS + LIST_UNITS / PAGE_SIZE
        return Bound(self._total, "messages", {QUOTA: cost, PROJECT: cost}, background=True)

    def watching(self, ctx: Context) -> list[Task]:
        """Return the task that renews the watch, if it is due."""
        if not self.settings.receives_events:
            return []
        watched = ctx.state(EVENTS, Watched)
        if watched is not None and watched.subscription == self.settings.gmail_pubsub_subscription:
            pause = RENEW_EVERY if watched.problem is None else TRY_AGAIN_EVERY
            if not is_over(watched.at, pause):
                return []
        return [self.watch.task()]

    @task(cost={QUOTA: WATCH_UNITS, PROJECT: WATCH_UNITS})
    def watch(self, ctx: Context) -> TaskResult:
        """Let Gmail send the events of the next seven days.

        A refusal concerns only the events, and does not fail the task. The account tells it.
        """
        earlier = ctx.state(EVENTS, Watched)
        subscription = self.settings.gmail_pubsub_subscription
        watched = Watched(at=datetime.now(UTC), subscription=subscription)
        try:
            topic = _topic(self.settings)
        except IntegrationError as error:
            return TaskResult(state={EVENTS: _failed(watched, earlier, error)})
        try:
            watched.until = self._asked(ctx, lambda: self.api.watch(topic))
        except PermanentError as error:
            return TaskResult(state={EVENTS: _failed(watched, earlier, error)})
        return TaskResult(state={EVENTS: watched})


def _failed(watched: Watched, earlier: Watched | None, error: IntegrationError) -> Watched:
    """Return the state after a refusal. An earlier watch may last."""
    same = earlier is not None and earlier.subscription == watched.subscription
    until = earlier.until if earlier is not None and same else None
    return watched.model_copy(update={"problem": _problem(error), "until": until})


def _problem(error: IntegrationError) -> str:
    """Return why there is no watch, as a clause."""
    text = str(error)
    if isinstance(error, ConfigurationError | CredentialsInvalid):
        text = error.reason
    text = text.rstrip(".")
    if "does not match projects/" in text:
        return (
            "the account's OAuth client or service account belongs to another Google Cloud project"
            " than the topic of GMAIL_PUBSUB_SUBSCRIPTION"
        )
    if "not authorized to perform" in text:
        return f"Gmail may not publish to the topic of GMAIL_PUBSUB_SUBSCRIPTION: {GRANT}"
    if isinstance(error, Missing):
        return "the topic of GMAIL_PUBSUB_SUBSCRIPTION does not exist"
    return text


def _topic(settings: GmailSettings) -> str:
    """Return the topic of the operator's subscription. A process asks for it once an hour."""
    key = (settings.google_pubsub_url, settings.gmail_pubsub_subscription)
    known = _TOPICS.get(key)
    if known is None or time.monotonic() - known[1] > TRY_AGAIN_EVERY.total_seconds():
        with closing(Subscription(settings)) as subscription:
            known = _TOPICS[key] = subscription.topic(), time.monotonic()
    return known[0]


_TOPICS: dict[tuple[str, str], tuple[str, float]] = {}


class _Receiver:
    """The thread of a listener, which waits for messages.

    Attributes:
      ended: Set at the end of the thread.
      error: The error that ended it; None while it runs.
    """

    error: BaseException | None = None

    def __init__(self, settings: GmailSettings, hints: Hints, stopping: threading.Event) -> None:
        self.ended = threading.Event()
        self._settings, self._hints, self._stopping = settings, hints, stopping

    def run(self) -> None:
        """Pull until the listener must end. Keep the error of a failure."""
        try:
            with closing(Subscription(self._settings)) as subscription:
                self._receive(subscription)
        except BaseException as error:  # noqa: BLE001  the listener's thread raises it
            self.error = error
        finally:
            self.ended.set()

    def _receive(self, subscription: Subscription) -> None:
        # Only a pull tells whether the service account may pull.
        self._handle(subscription, waits=False)
        self._hints.connected()
        looked, failures = time.monotonic(), 0
        while not self._stopping.is_set():
            try:
                self._handle(subscription)
                failures = 0
            except (TransientError, RateLimited):
                # Pub/Sub keeps the messages, so one failure is not a lost connection.
                failures += 1
                if failures > 1:
                    raise
                self._stopping.wait(1)
            if time.monotonic() - looked >= LOOK_EVERY_SECONDS:
                self._hints.connected()
                looked = time.monotonic()

    def _handle(self, subscription: Subscription, *, waits: bool = True) -> None:
        """Pull once, and acknowledge what is stored."""
        events, ids = subscription.pull(waits=waits)
        for event in events:
            self._hints.add(event.address, str(event.history_id))
        subscription.acknowledge(ids)
