"""The parts of a workspace that an event names: the text in a hint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from integration_polling_slack import timestamps
from integration_polling_slack.names import is_id


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a workspace to ask for.

    | text | part |
    |---|---|
    | `C1` | the new messages of a channel |
    | `C1:ts` | a message of its history, with its thread |
    | `C1:root:ts` | one reply of a thread |
    | `C1:settings` | the channel itself: its name, and whether it can be read |
    | `C1:members` | its members |
    | `F1:file` | the messages with a file |

    Attributes:
      id: The id of the channel or file.
      kind: What to ask for.
      ts: The timestamp of the message; empty for none.
      root: The timestamp of its thread's first message, if the message is a reply.
    """

    id: str
    kind: Literal["messages", "settings", "members", "file"] = "messages"
    ts: str = ""
    root: str = ""

    def __str__(self) -> str:
        kind = "" if self.kind == "messages" else self.kind
        return ":".join(filter(None, (self.id, kind, self.root, self.ts)))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the part that a text names; None if it has another form."""
        id, *rest = text.split(":")
        if not is_id(id) or len(rest) > 2:
            return None
        match rest:
            case ["settings"]:
                return cls(id, "settings")
            case ["members"]:
                return cls(id, "members")
            case ["file"]:
                return cls(id, "file")
        if not all(map(timestamps.is_ts, rest)):
            return None
        return cls(id, ts=rest[-1] if rest else "", root=rest[0] if len(rest) == 2 else "")
