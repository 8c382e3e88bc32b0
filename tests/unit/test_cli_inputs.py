"""Config and credentials from options: the schema parses them, and errors repeat no secret."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, SecretStr

from core import BaseIntegration, Manifest, ResyncOnChange
from core.cli import inputs
from core.cli.users import parse_quota
from core.errors import InvalidInput
from core.service.accounts.validation import config_of, credentials_of, needs_resync
from core.states import Quota

SECRET = "correct-horse-battery"


def _refuse(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value().startswith("bad"):
        raise ValueError(f"{secret.get_secret_value()} is not a token")
    return secret


class Server(BaseModel):
    host: str = "localhost"
    ports: list[int] = []


class Config(BaseModel, extra="forbid"):
    name: str = "x"
    count: int = 1
    on: bool = False
    query: Annotated[str, ResyncOnChange()] = ""
    labels: list[str] = []
    server: Server = Server()
    rates: dict[str, float] = {}
    note: str | None = None


class Credentials(BaseModel, extra="forbid"):
    user: str
    token: Annotated[SecretStr, AfterValidator(_refuse)]


class Made(BaseIntegration[Config, Credentials]):
    manifest = Manifest("made", "Made")


def parsed(
    *words: str, document: str | None = None, base: dict[str, Any] | None = None
) -> dict[str, Any]:
    values = inputs.config(Made, words, document, base or {})
    return config_of(Made, values).model_dump()


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("name=7", "name", "7"),
        ("name=a=b", "name", "a=b"),
        ("count=7", "count", 7),
        ("on=true", "on", True),
        ("on=yes", "on", True),
        ("labels=a, b", "labels", ["a", "b"]),
        ('labels=["a,b"]', "labels", ["a,b"]),
        ('server={"host": "h"}', "server", {"host": "h", "ports": []}),
        ("server.host=h", "server", {"host": "h", "ports": []}),
        ("server.ports=[1, 2]", "server", {"host": "localhost", "ports": [1, 2]}),
        ("rates.slow=0.5", "rates", {"slow": 0.5}),
        ("note=null", "note", None),
        ("note=nul", "note", "nul"),
    ],
)
def test_options_become_values_of_the_schemas_types(word: str, field: str, value: object) -> None:
    assert parsed(word)[field] == value


def test_several_options_set_parts_of_one_field() -> None:
    found = parsed("server.host=h", "server.ports=[3]", "rates.a=1", "rates.b=2")
    assert found["server"] == {"host": "h", "ports": [3]}
    assert found["rates"] == {"a": 1.0, "b": 2.0}


def test_stored_values_stay_unless_an_option_sets_them() -> None:
    base = {"name": "old", "server": {"host": "h", "ports": [1]}}
    found = parsed("server.host=new", base=base)
    assert (found["name"], found["server"]) == ("old", {"host": "new", "ports": [1]})
    assert base["server"] == {"host": "h", "ports": [1]}


@pytest.mark.parametrize("word", ["count", "=3", "nope=1", "count=x", f"token={SECRET}"])
def test_an_invalid_option_is_reported_in_one_line_with_a_hint(word: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parsed(word)
    assert "\n" not in caught.value.message
    assert caught.value.next_step("cli")
    assert SECRET not in str(caught.value) + caught.value.next_step("cli")


def test_secrets_in_a_config_document_are_refused() -> None:
    with pytest.raises(InvalidInput, match="belongs to the credentials") as caught:
        parsed(document=f'{{"token": "{SECRET}"}}')
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("words", [SECRET, f'{{"token": "{SECRET}"}}', ""])
def test_credentials_on_the_command_line_are_refused(words: str) -> None:
    with pytest.raises(InvalidInput, match="command line") as caught:
        inputs.credentials(Made, words)
    assert SECRET not in str(caught.value)


def test_credentials_come_from_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'{{"user": "u", "token": "{SECRET}"}}'
    (tmp_path / "login.json").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert inputs.credentials(Made, f"@{tmp_path}/login.json") == inputs.credentials(Made, "-")


@pytest.mark.parametrize("text", [SECRET, f'["{SECRET}"]'])
def test_a_credentials_file_without_an_object_is_not_repeated(tmp_path: Path, text: str) -> None:
    (tmp_path / "login.json").write_text(text)
    with pytest.raises(InvalidInput) as caught:
        inputs.credentials(Made, f"@{tmp_path}/login.json")
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InvalidInput, match="no-such-file"):
        inputs.credentials(Made, "@no-such-file")


@pytest.mark.parametrize(
    "values",
    [
        {"user": "u"},
        {"user": "u", "token": f"bad-{SECRET}"},
        {"user": "u", "token": [SECRET]},
        {"user": {"deep": SECRET}, "token": "t"},
        {"user": "u", "token": "t", "more": SECRET},
    ],
)
def test_no_error_repeats_a_secret(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="credentials: ") as caught:
        credentials_of(Made, values)
    assert SECRET not in str(caught.value)


def test_a_secret_in_the_config_is_refused() -> None:
    class Leaky(BaseModel):
        token: SecretStr = SecretStr(SECRET)

    class Bad(BaseIntegration[Leaky]):
        manifest = Manifest("bad", "Bad")

    with pytest.raises(InvalidInput, match="contains a secret"):
        config_of(Bad, {})


def test_only_marked_fields_start_a_resync() -> None:
    before = Config().model_dump()
    assert not needs_resync(Config, before, before | {"name": "other", "count": 2})
    assert needs_resync(Config, before, before | {"query": "in:inbox"})
    assert not needs_resync(Config, {}, before), "a field that was added later has its default"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs=500", (Quota.RUNS, 500)),
        ("accounts=0", (Quota.ACCOUNTS, 0)),
        ("bytes=10GiB", (Quota.BYTES, 10 * 1_024**3)),
        ("bytes=1.5 kB", (Quota.BYTES, 1_500)),
        ("bytes=7", (Quota.BYTES, 7)),
        ("runs=none", (Quota.RUNS, None)),
        ("bytes=default", (Quota.BYTES, "default")),
    ],
)
def test_a_quota_is_a_number_a_size_or_a_word(text: str, expected: tuple[Quota, object]) -> None:
    assert parse_quota(text) == expected


@pytest.mark.parametrize(
    "text",
    ["runs", "runs=", "runs=-1", "runs=1.5", "runs=10GiB", "tasks=1", "bytes=10XB", "bytes=9999PiB",
     "bytes=1e9", "=5", "runs=٣", "bytes=1.5", "bytes=1.5B", "bytes=NaN", "runs=1_000", "runs= 5"],
)  # fmt: skip
def test_another_quota_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_quota(text)
    assert refused.value.code == "quota-invalid"
