"""What an account is connected with, and the operator's settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from core import ResyncOnChange
from integration_polling_slack import timestamps

ChannelType = Literal["public", "private", "im", "mpim"]


def _header_safe(secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("a token is one word of ASCII characters")
    return secret


Token = Annotated[SecretStr, AfterValidator(_header_safe)]


class Config(BaseModel, extra="forbid"):
    """What of the workspace to keep."""

    channels: list[str] = Field(
        default=[], description="Names or ids of channels; none: all that can be read"
    )
    types: list[ChannelType] = Field(
        default=["public", "private"],
        min_length=1,
        description="Kinds of channels: public, private, im, mpim",
    )
    since: Annotated[date | None, ResyncOnChange()] = Field(
        None, description="Keep messages from this day on (UTC); none: all that Slack has"
    )
    lookback_days: PositiveInt = Field(
        14, le=365, description="How far back edits, deletions and late replies are looked for"
    )
    lookback_hours: PositiveFloat = Field(
        1,
        description=(
            "How often that is done by schedule; a sync that a person asks for always does it"
        ),
    )
    files: Annotated[Literal["none", "metadata", "all"], ResyncOnChange()] = Field(
        "metadata",
        description=(
            "Files: leave them out, keep what Slack says of them, or keep their content too"
        ),
    )
    max_file_mb: Annotated[PositiveInt, ResyncOnChange()] = Field(
        100,
        description="Files larger than this, in MB of 1,000,000 bytes, are kept without content",
    )
    join_public: bool = Field(
        False, description="Let the bot join the public channels that it is to keep"
    )
    app_kind: Literal["internal", "marketplace", "distributed"] = Field(
        "internal",
        description=(
            "Whose app the token belongs to; distributed, outside the Marketplace: 1 call a minute,"
            " 15 messages each"
        ),
    )

    @property
    def oldest(self) -> str:
        """The exclusive lower bound of what is kept."""
        if self.since is None:
            return timestamps.EARLIEST
        return timestamps.before(datetime.combine(self.since, time(), UTC))

    @property
    def page(self) -> int:
        """Messages asked for in one call."""
        return 15 if self.app_kind == "distributed" else 200


class Credentials(BaseModel, extra="forbid"):
    """A bot's or a user's token; with token rotation also the refresh token that belongs to it."""

    token: Token = Field(description="xoxb-…, xoxp-… or, with token rotation, xoxe.…")
    refresh_token: Token | None = Field(None, description="xoxe-…, with token rotation")


def tokens(answer: Mapping[str, Any]) -> dict[str, str]:
    """The credentials in an answer of `oauth.v2.access`; empty if it has none.

    A bot's tokens stand at the top. A person's do so after a renewal; after an installation without
    a bot they are in `authed_user`. An access token and a refresh token of two different holders
    are never taken for a pair.

    Facts: https://docs.slack.dev/reference/methods/oauth.v2.access
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
        raise ValueError("it must be an http or https URL")
    return url.rstrip("/") + "/"


class SlackSettings(BaseSettings):
    """The operator's settings: where Slack is, and the OAuth client that renews rotating tokens."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    api_url: Annotated[str, AfterValidator(_http)] = Field(
        "https://slack.com/api/", validation_alias="SLACK_API_URL"
    )
    client_id: str = Field("", validation_alias="SLACK_CLIENT_ID")
    client_secret: SecretStr = Field(SecretStr(""), validation_alias="SLACK_CLIENT_SECRET")
