"""Faults of the network before real servers: nothing is lost, and nothing is kept half."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from fault_proxy import Action, Fault, Moment, Proxy, proxied
from integration_polling_ftp import Ftp
from odd_trees import write_tree
from real_servers import RealServer, serve

from core.testing import Harness

FILES = 60
LARGE = "large.bin"


OTHERS = [pytest.param(name, marks=pytest.mark.long) for name in ("vsftpd", "pure-ftpd")]


@pytest.fixture(params=["proftpd", *OTHERS], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with serve(request.param) as server:
        server.wanted = write_tree(server.home, server.name, FILES)  # type: ignore[attr-defined]
        content = os.urandom(6_000_000)
        (server.home / LARGE).write_bytes(content)
        server.wanted[f"/{LARGE}"] = hashlib.sha256(content).hexdigest()  # type: ignore[attr-defined]
        yield server


def harness_of(server: RealServer, proxy: Proxy, **config: object) -> Harness:
    settings = {**server.config, "port": proxy.port, "timeout_seconds": 1, **config}
    return Harness(Ftp, settings, server.credentials)


def kept(harness: Harness) -> dict[str, str]:
    return {
        path: hashlib.sha256(item.content or b"").hexdigest()
        for path, item in harness.content.items()
        if item.kind == "file"
    }


def assert_nothing_is_wrong(harness: Harness, wanted: dict[str, str]) -> None:
    """Check that each kept file is complete, and that no item was marked deleted."""
    found = kept(harness)
    assert found.keys() - wanted.keys() == set()
    assert {path for path in found if found[path] != wanted[path]} == set()


@pytest.mark.parametrize("action", ["cut", pytest.param("reset", marks=pytest.mark.long), "stall"])
@pytest.mark.parametrize("moment", ["listing", "file", "before data", "after data", "control"])
def test_a_fault_loses_nothing_and_keeps_nothing_half(
    server: RealServer, moment: Moment, action: Action
) -> None:
    wanted: dict[str, str] = server.wanted  # type: ignore[attr-defined]
    fault = Fault(moment, action, times=2, skip={"control": 20, "file": 15}.get(moment, 2), gap=3)
    with proxied(server.port, fault) as proxy:
        harness = harness_of(server, proxy)
        result = harness.sync()
        assert proxy.happened >= 1, "the fault did not happen"
        assert_nothing_is_wrong(harness, wanted)
        for _ in range(3):
            if result.state == "succeeded" and not result.skipped_items:
                break
            result = harness.sync()
            assert_nothing_is_wrong(harness, wanted)
        assert kept(harness) == wanted
        assert proxy.commands["USER"] <= 1 + 2 * proxy.happened


@pytest.mark.parametrize(
    "action", ["reset", *(pytest.param(each, marks=pytest.mark.long) for each in ("cut", "stall"))]
)
@pytest.mark.parametrize("name", [LARGE, "plain 0.txt"])
def test_a_file_that_always_breaks_stops_no_other(
    server: RealServer, name: str, action: Action
) -> None:
    wanted: dict[str, str] = server.wanted  # type: ignore[attr-defined]
    fault = Fault("before data" if name != LARGE else "file", action, only=name, times=10**6)
    if name != LARGE:
        fault = Fault("after data", action, only=f"/{name}", times=10**6)
    with proxied(server.port, fault) as proxy:
        harness = harness_of(server, proxy)
        result = harness.sync()
        assert_nothing_is_wrong(harness, wanted)
        missing = wanted.keys() - kept(harness).keys()
        assert missing <= {f"/{name}"}, sorted(missing)[:5]
        assert result.state != "succeeded" or not missing
        fault.times = 0
        for _ in range(3):
            harness.sync()
        assert kept(harness) == wanted


def test_a_slow_login_is_paid_once(server: RealServer) -> None:
    with proxied(server.port, login_seconds=2) as proxy:
        harness = harness_of(server, proxy, timeout_seconds=25)
        began = time.monotonic()
        assert harness.sync().state == "succeeded"
        assert kept(harness) == server.wanted  # type: ignore[attr-defined]
        assert proxy.commands["USER"] == 1
        assert time.monotonic() - began < 120


def test_each_listed_item_is_saved_unchanged_or_skipped(server: RealServer) -> None:
    """Each listed item is saved, unchanged, or skipped with a reason."""
    listed = Counter("directory" if path.is_dir() else "file" for path in server.home.rglob("*"))
    with proxied(server.port, latency=0.005) as proxy:
        harness = harness_of(server, proxy)
        for _ in range(2):
            result = harness.sync()
            assert (
                result.outputs_saved + result.outputs_unchanged + result.skipped_items.total()
                == listed.total()
            )


@pytest.mark.parametrize("name", ["proftpd", *OTHERS])
def test_a_server_with_one_place_is_copied_although_connections_break(name: str) -> None:
    """A server may count a lost connection for some time, and refuse the next one."""
    with serve(name, 1) as server:
        wanted = write_tree(server.home, name, 40)
        with proxied(server.port, Fault("file", "reset", times=3, skip=5, gap=5)) as proxy:
            harness = harness_of(server, proxy, max_connections=1)
            for _ in range(4):
                result = harness.sync()
                if result.state == "succeeded" and not result.skipped_items:
                    break
            assert kept(harness) == wanted
            assert proxy.happened == 3
            assert not result.parked
