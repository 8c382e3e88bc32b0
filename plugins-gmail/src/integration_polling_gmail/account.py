"""What an account is connected with."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, SecretStr, model_validator

from core import ResyncOnChange


class Config(BaseModel, extra="forbid"):
    """What of the mailbox to keep. Every change lists the mailbox again."""

    query: Annotated[str, ResyncOnChange()] = Field(
        "",
        max_length=2_000,
        description="Only mail that matches this Gmail search, such as `from:example.com`",
    )
    labels: Annotated[tuple[str, ...], ResyncOnChange()] = Field(
        (),
        max_length=100,
        description="Only mail with one of these labels, by name or id. Default: all mail",
    )
    include_spam_trash: Annotated[bool, ResyncOnChange()] = Field(
        False, description="Spam and trash too"
    )
    attachments: Annotated[Literal["none", "metadata", "all"], ResyncOnChange()] = Field(
        "all", description="Rows for attachments: none, without their content, or with it"
    )
    max_attachment_mb: Annotated[int, ResyncOnChange()] = Field(
        25, ge=1, le=100, description="Larger attachments are kept without their content"
    )
    since: Annotated[date | None, ResyncOnChange()] = Field(
        None, description="Only mail that Google accepted on this day (UTC) or later"
    )

    @property
    def policy(self) -> str:
        """The policy for attachments.

        A message that was kept under another policy is fetched again.
        """
        return (
            f"{self.attachments}:{self.max_attachment_mb}"
            if self.attachments == "all"
            else self.attachments
        )


class ServiceAccount(BaseModel, extra="ignore"):
    """The parts that count of a key file as Google gives it.

    Its `token_uri` is ignored: endpoints are the operator's.
    """

    client_email: str = Field(min_length=3)
    private_key: SecretStr
    private_key_id: str | None = None
    project_id: str | None = None


class Credentials(BaseModel, extra="forbid"):
    """A refresh token, or an access token alone, or a service account that acts for `subject`."""

    refresh_token: SecretStr | None = None
    client_id: str | None = Field(
        None, description="Of the OAuth client. Default: the operator's GMAIL_CLIENT_ID"
    )
    client_secret: SecretStr | None = Field(
        None, description="Default: the operator's GMAIL_CLIENT_SECRET"
    )
    access_token: SecretStr | None = Field(
        None, description="Needed only where there is nothing to renew it with"
    )
    access_token_expires: AwareDatetime | None = None
    service_account: ServiceAccount | None = Field(
        None, description="A key file, with domain-wide delegation"
    )
    subject: str | None = Field(None, description="The mailbox that the service account opens")

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.service_account is not None and not self.subject:
            raise ValueError("a service account needs the subject: the address of the mailbox")
        if self.service_account is not None and self.refresh_token is not None:
            raise ValueError("give a refresh token or a service account, not both")
        if not (self.service_account or self.refresh_token or self.access_token):
            raise ValueError("give a refresh token, a service account or an access token")
        return self

    @property
    def is_renewable(self) -> bool:
        return self.service_account is not None or self.refresh_token is not None

    def with_token(self, token: str, expires: datetime, refresh_token: str | None) -> Credentials:
        """After a renewal; a provider that rotates sends another refresh token with it."""
        update: dict[str, object] = {
            "access_token": SecretStr(token),
            "access_token_expires": expires,
        }
        if refresh_token:
            update["refresh_token"] = SecretStr(refresh_token)
        return self.model_copy(update=update)
