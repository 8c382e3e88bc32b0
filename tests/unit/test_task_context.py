"""`ctx.task`: the attempt of a task, and whether it is a suspect."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from core.ledger.outcomes import Dispatch
from core.worker.context import TaskContext


@pytest.mark.parametrize("suspect", [False, True])
def test_a_task_knows_whether_it_is_a_suspect(
    suspect: bool, dispatch: Callable[..., Dispatch]
) -> None:
    account = SimpleNamespace(id=uuid4(), user_id="u", name="n", integration_domain="d")
    loaded: Any = SimpleNamespace(account=account)
    services: Any = None
    instance: Any = None
    context = TaskContext(services, dispatch(suspect=suspect, attempts=2), loaded, instance)
    assert context.task.is_suspect is suspect
    assert context.task.attempt == 3
