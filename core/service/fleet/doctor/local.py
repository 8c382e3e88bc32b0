"""Checks of this machine: settings, keys, plugins and the blob store."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import obstore

from core.accounts.vault import Vault
from core.content.blobs import cause_of, open_store
from core.environment import Environment
from core.errors import Advice, PollingError
from core.integration.ceilings import numbers
from core.integration.operator import OperatorSetting, environment_value, operator_settings
from core.plugins import Registry
from core.service.fleet.doctor.check import Check, failed
from core.settings import Settings


def examine(
    settings: Settings, environment: Environment | PollingError, registry: Registry
) -> Iterator[Check]:
    """Run the checks that need neither PostgreSQL nor Redis."""
    yield _environment(settings, environment)
    yield from _plugins(registry)
    yield from _settings(registry)
    yield from _limits(settings, registry)
    yield from _ceilings(settings, registry)
    yield _blobs(settings)


def _environment(settings: Settings, environment: Environment | PollingError) -> Check:
    if isinstance(environment, PollingError):
        return failed("settings", environment)
    try:
        Vault(environment.secret_keys)
    except PollingError as error:
        return failed("settings", error)
    kind = (
        f"embedded servers in {settings.home}"
        if environment.embedded
        else "servers from DATABASE_URL and REDIS_URL"
    )
    keys = len(environment.secret_keys)
    return Check("settings", "ok", f"{kind}; {keys} secret key{'s' if keys > 1 else ''}")


def _plugins(registry: Registry) -> Iterator[Check]:
    for plugin in registry.quarantined:
        about = f" ({', '.join(plugin.domains)})" if plugin.domains else ""
        yield Check(
            f"plugin {plugin.name}",
            "fail" if plugin.is_allowed else "warn",
            f"quarantined{about}: {plugin.error}",
            Advice("repair-plugin" if plugin.is_allowed else "allow-plugin"),
        )
    for name in registry.absent:
        message = f"POLLING_PLUGINS_ALLOWED names {name}, which has no plugin here"
        yield Check("integrations", "warn", message, Advice("correct-allowed"))
    domains = ", ".join(sorted(registry.integrations))
    if domains:
        yield Check("integrations", "ok", domains)
    else:
        yield Check(
            "integrations",
            "warn",
            "no plugin is installed",
            Advice("install-plugin"),
        )


def _settings(registry: Registry) -> Iterator[Check]:
    """Check the settings that plugins declare for the operator: endpoints and OAuth clients."""
    for domain, integration in sorted(registry.integrations.items()):
        manifest = integration.manifest
        name = f"settings of {domain}"
        try:
            settings = operator_settings(manifest.settings)
        except PollingError as error:
            yield failed(name, error)
            continue
        oauth = manifest.oauth
        client_settings = [oauth.client_id_setting, oauth.client_secret_setting] if oauth else []
        missing = [name for name in client_settings if not environment_value(name)]
        shown = [
            _shown(setting) for setting in settings if setting.given or not _is_client(setting)
        ]
        if missing:
            message = f"not set: {', '.join(missing)}"
            message += f". In use: {', '.join(shown)}" if shown else ""
            yield Check(name, "warn", message, Advice("set-client-settings"))
        elif shown:
            yield Check(name, "ok", ", ".join(shown))


def _limits(settings: Settings, registry: Registry) -> Iterator[Check]:
    """Name the integrations in `POLLING_LIMITS` that are not installed."""
    for domain in sorted(settings.limits):
        if domain not in registry.integrations:
            message = f"POLLING_LIMITS names {domain}, which is not installed"
            yield Check("limits", "warn", message, Advice("correct-limits"))


def _ceilings(settings: Settings, registry: Registry) -> Iterator[Check]:
    """Show the ceilings of configs, and name those that bound nothing."""
    for domain, ceilings in sorted(settings.ceilings.items()):
        integration = registry.integrations.get(domain)
        if integration is None:
            message = f"POLLING_CEILINGS names {domain}, which is not installed"
            yield Check("ceilings", "warn", message, Advice("correct-ceilings"))
            continue
        if unknown := sorted(ceilings.keys() - numbers(integration.config_model)):
            message = f"POLLING_CEILINGS: {domain} has no number {', '.join(unknown)} in its config"
            yield Check("ceilings", "warn", message, Advice("correct-ceilings"))
        else:
            shown = ", ".join(f"{name} ≤ {most:g}" for name, most in sorted(ceilings.items()))
            yield Check("ceilings", "ok", f"{domain}: {shown}")


def _is_client(setting: OperatorSetting) -> bool:
    """Return True if the setting is secret or has no default.

    The doctor shows other settings with their default if the operator has not set them.
    """
    return setting.is_secret or not setting.value


def _shown(setting: OperatorSetting) -> str:
    """Return the name and the value of a setting, without a value that is or may hold a secret."""
    value = str(setting.value)
    if setting.is_secret or "@" in value:
        return f"{setting.name} is set"
    return f"{setting.name}={value}"


def _blobs(settings: Settings) -> Check:
    name = "blob store"
    location = settings.blob_location
    shown = location.partition("?")[0]
    try:
        store = open_store(location)
        path = f"doctor/{uuid4().hex}"
        obstore.put(store, path, b"")
        obstore.delete(store, path)
    except PollingError as error:
        return failed(name, error)
    except Exception as error:  # noqa: BLE001  a store may raise anything
        return Check(
            name,
            "fail",
            f"could not write to {shown}: {cause_of(error)}",
            Advice("correct-blob-url"),
        )
    return Check(name, "ok", shown)
