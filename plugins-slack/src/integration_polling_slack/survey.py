"""The survey of channels when an account is connected: unknown names, and notices for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from core import ConfigurationError, PermanentError
from integration_polling_slack import channels
from integration_polling_slack.account import PAGE_SIZES, Config
from integration_polling_slack.api import Answer
from integration_polling_slack.channels import Ref
from integration_polling_slack.selection import plain, select

MAX_PAGES = 20
"""The maximum number of calls of a survey, which is what Slack allows in a minute."""

MAX_NAMED = 10
"""The maximum number of channels to name in a text."""

LONG_PASS_MINUTES = 2
"""The duration of a pass from which people must know it."""


DISTRIBUTED = (
    "Slack allows a distributed app one call for messages a minute, with 15 messages each",
    "It calls its Marketplace the only appropriate channel to distribute apps commercially"
    " (https://docs.slack.dev/changelog/2025/05/29/tos-updates)",
    "Its API terms limit lasting copies by such apps (https://slack.com/terms-of-service/api, as of"
    " November 2026)",
)
"""The consequences of Slack's terms for a distributed app."""


@dataclass(frozen=True, slots=True)
class Survey:
    """The channels that a token can see.

    Attributes:
      refs: The channels by id.
      is_complete: False if there are too many channels to list them all.
    """

    refs: Mapping[str, Ref]
    is_complete: bool

    def unknown(self, config: Config) -> list[str]:
        """Return the words of the config that name no channel.

        Names of people are not among them, because only a run lists people.
        """
        written = [*config.channels, *config.exclude]
        if not self.is_complete:
            return []
        absent = select(self.refs.values(), written, [], {}).absent
        has_people = "im" in config.types or "mpim" in config.types
        return [
            word
            for word in written
            if plain(word) in absent and not (has_people and word.startswith(("@", "<@")))
        ]

    def selected(self, config: Config) -> list[Ref]:
        """Return the channels that the config selects."""
        ids = select(self.refs.values(), config.channels, config.exclude, {}).ids
        return [ref for id, ref in self.refs.items() if id in ids]


class _Nobody:
    """No names: a survey does not list people."""

    def get(self, id: str) -> str | None:
        return None


def survey(ask: Callable[..., Answer], config: Config, *, is_bot: bool) -> Survey:
    """List the bot's channels, and all channels if the config needs them.

    Args:
      ask: Calls a method of Slack.
      config: The config.
      is_bot: True if the token belongs to a bot.
    """
    refs, is_complete, lists_own = dict[str, Ref](), True, is_bot
    if is_bot:
        try:
            refs, is_complete = _listed(ask, "users.conversations", config)
        except PermanentError:
            lists_own = False
    found = Survey(refs, is_complete)
    if not lists_own or config.join_public or found.unknown(config):
        others, is_complete = _listed(ask, "conversations.list", config)
        found = Survey({**others, **refs}, is_complete)
    return found


def _listed(ask: Callable[..., Answer], method: str, config: Config) -> tuple[dict[str, Ref], bool]:
    types, cursor, found = ",".join(channels.TYPES[kind] for kind in config.types), "", list[Ref]()
    for _ in range(MAX_PAGES):
        answer = ask(method, types=types, cursor=cursor, limit=PAGE_SIZES[0])
        found += channels.refs(answer.items("channels"), _Nobody())
        cursor = answer.cursor
        if not cursor:
            break
    return {ref.id: ref for ref in found}, not cursor


def require_known(found: Survey, config: Config) -> None:
    """Check that the config's words name channels.

    Raises:
      ConfigurationError: Some do not.
    """
    if unknown := found.unknown(config):
        raise ConfigurationError(
            f"channels not found: {_list(unknown)}",
            remedy="Correct the names in `channels` and `exclude`, and invite the bot to private"
            " channels first",
            field="channels" if set(unknown) & set(config.channels) else "exclude",
        )


def notice(found: Survey, config: Config, *, is_bot: bool, calls: int) -> str | None:
    """Return the facts that a person must know about the channels; None if there are none.

    Args:
      found: The survey.
      config: The config.
      is_bot: True if the token belongs to a bot.
      calls: The number of calls a minute that Slack allows for messages.
    """
    selected = found.selected(config)
    readable = [ref for ref in selected if ref.is_readable(is_bot=is_bot)]
    outside = [] if config.join_public else [r.name for r in selected if r not in readable]
    said = list[str]()
    if config.app_kind == "distributed":
        said += DISTRIBUTED
    if is_bot and outside and config.channels:
        said.append(f"The bot is not in {_list(outside)}: invite it")
    elif is_bot and not readable and not config.join_public:
        said.append("The bot is in no channel yet: invite it to the channels to copy")
    if (minutes := pass_minutes(len(readable), calls)) >= LONG_PASS_MINUTES:
        said.append(bound(len(readable), calls, minutes))
    return ". ".join(said) or None


def pass_minutes(count: int, calls: int) -> int:
    """Return the minutes that a pass over a number of channels takes."""
    return ceil(count / calls)


def bound(count: int, calls: int, minutes: int) -> str:
    """Return the sentence about the time that a pass over all channels takes."""
    return (
        f"{count:,} channels, {calls} {'call' if calls == 1 else 'calls'} a minute: a pass takes"
        f" {minutes} min"
    )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
