"""The config and credentials of an account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, NamedTuple, Self

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


class OtherFile(NamedTuple):
    """A JSON file of Google that is mistaken for credentials."""

    text: str
    """The kind of the file."""
    remedy: str
    """The next step of the person."""


KEY_FILE = OtherFile(
    "the key file of a service account",
    "give it as `service_account`, and the address of the mailbox as `subject`",
)
_CLIENT_FILE = OtherFile(
    "the file of an OAuth client",
    "set its client_id and client_secret as GMAIL_CLIENT_ID and GMAIL_CLIENT_SECRET, and sign in"
    " without a file",
)
_WRAPPED_KEY = OtherFile(
    "the credentials of an account, with `service_account` inside",
    "give only the key file as `service_account`",
)
_GCLOUD_FILE = OtherFile(
    "a sign-in of the gcloud command",
    "sign in without a file: gcloud's sign-ins do not include Gmail",
)
_SAVED_TOKEN = OtherFile(
    "a token that Google or a Google library has written",
    "give only its refresh_token, client_id and client_secret",
)
_OTHER_FILES = {
    "service_account": KEY_FILE,
    "authorized_user": _GCLOUD_FILE,
    **dict.fromkeys(
        ("external_account", "external_account_authorized_user", "impersonated_service_account"),
        OtherFile(
            "a configuration of Google Cloud without a key",
            "create a JSON key for a service account, or sign in without a file",
        ),
    ),
}
"""The files that name their kind as `type`."""


def other_file(values: object) -> OtherFile | None:
    """Return the kind of a file of Google that is not the credentials of an account.

    Args:
      values: The JSON value of the file.
    """
    if not isinstance(values, Mapping):
        return None
    if isinstance(kind := values.get("type"), str) and kind in _OTHER_FILES:
        return _OTHER_FILES[kind]
    if {"client_email", "private_key"} <= values.keys():
        return KEY_FILE
    if any(isinstance(values.get(key), Mapping) for key in ("installed", "web")):
        return _CLIENT_FILE
    if {"token", "access_token", "refresh_token"} & values.keys() and (
        {"token_uri", "expires_in", "token_type", "scopes"} & values.keys()
    ):
        return _SAVED_TOKEN
    return None


class ServiceAccount(BaseModel, extra="ignore"):
    """The required parts of a service account's key file.

    The file's `token_uri` is ignored: only the operator sets endpoints.
    """

    client_email: str = Field(min_length=3)
    private_key: SecretStr
    private_key_id: str | None = None
    project_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_the_key_file(cls, values: Any) -> Any:
        found = other_file(values)
        if found is None and isinstance(values, Mapping) and "service_account" in values:
            found = _WRAPPED_KEY
        if found not in (None, KEY_FILE):
            raise ValueError(f"this is {found.text}, and not a key; {found.remedy}")
        return values


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

    @model_validator(mode="before")
    @classmethod
    def _is_no_other_file(cls, values: Any) -> Any:
        if (found := other_file(values)) is not None:
            raise ValueError(f"this is {found.text}; {found.remedy}")
        return values

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
