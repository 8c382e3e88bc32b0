"""`polling serve` where its packages are not, and what it is careful about."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.cli import serve
from core.errors import SettingsError
from core.web.downloads import media_type
from core.web.problems import HttpProblem
from core.web.provider_slots import MAX_CONCURRENT_CALLS, provider_slot


def test_without_the_extra_it_says_what_to_install(monkeypatch) -> None:
    serve.require_extra()
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert not serve.installed()
    with pytest.raises(SettingsError) as caught:
        serve.require_extra()
    assert "integration-polling[serve]" in caught.value.next_step("cli")


def test_nobody_else_loads_it() -> None:
    program = (
        "import sys; import core, core.testing, core.cli.app, core.cli.launcher,"
        " core.service.accounts.actions, core.service.accounts.oauth, core.worker.process;"
        "sys.exit(bool({'fastapi', 'uvicorn', 'authlib', 'prometheus_client'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_those_who_wait_for_providers_leave_room_for_others() -> None:
    waiting = [provider_slot() for _ in range(MAX_CONCURRENT_CALLS)]
    for one in waiting:
        one.__enter__()
    with pytest.raises(HttpProblem), provider_slot():
        pass
    for one in waiting:
        one.__exit__(None, None, None)
    with provider_slot():
        pass


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("text/Plain", "text/plain"),
        ("text/html; charset=x\r\nEvil: 1", "text/html"),
        ("\r\nEvil: 1", "application/octet-stream"),
        ("no type", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_a_media_type_is_one_or_none(given, told) -> None:
    assert media_type(given) == told
