"""The operator's subscription of Pub/Sub, to which Gmail publishes changes of mailboxes.

Pub/Sub keeps a message until it is acknowledged, so a listener that was away misses nothing.

Sources: https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions and
https://cloud.google.com/pubsub/docs/access-control
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from pydantic import ValidationError

from core import ConfigurationError, PermanentError, TransientError, Unavailable
from integration_polling_gmail import tokens
from integration_polling_gmail.account import ServiceAccount
from integration_polling_gmail.api import dicts, new_client
from integration_polling_gmail.settings import GmailSettings
from integration_polling_gmail.streaming import read_json

SCOPE = "https://www.googleapis.com/auth/pubsub"

MAX_MESSAGES = 100
"""The number of messages in one answer."""

PULL_SECONDS = 150.0
"""The time for which Pub/Sub may hold a pull until there is a message. It answers after about 90 s.
"""

EXPIRES_SOON = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Event:
    """A mailbox that has changed.

    Attributes:
      address: The address of the mailbox, in lower case.
      history_id: The history id after the change.
    """

    address: str
    history_id: int


class Subscription:
    """The calls for one subscription, with a client of its own. Use it in one thread.

    Args:
      settings: The operator's settings.
    """

    def __init__(self, settings: GmailSettings) -> None:
        self._settings = settings
        self._key = service_account(settings)
        self._http = new_client()
        self._token, self._expires = "", datetime.min.replace(tzinfo=UTC)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def topic(self) -> str:
        """Return the topic of the subscription.

        Raises:
          IntegrationError: The service account may not read the subscription, or Pub/Sub does not
            answer.
        """
        topic = self._call("GET", "").get("topic")
        if not isinstance(topic, str) or "/topics/" not in topic:
            raise TransientError("Pub/Sub names no topic of the subscription")
        return topic

    def pull(self, *, waits: bool = True) -> tuple[list[Event], list[str]]:
        """Receive messages.

        Args:
          waits: False to return immediately. Google discourages this for repeated pulls. Default:
            wait for a message, for about 90 seconds.

        Returns:
          The events, one for each mailbox, and the ids to acknowledge.

        Raises:
          IntegrationError: The service account may not pull, or Pub/Sub does not answer.
        """
        body: dict[str, Any] = {"maxMessages": MAX_MESSAGES}
        if not waits:
            body["returnImmediately"] = True
        received = dicts(self._call("POST", ":pull", body).get("receivedMessages"))
        ids = [one["ackId"] for one in received if isinstance(one.get("ackId"), str)]
        return list(events(received)), ids

    def acknowledge(self, ids: Iterable[str]) -> None:
        """Acknowledge messages, so that Pub/Sub does not send them again."""
        if ids := list(ids):
            self._call("POST", ":acknowledge", {"ackIds": ids})

    def _call(self, method: str, verb: str, body: Mapping[str, Any] | None = None) -> Any:
        url = f"{self._settings.google_pubsub_url}/v1/{self._settings.gmail_pubsub_subscription}"
        headers = {"Authorization": f"Bearer {self._access_token()}"}
        timeout = httpx2.Timeout(30, read=PULL_SECONDS)
        try:
            with self._http.stream(
                method, url + verb, json=body, headers=headers, timeout=timeout
            ) as response:
                if response.status_code == 200:
                    return read_json(response.iter_bytes())
                raise _refusal(response.status_code, verb or "get")
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
            raise Unavailable(f"cannot reach Pub/Sub: {type(error).__name__}") from None

    def _access_token(self) -> str:
        if self._expires <= datetime.now(UTC) + EXPIRES_SOON:
            self._token, self._expires = tokens.of_service_account(
                self._http, self._settings, self._key, SCOPE
            )
        return self._token


def service_account(settings: GmailSettings) -> ServiceAccount:
    """Return the operator's service account: `GMAIL_PUBSUB_CREDENTIALS` is its key, or a file.

    Raises:
      ConfigurationError: The setting is not a JSON key, and does not name a file with one.
    """
    given = settings.gmail_pubsub_credentials.get_secret_value().strip()
    try:
        text = given if given.startswith("{") else Path(given).read_text("utf-8")
        return ServiceAccount.model_validate_json(text)
    except (OSError, ValueError, ValidationError):
        raise ConfigurationError(
            "GMAIL_PUBSUB_CREDENTIALS is neither the JSON key of a service account nor a file with"
            " one"
        ) from None


def events(received: Iterable[Mapping[str, Any]]) -> Iterable[Event]:
    """Return the latest event of each mailbox. Messages in another format are left out.

    Anyone who may publish to the topic can send a message, so it is only a hint.
    """
    latest: dict[str, Event] = {}
    for one in received:
        event = _event(one.get("message"))
        if event is not None and event.history_id >= latest.get(event.address, event).history_id:
            latest[event.address] = event
    return latest.values()


def _event(message: Any) -> Event | None:
    try:
        data = json.loads(base64.b64decode(str(message["data"]), altchars=b"-_"))
        address, id = data["emailAddress"], str(data["historyId"])
    except (TypeError, KeyError, ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(address, str) or not (id.isascii() and id.isdigit() and len(id) <= 1_000):
        return None
    return Event(address.lower(), int(id))


def _refusal(status: int, verb: str) -> PermanentError | Unavailable:
    if status == 429 or status >= 500 or status == 408:
        return Unavailable(f"Pub/Sub answered {status}")
    if status == 404:
        return PermanentError("the subscription in GMAIL_PUBSUB_SUBSCRIPTION does not exist")
    if status in (401, 403):
        role = "Pub/Sub Viewer" if verb == "get" else "Pub/Sub Subscriber"
        return PermanentError(
            f"Pub/Sub answered {status}: grant the role {role} on the subscription to the service"
            " account of GMAIL_PUBSUB_CREDENTIALS"
        )
    return PermanentError(f"Pub/Sub answered {status}")
