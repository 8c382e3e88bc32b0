"""The methods of the Web API that the integration calls, with the errors of the reference."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fake_slack.workspace import Channel, key

if TYPE_CHECKING:
    from fake_slack.server import Fake

Arguments = dict[str, str]


class SlackError(Exception):
    """A response with `ok: false`, this code and HTTP 200."""


READ = {
    "public_channel": "channels:read",
    "private_channel": "groups:read",
    "im": "im:read",
    "mpim": "mpim:read",
}
"""The scope that lists a type of channel; `…:history` reads it."""


def needed(fake: Fake, method: str, arguments: Arguments) -> set[str]:
    """Return the scopes that a call needs, as in the reference of each method."""
    if method in ("conversations.list", "users.conversations"):
        return {READ[one] for one in arguments.get("types", "public_channel").split(",")}
    if method in ("conversations.members", "conversations.info"):
        channel = fake.workspace.channels.get(arguments.get("channel", ""))
        return {READ[channel.type]} if channel else set()
    if method in ("conversations.history", "conversations.replies"):
        channel = fake.workspace.channels.get(arguments.get("channel", ""))
        return {READ[channel.type].replace(":read", ":history")} if channel else set()
    others = {
        "users.list": "users:read",
        "users.info": "users:read",
        "bots.info": "users:read",
        "usergroups.list": "usergroups:read",
        "search.messages": "search:read",
    }
    others |= {"conversations.join": "channels:join", "files.info": "files:read"}
    return {others[method]} if method in others else set()


def auth_test(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    found = {
        "url": fake.workspace.url,
        "team": "Acme",
        "team_id": fake.workspace.team,
        "is_enterprise_install": False,
    }
    if fake.teams:
        found |= {
            "team": "Acme Org", "team_id": "E1", "enterprise_id": "E1",
            "is_enterprise_install": True,
        }  # fmt: skip
    if kind == "user":
        return {**found, "user": "ann", "user_id": "U1"}
    return {**found, "user": "polling", "user_id": "UBOT", "bot_id": "B1"}


def auth_teams_list(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """List the workspaces that have the app; for a token of one workspace, only this one."""
    teams = fake.teams or {fake.workspace.team: "Acme"}
    found = [{"id": id, "name": name} for id, name in teams.items()]
    page, metadata = _page(fake, found, arguments, "teams")
    return {"teams": page, **metadata}


def bots_info(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    _team(fake, arguments)
    bots = {"B1": {"id": "B1", "app_id": "A1", "name": "polling"}, **fake.workspace.bots}
    if arguments.get("bot") not in bots:
        raise SlackError("bot_not_found")
    return {"bot": bots[arguments["bot"]]}


def users_info(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """Return a person, also one of another organization, whom the list lacks."""
    people = {**fake.workspace.strangers, **fake.workspace.users}
    if arguments.get("user") not in people:
        raise SlackError("user_not_found")
    return {"user": people[arguments["user"]]}


def users_list(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    _team(fake, arguments)
    page, metadata = _page(fake, list(fake.workspace.users.values()), arguments, "users")
    return {"members": page, **metadata}


def usergroups_list(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    _team(fake, arguments)
    groups = fake.workspace.groups.items()
    return {"usergroups": [{"id": id, "handle": handle, "name": handle} for id, handle in groups]}


def conversations_list(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """List channels; private channels only for their members."""
    types, team = arguments.get("types", "public_channel").split(","), _team(fake, arguments)
    found = [one for one in fake.workspace.channels.values() if one.type in types]
    found = [one for one in found if team in ("", one.team)]
    seen = [one.described() for one in found if one.type == "public_channel" or one.is_member]
    page, metadata = _page(fake, seen, arguments, "channels")
    return {"channels": page, **metadata}


def users_conversations(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """List the channels of the token's owner, without `is_member`."""
    types, team = arguments.get("types", "public_channel").split(","), _team(fake, arguments)
    found = [one for one in fake.workspace.channels.values() if one.type in types and one.is_member]
    found = [one for one in found if team in ("", one.team)]
    seen = [{k: v for k, v in one.described().items() if k != "is_member"} for one in found]
    page, metadata = _page(fake, seen, arguments, "own")
    return {"channels": page, **metadata}


def conversations_history(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """Return messages, newest first.

    Bounds are exclusive unless `inclusive` is set. A page may be shorter than `limit` before the
    end. With only a lower bound, these are the messages next to it.
    """
    channel = _channel(fake, arguments, kind)
    bounded = [ts for ts in channel.top if _lies_in(ts, arguments)]
    offset, limit = len(bounded), _limit(fake, arguments)
    is_forward = arguments.get("oldest", "0") != "0" and not arguments.get("latest")
    if is_forward and "cursor" not in arguments:
        offset = min(offset, limit)
    if "cursor" in arguments:
        below = key(_opened(fake, arguments["cursor"], f"history:{channel.id}"))
        offset = next((index for index, ts in enumerate(bounded) if key(ts) >= below), len(bounded))
    page = bounded[max(offset - limit, 0) : offset][::-1]
    has_more = offset > limit or (is_forward and len(bounded) > limit)
    answer = {
        "messages": [fake.filled(channel.shown(ts)) for ts in page],
        "has_more": has_more,
        "pin_count": 0,
    }
    if has_more:
        answer["response_metadata"] = {
            "next_cursor": _cursor(fake, f"history:{channel.id}", page[-1])
        }
    if fake.is_limited:
        answer["is_limited"] = True
    return answer


def conversations_replies(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """Return the first message of the thread and its replies, oldest first."""
    channel, ts = _channel(fake, arguments, kind), arguments.get("ts", "")
    if ts not in channel.messages:
        raise SlackError("thread_not_found")
    thread = [ts, *(one for one in channel.threads.get(ts, []) if _lies_in(one, arguments))]
    page, metadata = _page(fake, thread, arguments, f"replies:{channel.id}:{ts}")
    messages = [fake.filled(channel.shown(one)) for one in page]
    return {
        "messages": messages,
        "has_more": bool(metadata["response_metadata"]["next_cursor"]),
        **metadata,
    }


def conversations_info(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """Describe a channel; a private one only to its members."""
    channel = fake.workspace.channels.get(arguments.get("channel", ""))
    if channel is None or (channel.type != "public_channel" and not channel.is_member):
        raise SlackError("channel_not_found")
    return {"channel": channel.described()}


def conversations_members(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    channel = _channel(fake, arguments, kind)
    page, metadata = _page(fake, channel.members, arguments, f"members:{channel.id}")
    return {"members": page, **metadata}


def conversations_join(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    channel = fake.workspace.channels.get(arguments.get("channel", ""))
    if channel is None:
        raise SlackError("channel_not_found")
    if channel.type != "public_channel":
        raise SlackError("method_not_supported_for_channel_type")
    if channel.is_archived:
        raise SlackError("is_archived")
    channel.is_member = True
    return {"channel": channel.described()}


def files_info(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    if arguments.get("file") not in fake.workspace.files:
        raise SlackError("file_not_found")
    file, _ = fake.workspace.files[arguments["file"]]
    return {
        "file": fake.filled({key: value for key, value in file.items() if key != "file_access"})
    }


def search_messages(fake: Fake, arguments: Arguments, kind: str) -> dict[str, Any]:
    """Find the messages after a day, as a person sees them; with the newest first if asked."""
    if kind != "user":
        raise SlackError("not_allowed_token_type")
    team = _team(fake, arguments)
    after = datetime.fromisoformat(arguments["query"].removeprefix("after:")).replace(tzinfo=UTC)
    found = [
        _match(fake, channel, ts)
        for channel in fake.workspace.channels.values()
        if (channel.type == "public_channel" or channel.is_member) and team in ("", channel.team)
        for ts in channel.messages
        if key(ts)[0] > after.timestamp() + 86_400 and ts not in fake.unindexed
    ]
    found.sort(key=lambda one: key(one["ts"]), reverse=arguments.get("sort_dir") == "desc")
    count, page = min(int(arguments["count"]), 100), int(arguments["page"])
    pages = -(-len(found) // count)
    paging = {"count": count, "total": len(found), "page": page, "pages": pages}
    matches = found[(page - 1) * count : page * count]
    return {"messages": {"total": len(found), "paging": paging, "matches": matches}}


def _match(fake: Fake, channel: Channel, ts: str) -> dict[str, Any]:
    message = channel.messages[ts]
    root = message.get("thread_ts")
    address = f"{fake.workspace.url}archives/{channel.id}/p{ts.replace('.', '')}"
    address += f"?thread_ts={root}" if root else ""
    return {
        "type": "message", "channel": {"id": channel.id, "name": channel.name}, "ts": ts,
        "user": message["user"], "text": message["text"], "permalink": address,
    }  # fmt: skip


METHODS: dict[str, Callable[[Fake, Arguments, str], dict[str, Any]]] = {
    "auth.test": auth_test,
    "auth.teams.list": auth_teams_list,
    "bots.info": bots_info,
    "users.list": users_list,
    "users.info": users_info,
    "usergroups.list": usergroups_list,
    "conversations.list": conversations_list,
    "users.conversations": users_conversations,
    "conversations.history": conversations_history,
    "conversations.info": conversations_info,
    "conversations.replies": conversations_replies,
    "conversations.members": conversations_members,
    "conversations.join": conversations_join,
    "files.info": files_info,
    "search.messages": search_messages,
}


def _team(fake: Fake, arguments: Arguments) -> str:
    """Return the workspace of a call with an organization's token; empty with another token."""
    if not fake.teams:
        return ""
    if "team_id" not in arguments:
        raise SlackError("missing_argument")
    if arguments["team_id"] not in fake.teams:
        raise SlackError("team_access_not_granted")
    return arguments["team_id"]


def _channel(fake: Fake, arguments: Arguments, kind: str) -> Channel:
    """Return a channel that the token can read.

    Users can read public channels without joining them; bots must be members.
    """
    channel = fake.workspace.channels.get(arguments.get("channel", ""))
    if channel is None or (channel.type != "public_channel" and not channel.is_member):
        raise SlackError("channel_not_found")
    if channel.error:
        raise SlackError(channel.error)
    if not channel.is_member and kind == "bot":
        raise SlackError("not_in_channel")
    return channel


def _lies_in(ts: str, arguments: Arguments) -> bool:
    oldest, latest = (
        key(arguments.get("oldest") or "0"),
        key(arguments.get("latest") or "9999999999"),
    )
    if arguments.get("inclusive") in ("1", "true"):
        return oldest <= key(ts) <= latest
    return oldest < key(ts) < latest


def _limit(fake: Fake, arguments: Arguments, most: int = 999) -> int:
    limit = int(arguments.get("limit", "100"))
    if not 1 <= limit <= most:
        raise SlackError("invalid_limit")
    return max(1, min(limit, fake.page_cap) - fake.short_by)


def _page(
    fake: Fake, items: Sequence[Any], arguments: Arguments, what: str
) -> tuple[list[Any], dict[str, Any]]:
    """Return items, oldest first, from the offset in the cursor."""
    start, limit = (
        int(_opened(fake, arguments["cursor"], what)) if "cursor" in arguments else 0,
        _limit(fake, arguments, 1000),
    )
    more = _cursor(fake, what, str(start + limit)) if start + limit < len(items) else ""
    return list(items[start : start + limit]), {"response_metadata": {"next_cursor": more}}


def _cursor(fake: Fake, what: str, place: str) -> str:
    return base64.b64encode(f"{fake.cursor_epoch}|{what}|{place}".encode()).decode()


def _opened(fake: Fake, cursor: str, what: str) -> str:
    try:
        epoch, belongs, place = base64.b64decode(cursor, validate=True).decode().split("|")
    except (binascii.Error, ValueError):
        raise SlackError("invalid_cursor") from None
    if int(epoch) != fake.cursor_epoch or belongs != what:
        raise SlackError("invalid_cursor")
    return place
