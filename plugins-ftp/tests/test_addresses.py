"""Addresses that people paste into the field `host`."""

from __future__ import annotations

from typing import Any

import pytest
from integration_polling_ftp import Config, Ftp
from pydantic import ValidationError

from core.testing import Harness

USUAL = {"protocol": "ftp", "port": None, "root": ""}


@pytest.mark.parametrize(
    ("pasted", "fields"),
    [
        ("files.example.org", {"host": "files.example.org"}),
        (" files.example.org ", {"host": "files.example.org"}),
        ("files.example.org:2121", {"host": "files.example.org", "port": 2121}),
        ("ftp://host:2121/dir", {"host": "host", "port": 2121, "root": "/dir"}),
        ("FTP://host/", {"host": "host"}),
        ("ftp://host/a%20b/", {"host": "host", "root": "/a b"}),
        ("sftp://host", {"host": "host", "protocol": "sftp"}),
        (
            "sftp://host:2222/out",
            {"host": "host", "protocol": "sftp", "port": 2222, "root": "/out"},
        ),
        ("ftps://host", {"host": "host", "protocol": "ftps"}),
        ("ftpes://host", {"host": "host", "protocol": "ftps"}),
        ("ftps://host:990", {"host": "host", "protocol": "ftps-implicit", "port": 990}),
        ("[::1]", {"host": "::1"}),
        ("::1", {"host": "::1"}),
        ("[::1]:2121", {"host": "::1", "port": 2121}),
        ("fe80::1%eth0", {"host": "fe80::1%eth0"}),
        ("192.0.2.1:21", {"host": "192.0.2.1", "port": 21}),
        ("host/dir", {"host": "host", "root": "/dir"}),
    ],
)
def test_an_address_sets_the_fields_that_it_names(pasted: str, fields: dict[str, Any]) -> None:
    same = {name: value for name, value in fields.items() if name != "host"}
    for given in ({}, {"protocol": "ftp", "port": None, "root": ""}, same):
        config = Config.model_validate({"host": pasted, **given})
        found = config.model_dump(include={"host", *USUAL})
        assert found == {**USUAL, **fields}
        assert Config.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"host": "ftp://someone@host"}, "credentials"),
        ({"host": "someone:hunter22@host"}, "credentials"),
        ({"host": "ftp://someone:hunter22@host/dir"}, "credentials"),
        ({"host": "https://host"}, "https://"),
        ({"host": "ftp://"}, "host name"),
        ({"host": "host:99999"}, "port"),
        ({"host": "host:21x"}, "host name"),
        ({"host": "two words"}, "spaces"),
        ({"host": "a\nb"}, "line break"),
        ({"host": "[::1"}, "host name"),
        ({"host": "host:21", "port": 22}, "differs"),
        ({"host": "sftp://host", "protocol": "ftps"}, "differs"),
        ({"host": "ftp://host/a", "root": "/b"}, "differs"),
    ],
)
def test_another_address_is_refused_with_the_reason(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(config)
    [error] = caught.value.errors()
    assert problem in f"{error['loc']} {error['msg']}"
    assert error["loc"][0] in ("host", "port")
    assert "hunter22" not in error["msg"]


@pytest.mark.parametrize("form", ["[::1]:{}", "ftp://[::1]:{}/", "::1"])
def test_a_server_at_an_ipv6_address_is_copied(ipv6_server: Any, form: str) -> None:
    """Data connections then need EPSV (RFC 2428)."""
    ipv6_server.write("file")
    port = {"port": ipv6_server.port} if form == "::1" else {}
    config = {"host": form.format(ipv6_server.port), **port}
    harness = Harness(Ftp, config, ipv6_server.credentials)
    assert harness.check().id.endswith(f"@::1:{ipv6_server.port}/")
    assert harness.sync().state == "succeeded"
    assert set(harness.content) == {"/file"}
    assert ipv6_server.sent("EPSV")
    assert not ipv6_server.sent("PASV")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ftp://127.0.0.1:{}/sub", "localhost:{}"])
def test_a_pasted_address_is_copied(facts_server: Any, form: str) -> None:
    facts_server.write("sub/file")
    config = {"host": form.format(facts_server.port)}
    harness = Harness(Ftp, config, facts_server.credentials)
    assert harness.sync().state == "succeeded"
    assert "/sub/file" in harness.content
