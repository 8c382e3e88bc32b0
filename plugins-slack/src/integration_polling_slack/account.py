"""The config and credentials of an account, and the operator's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from core import ResyncOnChange
from integration_polling_slack import timestamps

PAGE_SIZES = (999, 200, 50)
"""The number of messages or channels to request in one call, by attempt."""

RESTRICTED_PAGE = 15
"""The number of messages in a response to a distributed app."""

ChannelType = Literal["public", "private", "im", "mpim"]


_APP_TOKEN = re.compile(r"xapp-[0-9]+-(A[A-Z0-9]+)-", re.ASCII)


def _header_safe(secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be one word of printable ASCII characters")
    return secret


Token = Annotated[SecretStr, AfterValidator(_header_safe)]


def _without_blanks(words: list[str]) -> list[str]:
    """Return the words of a list; an empty text clears it."""
    return [word.strip() for word in words if word.strip()]


Words = Annotated[list[str], AfterValidator(_without_blanks)]


def _team(id: str | None) -> str | None:
    """Check the id of a workspace; an empty text clears it."""
    if id and not re.fullmatch(r"T[A-Z0-9]{1,63}", id, re.ASCII):
        raise ValueError("must be the ID of a workspace, such as T0123ABC")
    return id or None


class Config(BaseModel, extra="forbid"):
    """The messages and files of the workspace to keep."""

    channels: Words = Field(
        default=[],
        description=(
            "Names, IDs or links of channels, or patterns such as `team-*`. Default: all readable"
            " channels"
        ),
    )
    exclude: Words = Field(
        default=[],
        description="Channels to leave out, written like `channels`. Default: none",
    )
    deselected: Literal["keep", "delete"] = Field(
        "keep",
        title="Channels that are no longer selected",
        description=(
            "What happens to the copy of a channel that `channels`, `exclude` and `types` no longer"
            " select: `keep` it as it is, or `delete` it with the next run"
        ),
    )
    types: list[ChannelType] = Field(
        default=["public", "private"],
        min_length=1,
        description=(
            "Kinds of channels: public, private, im (direct messages), mpim (group messages)"
        ),
    )
    since: Annotated[date | None, ResyncOnChange()] = Field(
        None, description="Keep messages from this day (UTC) on. Default: all messages"
    )
    lookback_days: PositiveInt = Field(
        14,
        le=365,
        description="Number of past days in which to look for edits, deletions and late replies",
    )
    lookback_hours: PositiveFloat = Field(
        1,
        description="Hours between two lookbacks. A manual sync always looks back",
    )
    files: Annotated[Literal["none", "metadata", "all"], ResyncOnChange()] = Field(
        "metadata",
        description="What to store of files: `none`, `metadata` (without content), or `all`",
    )
    max_file_mb: Annotated[PositiveInt, ResyncOnChange()] = Field(
        100,
        title="Maximum file size (MB)",
        description="In MB of 1,000,000 bytes. Larger files are kept without their content",
    )
    join_public: bool = Field(
        False,
        title="Join public channels",
        description="Let the bot join the public channels that it copies",
    )
    connect_as: Literal["bot", "person"] = Field(
        "bot",
        title="Connect in a browser as",
        description=(
            "Owner of the token of a connection in a browser. The `bot` of the app reads the"
            " channels that it is invited to. The `person` who signs in also reads their private"
            " channels and direct messages"
        ),
    )
    team: Annotated[str | None, AfterValidator(_team)] = Field(
        None,
        title="Workspace of the organization",
        description=(
            "ID of the workspace to copy (`T…`), only for the token of an organization (Enterprise"
            " Grid). Default: the only workspace that has the app"
        ),
    )
    app_kind: Literal["internal", "marketplace", "distributed"] = Field(
        "internal",
        description=(
            "Kind of the app that the token belongs to. An app that is distributed outside of the"
            " Marketplace may call Slack for messages once a minute, for 15 messages at a time"
        ),
    )

    @property
    def oldest(self) -> str:
        """The exclusive lower bound of the timestamps to keep."""
        if self.since is None:
            return timestamps.EARLIEST
        return timestamps.before(datetime.combine(self.since, time(), UTC))

    def page(self, attempt: int) -> int:
        """Return the number of messages to request in one call, in an attempt counted from 1.

        Slack may fail on large pages, so later attempts request fewer.
        """
        if self.app_kind == "distributed":
            return RESTRICTED_PAGE
        return PAGE_SIZES[min(attempt, len(PAGE_SIZES)) - 1]


class Credentials(BaseModel, extra="forbid"):
    """A bot's or a user's token, and with token rotation also its refresh token."""

    token: Token = Field(
        description="Access token: `xoxb-…`, `xoxp-…`, or `xoxe.…` with token rotation"
    )
    refresh_token: Token | None = Field(
        None, description="Refresh token `xoxe-…`, only with token rotation"
    )


def tokens(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the credentials in a response of `oauth.v2.access`; empty if it has none.

    A bot's tokens are at the top level. A user's tokens are there after a renewal; after an
    installation without a bot they are in `authed_user`. The result never combines an access token
    and a refresh token of two owners.

    Source: https://docs.slack.dev/reference/methods/oauth.v2.access
    """
    if answer.get("ok") is not True:
        return {}
    for holder in (answer, answer.get("authed_user")):
        if isinstance(holder, Mapping) and isinstance(token := holder.get("access_token"), str):
            renewal = holder.get("refresh_token")
            return {
                "token": token,
                **({"refresh_token": renewal} if isinstance(renewal, str) else {}),
            }
    return {}


def _http(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError("must be an http or https URL")
    return url.rstrip("/") + "/"


def _app_token(secret: SecretStr) -> SecretStr:
    """Check the app-level token; an empty one stands for none."""
    return _header_safe(secret) if secret.get_secret_value() else secret


class SlackSettings(BaseSettings):
    """The operator's settings: the address of Slack, the OAuth client, and the app's events."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    api_url: Annotated[str, AfterValidator(_http)] = Field(
        "https://slack.com/api/", validation_alias="SLACK_API_URL"
    )
    client_id: str = Field("", validation_alias="SLACK_CLIENT_ID")
    client_secret: SecretStr = Field(SecretStr(""), validation_alias="SLACK_CLIENT_SECRET")
    signing_secret: SecretStr = Field(SecretStr(""), validation_alias="SLACK_SIGNING_SECRET")
    app_token: Annotated[SecretStr, AfterValidator(_app_token)] = Field(
        SecretStr(""), validation_alias="SLACK_APP_TOKEN"
    )

    @property
    def app_id(self) -> str:
        """The app of the app-level token, as the token contains it; empty if it is unknown."""
        found = _APP_TOKEN.match(self.app_token.get_secret_value())
        return found[1] if found else ""

    @property
    def uses_socket_mode(self) -> bool:
        """True if the operator's app sends events over a connection of Socket Mode."""
        return bool(self.app_token.get_secret_value())

    @property
    def receives_events(self) -> bool:
        """True if the operator's app sends events."""
        return self.uses_socket_mode or bool(self.signing_secret.get_secret_value())
