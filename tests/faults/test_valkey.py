"""Valkey dies, stalls, loses replies, or refuses to write: the processes wait, and go on by
themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from support import outages
from support.deployment import Deployment
from support.fleet import Fleet
from support.ordeal import begin_without, in_a_run
from support.proxy import Losses, any_reply, redis_proxy, redis_url
from support.servers import Servers


def test_killed(fleet: Fleet, deployment: Deployment, own_servers: Servers) -> None:
    with in_a_run(fleet, deployment):
        own_servers.valkey.kill()
        own_servers.valkey.start()


def test_down_when_workers_start(
    fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    begin_without(own_servers.valkey, fleet, deployment)


def test_stalled_beyond_every_timeout(
    fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    """Consumers, savers and the dispatcher give up their commands; what those had done already
    is done twice, or lost.
    """
    with in_a_run(fleet, deployment), outages.stalled(own_servers.valkey):
        fleet.until(
            lambda: says_all(fleet, "Redis is unavailable", "a server is unavailable"),
            "everybody gives up",
            60,
        )


REFUSALS: dict[str, tuple[Callable[[str], AbstractContextManager[None]], str]] = {
    "out of memory": (outages.out_of_memory, "OOM|used memory > 'maxmemory'"),
    "read-only": (outages.read_only, "read only replica"),
    "without its replicas": (outages.too_few_replicas, "Not enough good replicas"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_refuses_to_write(fault: str, fleet: Fleet, deployment: Deployment) -> None:
    refuse, words = REFUSALS[fault]
    with in_a_run(fleet, deployment):
        with refuse(deployment.redis_url):
            fleet.until(lambda: says_one(fleet, words), "somebody is refused")
            done = deployment.value("SELECT count(*) FROM sync_task WHERE state = 'done'")
        assert done < 2_000, "the run was over before anybody could be refused"


def test_refused_again_and_again(fleet: Fleet, deployment: Deployment) -> None:
    """Each time the engine comes back to it, it refuses in another way."""
    with in_a_run(fleet, deployment):
        for refuse, words in REFUSALS.values():
            with refuse(deployment.redis_url):
                fleet.until(lambda words=words: says_one(fleet, words), "somebody is refused")


def test_replies_lost(make_fleet: Callable[..., Fleet], deployment: Deployment) -> None:
    """What was asked for was done, and nobody knows: messages are taken by nobody, sent twice,
    acknowledged or not.
    """
    losses = Losses(any_reply, rate=0.04, hanging=0.03, seed=8)
    with redis_proxy(deployment.redis_url, losses) as proxy:
        with in_a_run(make_fleet(REDIS_URL=redis_url(proxy)), deployment, quiet=80):
            pass
        assert losses.lost >= 10


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
def test_replies_lost_for_long(
    seed: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    losses = Losses(any_reply, rate=0.06, hanging=0.03, seed=seed)
    with redis_proxy(deployment.redis_url, losses) as proxy:
        with in_a_run(make_fleet(REDIS_URL=redis_url(proxy)), deployment, after=0, quiet=400):
            pass
        assert losses.lost >= 40


def says_one(fleet: Fleet, words: str) -> bool:
    """Whether it has said one of these, separated by bars."""
    said = fleet.says()
    return any(word in said for word in words.split("|"))


def says_all(fleet: Fleet, *words: str) -> bool:
    """Whether it has said all of these."""
    said = fleet.says()
    return all(word in said for word in words)
