"""A user's token cannot send stored credentials to another host."""

from __future__ import annotations

import socket
import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Annotated

import pytest
from pydantic import BaseModel, SecretStr

from core import AccountIdentity, BaseIntegration, Context, Destination, Manifest, TaskResult
from core.errors import InvalidInput
from core.service.accounts import actions as account_actions
from core.service.accounts.validation import require_same_destination, stored

PASSWORD = "sent-to-nobody-else"


class Host:
    """A server that records what it receives."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            with self._listener.accept()[0] as connection:
                said = connection.makefile().readline().strip()
                if said == "end":
                    return
                self.heard.append(said)
                connection.sendall(b"ok\n")

    def close(self) -> None:
        tell(self.port, "end")
        self._thread.join()
        self._listener.close()


def tell(port: int, words: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{words}\n".encode())
        connection.makefile().readline()


class Place(BaseModel):
    port: Annotated[int, Destination()]
    base: Annotated[str, Destination] = "/"
    folder: str = "in"


class Password(BaseModel):
    password: SecretStr


class Mailbox(BaseIntegration[Place, Password]):
    """A mailbox that sends its password to its host."""

    manifest = Manifest("mailbox", "Mailbox")

    def check(self) -> AccountIdentity:
        tell(self.config.port, self.credentials.password.get_secret_value())
        return AccountIdentity("me", "me")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


class Public(BaseIntegration[Place]):
    """A mailbox without credentials."""

    manifest = Manifest("public", "Public")

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "me")


@pytest.fixture
def integrations():
    return (Mailbox, Public)


@pytest.fixture
def own():
    host = Host()
    yield host
    host.close()


@pytest.fixture
def other():
    host = Host()
    yield host
    host.close()


@pytest.fixture
def account(api, own, monkeypatch):
    """Return the path of an account of the user `u`, at a host of their own."""
    monkeypatch.setattr(api.backend.settings, "allow_private_hosts", True)
    new = {
        "integration_domain": "mailbox",
        "config": {"port": own.port},
        "credentials": {"password": PASSWORD},
    }
    answer = api.user("u").post("/v1/user-integrations", json=new)
    assert answer.status_code == 201, answer.text
    return f"/v1/user-integrations/{answer.json()['id']}"


def test_a_user_s_token_does_not_send_stored_credentials_elsewhere(
    api, account, own, other
) -> None:
    user = api.user("u")
    answer = user.patch(account, json={"config": {"port": other.port}})
    assert (answer.status_code, other.heard) == (422, [])
    assert "port" in answer.json()["detail"]
    assert "also enter the credentials" in answer.json()["detail"]
    answer = user.patch(account, json={"config": {"port": own.port, "base": "/elsewhere"}})
    assert answer.status_code == 422
    assert user.get(account).json()["config"] == {"port": own.port, "base": "/", "folder": "in"}


def test_a_user_may_change_other_fields_of_the_config(api, account, own) -> None:
    answer = api.user("u").patch(account, json={"config": {"port": own.port, "folder": "out"}})
    assert (answer.status_code, answer.json()["config"]["folder"]) == (200, "out")
    assert own.heard == [PASSWORD, PASSWORD]


def test_a_user_may_change_the_host_together_with_the_credentials(api, account, other) -> None:
    both = {"config": {"port": other.port}, "credentials": {"password": "their own"}}
    assert api.user("u").patch(account, json=both).status_code == 200
    assert other.heard == ["their own"]


def test_an_operator_may_change_the_host(api, account, other) -> None:
    assert api.admin.patch(account, json={"config": {"port": other.port}}).status_code == 200
    assert other.heard == [PASSWORD]


def test_a_user_may_change_the_host_of_an_account_without_credentials(api, own) -> None:
    user = api.user("u")
    new = {"integration_domain": "public", "config": {"port": own.port}}
    place = f"/v1/user-integrations/{user.post('/v1/user-integrations', json=new).json()['id']}"
    assert user.patch(place, json={"config": {"port": 1}}).status_code == 200


def test_a_user_cannot_change_the_host_of_a_disconnected_account(api, account, other) -> None:
    """Reconnecting gives the credentials to the host that the account had."""
    user = api.user("u")
    assert user.delete(f"{account}?content=keep").status_code == 204
    assert user.patch(account, json={"config": {"port": other.port}}).status_code == 422


def test_a_config_that_changed_during_the_check_is_not_overwritten(
    api, account, own, other, desk, monkeypatch
) -> None:
    """The update replaces only the config that it has compared.

    It must not combine credentials that an operator has just given with an older config.
    """
    asked = account_actions._check_same

    def slowly(*arguments, **more):
        checked = asked(*arguments, **more)
        desk.conn.execute(
            "UPDATE user_integration SET config = config || %s::jsonb",
            (f'{{"port": {other.port}}}',),
        )
        return checked

    monkeypatch.setattr(account_actions, "_check_same", slowly)
    answer = api.user("u").patch(account, json={"config": {"port": own.port, "folder": "out"}})
    assert answer.status_code == 409, answer.text
    assert desk.value("SELECT config ->> 'port' FROM user_integration") == str(other.port)


class Proxy(BaseModel):
    host: Annotated[str, Destination()] = "proxy.example"
    inner: Proxy | None = None


class Deep(BaseModel):
    mirror: Annotated[str, Destination()] | None = None
    mirrors: list[Annotated[str, Destination]] = []
    proxy: Proxy = Proxy()
    folder: str | None = None


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"mirror": "else.example"}, True),
        ({"mirrors": ["else.example"]}, True),
        ({"proxy": {"host": "else.example"}}, True),
        ({"proxy": {"inner": {"host": "else.example"}}}, True),
        ({"folder": "out"}, False),
    ],
)
def test_destinations_in_nested_models_are_protected_too(config, refused) -> None:
    mailbox = SimpleNamespace(config_model=Deep, credentials_model=Password)
    after = stored(Deep.model_validate(config))
    with (
        pytest.raises(InvalidInput, match="also enter the credentials")
        if refused
        else nullcontext()
    ):
        require_same_destination(mailbox, stored(Deep()), after)
