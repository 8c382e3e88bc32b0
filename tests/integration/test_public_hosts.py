"""Accounts made with a user's token connect to public addresses alone, whatever a name resolves
to in the end.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from core.accounts.public_hosts import PrivateHost, any_host, is_public, public_hosts_only
from core.api import accounts
from core.errors import InvalidInput

NEW = {"integration_domain": "caller"}


@pytest.fixture
def listener():
    """Somebody on this machine who shall not be called; how often that happened."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def called(listener) -> bool:
    listener.settimeout(0.05)
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1",
        "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "2002:7f00:1::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1", "fec0::1",
        "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "4000::1", "2001:0:7f00:1::",
        "localhost", "example.org", "", "0x7f.1",
    ],
)  # fmt: skip
def test_what_is_not_public(host) -> None:
    assert not is_public(host)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_public(host) -> None:
    assert is_public(host)


def by_name(place) -> None:
    socket.create_connection(("localhost", place[1]), timeout=5).close()


def directly(place) -> None:
    with closing(socket.socket()) as connection:
        connection.connect(place)


def by_number(place) -> None:
    with closing(socket.socket()) as connection:
        connection.connect_ex(place)


def unresolved(place) -> None:
    """A name handed to the socket itself is resolved below the check, so it is refused, too."""
    with closing(socket.socket()) as connection:
        connection.connect(("localhost", place[1]))


def in_a_thread(place) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pool.submit(directly, place).result).result()


def in_a_thread_of_a_thread(place) -> None:
    errors = []

    def inner() -> None:
        try:
            directly(place)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    outer = threading.Thread(
        target=lambda: (thread := threading.Thread(target=inner), thread.start(), thread.join())
    )
    outer.start()
    outer.join()
    raise errors[0]


def by_asyncio(place) -> None:
    async def open_one() -> None:
        _, writer = await asyncio.open_connection(*place)
        writer.close()

    asyncio.run(open_one())


def by_datagram(place) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as connection:
        connection.sendto(b"x", place)


@pytest.mark.parametrize(
    "reach",
    [by_name, directly, by_number, unresolved, in_a_thread, in_a_thread_of_a_thread, by_datagram],
)
def test_nothing_in_reach_of_the_guard_gets_through(listener, reach) -> None:
    with public_hosts_only(), pytest.raises(PrivateHost):
        reach(listener.getsockname())
    assert not called(listener)


def test_asyncio_is_kept_away_too(listener) -> None:
    # Its loop makes a pair of sockets for itself, which connects to nobody.
    with public_hosts_only(), pytest.raises(PrivateHost):
        by_asyncio(listener.getsockname())
    assert not called(listener)


def test_unix_sockets_are_kept_away(tmp_path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with (
            closing(socket.socket(socket.AF_UNIX)) as connection,
            public_hosts_only(),
            pytest.raises(PrivateHost),
        ):
            connection.connect(str(tmp_path / "s"))


def test_it_holds_for_its_own_work_alone(listener) -> None:
    with public_hosts_only():
        with any_host():
            directly(listener.getsockname())
        other = threading.Event()
    thread = threading.Thread(target=lambda: (directly(listener.getsockname()), other.set()))
    thread.start()
    thread.join()
    assert other.is_set()
    directly(listener.getsockname())


def test_a_user_s_account_cannot_point_at_this_machine_and_an_operator_s_can(
    api, listener, desk
) -> None:
    host, port = listener.getsockname()
    for name in (host, "localhost", "0.0.0.0"):
        body = NEW | {"config": {"host": name, "port": port}}
        refused = api.user("u").post("/v1/user-integrations", json=body)
        assert refused.status_code == 422
        assert "public internet" in refused.json()["detail"]
        assert "127.0.0.1" not in refused.text
    assert not called(listener)
    body = NEW | {"config": {"host": host, "port": port}, "user_id": "u"}
    account = api.admin.post("/v1/user-integrations", json=body).json()["id"]
    assert called(listener)
    assert desk.value("SELECT public_hosts_only FROM user_integration") is False
    place = f"/v1/user-integrations/{account}"
    changed = {"config": {"host": "localhost", "port": port}}
    assert api.user("u").patch(place, json=changed).status_code == 422
    assert not called(listener)
    assert api.user("u").post(f"{place}/check").status_code == 200


def test_a_setting_allows_it(api, listener, desk, monkeypatch) -> None:
    monkeypatch.setattr(api.backend.settings, "allow_private_hosts", True)
    host, port = listener.getsockname()
    made = api.user("u").post(
        "/v1/user-integrations", json=NEW | {"config": {"host": host, "port": port}}
    )
    assert made.status_code == 201
    assert desk.value("SELECT public_hosts_only FROM user_integration") is True
    monkeypatch.setattr(api.backend.settings, "allow_private_hosts", False)
    with pytest.raises(InvalidInput, match="public internet"):
        accounts.check_account(api.backend, desk.value("SELECT id FROM user_integration"))


def test_a_worker_stops_the_account_when_its_host_has_become_private(api, desk, listener) -> None:
    """Checked at each connection: what a name resolved to when the account was made counts for
    nothing (DNS rebinding).
    """
    from core.worker.accounts import Accounts
    from core.worker.context import Services
    from core.worker.instances import Instances
    from core.worker.running import Runner

    _, port = listener.getsockname()
    config = {"host": "localhost", "port": port}
    account = desk.account(
        "c", domain="caller", credentials=None, config=config, public_hosts_only=True
    )
    loader = Accounts(api.backend.database, api.backend.vault, api.backend.registry, {})
    desk.run(account)
    (dispatch,) = desk.claim(domain="caller")
    for allowed, calls in ((False, False), (True, True)):
        services = Services(api.backend.database, loader, desk.blobs, None, lambda: False, allowed)
        runner = Runner(services, Instances(), api.backend.registry)
        if allowed:
            runner.run(dispatch)
        else:
            with pytest.raises(PrivateHost):
                runner.run(dispatch)
        assert called(listener) is calls
