"""The connection of an account: its calls, and the token that opens them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import httpx2

from core import AccountIdentity, BaseIntegration, Context, CredentialsInvalid, TransientError
from integration_polling_gmail import tokens
from integration_polling_gmail.account import Config, Credentials
from integration_polling_gmail.api import GmailApi, new_client
from integration_polling_gmail.errors import Unauthorized
from integration_polling_gmail.scope import resolved
from integration_polling_gmail.settings import GmailSettings, load_settings

EXPIRES_SOON = timedelta(seconds=60)

T = TypeVar("T")


class GmailSession(BaseIntegration[Config, Credentials]):
    """What every task needs; the tasks themselves stand in `integration.py`."""

    @cached_property
    def settings(self) -> GmailSettings:
        return load_settings()

    @cached_property
    def http(self) -> httpx2.Client:
        return new_client()

    @cached_property
    def api(self) -> GmailApi:
        return GmailApi(self.http, self.settings, self._access_token)

    def close(self) -> None:
        self.http.close()

    def check(self) -> AccountIdentity:
        if self.credentials.refresh_token is not None:
            tokens.client(self.credentials, self.settings)
        if self.credentials.is_renewable and self._expires_soon():
            # The engine renews them, keeps the new ones, and asks again; this stands where Google
            # gives none.
            raise CredentialsInvalid(
                "Google gives no access token for them: they were revoked, or the client is another"
            )
        address = self.api.profile().get("emailAddress")
        if not isinstance(address, str) or not address:
            raise TransientError("Gmail's answer does not say whose mailbox it is")
        if self.config.labels:
            resolved(self.config, self.api.labels())
        return AccountIdentity(address, address, tokens.project(self.credentials, self.settings))

    def refresh(self) -> Credentials:
        return tokens.renew(self.http, self.credentials, self.settings)

    @classmethod
    def credentials_from_oauth(cls, token: Mapping[str, Any]) -> Mapping[str, Any]:
        return tokens.granted(token)

    def _access_token(self) -> str:
        token = self.credentials.access_token
        return token.get_secret_value() if token is not None else ""

    def _expires_soon(self) -> bool:
        if self.credentials.access_token is None:
            return True
        expires = self.credentials.access_token_expires
        return expires is not None and expires <= datetime.now(UTC) + EXPIRES_SOON

    def _asked(self, ctx: Context, call: Callable[[], T]) -> T:
        """Call Gmail, with a token that is renewed before it expires.

        If Gmail refuses the token, renew it and try once more.
        """
        if self.credentials.is_renewable and self._expires_soon():
            ctx.refresh_credentials()
        try:
            return call()
        except Unauthorized:
            ctx.refresh_credentials()
            return call()
