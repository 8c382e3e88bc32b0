"""Processes are killed while they listen, or while a hint waits: no hint is lost."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from integration_polling_hello_world import HelloWorld
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import GATED, Fleet, send
from support.forks import polling
from support.gates import Gate
from support.gates.kill import TRIGGERS, closed, nobody_at_gates
from support.gates.plugin import Gated

from core.ledger import hints

TREE = {"pages": 2, "items": 2, "fanout_depth": 1}
RECOVERY_SECONDS = 60.0
IDENTITY = "SELECT identity FROM user_integration WHERE id = %s"
HOLDER = """
SELECT p.pid FROM listener l JOIN process p ON p.id = l.holder WHERE l.connected_at IS NOT NULL
"""
IS_QUIET = """
SELECT NOT EXISTS (SELECT FROM sync_run WHERE state = 'running')
    AND NOT EXISTS (SELECT FROM hint WHERE parts <> '{}' OR run_id IS NOT NULL)
"""
ONLY_THIS_PAGE = """
SELECT r.id FROM sync_run r JOIN sync_task t ON t.run_id = r.id AND t.type = 'list_page'
WHERE r.trigger = 'hint' AND r.state = 'succeeded'
GROUP BY r.id HAVING array_agg(t.payload->>'page') = ARRAY[%s]
"""


class Events:
    """A server that sends lines to every client that is connected."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._clients.append(self._socket.accept()[0])

    def send(self, line: str) -> None:
        for client in self._clients:
            with suppress(OSError):
                client.sendall(f"{line}\n".encode())

    def close(self) -> None:
        for one in (self._socket, *self._clients):
            one.close()


@pytest.fixture
def events() -> Iterator[Events]:
    server = Events()
    yield server
    server.close()


@pytest.mark.parametrize(
    "gate",
    [
        pytest.param(gate, marks=[] if gate == Gate.IN_COMMIT else pytest.mark.long)
        for gate in Gate
        if gate != Gate.IN_CLAIM
    ],
    ids=lambda gate: gate.name.lower(),
)
def test_a_hint_during_a_run_survives_a_kill_at_any_gate(
    gate: Gate, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    deployment.rows(TRIGGERS)
    fleet = make_fleet(**GATED)
    account = connect(deployment, Gated, TREE)
    with closed(fleet, gate) as point:
        workers = fleet.workers(processes=1, threads=2, modules=["support.gates.broker"])
        sync(deployment, account)
        point.reached()
        with deployment.connection() as connection:
            assert not hints.add(connection, account, "1"), "a run is open"
        workers.kill()
    nobody_at_gates(fleet)
    fleet.let_the_lead_run_out()
    fleet.until(
        lambda: deployment.value("SELECT began_at IS NOT NULL AND parts = '{}' FROM hint"),
        "the run of the hint begins",
        RECOVERY_SECONDS,
        replace=True,
    )


def test_another_process_listens_when_the_holder_is_killed(
    events: Events, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(HELLO_WORLD_EVENTS=events.address)
    account = connect(deployment, HelloWorld, {"pages": 3, "items": 1, "grow": 1})
    fleet.workers(processes=2, threads=2)
    fleet.workers(processes=1, threads=2)
    fleet.ready()
    holder = fleet.until(lambda: deployment.rows(HOLDER), "a process listens", 60.0)
    send(signal.SIGKILL, holder[0][0])

    def other() -> Any:
        found = deployment.rows(HOLDER)
        return found and found != holder

    fleet.until(other, "another process listens", RECOVERY_SECONDS, replace=True)
    fleet.let_the_lead_run_out()
    fleet.until(lambda: deployment.value(IS_QUIET), "it is quiet", RECOVERY_SECONDS, replace=True)
    events.send(f"{deployment.value(IDENTITY, account)} 2")
    fleet.until(
        lambda: deployment.rows(ONLY_THIS_PAGE, "2"),
        "the run of the hint ends",
        RECOVERY_SECONDS,
        replace=True,
    )


def test_processes_with_listeners_stop_cleanly(
    events: Events, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(HELLO_WORLD_EVENTS=events.address)
    account = connect(deployment, HelloWorld, {"pages": 1, "items": 1})
    workers = fleet.workers(processes=1, threads=2)
    fleet.ready()
    fleet.until(lambda: deployment.rows(HOLDER), "a process listens", 60.0)
    assert "The engine receives the provider's events" in shown(deployment, account)
    assert workers.terminate() == 0
    assert deployment.rows("SELECT holder, connected_at FROM listener") == [(None, None)]
    told = shown(deployment, account)
    assert "The provider's events stopped" in told
    assert "The engine polls the account every 15 minutes." in told
    assert json.loads(shown(deployment, account, "--json"))["listener"]["state"] == "down"


def shown(deployment: Deployment, account: UUID, *options: str) -> str:
    """Return the output of `polling accounts show`."""
    words = ["accounts", "show", str(account), *options]
    code, out, errors = polling(words, deployment.environment(), deployment.home)
    assert code == 0, errors
    return out + errors * (not options)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_flood_of_hints_makes_at_most_one_run_in_two_seconds(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet()
    account = connect(deployment, HelloWorld, {"pages": 1, "items": 1, "grow": 1})
    fleet.workers(processes=1, threads=2)
    fleet.ready()
    clock = "SELECT extract(epoch FROM clock_timestamp())::float"
    began = deployment.value(clock)

    def flood(worker: int) -> None:
        with deployment.connection() as connection:
            for number in range(25_000):
                hints.add(connection, account, f"{worker}-{number % 500}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(flood, range(4)))
    fleet.until(lambda: deployment.value(IS_QUIET), "it is quiet", RECOVERY_SECONDS)
    seconds = deployment.value(clock) - began
    runs = deployment.value("SELECT count(*) FROM sync_run WHERE trigger = 'hint'")
    assert 1 <= runs <= seconds / 2 + 1
    assert deployment.value("SELECT count(*) FROM hint") == 1
