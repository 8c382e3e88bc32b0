"""The content of a workspace, and the actions of its people."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


def key(ts: str) -> tuple[int, int]:
    seconds, _, micros = ts.partition(".")
    return int(seconds), int(micros.ljust(6, "0"))


@dataclass
class Channel:
    """A channel; `top` has the timestamps of the messages in its history, oldest first."""

    id: str
    name: str
    type: str = "public_channel"
    is_member: bool = True
    is_archived: bool = False
    updated: int = 1_600_000_000_000
    user: str = ""
    team: str = "T1"
    error: str = ""
    members: list[str] = field(default_factory=lambda: ["U1", "U2", "UBOT"])
    properties: dict[str, Any] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    top: list[str] = field(default_factory=list)
    threads: dict[str, list[str]] = field(default_factory=dict)

    def shown(self, ts: str) -> Message:
        """Return a message as history and replies show it.

        The first message of a thread describes its replies.
        """
        message, replies = dict(self.messages[ts]), self.threads.get(ts)
        if replies:
            users = sorted({self.messages[one]["user"] for one in replies})
            message |= {
                "thread_ts": ts,
                "reply_count": len(replies),
                "reply_users": users,
                "latest_reply": replies[-1],
            }
        return message

    def described(self) -> dict[str, Any]:
        is_im, is_mpim = self.type == "im", self.type == "mpim"
        shared = {
            "id": self.id,
            "is_archived": self.is_archived,
            "is_im": is_im,
            "is_mpim": is_mpim,
            "created": 1_600_000_000,
            "updated": self.updated,
            "properties": self.properties,
        }
        if is_im:
            return {**shared, "user": self.user}
        text = {"value": f"about {self.name}", "creator": "U1", "last_set": 0}
        return {
            **shared, "name": self.name, "is_private": self.type != "public_channel",
            "is_member": self.is_member, "topic": text, "purpose": text,
        }  # fmt: skip


class Workspace:
    """People, channels, messages and files.

    Any thread may change them at any time during a sync.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.team, self.url = "T1", "https://acme.slack.com/"
        self.users: dict[str, dict[str, Any]] = {}
        self.strangers: dict[str, dict[str, Any]] = {}
        self.bots: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, str] = {}
        self.channels: dict[str, Channel] = {}
        self.files: dict[str, tuple[dict[str, Any], bytes]] = {}
        # Messages are from the last day, unless a test sets another time.
        self._clock = int(time.time()) - 86_400
        for id, name in (("U1", "Ann"), ("U2", "Björn"), ("UBOT", "polling")):
            self.add_user(id, name)

    def add_user(self, id: str, name: str, **fields: Any) -> None:
        profile = {"display_name": name, "real_name": f"{name} Example"}
        people = self.strangers if fields.pop("is_stranger", False) else self.users
        people[id] = {
            "id": id,
            "name": name.lower(),
            "deleted": False,
            "profile": profile,
            **fields,
        }

    def add_channel(self, name: str, id: str = "", **fields: Any) -> Channel:
        with self.lock:
            channel = Channel(id or f"C{len(self.channels) + 1:04d}", name, **fields)
            self.channels[channel.id] = channel
            return channel

    def post(
        self,
        channel: Channel,
        text: str,
        *,
        ts: str = "",
        user: str = "U1",
        thread: str = "",
        broadcast: bool = False,
        **fields: Any,
    ) -> str:
        """Post a message or a reply, and return its timestamp."""
        with self.lock:
            if not ts:
                self._clock += 1
                ts = f"{self._clock}.{len(channel.messages) % 1_000_000:06d}"
            message: Message = {"type": "message", "user": user, "text": text, "ts": ts, **fields}
            if thread:
                message |= {"thread_ts": thread, "parent_user_id": channel.messages[thread]["user"]}
                insort(channel.threads.setdefault(thread, []), ts, key=key)
            if broadcast:
                message["subtype"] = "thread_broadcast"
            channel.messages[ts] = message
            if not thread or broadcast:
                insort(channel.top, ts, key=key)
            return ts

    def archive(self, channel: Channel, archived: bool = True) -> None:
        with self.lock:
            channel.is_archived = archived
            channel.updated += 1

    def edit(self, channel: Channel, ts: str, text: str) -> None:
        with self.lock:
            self._clock += 1
            channel.messages[ts] |= {
                "text": text,
                "edited": {"user": "U1", "ts": f"{self._clock}.000000"},
            }

    def react(self, channel: Channel, ts: str, name: str) -> None:
        with self.lock:
            channel.messages[ts]["reactions"] = [{"name": name, "count": 1, "users": ["U2"]}]

    def delete(self, channel: Channel, ts: str) -> None:
        """Delete a message.

        A message with replies leaves a placeholder, which is deleted with the last reply.
        """
        with self.lock:
            if channel.threads.get(ts):
                channel.messages[ts] = {
                    "type": "message", "subtype": "tombstone", "user": "USLACKBOT",
                    "text": "This message was deleted.", "ts": ts, "hidden": True,
                }  # fmt: skip
                return
            root = channel.messages.pop(ts).get("thread_ts")
            if ts in channel.top:
                channel.top.remove(ts)
            if root in channel.threads:
                channel.threads[root].remove(ts)
                if not channel.threads[root]:
                    del channel.threads[root]
                    if channel.messages[root].get("subtype") == "tombstone":
                        self.delete(channel, root)

    def upload(self, channel: Channel, data: bytes, name: str = "a.bin", **fields: Any) -> str:
        """Post a message with a file, and return the file's id. The server fills in its address."""
        with self.lock:
            id = f"F{len(self.files) + 1:04d}"
            file = {
                "id": id, "name": name, "title": name, "mimetype": "application/octet-stream",
                "filetype": "binary", "mode": "hosted", "size": len(data), "created": self._clock,
                "user": "U1", "url_private": f"{{origin}}/files-pri/{self.team}-{id}/{name}",
                **fields,
            }  # fmt: skip
            self.files[id] = (file, data)
            self.post(channel, f"see {name}", files=[file])
            return id

    def visible(self) -> Iterator[tuple[str, Message]]:
        """Yield every message, with the id of its row."""
        with self.lock:
            for channel in self.channels.values():
                for ts, message in channel.messages.items():
                    yield f"{channel.id}:{ts}", message
