"""A fake of Gmail that the plugin's settings lead to, and what it was asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.gmail import FakeGmail
from syncing import Costs


@pytest.fixture
def gmail(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGmail]:
    with FakeGmail() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def costs(gmail: FakeGmail) -> Costs:
    """What was asked since the last time."""

    def since() -> dict[str, int]:
        found = dict(gmail.count())
        gmail.calls.clear()
        return found

    return since
