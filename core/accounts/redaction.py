"""Redact secrets in text for people and logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from redis import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from core.db.errors import database_error, describe
from core.environment import Environment
from core.errors import SettingsError
from core.field_problems import field_problems
from core.integration.operator import environment_value, operator_settings
from core.known_secrets import KNOWN, OPERATOR, Redactor, secrets_of
from core.plugins import Registry
from core.settings import get_settings

PASSWORDS = ("password", "sslpassword", "ssl_password", "sentinel_password")
"""Secret parameters of libpq and redis-py."""

MAX_TEXT_CHARS = 2_000
"""The maximum length of the text of an error; the rest is cut."""


_ABOUT_SERVER = (ReadOnlyError, OutOfMemoryError)
"""Error replies that repeat no argument. redis-py removes the code from their text."""
_ABOUT_SERVER_CODES = {"CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM"}

MAX_DESCRIPTION_CHARS = 200
"""The maximum length of the description of a Redis error."""


def redactor(credentials: BaseModel) -> Redactor:
    """Return a function that replaces each secret of these credentials by `***`.

    It finds plain secrets, and secrets that are encoded as in URLs, headers and JSON.
    """
    return Redactor(secrets_of(credentials))


def remember_operator(environment: Environment, registry: Registry) -> None:
    """Redact the operator's secrets in every log line and report of this process.

    These are the secret keys, the passwords of servers, the client secret of the sign-in, and the
    secret settings of integrations.
    """
    passwords = [*_passwords(environment.database_url), *_passwords(environment.redis_url)]
    if (client_secret := get_settings().oidc_client_secret) is not None:
        passwords.append(client_secret.get_secret_value())
    KNOWN.remember(OPERATOR, [*environment.secret_keys, *passwords, *_settings_secrets(registry)])


def _passwords(url: str) -> Iterator[str]:
    """Yield the passwords of a URL and its query, or of a libpq string (`host=… password=…`)."""
    with suppress(ValueError):
        parts = urlsplit(url)
        yield from (unquote(parts.password),) if parts.password else ()
        yield from (value for name, value in parse_qsl(parts.query) if name in PASSWORDS)
    with suppress(psycopg.ProgrammingError):
        yield from (
            str(value)
            for name, value in conninfo_to_dict(url).items()
            if name in PASSWORDS and value
        )


def _settings_secrets(registry: Registry) -> Iterator[str]:
    for integration in registry.integrations.values():
        manifest = integration.manifest
        # An integration may have an OAuth client without a model of settings.
        yield (
            environment_value(manifest.oauth.client_secret_setting)
            if manifest.oauth is not None
            else None
        ) or ""
        with suppress(SettingsError):  # the code that uses the setting reports it
            for setting in operator_settings(manifest.settings):
                if isinstance(setting.value, SecretStr | SecretBytes):
                    secret = setting.value.get_secret_value()
                    yield secret if isinstance(secret, str) else secret.decode(errors="replace")


def describe_redis(error: RedisError) -> str:
    """Describe a Redis error in one line.

    An error reply may repeat the command with its arguments; in a pipeline it always does.
    Therefore the description includes only replies about the server itself.
    """
    if isinstance(error, ResponseError):
        text = str(error).rpartition("caused error: ")[2]
        code = (re.match(r"[A-Z]{3,}\b", text) or [""])[0]
        if isinstance(error, _ABOUT_SERVER) or code in _ABOUT_SERVER_CODES:
            return text.splitlines()[0][:MAX_DESCRIPTION_CHARS]
        return f"{type(error).__name__} {code}".strip()
    return (str(error).splitlines() or [""])[0][:MAX_DESCRIPTION_CHARS] or type(error).__name__


def message_of(error: BaseException) -> str:
    """Return the text of an exception, without values that a library added to it.

    Such values come from a row, a Redis command, or the input of a pydantic model.
    """
    if isinstance(error, ValidationError):
        return _first_problem(error)
    if isinstance(error, RedisError):
        return describe_redis(error)
    return str(error) if database_error(error) is None else describe(error)


def _first_problem(error: ValidationError) -> str:
    first, *others = field_problems(error)
    message = first.kind if first.may_quote else first.message
    # Only the name of the field: deeper parts of the location may be keys of the input.
    place = first.location[0] if first.location else ""
    more = f" (and {len(others)} more)" if others else ""
    return (
        f"{error.title}: {place}: {message}{more}" if place else f"{error.title}: {message}{more}"
    )


def error_text(error: BaseException, redact: Callable[[str], str]) -> str:
    """Describe an exception in one line of at most `MAX_TEXT_CHARS`.

    The line has the class and the message, without secrets and control characters.
    """
    message = redact(message_of(error))
    clean = "".join(char if char.isprintable() else " " for char in message[: MAX_TEXT_CHARS * 2])
    name = type(error).__name__
    return f"{name}: {' '.join(clean.split())}"[:MAX_TEXT_CHARS] if clean.strip() else name
