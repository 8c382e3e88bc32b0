"""Tests of the operator's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import SettingsError
from core.scopes import Role
from core.settings import RENAMED, LimitOverride, Settings, get_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unset all variables of the engine, and leave the folder of any `.env`."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"POLLING_{name.upper()}", raising=False)
    for name in RENAMED:
        monkeypatch.delenv(name, raising=False)
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_settings_have_their_documented_defaults() -> None:
    settings = get_settings()
    assert settings.database_url is settings.redis_url is settings.blob_url is None
    assert (settings.cron_schedule, settings.batch_size, settings.lease_seconds) == (
        "*/2 * * * *",
        100,
        60.0,
    )
    assert (settings.max_attempts, settings.task_timeout_seconds, settings.max_deleted_share) == (
        3,
        300.0,
        0.5,
    )
    assert settings.blob_location == str(settings.home / "blobs")


def test_every_setting_except_the_two_urls_has_the_prefix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {
        "DATABASE_URL": "postgresql://d",
        "REDIS_URL": "redis://r",
        "POLLING_HOME": str(tmp_path),
        "POLLING_BATCH_SIZE": "7",
        "POLLING_SECRET_KEYS": " a, b ,",
        "POLLING_PLUGINS": "one,two",
        "POLLING_LOG_LEVEL": "debug",
        "POLLING_LIMITS": '{"gmail": {"quota": {"units": 5, "per": 2}}}',
        "POLLING_BLOB_URL": "s3://bucket",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = get_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://d"
    assert [key.get_secret_value() for key in settings.secret_keys] == ["a", "b"]
    assert (settings.plugins, settings.log_level, settings.batch_size) == (
        ("one", "two"),
        "DEBUG",
        7,
    )
    assert settings.limits == {"gmail": {"quota": LimitOverride(units=5, per=2.0)}}
    assert (settings.home, settings.blob_location) == (tmp_path, "s3://bucket")


def test_the_environment_has_priority_over_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("POLLING_BATCH_SIZE=7\nPOLLING_THREADS=3\n")
    monkeypatch.setenv("POLLING_THREADS", "5")
    assert (get_settings().batch_size, get_settings().threads) == (7, 5)


def test_settings_are_read_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = get_settings()
    monkeypatch.setenv("POLLING_THREADS", "5")
    assert get_settings() is first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POLLING_BATCH_SIZE", "0"),
        ("POLLING_LEASE_SECONDS", "-1"),
        ("POLLING_MAX_DELETED_SHARE", "1.5"),
        ("POLLING_LOG_LEVEL", "LOUD"),
        ("POLLING_CRON_SCHEDULE", "hourly"),
        ("POLLING_CRON_SCHEDULE", "99 * * * *"),
        ("POLLING_CRON_SCHEDULE", "a b c d e"),
        ("POLLING_CRON_SCHEDULE", "*/0 * * * *"),
        ("POLLING_CRON_SCHEDULE", "@never"),
        ("POLLING_LEASE_SECONDS", "inf"),
        ("POLLING_RETENTION_DAYS", "1e12"),
        ("POLLING_BATCH_SIZE", "99999999999999999999"),
        ("POLLING_PROCESSES", "1000000"),
        ("POLLING_PUBLIC_URL", "polling.invalid"),
        ("POLLING_PUBLIC_URL", "not an address"),
        ("POLLING_PUBLIC_URL", "ftp://example.org"),
        ("POLLING_PUBLIC_URL", "http://"),
        ("POLLING_REDIS_NAMESPACE", "a b"),
        ("POLLING_LIMITS", '{"gmail": {"quota": {"speed": 1}}}'),
        ("POLLING_THREADS", "many"),
        ("POLLING_OIDC_ROLES", '{"ops": "emperor"}'),
        ("POLLING_OIDC_ROLES", '["ops"]'),
        ("POLLING_OIDC_SCOPES", "profile email"),
        ("POLLING_OIDC_ISSUER", "http://login.example.org"),
        ("POLLING_OIDC_ISSUER", "https://login.example.org?tenant=7"),
        ("POLLING_OIDC_ISSUER", "https://ann:secret@login.example.org"),
        ("POLLING_OIDC_ISSUER", "login.example.net"),
    ],
)
def test_the_error_names_an_invalid_setting_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        get_settings()
    assert name in str(caught.value)
    assert caught.value.next_step("cli")
    assert len(value) == 1 or value not in str(caught.value).removeprefix(name)


def test_an_identity_provider_needs_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_OIDC_ISSUER", "https://login.example.org")
    with pytest.raises(SettingsError, match="POLLING_OIDC_CLIENT_ID"):
        get_settings()
    monkeypatch.setenv("POLLING_OIDC_CLIENT_ID", "polling")
    monkeypatch.setenv("POLLING_OIDC_CLIENT_SECRET", "the-client-secret")
    monkeypatch.setenv("POLLING_OIDC_ROLES", '{"ops": "operator", "ann@example.org": "viewer"}')
    settings = get_settings()
    assert settings.oidc_roles == {"ops": Role.OPERATOR, "ann@example.org": Role.VIEWER}
    assert (settings.oidc_scopes, settings.oidc_roles_claim) == ("openid email profile", "groups")
    assert "the-client-secret" not in f"{settings!r} {settings.model_dump()}"


def test_an_empty_provider_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose sets variables that are not given to the empty text."""
    for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.setenv(f"POLLING_OIDC_{name}", "")
    assert get_settings().oidc_issuer is None


OLD_NAMES = [
    ("POLLING_DELETE_GUARD", "POLLING_MAX_DELETED_SHARE"),
    ("POLLING_NAMESPACE", "POLLING_REDIS_NAMESPACE"),
    ("POLLING_TASK_TIME_LIMIT", "POLLING_TASK_TIMEOUT_SECONDS"),
]


@pytest.mark.parametrize(("old", "new"), OLD_NAMES)
@pytest.mark.parametrize("source", ["environment", "file"])
@pytest.mark.parametrize("both", [False, True])
def test_an_old_name_is_refused_with_the_new_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, old: str, new: str, both: bool
) -> None:
    """The old name is refused even if the new one is set, as it is unclear which value holds."""
    given = {old: "1"} | ({new: "1"} if both else {})
    if source == "file":
        lines = "".join(f"{name}={value}\n" for name, value in given.items())
        (tmp_path / ".env").write_text(lines)
    else:
        for name, value in given.items():
            monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        get_settings()
    assert caught.value.code == "setting-renamed"
    assert old in str(caught.value)
    assert new in f"{caught.value} {caught.value.next_step('cli')}"


def test_every_old_name_leads_to_a_setting() -> None:
    assert list(RENAMED.items()) == OLD_NAMES
    assert set(RENAMED.values()) <= {f"POLLING_{name.upper()}" for name in Settings.model_fields}


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter-2@host/db")
    monkeypatch.setenv("POLLING_SECRET_KEYS", "hunter-2")
    assert "hunter-2" not in f"{get_settings()} {get_settings()!r}"


def test_an_empty_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the current folder."""
    monkeypatch.setenv("POLLING_HOME", "")
    with pytest.raises(SettingsError, match="POLLING_HOME is invalid: it is empty"):
        get_settings()


@pytest.mark.parametrize(
    "value", ["@daily", "0 3 1,15 * 1-5", "0-30/5 8-18 * * mon", "00 03 * * *"]
)
def test_a_cron_schedule_may_have_ranges_steps_and_names(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("POLLING_CRON_SCHEDULE", value)
    assert get_settings().cron_schedule == value


def test_an_empty_public_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_PUBLIC_URL", "")
    assert get_settings().public_url is None
    monkeypatch.setenv("POLLING_PUBLIC_URL", "https://h.example:8443/polling/")
    get_settings.cache_clear()
    assert get_settings().public_url == "https://h.example:8443/polling/"
