"""Tests of the queues in Redis."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from core.transport.queues import MAX_FETCHED_MESSAGES, REDIS_UNAVAILABLE, Queues


def test_messages_arrive_once_in_order_and_stay_known_until_acknowledged(
    queues: Queues,
) -> None:
    queues.send("q", {str(n): f"body {n}" for n in range(5)}, {"seq": 42})
    assert queues.fetch("q", 3) == [(str(n), f"body {n}".encode()) for n in range(3)]
    assert (queues.length("q"), queues.waiting("q")) == (5, ["3", "4"])
    assert queues.ids("q", "other") == [{"0", "1", "2", "3", "4"}, set()]
    queues.ack({"q": ["0", "4"]})
    assert queues.fetch("q", 10) == [("3", b"body 3"), ("4", None)]
    assert queues.fetch("q", 10) == []
    assert queues.length("q") == 3
    assert queues.number("seq") == 42
    assert queues.number("never") is None


def test_only_messages_that_nobody_has_fetched_are_taken_back(queues: Queues) -> None:
    queues.send("q", {str(n): "x" for n in range(4)})
    assert queues.fetch("q", 1) == [("0", b"x")]
    assert queues.backlog("q") == 3
    assert queues.take_back("q", ["0", "3", "2", "9"]) == ["3", "2"]
    assert (queues.waiting("q"), queues.ids("q")) == (["1"], [{"0", "1"}])
    assert queues.take_back("q", []) == []


def test_concurrent_fetches_share_the_messages(queues: Queues, together) -> None:
    queues.send("q", {str(n): "x" for n in range(2_000)})

    def fetch() -> list[str]:
        got = []
        while found := queues.fetch("q", 7):
            got += [id for id, _ in found]
        return got

    got = [id for part in together(*([fetch] * 6)) for id in part]
    assert sorted(got, key=int) == [str(n) for n in range(2_000)]


def test_a_fetch_is_bounded_by_what_lua_can_unpack(queues: Queues) -> None:
    queues.send("q", {str(n): "x" for n in range(20_000)})
    assert len(queues.fetch("q", 20_000)) == MAX_FETCHED_MESSAGES


def test_a_wait_ends_with_a_message_and_does_not_fetch_it(queues: Queues) -> None:
    came: list[bool] = []
    waiter = threading.Thread(target=lambda: came.append(queues.wait("q")))
    waiter.start()
    queues.send("q", {"1": "x"})
    waiter.join()
    assert came == [True]
    assert queues.waiting("q") == ["1"]


def test_a_wait_without_messages_times_out(queues: Queues, monkeypatch) -> None:
    monkeypatch.setattr(Queues, "BLOCK_SECONDS", 1.0)
    began = time.monotonic()
    assert not queues.wait("q")
    assert not queues.wait_for_work(0.05)
    assert 0.9 < time.monotonic() - began < 5


def test_several_wake_ups_end_one_wait_only(queues: Queues) -> None:
    for _ in range(3):
        queues.wake()
    assert queues.wait_for_work(1)
    assert not queues.wait_for_work(0.05)
    queues.send("q", {"1": "x"})
    queues.ack({"q": ["1"]}, wake=True)
    assert queues.wait_for_work(1)


def test_a_hand_over_moves_the_id_to_the_other_queue(queues: Queues) -> None:
    queues.send("a", {"1": "task"})
    queues.fetch("a", 1)
    queues.hand_over("1", "a", "b", "result")
    assert queues.ids("a", "b") == [set(), {"1"}]
    assert queues.fetch("b", 1) == [("1", b"result")]


def test_requeued_messages_are_fetched_first_in_order(queues: Queues) -> None:
    queues.send("q", {str(n): "x" for n in range(4)})
    queues.fetch("q", 2)
    queues.requeue("q", ["0", "1"])
    queues.requeue("q", [])
    assert queues.waiting("q") == ["0", "1", "2", "3"]


def test_purging_leaves_other_queues(queues: Queues) -> None:
    queues.send("q", {"1": "x"})
    queues.send("r", {"1": "x"})
    queues.purge("q")
    assert (queues.length("q"), queues.waiting("q"), queues.length("r")) == (0, [], 1)


def test_namespaces_do_not_share_messages(queues: Queues, servers) -> None:
    other = Queues(servers.redis_url, f"{queues.namespace}-other")
    queues.send("q", {"1": "x"})
    assert other.length("q") == 0
    other.close()


def woken(queues: Queues) -> bool:
    with suppress(*REDIS_UNAVAILABLE):
        queues.wake()
        return True
    return False


@pytest.mark.parametrize("ask", [Queues.answers, woken])
def test_a_silent_server_is_tried_only_once_while_a_request_waits(queues: Queues, ask) -> None:
    """A silent Redis would take every thread that has to wake the dispatcher.

    A load balancer would also drop all API processes at the same time.
    """
    assert ask(queues)
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = Queues(f"redis://127.0.0.1:{server.getsockname()[1]}", "n")
        assert not ask(silent)
        silent.close()
        server.accept()[0].close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_first_check_returns_the_version_of_the_server(queues: Queues) -> None:
    assert "redis_version" in queues.require()
