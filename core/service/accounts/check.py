"""Asking a plugin whose account it is given, in this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

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
class CheckResult:
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
    egress: AbstractContextManager[None],
) -> CheckResult:
    """Build an instance, initialize it, ask `check()`, and close it.

    Credentials that are refused are renewed once, as a token may simply be old.

    Parameters:
      renew: How to renew them. Default: by the plugin's `refresh()`.
      egress: Limits what the plugin reaches; see `core.egress`.

    Raises:
      InvalidInput: The credentials or the config do not work, and why; secrets are struck out.
      PollingError: The provider cannot be asked now.
    """
    with egress, _translated_errors(integration, credentials):
        with _opened(integration, config, credentials) as instance:
            try:
                return CheckResult(_identity(instance), credentials)
            except CredentialsInvalid as refused:
                newer = _renewed(instance, renew or (lambda plugin: plugin.refresh()), refused)
        with (
            _translated_errors(integration, newer),
            _opened(integration, config, newer) as instance,
        ):
            return CheckResult(_identity(instance), newer)


def _identity(instance: BaseIntegration[Any, Any]) -> AccountIdentity:
    instance.initialize()
    identity = instance.check()
    if not isinstance(identity, AccountIdentity) or not identity.id:
        raise PollingError("check-without-identity", domain=instance.manifest.domain)
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
def _translated_errors(integration: Integration, credentials: BaseModel) -> Iterator[None]:
    """Turn what a plugin raises into one line without secrets."""
    redact, name = redactor(credentials), integration.manifest.name
    try:
        yield
    except PollingError:
        raise
    except CredentialsInvalid as error:
        raise InvalidInput(
            "credentials-rejected", integration=name, reason=_one_line(error, redact)
        ) from None
    except ConfigurationError as error:
        raise InvalidInput("config-rejected", reason=_one_line(error, redact)) from None
    except IntegrationError as error:
        raise PollingError(
            "provider-unavailable", integration=name, reason=_one_line(error, redact)
        ) from None
    except Exception as error:  # noqa: BLE001  plugin code
        log.debug("check of %s failed: %s", name, error_text(error, redact))
        raise PollingError(
            "check-failed", integration=name, reason=error_text(error, redact)
        ) from None


def _one_line(error: Exception, redact: Callable[[str], str]) -> str:
    text = error_text(error, redact)
    return text.removeprefix(f"{type(error).__name__}: ").rstrip(".")
