"""Asking a plugin whose account it is given, in this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from core.accounts.public_hosts import public_hosts_only
from core.accounts.redaction import error_text, redactor
from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    InvalidInput,
    PollingError,
)
from core.integration.base import BaseIntegration, Integration
from core.integration.limits import AccountIdentity

Renew = Callable[[BaseIntegration[Any, Any]], BaseModel]
"""Asks a provider for new credentials."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """The account's identity and its working credentials.

    The credentials differ from those given if they had to be renewed.
    """

    identity: AccountIdentity
    credentials: BaseModel


def check(
    integration: Integration,
    config: BaseModel,
    credentials: BaseModel,
    renew: Renew | None = None,
    *,
    public_only: bool = False,
) -> Checked:
    """Build an instance, initialize it, ask `check()`, and close it.

    Credentials that are refused are renewed once, as a token may simply be old.

    Parameters:
      renew: How to renew them. Default: by the plugin's `refresh()`.
      public_only: Whether it may connect to public addresses alone.

    Raises:
      InvalidInput: The credentials or the config do not work, and why; secrets are struck out.
      PollingError: The provider cannot be asked now.
    """
    with public_hosts_only(public_only), _explained(integration, credentials):
        with _opened(integration, config, credentials) as instance:
            try:
                return Checked(_identity(instance), credentials)
            except CredentialsInvalid as refused:
                newer = _renewed(instance, renew or (lambda one: one.refresh()), refused)
        with _explained(integration, newer), _opened(integration, config, newer) as instance:
            return Checked(_identity(instance), newer)


def _identity(instance: BaseIntegration[Any, Any]) -> AccountIdentity:
    instance.initialize()
    identity = instance.check()
    if not isinstance(identity, AccountIdentity) or not identity.id:
        raise PollingError(
            f"check() of {instance.manifest.domain} did not say whose account it is",
            "Tell the plugin's author",
        )
    return identity


def _renewed(
    instance: BaseIntegration[Any, Any], renew: Renew, refused: CredentialsInvalid
) -> BaseModel:
    try:
        return renew(instance)
    except IntegrationError:
        raise refused from None


@contextmanager
def _opened(
    integration: Integration, config: BaseModel, credentials: BaseModel
) -> Iterator[BaseIntegration[Any, Any]]:
    instance = integration(config, credentials)
    try:
        yield instance
    finally:
        with contextlib.suppress(Exception):
            instance.close()


@contextmanager
def _explained(integration: Integration, credentials: BaseModel) -> Iterator[None]:
    """Turn what a plugin raises into one line without secrets."""
    strike, name = redactor(credentials), integration.manifest.name
    try:
        yield
    except PollingError:
        raise
    except CredentialsInvalid as error:
        raise InvalidInput(
            f"{name} refuses the credentials: {_line(error, strike)}", "Correct them and try again"
        ) from None
    except ConfigurationError as error:
        raise InvalidInput(
            f"the config does not work: {_line(error, strike)}", "Correct it and try again"
        ) from None
    except IntegrationError as error:
        raise PollingError(
            f"{name} cannot be asked now: {_line(error, strike)}", "Try again later"
        ) from None
    except Exception as error:  # noqa: BLE001  plugin code
        log.debug("check of %s failed: %s", name, error_text(error, strike))
        raise PollingError(
            f"the check of {name} failed: {error_text(error, strike)}",
            "Tell the plugin's author, or try again",
        ) from None


def _line(error: Exception, strike: Callable[[str], str]) -> str:
    text = error_text(error, strike)
    return text.removeprefix(f"{type(error).__name__}: ").rstrip(".")
