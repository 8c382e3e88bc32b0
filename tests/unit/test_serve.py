"""`polling serve`: without its packages, and with slow providers."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import cast

import pytest

from core.cli import serve
from core.errors import ServerUnavailable, SettingsError
from core.service.provider_slots import MAX_PROVIDER_CALLS, ProviderSlots
from core.transport.queues import Queues
from core.web.downloads import media_type


def test_serve_without_its_extra_names_the_package_to_install(monkeypatch) -> None:
    serve.require_extra()
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert not serve.installed()
    with pytest.raises(SettingsError) as caught:
        serve.require_extra()
    assert "'.[serve]'" in caught.value.next_step("cli")


def test_only_serve_and_migrate_import_their_packages() -> None:
    program = (
        "import sys; import core, core.testing, core.cli.app, core.cli.launcher,"
        " core.service.accounts.actions, core.service.accounts.oauth, core.worker.process,"
        " core.dispatcher.loop;"
        "sys.exit(bool({'alembic', 'authlib', 'fastapi', 'prometheus_client', 'sqlalchemy',"
        " 'uvicorn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_those_who_wait_for_providers_leave_room_for_others() -> None:
    slots, queues = ProviderSlots(), cast("Queues", None)
    with ExitStack() as waiting:
        for _ in range(MAX_PROVIDER_CALLS):
            waiting.enter_context(slots.slot(queues, None))
        with pytest.raises(ServerUnavailable), slots.slot(queues, None):
            pass
    with slots.slot(queues, None):
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
def test_an_invalid_media_type_becomes_octet_stream(given, told) -> None:
    assert media_type(given) == told
