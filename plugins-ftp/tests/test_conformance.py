"""The conformance suite, with both kinds of listing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from integration_polling_ftp import Config, Ftp
from ssh_server import serve_ssh
from support.readme import config_fields, config_table

from core import Destination
from core.testing import IntegrationConformance

README = Path(__file__).parents[1] / "README.md"


class TestFtp(IntegrationConformance):
    integration = Ftp
    credentials = {"username": "someone", "password": "correct-horse-battery"}

    @pytest.fixture
    def server(self, ftp_server: Any) -> Mapping[str, Any]:
        for path in ("a.txt", "b.bin", "one/two/three.txt", "one/ä.txt", "empty/none"):
            ftp_server.write(path, path.encode() * 1000)
        return ftp_server.config


def test_the_fields_that_decide_who_gets_the_password_are_marked_as_destination() -> None:
    fields = Ftp.config_model.model_fields.items()
    assert {
        name for name, one in fields if any(isinstance(m, Destination) for m in one.metadata)
    } == {
        "host", "port", "protocol", "tls_ca", "tls_fingerprint", "host_key", "jump_host",
        "jump_host_key", "legacy_algorithms", "proxy",
    }  # fmt: skip


class TestSftp(IntegrationConformance):
    integration = Ftp
    credentials = {"username": "someone", "password": "correct-horse-battery"}

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Mapping[str, Any]]:
        for path in ("a.txt", "b.bin", "one/two/three.txt", "one/ä.txt"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(path.encode() * 1000)
        with serve_ssh(tmp_path) as server:
            yield server.config


def test_the_readme_has_each_config_field_with_its_default() -> None:
    table = config_table(README)
    assert table == config_fields(Config, table)
