"""The connection of an account: its API client and its access token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    ConfigurationError,
    Context,
    CredentialsInvalid,
    IntegrationError,
    Member,
    PermanentError,
    TransientError,
)
from integration_polling_gmail import directory, refusals, tokens
from integration_polling_gmail.account import Config, Credentials
from integration_polling_gmail.api import PROFILE_UNITS, GmailApi, listed, new_client
from integration_polling_gmail.errors import QUOTA, Missing, Refused, Unauthorized
from integration_polling_gmail.scope import resolved
from integration_polling_gmail.settings import GmailSettings, load_settings

EXPIRES_SOON = timedelta(seconds=60)

T = TypeVar("T")


class GmailSession(BaseIntegration[Config, Credentials]):
    """The part of the integration that every task needs; the tasks are in `integration.py`."""

    _total: object = None
    """The number of messages in the mailbox, from the profile that `check` has read."""

    @cached_property
    def settings(self) -> GmailSettings:
        """The operator's settings."""
        return load_settings()

    @cached_property
    def http(self) -> httpx2.Client:
        """The HTTP client of this instance."""
        return new_client()

    @cached_property
    def api(self) -> GmailApi:
        """The API of the account's mailbox."""
        return GmailApi(self.http, self.settings, self._access_token)

    def close(self) -> None:
        """Close the HTTP client."""
        self.http.close()

    def check(self) -> AccountIdentity:
        """Read the mailbox's profile and labels, and try the calls that a sync makes.

        Returns:
          The mailbox's address as id, and the Google Cloud project as group.

        Raises:
          CredentialsInvalid: Google rejects the token or its scopes, or the access token has to be
            renewed first.
          ConfigurationError: The OAuth client is missing, Gmail refuses access to the mailbox, or
            the mailbox does not have one of the labels.
          TransientError: Gmail cannot be reached.
        """
        if self.credentials.refresh_token is not None:
            tokens.client(self.credentials, self.settings)
        if self.credentials.is_renewable and self._expires_soon():
            # The engine renews the credentials and calls `check` again.
            raise CredentialsInvalid("the access token has expired")
        try:
            return self._identity()
        except Refused as refusal:
            raise ConfigurationError(str(refusal)) from None

    def _identity(self) -> AccountIdentity:
        profile = self.api.profile()
        address = profile.get("emailAddress")
        if not isinstance(address, str) or not address:
            raise TransientError("unexpected response from Gmail: no email address in the profile")
        self._total = profile.get("messagesTotal")
        if self.config.labels:
            resolved(self.config, self.api.labels())
        self._try_reading()
        project = tokens.project(self.credentials, self.settings)
        return AccountIdentity(address, address, project, self._notice())

    def _notice(self) -> str | None:
        """Return when the sign-in ends; None if it lasts."""
        ends = self.credentials.refresh_token_expires
        if ends is None or self.credentials.refresh_token is None:
            return None
        return (
            f"Google ends this sign-in on {ends:%Y-%m-%d at %H:%M %Z}, probably because the OAuth"
            f" app is in testing. To keep later sign-ins, {refusals.PUBLISH}."
        )

    def _try_reading(self) -> None:
        """Search for one message and request its source, without the bytes.

        The profile does not tell whether the token may do this.
        """
        page = self.api.messages(
            q=self.config.search, label=None, spam_trash=True, page=None, size=1
        )
        for entry in listed(page, "messages")[:1]:
            with suppress(Missing):  # it was deleted in between
                self.api.may_read(str(entry.get("id")))

    def probe(self) -> None:
        """Read the mailbox's profile, for 1 unit.

        Gmail rejects an expired token. So if the next task has to renew it, the probe tests the
        token endpoint too.

        Raises:
          Unavailable: Gmail or the token endpoint does not answer.
        """
        if self.credentials.is_renewable and self._expires_soon():
            tokens.probe(self.http, self.settings)
        self.api.profile()

    def refresh(self) -> Credentials:
        """Request a new access token; see `tokens.renew`."""
        return tokens.renew(self.http, self.credentials, self.settings)

    @classmethod
    def members(
        cls,
        settings: BaseModel | None,
        credentials: Mapping[str, Any],
        listed: Sequence[str] | None,
    ) -> Iterable[Member]:
        """List the users of a Google Workspace; see `directory.members`."""
        given = settings if isinstance(settings, GmailSettings) else load_settings()
        return directory.members(given, credentials, listed)

    @classmethod
    def credentials_from_oauth(cls, token: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the credentials from a token response; see `tokens.granted`."""
        return tokens.granted(token)

    @classmethod
    def explain_oauth_error(cls, answer: Mapping[str, Any]) -> IntegrationError | None:
        """Return the reason why Google refused a sign-in, with its remedy."""
        return refusals.explained(answer)

    def _access_token(self) -> str:
        token = self.credentials.access_token
        return token.get_secret_value() if token is not None else ""

    def _expires_soon(self) -> bool:
        if self.credentials.access_token is None:
            return True
        expires = self.credentials.access_token_expires
        return expires is not None and expires <= datetime.now(UTC) + EXPIRES_SOON

    def _asked(self, ctx: Context, call: Callable[[], T]) -> T:
        """Call Gmail, with a token that is renewed if it expires within 60 seconds.

        If Gmail rejects the token, renew it and call once more. If Gmail refuses the call for a
        reason that may apply to the account, the profile decides.

        Raises:
          ConfigurationError: Gmail refuses the profile too: the account stops.
          PermanentError: Gmail refuses only this call.
        """
        try:
            return self._called(ctx, call)
        except Refused as refusal:
            text = str(refusal)
        ctx.charge(QUOTA, PROFILE_UNITS)
        try:
            self._called(ctx, self.api.profile)
        except Refused:
            raise ConfigurationError(text) from None
        raise PermanentError(text)

    def _called(self, ctx: Context, call: Callable[[], T]) -> T:
        if self.credentials.is_renewable and self._expires_soon():
            ctx.refresh_credentials()
        try:
            return call()
        except Unauthorized:
            ctx.refresh_credentials()
            return call()
