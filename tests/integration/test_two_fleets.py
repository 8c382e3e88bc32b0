"""Leaders of two fleets and one Redis: the nonce of a term decides whose it is."""

from __future__ import annotations

from uuid import uuid4

import pytest

from core.ledger import leadership
from core.service.fleet.doctor import servers as doctor
from core.transport.queues import OtherFleet


def test_only_fresh_nonces_of_this_and_the_previous_term_are_known(desk) -> None:
    leadership.resign(desk.conn, desk.me)
    for nonce in (1, 2, 3):
        me = uuid4()
        assert leadership.lead(desk.conn, me, nonce=nonce)
        assert leadership.lead(desk.conn, me, nonce=nonce)
        leadership.resign(desk.conn, me)
    assert leadership.nonces(desk.conn) == {2, 3}
    desk.conn.execute("UPDATE engine_state SET previous_nonce_at = now() - interval '16 s'")
    assert leadership.nonces(desk.conn) == {3}
    desk.conn.execute("UPDATE engine_state SET nonce_at = now() - interval '16 s'")
    assert leadership.nonces(desk.conn) == set()


def test_a_fleet_replaces_its_own_mark_and_no_other(queues, flush) -> None:
    assert queues.occupy(1) is None
    assert queues.occupy(1) is None
    assert queues.occupy(2) == 1
    assert queues.occupy(2, {1}) is None
    assert 9_000 < queues.client.pttl(queues.key("nonce")) <= 10_000
    flush()
    assert queues.occupy(3) is None


def test_messages_of_another_fleet_are_not_taken(queues) -> None:
    queues.send("shop", {"1-1": "a"})
    queues.occupy(1)
    for nonce in (None, 2):
        queues.nonce = nonce
        with pytest.raises(OtherFleet) as caught:
            queues.fetch("shop", 10)
        assert caught.value.nonce == 1
    queues.nonce = 1
    assert queues.fetch("shop", 10) == [("1-1", b"a")]


def test_messages_are_taken_while_no_leader_has_marked_redis(queues) -> None:
    """After a flush, or below a leader of a version without nonces."""
    queues.send("shop", {"1-1": "a"})
    queues.nonce = 7
    assert queues.fetch("shop", 10) == [("1-1", b"a")]


def test_doctor_names_another_deployment(desk, queues, servers) -> None:
    def examine():
        return doctor.sharing(desk.conn, servers.redis_url, queues.namespace)

    leadership.lead(desk.conn, desk.me, nonce=5)
    assert examine() is None
    queues.occupy(5)
    assert examine() is None
    queues.occupy(6, {5})
    check = examine()
    assert (check.status, check.advice.code) == ("fail", "set-own-namespace")
    assert queues.namespace in check.message
