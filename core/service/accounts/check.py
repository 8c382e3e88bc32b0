"""Check credentials and config with the plugin, in this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from core.accounts.redaction import error_text, redactor
from core.egress import is_limited
from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    InvalidFields,
    InvalidInput,
    PollingError,
)
from core.integration.base import BaseIntegration, Integration, refused_field
from core.integration.limits import AccountIdentity
from core.integration.rehearsal import Bound, Rehearsal
from core.known_secrets import KNOWN, secrets_of
from core.limits.budgets import per_minute
from core.limits.keys import overridden
from core.log_redaction import renewing
from core.results.rehearsal import shown
from core.service.accounts.deadline import BoundedCheck
from core.service.accounts.validation import destinations
from core.service.formatting import number, span
from core.settings import LimitOverride

Renew = Callable[[BaseIntegration[Any, Any]], BaseModel]
"""Requests new credentials from the provider."""

CORRECT_CREDENTIALS = "Correct them and try again"
CORRECT_CONFIG = "Correct it and try again"
CHECK_HOST = "If you entered a host and port, check them, or try again later"
TRY_LATER = "Try again later; there is nothing to correct"
DEFAULT_REMEDIES = (CORRECT_CREDENTIALS, CORRECT_CONFIG, CHECK_HOST, TRY_LATER)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The account's identity, its working credentials and its config.

    The credentials differ from the given ones if they had to be renewed. The config differs if
    `check()` has completed it. The rehearsal is empty unless the caller has asked for one.
    """

    identity: AccountIdentity
    credentials: BaseModel
    config: BaseModel
    rehearsal: Rehearsal = field(default_factory=Rehearsal)


def check(
    integration: Integration,
    config: BaseModel,
    credentials: BaseModel,
    renew: Renew | None = None,
    *,
    egress: AbstractContextManager[None],
    rehearse: bool = False,
    overrides: Mapping[str, LimitOverride] | None = None,
) -> CheckResult:
    """Create an instance of the integration, call its `check()`, and close it.

    If the provider rejects the credentials, they are renewed once, because the token may have
    expired. The check has a deadline; see `core.service.accounts.deadline`.

    Args:
      integration: The integration.
      config: The config of the account.
      credentials: The credentials of the account.
      renew: Renews the credentials. Default: the plugin's `refresh()`.
      egress: Restricts the addresses that the plugin may connect to; see `core.egress`.
      rehearse: True to call `rehearse()` too. Both calls share one deadline. Default: False.
      overrides: The operator's figures of the integration's limits, for the pace of the first copy.
        Default: the plugin's figures.

    Raises:
      InvalidInput: The provider rejects the credentials or the config. The message gives its
        reason, without secrets.
      PollingError: The provider is unavailable, the check failed, or it took too long.
    """

    def work() -> CheckResult:
        return _check(integration, config, credentials, renew, bounded, rehearse=rehearse)

    with egress, _translated_errors(integration, credentials):
        bounded = BoundedCheck(
            work, limited=is_limited(), destinations=destinations(integration.config_model)
        )
        checked = bounded.run(integration.manifest.name)
    bound = checked.rehearsal.bound
    if bound is None:
        return checked
    limits = overridden(integration.limits(checked.config), overrides or {})
    bound = replace(bound, per_minute=per_minute(limits, bound.cost))
    return replace(checked, rehearsal=replace(checked.rehearsal, bound=bound))


def bound_sentence(bound: Bound) -> str:
    """Return the size of the first copy as a sentence, with the time that it takes at least."""
    text = f"About {number(bound.items)} {bound.noun}"
    if bound.per_minute is not None and bound.items:
        seconds = 60 * bound.items / bound.per_minute
        text += f" at {number(bound.per_minute)} a minute: {span(seconds)}"
    return f"{text}; new {bound.noun} arrive in the meantime." if bound.background else f"{text}."


def _check(
    integration: Integration,
    config: BaseModel,
    credentials: BaseModel,
    renew: Renew | None,
    bounded: BoundedCheck[CheckResult],
    *,
    rehearse: bool,
) -> CheckResult:
    with _opened(integration, config, credentials) as instance:
        try:
            identity = _identity(instance)
        except CredentialsInvalid as refused:
            bounded.renewing = True
            newer = _renewed(instance, renew or (lambda plugin: plugin.refresh()), refused)
            bounded.renewing = False
        else:
            rehearsal = _rehearsed(instance, bounded) if rehearse else Rehearsal()
            return CheckResult(identity, credentials, instance.config, rehearsal)
    with (
        _translated_errors(integration, newer),
        _opened(integration, config, newer) as instance,
    ):
        identity = _identity(instance)
        rehearsal = _rehearsed(instance, bounded) if rehearse else Rehearsal()
        return CheckResult(identity, newer, instance.config, rehearsal)


def _identity(instance: BaseIntegration[Any, Any]) -> AccountIdentity:
    instance.initialize()
    identity = instance.check()
    if not isinstance(identity, AccountIdentity) or not identity.id:
        raise PollingError("check-without-identity", domain=instance.manifest.domain)
    return identity


def _rehearsed(
    instance: BaseIntegration[Any, Any], bounded: BoundedCheck[CheckResult]
) -> Rehearsal:
    bounded.rehearsing = True
    redact = redactor(instance.credentials)
    try:
        return shown(instance.rehearse(), redact)
    except IntegrationError:
        raise
    except Exception as error:  # noqa: BLE001  plugin code
        raise PollingError(
            "rehearsal-failed",
            integration=instance.manifest.name,
            reason=error_text(error, redact),
        ) from None


def require_accepted(integration: Integration, rehearsal: Rehearsal) -> None:
    """Raise InvalidInput if the rehearsal refuses the account."""
    if rehearsal.refusal is not None:
        raise InvalidInput(
            "rehearsal-refused",
            integration=integration.manifest.name,
            reason=rehearsal.refusal or "no reason given",
        )


def _renewed(
    instance: BaseIntegration[Any, Any], renew: Renew, refused: CredentialsInvalid
) -> BaseModel:
    try:
        with renewing():
            newer = renew(instance)
            KNOWN.learn(secrets_of(newer))
            return newer
    except CredentialsInvalid as error:
        # The reason of the token endpoint comes with a remedy. Another one says only that nothing
        # can be renewed, and the first refusal says more.
        raise (error if error.remedy else refused) from None


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
    """Convert exceptions of a plugin into errors of one line without secrets."""
    redact, name = redactor(credentials), integration.manifest.name
    try:
        with KNOWN.scope(secrets_of(credentials)):
            yield
    except PollingError:
        raise
    except (CredentialsInvalid, ConfigurationError) as error:
        raise rejection(integration, error, redact) from None
    except IntegrationError as error:
        remedy = CHECK_HOST if destinations(integration.config_model) else TRY_LATER
        raise PollingError(
            "provider-unavailable",
            integration=name,
            reason=_one_line(error, redact),
            remedy=remedy,
        ) from None
    except Exception as error:  # noqa: BLE001  plugin code
        log.debug("check of %s failed: %s", name, error_text(error, redact))
        raise PollingError(
            "check-failed", integration=name, reason=error_text(error, redact)
        ) from None


def rejection(
    integration: Integration,
    error: CredentialsInvalid | ConfigurationError,
    redact: Callable[[str], str],
) -> InvalidInput:
    """Return the error for a person: the plugin's reason, and its remedy as the next step.

    If the plugin names a field, the reason belongs to this field.
    """
    reason = one_line(error.reason, redact) or type(error).__name__
    remedy = one_line(error.remedy, redact)
    part, field = refused_field(integration, error)
    problems = {field: f"{reason}. {remedy}" if remedy else reason} if field else {}
    reason = f"{field}: {reason}" if field else reason
    if part == "config":
        return InvalidFields(
            "config-rejected",
            part=part,
            problems=problems,
            reason=reason,
            remedy=remedy or CORRECT_CONFIG,
        )
    return InvalidFields(
        "credentials-rejected",
        part=part,
        problems=problems,
        integration=integration.manifest.name,
        reason=reason,
        remedy=remedy or CORRECT_CREDENTIALS,
    )


def one_line(text: str, redact: Callable[[str], str] = str) -> str:
    """Return a plugin's text as one line, without secrets and a full stop at its end."""
    return _one_line(Exception(text), redact) if text.strip() else ""


def _one_line(error: Exception, redact: Callable[[str], str]) -> str:
    text = error_text(error, redact)
    return text.removeprefix(f"{type(error).__name__}: ").rstrip(".")
