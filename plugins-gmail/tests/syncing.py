"""Helpers that sync a mailbox of the fake with the harness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from integration_polling_gmail import Gmail
from support.gmail import FakeGmail, mail

from core.testing import Harness, SyncResult

Costs = Callable[[], dict[str, int]]


def connect(gmail: FakeGmail, **config: Any) -> Harness:
    return Harness(Gmail, config, gmail.credentials())


def synced(harness: Harness, trigger: str = "schedule", **options: Any) -> SyncResult:
    result = harness.sync(trigger, **options)
    assert result.state == "succeeded", [result.error, *result.parked]
    return result


def messages(harness: Harness) -> dict[str, Any]:
    return {id: item for id, item in harness.content.items() if item.kind == "message"}


def large_mail(size: int, name: str = "large.bin") -> tuple[bytes, bytes]:
    data = hashlib.sha256(name.encode()).digest() * (size // 32)
    return mail(
        attachments=[
            ("small.txt", "text/plain", b"small"),
            (name, "application/octet-stream", data),
        ]
    ), data
