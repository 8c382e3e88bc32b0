"""Accounts made with a user's token connect to public addresses only.

This holds for every name that resolves to another address, and for every thread of the plugin.
"""

from __future__ import annotations

import _thread
import asyncio
import multiprocessing
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from core import BaseIntegration, Manifest, NoFields, hookimpl
from core.egress import Egress, EgressRefused, any_host
from core.errors import InvalidInput
from core.plugins import Registry
from core.public_addresses import is_public
from core.service.accounts import actions as account_actions
from core.worker.accounts import Accounts, LoadedAccount
from core.worker.context import Services
from core.worker.instance_pool import InstancePool
from core.worker.runner import Runner

NEW = {"integration_domain": "caller"}


@pytest.fixture
def listener():
    """Listen on this machine, where no plugin may connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def called(listener) -> bool:
    listener.settimeout(0.05)
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


@pytest.fixture
def loaded_caller(listener) -> Callable[[bool], LoadedAccount]:
    """Return a function that makes an account whose plugin connects to the listener when closed."""

    class Closing(BaseIntegration):
        manifest = Manifest("closing", "Closing")

        def close(self) -> None:
            directly(listener.getsockname())

    def loaded(public_only: bool) -> LoadedAccount:
        account: Any = SimpleNamespace(
            id=1, version=1, credentials_version=1, public_hosts_only=public_only
        )
        return LoadedAccount(account, Closing, NoFields(), NoFields(), (), str)

    return loaded


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
def test_private_and_special_addresses_are_not_public(host) -> None:
    assert not is_public(host)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_ordinary_addresses_are_public(host) -> None:
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
    """Connect to a name that the socket itself resolves, below the check."""
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
def test_no_connection_of_a_limited_account_reaches_a_private_address(
    listener, egress, reach
) -> None:
    with egress.for_account(public_only=True), pytest.raises(EgressRefused):
        reach(listener.getsockname())
    assert not called(listener)


def test_connections_of_asyncio_are_refused(listener, egress) -> None:
    # The loop connects a pair of sockets for itself; that is not an outside connection.
    with egress.for_account(public_only=True), pytest.raises(EgressRefused):
        by_asyncio(listener.getsockname())
    assert not called(listener)


def test_connections_to_unix_sockets_are_refused(tmp_path, egress) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with (
            closing(socket.socket(socket.AF_UNIX)) as connection,
            egress.for_account(public_only=True),
            pytest.raises(EgressRefused),
        ):
            connection.connect(str(tmp_path / "s"))


# Threads
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Start a plugin's threads before its tasks; they serve all of its accounts."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield pool


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Start an event loop in a plugin's thread before its tasks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def by_timer(place) -> None:
    done: Future[None] = Future()

    def work() -> None:
        try:
            done.set_result(directly(place))
        except BaseException as error:  # noqa: BLE001
            done.set_exception(error)

    threading.Timer(0, work).start()
    done.result(20)


def without_threading(place) -> None:
    """Connect in a thread started below `threading`, where its parent is not recorded."""
    done: Future[None] = Future()

    def work() -> None:
        try:
            done.set_result(directly(place))
        except BaseException as error:  # noqa: BLE001
            done.set_exception(error)

    _thread.start_new_thread(work, ())
    done.result(20)


def by_executor(place) -> None:
    async def work() -> None:
        await asyncio.get_running_loop().run_in_executor(None, directly, place)

    asyncio.run(work())


def by_to_thread(place) -> None:
    asyncio.run(asyncio.to_thread(directly, place))


@pytest.mark.parametrize("reach", [by_timer, without_threading, by_executor, by_to_thread])
def test_connections_of_threads_that_a_task_starts_are_refused(listener, egress, reach) -> None:
    with egress.for_account(public_only=True), pytest.raises(EgressRefused):
        reach(listener.getsockname())
    assert not called(listener)


def test_connections_of_a_pool_started_before_the_task_are_refused(listener, egress, pool) -> None:
    place = listener.getsockname()
    with egress.for_account(public_only=True), pytest.raises(EgressRefused):
        pool.submit(directly, place).result()
    with egress.for_account(public_only=True):
        carried = pool.submit(copy_context().run, directly, place)
        late = pool.submit(lambda: (time.sleep(0.05), directly(place)))
    with pytest.raises(EgressRefused, match="accounts made with a user's token"):
        carried.result()
    with pytest.raises(EgressRefused, match="without its task's context"):
        late.result()
    with egress.for_account(public_only=False), pytest.raises(EgressRefused):
        # the thread does not know that it works for another account now
        pool.submit(directly, place).result()
    assert not called(listener)


def test_an_event_loop_in_another_thread_knows_its_account(listener, egress, loop) -> None:
    host, port = listener.getsockname()

    async def open_one() -> None:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()

    async def in_the_executor() -> None:
        await loop.run_in_executor(None, directly, (host, port))

    with egress.for_account(public_only=True):
        for work in (open_one, in_the_executor):
            with pytest.raises(EgressRefused):
                asyncio.run_coroutine_threadsafe(work(), loop).result(20)
    assert not called(listener)
    with egress.for_account(public_only=False):
        asyncio.run_coroutine_threadsafe(open_one(), loop).result(20)
    assert called(listener)


def test_connections_of_children_that_a_task_forks_are_refused(listener, egress) -> None:
    place = listener.getsockname()
    mine, its = multiprocessing.get_context("fork").Pipe()

    def child() -> None:
        for reach in (directly, in_a_thread):
            try:
                reach(place)
            except EgressRefused:
                its.send("refused")
            else:
                its.send("connected")

    with egress.for_account(public_only=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.12, for any fork
        forked = multiprocessing.get_context("fork").Process(target=child)
        forked.start()
    assert [mine.recv(), mine.recv()] == ["refused", "refused"]
    forked.join()
    assert not called(listener)


def test_accounts_of_the_operator_are_not_limited(listener, egress, pool) -> None:
    """The process works for a limited account in the meantime."""
    place = listener.getsockname()
    with egress.for_account(public_only=True):
        with any_host():
            directly(place)
        thread = ThreadPoolExecutor(1)

        def of_the_operator() -> None:
            with egress.for_account(public_only=False):
                directly(place)
                pool.submit(copy_context().run, directly, place).result()
                by_to_thread(place)

        with thread:
            thread.submit(of_the_operator).result()
        with egress.for_account(public_only=False), pytest.raises(EgressRefused):
            directly(place)  # within a limited account
    with egress.for_account(public_only=False):
        directly(place)


def test_the_guard_is_active_from_the_first_limited_account_until_closed(listener) -> None:
    place, egress = listener.getsockname(), Egress()
    with egress.for_account(public_only=False):
        in_a_thread(place)
    with egress.for_account(public_only=True):
        pass
    with pytest.raises(EgressRefused):
        in_a_thread(place)
    egress.close()
    in_a_thread(place)
    with egress.for_account(public_only=True), pytest.raises(EgressRefused):
        directly(place)
    egress.close()
    with Egress(allow_private_hosts=True).for_account(public_only=True):
        in_a_thread(place)


def test_connections_of_the_engine_are_not_limited(egress, queues, pool) -> None:
    """Redis may have a private address, and threads of all kinds use it."""
    with egress.for_account(public_only=True):
        queues.client.connection_pool.disconnect()
        assert queues.client.ping()
        queues.client.connection_pool.disconnect()
        assert pool.submit(queues.client.ping).result()


def test_observers_may_connect_to_private_addresses(listener, egress) -> None:
    registry, came = Registry(), threading.Event()

    class Observing:
        @hookimpl
        def run_finished(self, run) -> None:
            directly(listener.getsockname())
            came.set()

    registry.manager.register(Observing())
    with egress.for_account(public_only=True):
        registry.observe("run_finished", run={})
        assert came.wait(20)


def test_closing_an_instance_has_the_limits_of_its_account(
    listener, egress, pool, loaded_caller
) -> None:
    for public_only in (True, False):
        instances = InstancePool(egress)
        with egress.for_account(public_only=public_only):
            instances.release(instances.take(loaded_caller(public_only)))
        pool.submit(instances.close_idle, -1).result()
        assert called(listener) is not public_only


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


def test_a_setting_allows_private_hosts_for_users(api, listener, desk, monkeypatch) -> None:
    monkeypatch.setattr(api.backend.settings, "allow_private_hosts", True)
    host, port = listener.getsockname()
    made = api.user("u").post(
        "/v1/user-integrations", json=NEW | {"config": {"host": host, "port": port}}
    )
    assert made.status_code == 201
    assert desk.value("SELECT public_hosts_only FROM user_integration") is True
    monkeypatch.setattr(api.backend.settings, "allow_private_hosts", False)
    with pytest.raises(InvalidInput, match="public internet"):
        account_actions.check_account(api.backend, desk.value("SELECT id FROM user_integration"))


def test_a_worker_refuses_a_host_that_has_become_private(api, desk, listener) -> None:
    """The address is checked at each connection, against DNS rebinding.

    An address that was allowed when the account was made counts for nothing.
    """
    _, port = listener.getsockname()
    config = {"host": "localhost", "port": port}
    account = desk.account(
        "c", domain="caller", credentials=None, config=config, public_hosts_only=True
    )
    loader = Accounts(api.backend.database, api.backend.vault, api.backend.registry, {})
    desk.run(account)
    (dispatch,) = desk.claim(domain="caller")
    for allowed, calls in ((False, False), (True, True)):
        egress = Egress(allow_private_hosts=True) if allowed else api.backend.egress
        services = Services(api.backend.database, loader, desk.blobs, None, lambda _: False, egress)
        runner = Runner(services, InstancePool(egress), api.backend.registry)
        if allowed:
            runner.run(dispatch)
        else:
            with pytest.raises(EgressRefused):
                runner.run(dispatch)
        assert called(listener) is calls
