"""A fake of Gmail, to which the plugin's settings point, and the calls that it received."""

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
    """Return a function that counts the calls since its last call."""

    def since() -> dict[str, int]:
        found = dict(gmail.count())
        gmail.calls.clear()
        return found

    return since
