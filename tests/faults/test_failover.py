"""Redis fails over to a replica that lacks the last second, by Sentinel or by DNS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.metered import Metered
from support.sentinels import NAME, PASSWORD, ChangingName, Replicated
from support.waiting import until

from core.integration.limits import Rate
from core.limits.budgets import Budgets, UnitRequest
from core.service.fleet.doctor import servers
from core.transport.queues import Queues

CREDENTIALS = f"default:{quote(PASSWORD, safe='')}@"


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Replicated]:
    folder = tmp_path / "replicated"
    folder.mkdir()
    servers = Replicated(folder)
    yield servers
    servers.close()


def _fail_over(deployment: Deployment, folder: Path, fail: Callable[[], None]) -> None:
    """Fail over in a run. No attempt counts, and no call exceeds the budget."""
    fleet = Fleet(deployment, folder, POLLING_LEASE_SECONDS="60")
    try:
        fleet.workers()
        fleet.ready(60)
        pids = fleet.worker_pids()
        account = connect(deployment, Metered, oracle.COSTLY)
        sync(deployment, account)
        oracle.wait_for_progress(fleet, 150)
        fail()
        oracle.wait_for_quiet(fleet, 60, replace=False)
        oracle.assert_synced(fleet, account, oracle.COSTLY)
        oracle.assert_nobody_convicted(deployment)
        assert fleet.worker_pids() == pids
    finally:
        fleet.end()
        print(fleet.says()[-9000:])
        deployment.close()


@pytest.mark.long
@pytest.mark.timeout(150)
def test_a_failover_by_sentinel_is_like_a_flush(
    deployment: Deployment, replicated: Replicated, tmp_path: Path
) -> None:
    """Messages, acknowledgements and units of the last second are lost."""
    replicated.watch()
    url = (
        f"redis+sentinel://{CREDENTIALS}127.0.0.1:1,127.0.0.1:{replicated.sentinel}/{NAME}/2"
        "?sentinel_password=of-sentinel"
    )
    behind = replace(deployment, redis_url=url)
    assert servers.redis(url, "polling").status == "ok"
    _fail_over(behind, tmp_path, lambda: replicated.fail_over(1.0))
    assert servers.redis(url, "polling").status == "ok"
    no_password = servers.redis(url.replace("of-sentinel", "wrong"), "polling")
    assert no_password.status == "fail"
    assert PASSWORD not in str(no_password)


@pytest.mark.parametrize("watched", [True, False])
def test_units_that_a_promoted_replica_lacks_count_as_spent(
    replicated: Replicated, watched: bool
) -> None:
    """In the second that is lost, the fleet may have taken the complete limit."""
    limit = Rate("q", 1_000, 1_000.0)
    with ChangingName(replicated.master) as name:
        if watched:
            replicated.watch()
            url = (
                f"redis+sentinel://{CREDENTIALS}127.0.0.1:{replicated.sentinel}/{NAME}/0"
                "?sentinel_password=of-sentinel"
            )
        else:
            url = f"redis://{CREDENTIALS}127.0.0.1:{name.port}/0"
        with closing(Queues(url, "polling")) as queues:
            first = iter([True])
            budgets = Budgets(
                queues.client, queues.key, lambda: next(first, False), queues.run_first
            )

            def taken() -> int:
                count = 0
                while budgets.take([UnitRequest("k", limit, 1)]) is None:
                    count += 1
                return count

            assert budgets.left([UnitRequest("k", limit, 1)])["k"].units == 1_000
            assert budgets.take([UnitRequest("other", limit, 1)]) is None
            with replicated.client(replicated.master) as client:
                assert client.wait(1, 10_000) == 1

            lost: list[int] = []
            lag = replicated.lag

            def taking(seconds: float) -> None:
                lag(seconds)
                lost.append(taken())

            replicated.lag = taking  # type: ignore[method-assign]
            replicated.fail_over(0.0, by_hand=not watched)
            name.target = replicated.replica
            until(queues.answers, "the new master answers", 30)
            assert lost[0] == 1_000
            with replicated.client(replicated.replica) as client:
                known = client.hkeys(queues.key("rates"))
            assert b"log/k" not in known, "the replica lacks what was taken"
            assert taken() == 0, "the complete limit counts as spent"


@pytest.mark.timeout(150)
def test_a_failover_by_dns_is_like_a_flush(
    deployment: Deployment, replicated: Replicated, tmp_path: Path
) -> None:
    """The old master lives on as a replica, and open connections stay with it."""
    with ChangingName(replicated.master) as name:
        behind = replace(deployment, redis_url=f"redis://{CREDENTIALS}127.0.0.1:{name.port}/0")

        def fail() -> None:
            replicated.promote(1.0)
            name.target = replicated.replica

        _fail_over(behind, tmp_path, fail)
        assert replicated.info(replicated.master)["role"] == "slave"
