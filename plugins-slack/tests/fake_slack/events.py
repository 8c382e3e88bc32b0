"""The events that Slack sends, and their signatures.

Sources: https://docs.slack.dev/apis/events-api and
https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from typing import Any

from fake_slack.workspace import Channel

SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
_numbers = itertools.count(1)


def callback(event: dict[str, Any], *, team: str = "T1", **fields: Any) -> dict[str, Any]:
    """Return the payload of an event that the bot of a workspace sees."""
    seen_by = {"enterprise_id": None, "team_id": team, "user_id": "UBOT", "is_bot": True}
    return {
        "token": "legacy", "team_id": team, "api_app_id": "A1", "event": event,
        "type": "event_callback", "event_id": f"Ev{next(_numbers):04d}",
        "event_time": int(time.time()), "authorizations": [seen_by],
        "is_ext_shared_channel": False, "event_context": "EC1", **fields,
    }  # fmt: skip


def signed(
    payload: object, secret: str = SIGNING_SECRET, at: float | None = None
) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request with a payload, and its headers."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    sent_at = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), b"v0:" + sent_at.encode() + b":" + body, hashlib.sha256)
    headers = {"x-slack-request-timestamp": sent_at, "content-type": "application/json"}
    return body, {**headers, "x-slack-signature": f"v0={digest.hexdigest()}"}


def posted(channel: Channel, ts: str) -> dict[str, Any]:
    """Return the event of a new message."""
    return {**channel.messages[ts], "channel": channel.id, "event_ts": ts}


def changed(channel: Channel, ts: str) -> dict[str, Any]:
    """Return the event of an edited message."""
    message = {**channel.shown(ts), "type": "message"}
    return {
        "type": "message", "subtype": "message_changed", "hidden": True, "channel": channel.id,
        "message": message, "previous_message": message, "ts": "1900000000.000100",
    }  # fmt: skip


def deleted(channel: Channel, message: dict[str, Any]) -> dict[str, Any]:
    """Return the event of a deleted message."""
    return {
        "type": "message", "subtype": "message_deleted", "hidden": True, "channel": channel.id,
        "deleted_ts": message["ts"], "previous_message": message, "ts": "1900000000.000200",
    }  # fmt: skip


def reacted(channel: Channel, ts: str, kind: str = "reaction_added") -> dict[str, Any]:
    """Return the event of a reaction. It does not name the thread of a reply."""
    item = {"type": "message", "channel": channel.id, "ts": ts}
    return {"type": kind, "user": "U2", "reaction": "tada", "item_user": "U1", "item": item}
