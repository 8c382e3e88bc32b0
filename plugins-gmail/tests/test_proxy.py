"""All requests to Google go through the proxy of `HTTPS_PROXY`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from integration_polling_gmail import Config, Credentials, Gmail
from support.gmail.service_accounts import service_account

from core import ConfigurationError, CredentialsInvalid, IntegrationError
from core.egress import any_host
from core.errors import InvalidInput, PollingError
from core.service.accounts import loopback
from core.service.accounts.check import check

SETTINGS = (
    "GMAIL_API_URL", "GOOGLE_TOKEN_URL", "GOOGLE_AUTHORIZE_URL", "GOOGLE_PUBSUB_URL",
    "GOOGLE_DIRECTORY_URL", "NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy",
)  # fmt: skip


class Proxy(ThreadingHTTPServer):
    """A proxy that answers each request itself, as one with a wrong route does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("GMAIL_CLIENT_ID", "1-x.apps.googleusercontent.com")
        monkeypatch.setenv("GMAIL_CLIENT_SECRET", "x")
        yield server
        server.shutdown()
        thread.join()


def read_mailbox() -> None:
    credentials = Credentials.model_validate({"access_token": "x"})
    check(Gmail, Config(), credentials, egress=any_host())


def renew_a_token() -> None:
    Gmail(Config(), Credentials.model_validate({"refresh_token": "x"})).refresh()


def list_users() -> None:
    list(Gmail.members(None, {"service_account": service_account(), "subject": "a@b.c"}, None))


def exchange_a_code() -> None:
    loopback.begin(Gmail, 9).credentials("code")


@pytest.mark.parametrize(
    ("act", "hosts"),
    [
        (read_mailbox, {"gmail.googleapis.com:443"}),
        (renew_a_token, {"oauth2.googleapis.com:443"}),
        (list_users, {"oauth2.googleapis.com:443"}),
        (exchange_a_code, {"accounts.google.com:443", "oauth2.googleapis.com:443"}),
    ],
)
def test_each_request_goes_through_the_proxy(
    proxy: Proxy, act: Callable[[], None], hosts: set[str]
) -> None:
    with pytest.raises((IntegrationError, PollingError)) as raised:
        act()
    assert not isinstance(raised.value, CredentialsInvalid | ConfigurationError | InvalidInput)
    assert set(proxy.asked) == hosts
