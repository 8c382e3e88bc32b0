"""People and bots that the list of people lacks: those of other organizations, and removed ones.

Each is looked up once, and its name is kept in the state until the next resync.

Sources: https://docs.slack.dev/reference/methods/users.info and
https://docs.slack.dev/reference/methods/bots.info
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from core import Context, PermanentError, RateLimited, TransientError
from integration_polling_slack import names
from integration_polling_slack.api import Answer
from integration_polling_slack.errors import Unreadable
from integration_polling_slack.names import STRANGERS, Names
from integration_polling_slack.text import attached_files

MAX_LOOKUPS = 100
"""The maximum number of lookups for one page. The next page that names the others continues."""

_MENTIONED = re.compile(
    r'<@([UW][A-Z0-9]{1,63})[|>]|"(?:user|user_id|slack_id|author_id|inviter'
    r'|initial_user|initial_conversation)": "([UW][A-Z0-9]{1,63})"'
)
_SEVERAL = re.compile(r'"(?:user|initial_users|initial_conversations)": \[([^\]]*)\]')
"""The people whom a menu or a cell of a list names."""

_ID = re.compile(r'"([UW][A-Z0-9]{1,63})"')
_READ = (
    "text", "user", "inviter", "topic", "purpose", "blocks", "attachments", "comment",
    "assistant_app_thread",
)  # fmt: skip
"""The parts of a message that may name people."""


class Call(Protocol):
    """Calls a method of Slack."""

    def __call__(self, ctx: Context, method: str, **arguments: Any) -> Answer:
        """Return the response."""
        ...


@dataclass(slots=True)
class Found:
    """The results of lookups.

    Attributes:
      users: The user objects of people that were found.
      state: The names to keep.
      unnamed: The people and bots for whom a later lookup may succeed.
    """

    users: list[Mapping[str, Any]] = field(default_factory=list)
    state: dict[str, BaseModel | None] = field(default_factory=dict)
    unnamed: set[str] = field(default_factory=set)


def look_up(ctx: Context, call: Call, known: Names, messages: Iterable[Mapping[str, Any]]) -> Found:
    """Look up the unknown people and bots of messages, and add them to the known names."""
    ids = [id for id in dict.fromkeys(named(messages)) if not known.is_asked(id)]
    found, learned = Found(unnamed=set(ids)), dict[str, str]()
    for id in ids[:MAX_LOOKUPS]:
        try:
            described = _described(ctx, call, id)
        except (RateLimited, TransientError) as error:
            ctx.log.info("cannot look up %s now: %s", id, error)
            break
        except PermanentError as error:
            ctx.log.info("cannot look up %s: %s", id, error)
            found.unnamed.clear()
            break
        learned[id] = names.of_user(described) if described else ""
        if described and not id.startswith("B"):
            found.users.append(described)
    found.unnamed -= learned.keys()
    known.learn(learned)
    found.state = names.changed(ctx, learned, STRANGERS)
    return found


def _described(ctx: Context, call: Call, id: str) -> Mapping[str, Any] | None:
    """Return the object of a person or bot; None if Slack does not know it."""
    is_bot = id.startswith("B")
    method, key = ("bots.info", "bot") if is_bot else ("users.info", "user")
    ctx.charge(method)
    try:
        data = call(ctx, method, **{key: id}).data.get(key)
    except Unreadable:
        return None
    return data if isinstance(data, dict) and data.get("id") == id else None


def named(messages: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the ids of authors and of mentioned people, and of bots that give no name."""
    for message in messages:
        profile = message.get("bot_profile")
        bot, says = message.get("bot_id"), profile.get("name") if isinstance(profile, dict) else ""
        if names.is_id(bot) and str(bot).startswith("B") and not (says or message.get("username")):
            yield str(bot)
        parts = {key: message[key] for key in _READ if message.get(key)}
        comments = [file.get("initial_comment") for file in attached_files(message)]
        read = json.dumps({**parts, "comments": comments})
        for mentioned, keyed in _MENTIONED.findall(read):
            yield mentioned or keyed
        for several in _SEVERAL.findall(read):
            yield from _ID.findall(several)
        found = message.get("room")
        room = found if isinstance(found, dict) else {}
        people = room.get("participant_history") or room.get("participants")
        for id in people if isinstance(people, list) else []:
            if names.is_id(id) and id[0] in "UW":
                yield id
