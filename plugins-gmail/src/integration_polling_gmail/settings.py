"""The operator's settings: Google's endpoints, the OAuth client, and the source of events."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core import ConfigurationError


def _subscription(name: str) -> str:
    if name and not re.fullmatch(r"projects/[^/\s]+/subscriptions/[^/\s]+", name):
        raise ValueError("must be projects/PROJECT/subscriptions/NAME")
    return name


def _endpoint(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("must start with https:// or http://")
    return url.rstrip("/")


class GmailSettings(BaseSettings):
    """Settings from the environment or `.env`, never from an account.

    An account that could set an endpoint would receive tokens there.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    gmail_api_url: Annotated[str, AfterValidator(_endpoint)] = "https://gmail.googleapis.com"
    google_token_url: Annotated[str, AfterValidator(_endpoint)] = (
        "https://oauth2.googleapis.com/token"  # noqa: S105  a URL
    )
    google_authorize_url: Annotated[str, AfterValidator(_endpoint)] = (
        "https://accounts.google.com/o/oauth2/v2/auth"
    )
    google_pubsub_url: Annotated[str, AfterValidator(_endpoint)] = "https://pubsub.googleapis.com"
    google_directory_url: Annotated[str, AfterValidator(_endpoint)] = "https://admin.googleapis.com"
    gmail_client_id: str | None = None
    gmail_client_secret: SecretStr | None = None
    gmail_pubsub_subscription: Annotated[str, AfterValidator(_subscription)] = ""
    gmail_pubsub_credentials: SecretStr = SecretStr("")

    @property
    def receives_events(self) -> bool:
        """True if the operator has set a subscription and the service account that pulls it."""
        return bool(self.gmail_pubsub_subscription and self.gmail_pubsub_credentials)


def load_settings() -> GmailSettings:
    """Return the current settings.

    Raises:
      ConfigurationError: A setting is invalid. The error does not repeat its value.
    """
    try:
        return GmailSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "a setting"
        raise ConfigurationError(f"{name} cannot be used: {first['msg']}") from None
