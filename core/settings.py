"""The operator's settings, read from the environment or from a `.env` file."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as InvalidSource

from core import setting_urls
from core.errors import SettingsError
from core.field_problems import first_problem
from core.logs import Form
from core.public_addresses import is_confidential
from core.scopes import Role


class LimitOverride(BaseModel, extra="forbid"):
    """An operator's values for one limit of a plugin; omitted values are the plugin's."""

    units: PositiveInt | None = Field(None, le=2**53)
    per: PositiveFloat | None = Field(None, le=1e9)
    tasks: PositiveInt | None = Field(None, le=2**31 - 1)
    backfill_share: float | None = Field(None, ge=0, le=1)


class Quotas(BaseModel, extra="forbid"):
    """The quotas of a user who has none of their own; omitted ones bound nothing."""

    accounts: NonNegativeInt | None = None
    bytes: NonNegativeInt | None = None
    runs: NonNegativeInt | None = None


ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](:\d{1,5})?")
"""The origin of a page: https://www.rfc-editor.org/rfc/rfc6454#section-6.2."""

CRON_NAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
CRON_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""The bounds of minutes, hours, days, months and weekdays."""

_CRON_ITEM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/0*[1-9]\d*)?")
_PUBLIC_URL = re.compile(rf"(?:{ORIGIN.pattern})(?:/[\w./~-]*)?", re.ASCII)

Seconds = Annotated[float, Field(gt=0, le=604_800)]
Days = Annotated[float, Field(gt=0, le=36_500)]
Count = Annotated[int, Field(gt=0, le=100_000)]
Rate = Annotated[float, Field(gt=0, le=1_000_000)]
"""Numbers up to a week, a century, and more than any installation has: others are mistakes."""

_PARSERS = {"database_url": setting_urls.database_url, "redis_url": setting_urls.redis_url}


class Settings(BaseSettings):
    """All settings of the engine; `docs/reference/settings.md` explains each.

    `DATABASE_URL` and `REDIS_URL` have no `POLLING_` prefix, because many tools use these names.
    """

    model_config = SettingsConfigDict(
        env_prefix="POLLING_",
        env_file=".env",
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    database_url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    """PostgreSQL 15 or newer, as libpq or SQLAlchemy write it. Default: an embedded server."""
    redis_url: SecretStr | None = Field(None, validation_alias="REDIS_URL")
    """Redis 6.2 or Valkey 7.2 or newer. Default: an embedded server under `home`."""
    home: Path = Field(default_factory=lambda: platformdirs.user_data_path("integration-polling"))
    """The folder of embedded servers, blobs, the spool and the key file."""
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Comma-separated Fernet keys: the first encrypts, all decrypt."""
    blob_url: str | None = None
    """The store of large content: a directory, `s3://`, `gs://` or `az://`.

    Default: `blobs` under `home`.
    """
    cron_schedule: str = "*/2 * * * *"
    """The schedule by which `periodiq` sends `poll_due`."""
    batch_size: Count = 100
    """Due accounts that one statement claims. It is repeated until no account is due."""
    lease_seconds: Seconds = 60.0
    """Seconds until the lease of a dispatched task expires, unless renewed."""
    max_attempts: Count = 3
    """Quick attempts of a task before it is deferred or parked."""
    give_up_after_days: Days = 7.0
    """Days since its first failure after which a task is parked that was deferred 10 times."""
    task_timeout_seconds: Seconds = 300.0
    """Seconds that a task may run, unless its `@task` sets another limit."""
    retention_days: Days = 30.0
    """Days until an ended run and its tasks are deleted. Parked and deferred tasks stay."""
    deleted_retention_days: Days | None = None
    """Days until an item that was deleted at the source is removed. Default: never."""
    audit_retention_days: Days = 365.0
    """Days until a row of the audit trail is deleted."""
    erase_after_minutes: float = Field(60.0, ge=0, le=525_600)
    """Minutes for which the content of an erased account is hidden before it is deleted."""
    access_log: bool = False
    """Log each request to `polling serve` with its client and its duration."""
    max_deleted_share: float = Field(0.5, ge=0, le=1)
    """The share of a listing that one sweep may delete. A larger deletion waits for a person."""
    min_guarded_items: int = Field(20, ge=0)
    """Fewer deletions than this wait for a person only if no item of the account would remain."""
    limits: dict[str, dict[str, LimitOverride]] = Field(default_factory=dict)
    """JSON: values by domain and limit name, such as `{"gmail": {"quota": {"units": 15000}}}`."""
    ceilings: dict[str, dict[str, float]] = Field(default_factory=dict)
    """JSON: ceilings in configs, by domain and field, such as `{"ftp": {"max_connections": 8}}`."""
    quotas: Quotas = Quotas()
    """JSON: quotas of each user, such as `{"accounts": 20, "bytes": 10000000000, "runs": 2000}`."""
    processes: Count = 2
    """Worker processes that `polling up` starts."""
    threads: Count = 8
    """Threads in each of these worker processes."""
    log_level: str = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    log_format: Form = "auto"
    """`text`, `json`, or `auto`: JSON unless standard error is a terminal."""
    public_url: str | None = None
    """The address at which browsers reach `polling serve`."""
    oidc_issuer: str | None = None
    """The issuer of the OpenID Connect provider with which people sign in to the dashboard."""
    oidc_client_id: str | None = Field(None, validate_default=True)
    """The client ID of this server at the provider."""
    oidc_client_secret: SecretStr | None = None
    """The client secret. Default: a public client, which PKCE protects."""
    oidc_scopes: str = "openid email profile"
    """The scopes that the sign-in asks for, separated by spaces."""
    oidc_roles_claim: str = Field("groups", min_length=1)
    """The claim with the groups or roles of a person. Dots lead into objects."""
    oidc_roles: dict[str, Role] = Field(default_factory=dict)
    """JSON: roles by value of this claim or by verified e-mail address, such as
    `{"ops": "operator"}`.
    """
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated hosts that `polling serve` answers to, besides `public_url` and loopback."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ("127.0.0.0/8", "::1")
    """Comma-separated addresses and networks of proxies whose `X-Forwarded-For` is believed."""
    max_connections: Count = 4_000
    """The maximum number of connections to `polling serve`."""
    max_connections_per_address: Count = 256
    """The maximum number of connections, and of requests in progress, from one address."""
    max_requests_per_second_per_address: Rate = 100.0
    """Requests without a valid token from one address, on average."""
    max_requests_per_second_per_user: Rate = 100.0
    """Requests of one user, on average. Operators have no bound."""
    allow_private_hosts: bool = False
    """Let accounts made with a user's token connect to loopback, private and link-local hosts."""
    redirect_urls: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated addresses to which OAuth may redirect a browser, besides `public_url`."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated origins whose scripts may call the API from a browser. Default: none."""
    redis_namespace: str = Field("polling", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """The prefix of every key in Redis."""
    plugins: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated modules to load besides the installed plugins, for plugin development."""
    plugins_allowed: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated distributions whose plugins may be loaded. Default: all."""

    @field_validator(
        "secret_keys",
        "plugins",
        "plugins_allowed",
        "redirect_urls",
        "allowed_hosts",
        "trusted_proxies",
        "cors_origins",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("database_url", "redis_url")
    @classmethod
    def _server(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        parse = _PARSERS[str(info.field_name)]
        return None if value is None else SecretStr(parse(value.get_secret_value()))

    @field_validator("blob_url")
    @classmethod
    def _store(cls, value: str | None) -> str | None:
        return None if value is None else setting_urls.blob_url(value)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if ORIGIN.fullmatch(origin) is None:
                raise ValueError("an origin is like https://app.example.org, without a path")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str | None) -> str | None:
        if value and ("?" in value or not is_confidential(value)):
            raise ValueError("an issuer is like https://login.example.org, without a query")
        return value or None

    @field_validator("oidc_scopes")
    @classmethod
    def _openid(cls, value: str) -> str:
        if "openid" not in value.split():
            raise ValueError("the scope openid is missing")
        return " ".join(value.split())

    @field_validator("oidc_client_id")
    @classmethod
    def _client(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("oidc_issuer") is not None and not value:
            raise ValueError("it is missing, and POLLING_OIDC_ISSUER is set")
        return value or None

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value and _PUBLIC_URL.fullmatch(value) is None:
            raise ValueError("an address is like https://polling.example.org")
        return value or None

    @field_validator("home", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("it is empty; remove it to use the default folder")
        return value

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("use DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @field_validator("cron_schedule")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        fields = value.split()
        if value.strip() not in CRON_NAMES and not (
            len(fields) == 5 and all(map(_is_cron_field, fields, CRON_FIELDS))
        ):
            raise ValueError("a cron schedule has five fields, such as */2 * * * *")
        return value

    @property
    def blob_location(self) -> str:
        """The blob store's URL; a bare path is a directory."""
        return self.blob_url or str(self.home / "blobs")


def _is_cron_field(field: str, bounds: tuple[int, int]) -> bool:
    """Return True for a field such as `*/2`, `1-5,9` or `mon`."""
    items = [_CRON_ITEM.fullmatch(item) for item in field.split(",")]
    words = [word for item in items if item is not None for word in item.groups() if word]
    numbers = [int(word) for word in words if word.isdecimal()]
    return (
        all(items)
        and all(bounds[0] <= number <= bounds[1] for number in numbers)
        and (len(numbers) == len(words) or bounds in CRON_FIELDS[3:])
    )


RENAMED = {
    "POLLING_DELETE_GUARD": "POLLING_MAX_DELETED_SHARE",
    "POLLING_NAMESPACE": "POLLING_REDIS_NAMESPACE",
    "POLLING_TASK_TIME_LIMIT": "POLLING_TASK_TIMEOUT_SECONDS",
}
"""Old names of settings. They are errors, so that no setting is silently ignored."""


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, which are read once.

    Raises:
      SettingsError: A setting has an old name or an invalid value. The error does not repeat the
        value.
    """
    _refuse_renamed()
    try:
        return Settings()
    except ValidationError as error:
        problem = first_problem(error)
        name = problem.location[0] if problem.location else "a setting"
        name = name if name.isupper() else f"POLLING_{name.upper()}"
        raise SettingsError("setting-invalid", setting=name, problem=problem.message) from None
    except InvalidSource as error:
        # Its text names the field, and may repeat the value in a later version.
        field = re.search(r'field "(\w+)"', str(error))
        name = f"POLLING_{field[1].upper()}" if field else "a setting"
        raise SettingsError("setting-invalid", setting=name, problem="it is not JSON") from None


def _refuse_renamed() -> None:
    names = {*os.environ, *dotenv_values(".env")}
    for old, new in RENAMED.items():
        if old in names:
            raise SettingsError("setting-renamed", setting=old, replacement=new)
