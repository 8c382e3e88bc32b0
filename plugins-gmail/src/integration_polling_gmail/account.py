"""The config and credentials of an account."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, SecretStr, model_validator

from core import RereadOnChange, ResyncOnChange


class Config(BaseModel, extra="forbid"):
    """The mail to keep.

    A change of `query`, `labels` or `include_spam_trash` lists the mailbox again. A change for
    attachments reads kept messages again from their sources. The run after a change of `since`
    lists messages again, and fetches only those that are not kept.
    """

    query: Annotated[str, ResyncOnChange()] = Field(
        "",
        max_length=2_000,
        description="Keep only mail that matches this Gmail search, such as `from:example.com`",
    )
    labels: Annotated[tuple[str, ...], ResyncOnChange()] = Field(
        (),
        max_length=100,
        description="Keep only mail with one of these labels, by name or ID. Default: all mail",
    )
    include_spam_trash: Annotated[bool, ResyncOnChange()] = Field(
        False, title="Include spam and trash", description="Keep spam and trash too"
    )
    attachments: Annotated[Literal["none", "metadata", "all"], RereadOnChange()] = Field(
        "all",
        description="What to store of attachments: `none`, `metadata` (without content), or `all`",
    )
    max_attachment_mb: Annotated[int, RereadOnChange()] = Field(
        25,
        ge=1,
        le=100,
        title="Maximum attachment size (MiB)",
        description="Larger attachments are kept without their content",
    )
    since: date | None = Field(
        None, description="Keep only mail that Google accepted on this day (UTC) or later"
    )

    @property
    def search(self) -> str:
        """The Gmail search of the config: `query` and `since`."""
        if self.since is None:
            return self.query
        since = int(datetime.combine(self.since, datetime.min.time(), UTC).timestamp())
        if since <= 0:  # in a search, a minus sign excludes matches
            return self.query
        # `after:` excludes the second that it names.
        after = f"after:{since - 1}"
        return f"({self.query}) {after}" if self.query else after

    @property
    def policy(self) -> str:
        """The policy for attachments under which a message was fetched."""
        return (
            f"{self.attachments}:{self.max_attachment_mb}"
            if self.attachments == "all"
            else self.attachments
        )


class ServiceAccount(BaseModel, extra="ignore"):
    """The required parts of a service account's key file.

    The file's `token_uri` is ignored: only the operator sets endpoints.
    """

    client_email: str = Field(min_length=3)
    private_key: SecretStr
    private_key_id: str | None = None
    project_id: str | None = None


class Credentials(BaseModel, extra="forbid"):
    """A refresh token, an access token alone, or a service account that acts for `subject`."""

    refresh_token: SecretStr | None = Field(None, description="OAuth refresh token of the mailbox")
    client_id: str | None = Field(
        None,
        title="Client ID",
        description="ID of the OAuth client. Default: the operator's GMAIL_CLIENT_ID",
    )
    client_secret: SecretStr | None = Field(
        None, description="Secret of the OAuth client. Default: the operator's GMAIL_CLIENT_SECRET"
    )
    access_token: SecretStr | None = Field(
        None,
        description="OAuth access token, valid for about an hour. Not needed with a refresh token"
        " or a service account",
    )
    access_token_expires: AwareDatetime | None = Field(
        None, description="Expiry of the access token. It is updated at each renewal"
    )
    refresh_token_expires: AwareDatetime | None = Field(
        None,
        description="Expiry of the refresh token. Google sends this time only for an OAuth app in"
        " testing",
    )
    service_account: ServiceAccount | None = Field(
        None, description="JSON key of a service account with domain-wide delegation"
    )
    subject: str | None = Field(
        None, description="Address of the mailbox that the service account reads"
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.service_account is not None and not self.subject:
            raise ValueError("a service account needs a subject: the address of the mailbox")
        if self.service_account is not None and self.refresh_token is not None:
            raise ValueError("give a refresh token or a service account, not both")
        if not (self.service_account or self.refresh_token or self.access_token):
            raise ValueError("give a refresh token, a service account or an access token")
        return self

    @property
    def is_renewable(self) -> bool:
        """True if the plugin can get new access tokens."""
        return self.service_account is not None or self.refresh_token is not None

    def with_token(
        self,
        token: str,
        expires: datetime,
        refresh_token: str | None,
        refresh_token_expires: datetime | None = None,
    ) -> Credentials:
        """Return the credentials with a renewed access token.

        Args:
          token: The new access token.
          expires: The time at which it expires.
          refresh_token: The new refresh token, if the provider rotates them; None keeps the old
            one.
          refresh_token_expires: The time at which the refresh token expires. Default: it lasts.
        """
        update: dict[str, object] = {
            "access_token": SecretStr(token),
            "access_token_expires": expires,
            "refresh_token_expires": refresh_token_expires,
        }
        if refresh_token:
            update["refresh_token"] = SecretStr(refresh_token)
        return self.model_copy(update=update)
