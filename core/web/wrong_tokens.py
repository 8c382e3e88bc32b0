"""Slow down clients that send wrong tokens, and log them.

A right token is never refused, also after wrong ones from its address: many people may share an
address. So each token is looked up, and only the answer to a wrong one waits. Each process counts
for itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from fastapi import Request

from core.web.connections import network_of
from core.web.problems import HttpProblem

BURST = 10
"""The number of wrong tokens of one address that are answered without a delay."""

SECONDS_PER_TOKEN = 6.0
"""The time after which one wrong token of an address is forgotten."""

DELAY_SECONDS = 1.0
"""The delay of the answer to each further wrong token."""

MAX_WAITING = 4
"""The number of delayed answers of one address. Further ones get status 429 immediately."""

MAX_WAITING_IN_ALL = 100
"""The number of delayed answers of all addresses: they occupy connections."""

MAX_ADDRESSES = 10_000

LOG_SECONDS = 60.0
"""The time between two log lines about an address that sends more than the burst."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sender:
    level: float = 0.0
    at: float = field(default_factory=time.monotonic)
    waiting: int = 0
    unlogged: int = 0
    logged_at: float = 0.0


class WrongTokens:
    """The addresses that have sent wrong tokens. Only the thread of the event loop uses it."""

    def __init__(self) -> None:
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        self._waiting = 0

    async def refuse(self, request: Request) -> None:
        """Count and log a wrong token, and delay the answer to it.

        The log line contains the address, and nothing of the token.

        Raises:
          HttpProblem: Too many answers to this address wait already.
        """
        address = address_of(request)
        sender = self._sender(address)
        now = time.monotonic()
        level = max(0.0, sender.level - (now - sender.at) / SECONDS_PER_TOKEN) + 1
        sender.level, sender.at = min(level, 2.0 * BURST), now
        self._log(address, sender, now)
        if sender.level <= BURST:
            return
        if sender.waiting >= MAX_WAITING or self._waiting >= MAX_WAITING_IN_ALL:
            raise HttpProblem("wrong-tokens-too-many")
        sender.waiting, self._waiting = sender.waiting + 1, self._waiting + 1
        try:
            await asyncio.sleep(DELAY_SECONDS)
        finally:
            sender.waiting, self._waiting = sender.waiting - 1, self._waiting - 1

    def _sender(self, address: str) -> _Sender:
        sender = self._senders.setdefault(address, _Sender())
        self._senders.move_to_end(address)
        if len(self._senders) > MAX_ADDRESSES:
            self._senders.popitem(last=False)
        return sender

    def _log(self, address: str, sender: _Sender, now: float) -> None:
        sender.unlogged += 1
        if sender.level > BURST and now - sender.logged_at < LOG_SECONDS:
            return
        log.warning("refused %d wrong tokens from %s", sender.unlogged, address)
        sender.unlogged, sender.logged_at = 0, now


def address_of(request: Request) -> str:
    """Return the address that a limit counts: an IPv4 address, or a network of IPv6.

    Behind a trusted proxy, `core.web.gate` has replaced the proxy's address with the client's.
    """
    host = request.client.host if request.client is not None else ""
    return network_of(host) or "unknown"
