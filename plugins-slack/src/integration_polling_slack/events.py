"""The events of Slack as hints: each names the part of a workspace that has changed.

An event is never data: the copy has nothing of it. The run of the hint asks Slack.

Sources: https://docs.slack.dev/apis/events-api and https://docs.slack.dev/reference/events
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from core import Hint, WebhookRequest, WebhookResponse
from integration_polling_slack import timestamps
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.names import is_id
from integration_polling_slack.parts import Part

MAX_AGE_SECONDS = 300
"""The greatest difference between the time of a request and this machine's time."""

MAX_TEAMS = 20
"""The number of workspaces that one event may concern."""

MAX_CHALLENGE_CHARS = 1_000

CHANNEL_EVENTS = frozenset(
    {
        "channel_archive", "channel_created", "channel_deleted", "channel_left", "channel_rename",
        "channel_shared", "channel_unarchive", "channel_unshared", "group_archive",
        "group_deleted", "group_left", "group_rename", "group_unarchive",
    }
)  # fmt: skip
"""The events of a channel itself."""

CHANNEL_SUBTYPES = frozenset(
    f"{kind}_{change}"
    for kind in ("channel", "group")
    for change in (
        "archive", "convert_to_private", "convert_to_public", "name", "purpose", "topic",
        "unarchive",
    )
)  # fmt: skip
"""The subtypes of messages that tell of a change of their channel."""

MEMBER_EVENTS = frozenset({"member_joined_channel", "member_left_channel"})
REACTION_EVENTS = frozenset({"reaction_added", "reaction_removed"})
FILE_EVENTS = frozenset({"file_change", "file_deleted", "file_public", "file_unshared"})

COMPLETE_EVENTS = frozenset({"app_uninstalled", "channel_id_changed", "tokens_revoked"})
"""The events after which a run looks at the complete account."""

_VERSION = b"v0"
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)

Event = Mapping[str, Any]


def is_signed(request: WebhookRequest, secret: str, now: float) -> bool:
    """Return True if Slack has signed this request within the last five minutes.

    Source: https://docs.slack.dev/authentication/verifying-requests-from-slack

    Args:
      request: The request.
      secret: The app's signing secret. Without one, no request is valid.
      now: The present time, in Unix seconds.
    """
    sent_at = request.headers.get("x-slack-request-timestamp", "")
    if not secret or not _SECONDS.fullmatch(sent_at) or abs(now - int(sent_at)) > MAX_AGE_SECONDS:
        return False
    signed = b":".join((_VERSION, sent_at.encode(), request.body))
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    given = request.headers.get("x-slack-signature", "")
    # Compares bytes, because a header may have other characters than ASCII.
    return hmac.compare_digest(f"{_VERSION.decode()}={digest}".encode(), given.encode())


def answer(request: WebhookRequest, settings: SlackSettings) -> WebhookResponse:
    """Answer a request of the Events API.

    Slack sends an event again if the answer was late (`X-Slack-Retry-Num`). The engine recognizes
    it by its id.
    """
    if not is_signed(request, settings.signing_secret.get_secret_value(), time.time()):
        return WebhookResponse(status=401, body="wrong signature")
    try:
        payload = json.loads(request.body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        return WebhookResponse(status=400, body="not a JSON object")
    if payload.get("type") == "url_verification":
        challenge = payload.get("challenge")
        if not isinstance(challenge, str) or len(challenge) > MAX_CHALLENGE_CHARS:
            return WebhookResponse(status=400, body="invalid challenge")
        return WebhookResponse(body=challenge)
    return WebhookResponse(hints(payload), id=event_id(payload))


def event_id(payload: Event) -> str:
    """Return the id of an event, which is the same when Slack sends it again; empty without one."""
    id = payload.get("event_id")
    return id if isinstance(id, str) and is_id(id) else ""


def hints(payload: Event) -> list[Hint]:
    """Return the hints of an event: each part for each workspace that the event concerns.

    Args:
      payload: The body of a request, or the payload of an envelope of Socket Mode.
    """
    kind, event = payload.get("type"), payload.get("event")
    if kind == "app_rate_limited":
        # Slack has left out events: https://docs.slack.dev/apis/events-api#rate-limits
        named: list[Part | None] = [None]
    elif kind == "event_callback" and isinstance(event, dict):
        named = list(dict.fromkeys(_parts(event, _owners(payload))))
    else:
        return []
    return [
        Hint(team, None if part is None else str(part))
        for team in _teams(payload)
        for part in named
    ]


def _teams(payload: Event) -> list[str]:
    """Return the ids of the workspaces and organizations that an event concerns.

    Slack names one of the app's installations, and the workspace of the event, which may be another
    one in a shared channel.
    """
    keys = ("team_id", "enterprise_id", "context_team_id", "context_enterprise_id")
    found = [holder.get(key) for holder in (payload, *_authorizations(payload)) for key in keys]
    return list(dict.fromkeys(id for id in found if is_id(id)))[:MAX_TEAMS]


def _owners(payload: Event) -> set[str]:
    """Return the users whose token sees an event; the bot is one of them."""
    return {one["user_id"] for one in _authorizations(payload) if is_id(one.get("user_id"))}


def _authorizations(payload: Event) -> list[Event]:
    given = payload.get("authorizations")
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _parts(event: Event, owners: Collection[str]) -> Iterator[Part | None]:
    """Yield the parts that an event names; None stands for the complete account."""
    kind = event.get("type")
    if not isinstance(kind, str):
        return
    if kind in COMPLETE_EVENTS:
        yield None
    elif kind in FILE_EVENTS:
        yield from _of_file(event)
    elif kind in REACTION_EVENTS:
        yield from _of_reaction(event.get("item"))
    elif channel := _id(event.get("channel_id" if kind == "file_shared" else "channel")):
        yield from _of_channel(kind, event, channel, owners)


def _of_channel(kind: str, event: Event, channel: str, owners: Collection[str]) -> Iterator[Part]:
    """Yield the parts of an event that names its channel."""
    if kind == "message":
        yield from _of_message(event, channel)
    elif kind == "file_shared":
        yield Part(channel)
    elif kind in CHANNEL_EVENTS:
        yield Part(channel, "settings")
    elif kind in MEMBER_EVENTS:
        yield Part(channel, "settings" if event.get("user") in owners else "members")


def _of_file(event: Event) -> Iterator[Part]:
    if file := _id(event.get("file_id")) or _id(event.get("file")):
        yield Part(file, "file")


def _of_reaction(item: Any) -> Iterator[Part]:
    """Yield the message with a reaction. The event does not say whether it is a reply."""
    if isinstance(item, dict) and item.get("type") == "message":
        channel, ts = _id(item.get("channel")), item.get("ts")
        if channel and timestamps.is_ts(ts):
            yield Part(channel, ts=ts)


def _of_message(event: Event, channel: str) -> Iterator[Part]:
    subtype, message = event.get("subtype"), event.get("message")
    if subtype == "message_changed":
        yield from _at(channel, message)
    elif subtype == "message_deleted":
        before = event.get("previous_message")
        root = before.get("thread_ts") if isinstance(before, dict) else None
        yield from _at(channel, {"ts": event.get("deleted_ts"), "thread_ts": root})
    elif subtype == "message_replied":
        yield from _of_new(channel, message if isinstance(message, dict) else {})
    else:
        yield from _of_new(channel, event)
        if subtype in CHANNEL_SUBTYPES:
            yield Part(channel, "settings")


def _of_new(channel: str, message: Event) -> Iterator[Part]:
    """Yield the thread of a new reply, or the channel of any other new message."""
    root = message.get("thread_ts")
    is_reply = timestamps.is_ts(root) and root != message.get("ts")
    if is_reply:
        yield Part(channel, ts=str(root))
    if not is_reply or message.get("subtype") == "thread_broadcast":
        yield Part(channel)


def _at(channel: str, message: Any) -> Iterator[Part]:
    """Yield the part of a message that was changed or deleted."""
    if not isinstance(message, dict) or not timestamps.is_ts(ts := message.get("ts")):
        return
    root = message.get("thread_ts")
    yield Part(channel, ts=ts, root=root if timestamps.is_ts(root) and root != ts else "")


def _id(value: Any) -> str:
    """Return an id, which some events give in an object."""
    value = value.get("id") if isinstance(value, dict) else value
    return value if is_id(value) else ""
