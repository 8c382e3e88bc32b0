"""Checks of accounts stop nobody, and tell nothing about the engine's network."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from typing import Any

import pytest
from pydantic import BaseModel
from support.waiting import until

from core import (
    AccountIdentity,
    BaseIntegration,
    ConfigurationError,
    Context,
    Manifest,
    TaskResult,
    TransientError,
)
from core.egress import logged_connections
from core.service import provider_slots
from core.service.accounts import deadline
from core.service.provider_slots import ProviderSlots
from core.transport.queues import Queues

PLACE = "/v1/user-integrations"
SHORT = 1.0


class Server(BaseModel):
    host: str
    port: int = 80
    says: str = "nothing"


class Reader(BaseIntegration[Server]):
    """An integration that waits for a server's greeting without a timeout of its own.

    Like many plugins, it has an error of its own for each failure.
    """

    manifest = Manifest("reader", "Reader")

    def check(self) -> AccountIdentity:
        try:
            connection = socket.create_connection((self.config.host, self.config.port))
        except socket.gaierror:
            raise ConfigurationError("there is no host of this name") from None
        except OSError as error:
            raise TransientError(f"cannot connect: {error}") from None
        with closing(connection):
            if self.config.says == "tls":
                connection = ssl._create_unverified_context().wrap_socket(connection)
            if not connection.recv(100):
                raise TransientError("the server has closed the connection")
        return AccountIdentity("reader", "reader")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations() -> tuple[Any, ...]:
    return (Reader,)


@pytest.fixture
def on_the_internet(monkeypatch) -> None:
    """Let the addresses of this machine count as public, for a user's account to reach them."""
    monkeypatch.setattr("core.egress.is_public", lambda host: host.startswith("127."))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Listen, and never say anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def new(host: str, port: int, **more: Any) -> dict[str, Any]:
    return {"integration_domain": "reader", "config": {"host": host, "port": port, **more}}


@pytest.mark.usefixtures("on_the_internet")
def test_checks_of_one_user_leave_room_for_others(api, silent) -> None:
    slow, port = api.user("mallory"), silent.getsockname()[1]
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(slow.post, PLACE, json=new("127.0.0.1", port)) for _ in range(20)]
        silent.settimeout(20)
        with closing(silent.accept()[0]):
            fine = {"integration_domain": "locked", "credentials": {"password": "fine"}}
            assert api.user("ann").post(PLACE, json=fine).status_code == 201
            assert not any(answer.done() and answer.result().is_success for answer in answers)
            wait(answers)
    codes = [answer.result().json()["code"] for answer in answers]
    assert set(codes) == {"user-checks-busy", "host-unreachable"}
    assert {answer.result().status_code for answer in answers} == {422, 429}


@pytest.mark.usefixtures("on_the_internet")
def test_checks_of_many_users_leave_threads_for_others(api, silent, monkeypatch) -> None:
    monkeypatch.setattr(provider_slots, "MAX_PROVIDER_CALLS", 3)
    port = silent.getsockname()[1]
    with ThreadPoolExecutor(6) as pool:
        answers = [
            pool.submit(api.user(f"u{n}").post, PLACE, json=new("127.0.0.1", port))
            for n in range(6)
        ]
        until(lambda: any(answer.done() for answer in answers), "one of them is refused")
        assert api.user("ann").get("/v1/integrations").status_code == 200
        wait(answers)
    codes = [answer.result().json()["code"] for answer in answers]
    assert set(codes) == {"checks-busy", "host-unreachable"}
    assert codes.count("host-unreachable") >= 3


@pytest.mark.usefixtures("on_the_internet")
@pytest.mark.parametrize("says", ["nothing", "tls"])
def test_the_engine_ends_a_check_whatever_the_plugin_does(api, silent, monkeypatch, says) -> None:
    monkeypatch.setattr(deadline, "UNREACHABLE_SECONDS", SHORT)
    port = silent.getsockname()[1]
    before = threading.active_count()
    answer = api.user("u").post(PLACE, json=new("127.0.0.1", port, says=says))
    assert (answer.status_code, answer.json()["code"]) == (422, "host-unreachable")
    with closing(silent.accept()[0]) as connection:
        connection.settimeout(20)
        while connection.recv(65_536):
            pass  # the plugin's connection is closed, so its thread ends
    assert threading.active_count() <= before + 2


def test_checks_that_never_end_are_bounded(api, monkeypatch) -> None:
    """A thread cannot be ended; beyond the bound, nothing is checked."""
    monkeypatch.setattr(deadline, "_threads", threading.BoundedSemaphore(1))
    fine = {"integration_domain": "locked", "credentials": {"password": "fine"}}
    with deadline._threads:
        answer = api.user("u").post(PLACE, json=fine)
        assert (answer.status_code, answer.json()["code"]) == (503, "checks-busy")
    assert api.user("u").post(PLACE, json=fine).status_code == 201


def test_a_check_that_outlives_its_deadline_counts_for_its_user(api, monkeypatch) -> None:
    """A plugin's thread cannot be ended. Others still have the room that it does not use."""
    monkeypatch.setattr(deadline, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(deadline, "UNREACHABLE_SECONDS", 0.1)
    leave, running = threading.Event(), threading.Semaphore(0)

    def stuck(_: Any) -> AccountIdentity:
        running.release()
        leave.wait(60)
        return AccountIdentity("reader", "reader")

    monkeypatch.setattr(Reader, "check", stuck)
    slow, body = api.user("mallory"), new("127.0.0.1", 1)
    answers = [slow.post(PLACE, json=body) for _ in range(provider_slots.MAX_CALLS_PER_USER)]
    assert {answer.json()["code"] for answer in answers} == {"host-unreachable"}
    assert all(running.acquire(timeout=20) for _ in answers)
    fine = {"integration_domain": "locked", "credentials": {"password": "fine"}}
    refused = api.user("mallory").post(PLACE, json=fine)
    assert (refused.status_code, refused.json()["code"]) == (429, "user-checks-busy")
    assert api.user("ann").post(PLACE, json=fine).status_code == 201
    leave.set()
    until(lambda: slow.post(PLACE, json=fine).status_code in (200, 201), "the threads have ended")


def test_a_check_of_an_operator_has_a_deadline_too(api, silent, monkeypatch) -> None:
    monkeypatch.setattr(deadline, "CHECK_SECONDS", SHORT)
    body = new("127.0.0.1", silent.getsockname()[1]) | {"user_id": "u"}
    answer = api.admin.post(PLACE, json=body)
    assert (answer.status_code, answer.json()["code"]) == (502, "check-timed-out")
    silent.accept()[0].close()


@pytest.mark.usefixtures("on_the_internet")
def test_a_user_learns_nothing_about_the_network(api, silent, closed_port, monkeypatch) -> None:
    """Each case has the same status, text and minimum time; only the operator sees the reasons."""
    monkeypatch.setattr(deadline, "UNREACHABLE_SECONDS", SHORT)
    places = {
        "unknown name": ("no-such-host.invalid", 80),
        "private": ("10.1.2.3", 80),
        "private name": ("ip6-localhost.invalid", 80),
        "metadata": ("169.254.169.254", 80),
        "closed port": ("127.0.0.1", closed_port),
        "silent port": ("127.0.0.1", silent.getsockname()[1]),
    }
    answers, times = {}, {}
    for name, place in places.items():
        begun = time.monotonic()
        answer = api.user("u").post(PLACE, json=new(*place))
        times[name] = time.monotonic() - begun
        own = answer.json()["request_id"]  # each request has its own
        answers[name] = (answer.status_code, answer.text.replace(own, ""))
    assert len(set(answers.values())) == 1, answers
    assert min(times.values()) >= SHORT, times
    operator = new("127.0.0.1", closed_port) | {"user_id": "u"}
    assert "refused" in api.admin.post(PLACE, json=operator).json()["detail"].lower()


@pytest.mark.usefixtures("on_the_internet")
def test_a_server_that_answers_is_reached(api) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        place = server.getsockname()
        answer = pool.submit(api.user("u").post, PLACE, json=new(*place))
        server.settimeout(20)
        with closing(server.accept()[0]) as connection:
            connection.sendall(b"220 welcome")
            assert answer.result().status_code == 201


def test_a_user_s_checks_are_counted(api, monkeypatch) -> None:
    monkeypatch.setattr(provider_slots, "MAX_CHECKS_PER_HOUR", 3)
    body = {"integration_domain": "locked", "credentials": {"password": "fine"}}
    user = api.user("u")
    codes = [user.post(PLACE, json=body).status_code for _ in range(3)]
    assert codes == [201, 200, 200]
    # A second token or process does not help.
    api.backend.provider_slots.__init__()
    exhausted = api.user("u").post(PLACE, json=body)
    assert (exhausted.status_code, exhausted.json()["code"]) == (429, "checks-exhausted")
    account = user.get(PLACE).json()["items"][0]["id"]
    assert user.post(f"{PLACE}/{account}/check").status_code == 429
    assert user.patch(f"{PLACE}/{account}", json={"name": "new"}).status_code == 200
    assert api.user("v").post(PLACE, json=body).status_code == 201
    assert api.admin.post(PLACE, json=body | {"user_id": "u"}).status_code == 200


def test_checks_are_counted_without_redis(closed_port, monkeypatch) -> None:
    monkeypatch.setattr(provider_slots, "MAX_CHECKS_PER_HOUR", 2)
    slots, queues = ProviderSlots(), Queues(f"redis://127.0.0.1:{closed_port}/0", "test")
    outcomes = []
    for _ in range(3):
        try:
            with slots.slot(queues, "u"):
                outcomes.append("")
        except provider_slots.TooManyRequests as error:
            outcomes.append(error.code)
    queues.close()
    assert outcomes == ["", "", "checks-exhausted"]


def test_a_descriptor_that_was_reused_is_not_closed(egress) -> None:
    """The log remembers which connection a descriptor was."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        egress.for_account(public_only=True),
        logged_connections() as log,
    ):
        first = socket.socket()
        log.add(first)
        number = first.fileno()
        first.close()
        with closing(socket.socket()) as second:
            assert second.fileno() == number
            second.setblocking(False)
            log.cut()
            with suppress(OSError):
                second.bind(("127.0.0.1", 0))
            assert not log.pending()
        assert server.fileno() >= 0
