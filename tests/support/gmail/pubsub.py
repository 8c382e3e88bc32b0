"""Pub/Sub: one topic with one pull subscription, and the watches of mailboxes.

Written from https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions and
https://developers.google.com/workspace/gmail/api/guides/push.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from support.gmail.answers import Answer, error

WATCH_SECONDS = 7 * 86_400
FORBIDDEN = error(
    403, "User not authorized to perform this action.", "forbidden", "PERMISSION_DENIED"
)


@dataclass
class PubSub:
    """A topic and its subscription.

    Attributes:
      project: The Google Cloud project of both.
      client_project: The project of the OAuth client that calls Gmail.
      granted: Gmail may publish to the topic.
      readable, pullable: The service account may read the subscription, and pull from it.
      exists: The topic exists.
      refuses: The status with which Pub/Sub answers every request; 0: it works.
      drops: Gmail's events are lost, which Google reserves for extreme situations.
      ack_seconds: The time after which a message without an acknowledgement is sent again.
      hold_seconds: The time for which a pull waits for a message.
      other_watch: The mailbox has a watch for another topic.
      pulls, refused, events, acknowledged, stops: The numbers of calls and messages so far.
      watches: The time at which the watch of each mailbox ends.
    """

    project: str = "project"
    client_project: str = "project"
    granted: bool = True
    readable: bool = True
    pullable: bool = True
    exists: bool = True
    refuses: int = 0
    drops: bool = False
    ack_seconds: float = 10.0
    hold_seconds: float = 5.0
    pulls: int = 0
    events: int = 0
    acknowledged: int = 0
    stops: int = 0
    refused: int = 0
    other_watch: bool = False
    watches: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: dict[str, tuple[str, float]] = {}
        self._closed = False

    @property
    def topic(self) -> str:
        return f"projects/{self.project}/topics/gmail"

    @property
    def subscription(self) -> str:
        return f"projects/{self.project}/subscriptions/polling"

    @property
    def waiting(self) -> int:
        """The number of messages that are not acknowledged."""
        with self._changed:
            return len(self._messages)

    def close(self) -> None:
        """End all pulls."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # Gmail

    def watch(self, address: str, history_id: int, topic: object) -> Answer:
        """Answer `users.watch`."""
        name = str(topic)
        if not name.startswith(f"projects/{self.client_project}/topics/"):
            text = f"Invalid topicName does not match projects/{self.client_project}/topics/*"
            return error(400, text, "invalidArgument", "INVALID_ARGUMENT")
        sending = f"Error sending test message to Cloud PubSub {name} : "
        if name != self.topic or not self.exists:
            text = f"{sending}Resource not found (resource={name.rsplit('/', maxsplit=1)[-1]})."
            return error(404, text, "notFound", "NOT_FOUND")
        if not self.granted:
            text = f"{sending}User not authorized to perform this action."
            return error(403, text, "forbidden", "PERMISSION_DENIED")
        if self.other_watch:
            text = (
                "Only one user push notification client allowed per developer (call /stop then try"
                " again)"
            )
            return error(400, text, "invalidArgument", "INVALID_ARGUMENT")
        self.watches[address] = time.time() + WATCH_SECONDS
        self.changed(address, history_id)
        expiration = str(int(self.watches[address] * 1000))
        return 200, {"historyId": str(history_id), "expiration": expiration}

    def stop(self, address: str) -> Answer:
        """Answer `users.stop`."""
        self.watches.pop(address, None)
        self.other_watch, self.stops = False, self.stops + 1
        return 204, b""  # type: ignore[return-value]

    def changed(self, address: str, history_id: int) -> None:
        """Publish a change of a mailbox, if it is watched."""
        if self.watches.get(address, 0) <= time.time() or self.drops:
            return
        data = json.dumps({"emailAddress": address, "historyId": history_id})
        self.publish(base64.urlsafe_b64encode(data.encode()).decode())

    def publish(self, data: str) -> None:
        """Publish a message with this data."""
        with self._changed:
            self.events += 1
            self._messages[str(self.events)] = data, 0.0
            self._changed.notify_all()

    # The subscription

    def answer(self, method: str, path: str, body: Mapping[str, Any]) -> Answer:
        """Answer a request to a path below `/v1/`."""
        name, _, verb = path.partition(":")
        if self.refuses:
            self.refused += 1
            return error(self.refuses, "The service is unavailable.", "backendError")
        if name != self.subscription:
            return error(404, "Resource not found", "notFound", "NOT_FOUND")
        match method, verb:
            case "GET", "":
                found = {"name": name, "topic": self.topic, "ackDeadlineSeconds": 10}
                return (200, found) if self.readable else FORBIDDEN
            case "POST", "pull":
                return self._pull(body) if self.pullable else FORBIDDEN
            case "POST", "acknowledge":
                with self._changed:
                    for ack in body["ackIds"]:
                        self._messages.pop(ack.split("-")[0], None)
                        self.acknowledged += 1
                return 200, {}
        return error(404, "Not found", "notFound", "NOT_FOUND")

    def _pull(self, body: Mapping[str, Any]) -> Answer:
        wait = 0.0 if body.get("returnImmediately") else self.hold_seconds
        until = time.monotonic() + wait
        with self._changed:
            self.pulls += 1
            while not (found := self._ready(int(body["maxMessages"]))):
                left = until - time.monotonic()
                if left <= 0 or self._closed or self.refuses:
                    return 200, {}
                self._changed.wait(min(left, self._until_redelivery()))
            return 200, {"receivedMessages": found}

    def _ready(self, most: int) -> list[dict[str, Any]]:
        now, found = time.monotonic(), []
        for id, (data, visible) in self._messages.items():
            if visible <= now and len(found) < most:
                found.append({"ackId": f"{id}-{now}", "message": {"data": data, "messageId": id}})
                self._messages[id] = data, now + self.ack_seconds
        return found

    def _until_redelivery(self) -> float:
        now = time.monotonic()
        times = [visible - now for _, visible in self._messages.values()]
        return max(0.01, min(times, default=60.0))
