"""The operator's settings: where Google is, and the OAuth client of this installation."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core import ConfigurationError


def _endpoint(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("it must begin with https:// or http://")
    return url.rstrip("/")


class GmailSettings(BaseSettings):
    """Settings from the environment or `.env`, never from an account.

    An account that named its own endpoint would receive tokens.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    gmail_api_url: Annotated[str, AfterValidator(_endpoint)] = "https://gmail.googleapis.com"
    google_token_url: Annotated[str, AfterValidator(_endpoint)] = (
        "https://oauth2.googleapis.com/token"  # noqa: S105  an address
    )
    gmail_client_id: str | None = None
    gmail_client_secret: SecretStr | None = None


def load_settings() -> GmailSettings:
    """The settings as they are now.

    Raises:
      ConfigurationError: One of them cannot work; the value itself is not repeated.
    """
    try:
        return GmailSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "a setting"
        raise ConfigurationError(f"{name} cannot be used: {first['msg']}") from None
