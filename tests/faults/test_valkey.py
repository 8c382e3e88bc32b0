"""Valkey dies, stalls, loses replies or refuses writes.

The processes wait, and resume by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from integration_polling_hello_world import HelloWorld
from support import oracle, outages
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.ordeal import begin_without, in_a_run
from support.proxy import Losses, any_reply, redis_proxy, redis_url
from support.servers import Servers

from core.service.fleet.doctor import servers


def test_a_killed_valkey_loses_and_repeats_nothing(
    fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    with in_a_run(fleet, deployment):
        own_servers.valkey.kill()
        own_servers.valkey.start()


def test_workers_that_start_without_valkey_wait_for_it(
    fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    begin_without(own_servers.valkey, fleet, deployment)


def test_a_stall_beyond_every_timeout_loses_and_repeats_nothing(
    fleet: Fleet, deployment: Deployment, own_servers: Servers
) -> None:
    """Consumers, savers and the dispatcher abandon their commands.

    The commands that Valkey had already executed take effect twice, or are lost.
    """
    with in_a_run(fleet, deployment), outages.stalled(own_servers.valkey):
        fleet.until(
            lambda: says_all(fleet, "the consumer of", "the leader dispatches nothing"),
            "everybody gives up",
            60,
        )


REFUSALS: dict[str, tuple[Callable[[str], AbstractContextManager[None]], str]] = {
    "out of memory": (outages.out_of_memory, "OOM|used memory > 'maxmemory'"),
    "read-only": (outages.read_only, "read only replica"),
    "without its replicas": (outages.too_few_replicas, "Not enough good replicas"),
}


@pytest.mark.long
@pytest.mark.parametrize("fault", REFUSALS)
def test_refused_writes_lose_and_repeat_nothing(
    fault: str, fleet: Fleet, deployment: Deployment
) -> None:
    refuse, words = REFUSALS[fault]
    with in_a_run(fleet, deployment):
        with refuse(deployment.redis_url):
            fleet.until(lambda: says_one(fleet, words), "a process reports the refusal")
            done = deployment.value("SELECT count(*) FROM sync_task WHERE state = 'done'")
        assert done < 2_000, "the run was over before anybody could be refused"


def test_writes_refused_again_and_again_lose_and_repeat_nothing(
    fleet: Fleet, deployment: Deployment
) -> None:
    """Each time the engine tries Valkey again, Valkey refuses in another way."""
    with in_a_run(fleet, deployment):
        for refuse, words in REFUSALS.values():
            with refuse(deployment.redis_url):
                fleet.until(
                    lambda words=words: says_one(fleet, words), "a process reports the refusal"
                )


def test_a_redis_user_without_a_command_is_reported_once(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The log and `polling doctor` name the command. When it is allowed, work resumes by itself."""
    client, user = deployment.queues.client, deployment.namespace
    client.execute_command(
        "ACL", "SETUSER", user, "reset", "on", ">secret", f"~{user}:*", "+@all", "-blmove", "-hkeys"
    )
    url = deployment.redis_url.replace("unix://", f"unix://{user}:secret@")
    try:
        check = servers.redis(url, deployment.namespace)
        assert (check.status, check.message) == (
            "fail",
            "the user in REDIS_URL may not run HKEYS, BLMOVE",
        )
        fleet = make_fleet(REDIS_URL=url)
        fleet.workers(processes=2)
        fleet.ready()
        fleet.until(lambda: "may not run" in fleet.says(), "the command is named")
        account = connect(deployment, HelloWorld, {"pages": 20})
        client.execute_command("ACL", "SETUSER", user, "+blmove", "+hkeys")
        assert servers.redis(url, deployment.namespace).status == "ok"
        sync(deployment, account)
        oracle.wait_for_quiet(fleet, replace=False)
        oracle.assert_synced(fleet, account, {"pages": 20})
        assert fleet.says().count("may not run HKEYS, BLMOVE") == 1
    finally:
        client.execute_command("ACL", "DELUSER", user)


def test_lost_replies_lose_and_repeat_nothing(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Valkey executed the commands, and no process knows.

    Messages are fetched and not received, sent twice, or acknowledged without a reply.
    """
    losses = Losses(any_reply, rate=0.04, hanging=0.03, most=25, seed=8)
    with redis_proxy(deployment.redis_url, losses) as proxy:
        with in_a_run(make_fleet(REDIS_URL=redis_url(proxy)), deployment, quiet=80):
            pass
        assert losses.lost >= 10


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
def test_replies_lost_for_minutes_lose_and_repeat_nothing(
    seed: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    losses = Losses(any_reply, rate=0.06, hanging=0.03, seed=seed)
    with redis_proxy(deployment.redis_url, losses) as proxy:
        with in_a_run(make_fleet(REDIS_URL=redis_url(proxy)), deployment, after=0, quiet=400):
            pass
        assert losses.lost >= 40


def says_one(fleet: Fleet, words: str) -> bool:
    """Return True if the log contains one of these texts, which are separated by bars."""
    said = fleet.says()
    return any(word in said for word in words.split("|"))


def says_all(fleet: Fleet, *words: str) -> bool:
    """Return True if the log contains all of these texts."""
    said = fleet.says()
    return all(word in said for word in words)
