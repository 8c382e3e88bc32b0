"""Messages, and the channels that bring them to a receiver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """A message to a receiver.

    Attributes:
      id: Its id, the same in each attempt, such as `msg_…`.
      type: Its type, such as `content.changed`.
      at: The time of the event that it reports.
      data: Its body, as JSON.
    """

    id: str
    type: str
    at: datetime
    data: Mapping[str, Any]


class DeliveryFailed(Exception):
    """A receiver did not accept a message. The text is for people, without secrets.

    Attributes:
      is_gone: True if the receiver says that it no longer exists.
    """

    def __init__(self, reason: str, *, is_gone: bool = False) -> None:
        super().__init__(reason)
        self.is_gone = is_gone


class LeaseLost(Exception):
    """Another process may deliver to the subscription now, so this one may not."""


Check = Callable[[], None]
"""Raises `LeaseLost`. A channel calls it right before its last bytes leave."""


class Channel(Protocol):
    """A way to receivers."""

    async def send(self, target: Mapping[str, Any], message: Message, check: Check) -> None:
        """Bring a message to a receiver; the caller bounds the time.

        Args:
          target: The sealed fields of the subscription, such as its URL.
          message: The message.
          check: To be called right before the last bytes leave.

        Raises:
          DeliveryFailed: The receiver did not accept it.
        """
