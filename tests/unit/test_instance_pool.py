"""InstancePool keeps integrations for the next task of their account.

An error while one is closed affects no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from core import BaseIntegration, Manifest, TransientError
from core.egress import Egress
from core.worker.accounts import LoadedAccount
from core.worker.instance_pool import InstancePool


@pytest.fixture
def closed() -> list[Any]:
    return []


@pytest.fixture
def account(loaded: LoadedAccount, closed: list[Any]) -> Callable[..., LoadedAccount]:
    """Return a function that makes an account.

    Its integration records that it was closed, and raises the given errors.
    """

    def make(
        version: int = 5, *, begins: BaseException | None = None, ends: BaseException | None = None
    ) -> LoadedAccount:
        class Noting(BaseIntegration):
            manifest = Manifest("noting", "Noting")

            def initialize(self) -> None:
                if begins is not None:
                    raise begins

            def close(self) -> None:
                closed.append(self)
                if ends is not None:
                    raise ends

        return replace(loaded, account=replace(loaded.account, version=version), integration=Noting)

    return make


def test_a_released_instance_serves_the_next_task(
    account: Callable[..., LoadedAccount], closed: list[Any]
) -> None:
    instances, mine = InstancePool(Egress()), account()
    first = instances.take(mine)
    second = instances.take(mine)
    assert first is not second, "an instance runs one task at a time"
    instances.release(first)
    assert instances.take(mine) is first
    assert not closed


def test_an_instance_of_an_older_version_is_closed(
    account: Callable[..., LoadedAccount], closed: list[Any]
) -> None:
    instances = InstancePool(Egress())
    old = instances.take(account(5))
    instances.release(old)
    assert instances.take(account(6)) is not old
    assert closed == [old.integration]


def test_idle_instances_are_closed_once(
    account: Callable[..., LoadedAccount], closed: list[Any]
) -> None:
    instances, mine = InstancePool(Egress()), account()
    idle = instances.take(mine)
    instances.release(idle)
    instances.close_idle(older_than=60)
    assert not closed
    for _ in range(2):
        instances.close_idle(older_than=0)
    assert closed == [idle.integration]
    assert instances.take(mine) is not idle


def test_instances_are_closed_without_comparing_them_with_each_other(
    loaded: LoadedAccount,
) -> None:
    """A process that polls 200,000 accounts has thousands of idle instances."""
    compared: list[object] = []

    class Compared(BaseIntegration):
        manifest = Manifest("compared", "Compared")

        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return self is other

        __hash__ = object.__hash__

    instances, mine = InstancePool(Egress()), replace(loaded, integration=Compared)
    for instance in [instances.take(mine) for _ in range(5)]:
        instances.release(instance)
    instances.close_idle(older_than=0)
    assert not compared


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no"), SystemExit(1), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_an_error_in_close_affects_no_other_instance(
    account: Callable[..., LoadedAccount], closed: list[Any], error: BaseException
) -> None:
    instances, mine = InstancePool(Egress()), account(ends=error)
    for instance in (instances.take(mine), instances.take(mine)):
        instances.release(instance)
    instances.close_idle(older_than=0)
    assert len(closed) == 2


def test_an_instance_that_fails_to_initialize_is_closed_and_not_kept(
    account: Callable[..., LoadedAccount], closed: list[Any]
) -> None:
    instances = InstancePool(Egress())
    with pytest.raises(TransientError):
        instances.take(account(begins=TransientError("not now")))
    assert len(closed) == 1
    instances.close_idle(older_than=0)
    assert len(closed) == 1
