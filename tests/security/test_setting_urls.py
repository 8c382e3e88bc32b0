"""A mistyped URL of a server stops each program with the setting's name, and shows no password."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings

from core.errors import SettingsError
from core.integration.operator import operator_settings
from core.settings import get_settings

PASSWORD = "correct-horse"
COMMAND = [sys.executable, "-c", "from core.cli import main; main()"]

GOOD_DATABASES = {
    "postgresql://me:pw@host/db": "postgresql://me:pw@host/db",
    "postgres://me:pw@host:5433/db": "postgresql://me:pw@host:5433/db",
    "postgresql+psycopg://me:pw@host/db": "postgresql://me:pw@host/db",
    "postgresql+asyncpg://me:pw@host/db": "postgresql://me:pw@host/db",
    " postgresql://me:pw@host/db\n": "postgresql://me:pw@host/db",
    "postgresql://me:p%40s%25s%20w@host/db": "postgresql://me:p%40s%25s%20w@host/db",
    "postgresql://me@/db?host=%2Ftmp%2Fx&port=5432": "postgresql://me@/db?host=%2Ftmp%2Fx&port=5432",
    "postgresql://one:5432,[::1]:5433/db": "postgresql://one:5432,[::1]:5433/db",
    "postgresql://host/db?user=me@cloud&password=p%26w": (
        "postgresql://host/db?user=me@cloud&password=p%26w"
    ),
    "postgresql://me:p?w#x@host/db": "postgresql://me:p?w#x@host/db",
    "postgresql://": "postgresql://",
    "host=host password='p w%' dbname=db": "host=host password='p w%' dbname=db",
    "service=polling": "service=polling",
}
BAD_DATABASES = [
    f"mysql://me:{PASSWORD}@host/db",
    f"sqlite+aiosqlite://me:{PASSWORD}@host/db",
    f"me:{PASSWORD}@host/db",
    f"{PASSWORD}://host/db",
    f"postgresql:/me:{PASSWORD}@host/db",
    f"postgresql://me:{PASSWORD} x@host/db",
    f"postgresql://me:x\n{PASSWORD}@host/db",
    f"postgresql://me:{PASSWORD}%@host/db",
    f"postgresql://me:%zz{PASSWORD}@host/db",
    f"postgresql://me:%00{PASSWORD}@host/db",
    f"postgresql://me:x@{PASSWORD}@host/db",
    f"postgresql://me:x/{PASSWORD}@host/db",
    f"postgresql://me:12/{PASSWORD}@host/db",
    f"postgresql://me:x@host:{PASSWORD}/db",
    f"postgresql://me:{PASSWORD}@host:99999/db",
    f"postgresql://me:{PASSWORD}@host/db?no_such_option={PASSWORD}",
    f"postgresql+psycopg+more://me:{PASSWORD}@host/db",
    f"host=host password={PASSWORD} and more",
    f"host=host passwort={PASSWORD}",
    "",
    "   ",
]
GOOD_REDIS = [
    "redis://host",
    "rediss://:pw@host:6380/1",
    "redis://me:p%40w@[::1]:6379/0?health_check_interval=30",
    "unix:///tmp/valkey.sock?db=1",
    "unix://:pw@/tmp/valkey.sock",
    "redis+sentinel://one:26379,two:26379,three/engine",
    "redis+sentinel://me:p%40w@[::1]:26379,one/engine/3?sentinel_password=x%2Fy",
    "rediss+sentinel://:pw@one/engine?ssl_cert_reqs=none&sentinel_user=me",
]
BAD_REDIS = [
    f"valkey+x://:{PASSWORD}@host",
    f"http://:{PASSWORD}@host",
    f":{PASSWORD}@host:6379",
    f"redis://:{PASSWORD} x@host",
    f"redis://:{PASSWORD}%@host",
    f"redis://:x/{PASSWORD}@host",
    f"redis://me:12/{PASSWORD}@host",
    f"redis://:x?{PASSWORD}@host",
    f"redis://:x@host:{PASSWORD}",
    f"redis://:x@host?db={PASSWORD}",
    f"redis://[{PASSWORD}@host",
    f"redis+sentinel://:{PASSWORD}@one:26379,two:26379",
    f"redis+sentinel://:{PASSWORD}@one:26379/",
    f"redis+sentinel://:{PASSWORD}@/engine",
    f"redis+sentinel://:{PASSWORD}@one,,two/engine",
    f"redis+sentinel://:{PASSWORD}@one:port/engine",
    f"redis+sentinel://:{PASSWORD}@one:99999/engine",
    f"redis+sentinel://:x@one:26379,two:{PASSWORD}/engine",
    f"redis+sentinel://:x@{PASSWORD}@one/engine",
    f"redis+sentinel://:x/{PASSWORD}@one/engine",
    f"redis+sentinel://:{PASSWORD}@one/engine/zero",
    f"redis+sentinel://:{PASSWORD}@one/engine/0/{PASSWORD}",
    f"redis+sentinel://:x@one/engine?socket_timeout={PASSWORD}",
    f"redis+sentinel://[{PASSWORD}@one/engine",
    f"sentinel://:{PASSWORD}@one/engine",
    "",
    " ",
]
BAD_BLOBS = [
    f"s3://key:{PASSWORD}@bucket",
    f"ftp://me:{PASSWORD}@host/x",
    f"s3://{PASSWORD} bucket",
    f"s3://{PASSWORD}%bucket",
]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "POLLING_BLOB_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("url", GOOD_DATABASES)
def test_urls_of_libpq_and_sqlalchemy_are_accepted(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    given = get_settings().database_url
    assert given is not None
    assert given.get_secret_value() == GOOD_DATABASES[url]


@pytest.mark.parametrize("url", GOOD_REDIS)
def test_urls_of_redis_are_accepted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    given = get_settings().redis_url
    assert given is not None
    assert given.get_secret_value() == url


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        *(("DATABASE_URL", url) for url in BAD_DATABASES),
        *(("REDIS_URL", url) for url in BAD_REDIS),
        *(("POLLING_BLOB_URL", url) for url in BAD_BLOBS),
        ("POLLING_LIMITS", f"{PASSWORD} is not JSON"),
    ],
)
def test_a_bad_url_is_refused_by_the_name_of_its_setting(
    monkeypatch: pytest.MonkeyPatch, setting: str, url: str
) -> None:
    monkeypatch.setenv(setting, url)
    with pytest.raises(SettingsError) as caught:
        get_settings()
    shown = f"{caught.value} {caught.value!r} {caught.value.fields} {caught.value.__cause__}"
    assert str(caught.value).startswith(f"{setting} is invalid: ")
    assert "horse" not in shown


@pytest.mark.parametrize("location", ["/data/a blob 100%", "file:///data/x", "s3://b/p", "az://c"])
def test_locations_of_blobs_are_accepted(monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    monkeypatch.setenv("POLLING_BLOB_URL", location)
    assert get_settings().blob_location == location


class Crm(BaseSettings):
    """Settings of a plugin whose validator repeats the value."""

    crm_key: SecretStr

    @field_validator("crm_key")
    @classmethod
    def _long(cls, key: SecretStr) -> SecretStr:
        raise ValueError(f"{key.get_secret_value()!r} is too short")


def test_a_bad_setting_of_a_plugin_is_refused_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CRM_KEY", PASSWORD)
    with pytest.raises(SettingsError) as caught:
        operator_settings(Crm)
    assert str(caught.value).startswith("CRM_KEY is invalid: ")
    assert "is too short" in str(caught.value)
    assert "horse" not in f"{caught.value} {caught.value!r} {caught.value.fields}"


PROGRAMS = {
    **{
        " ".join(words): [*COMMAND, *words]
        for words in (
            *(["doctor"], ["migrate"], ["env"], ["psql", "-c", "SELECT 1"], ["serve"], ["up"]),
            *(["accounts"], ["keys", "rotate"], ["integrations"], ["dry-run", "hello-world"]),
            *(["connect", "hello-world"], ["tokens", "list"], ["drain"], ["sync", "x"]),
        )
    },
    "dramatiq": [sys.executable, "-m", "dramatiq", "core.actors", "-p", "1", "-t", "1"],
    "periodiq": [str(Path(sys.executable).with_name("periodiq")), "core.actors"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_names_the_setting_and_not_the_password(program: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if "POLLING" not in key}
    environment |= {
        "DATABASE_URL": f"mysql://me:{PASSWORD}@host/db",
        "REDIS_URL": "redis://host",
        "POLLING_HOME": str(tmp_path),
        "POLLING_LOG_LEVEL": "DEBUG",
    }
    done = subprocess.run(
        PROGRAMS[program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 2), said
    assert "DATABASE_URL is invalid: use postgresql://" in said
    assert "horse" not in said
    assert not (tmp_path / "embedded").exists()
