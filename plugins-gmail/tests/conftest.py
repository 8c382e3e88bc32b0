"""A fake of Gmail that the plugin's settings lead to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.gmail import FakeGmail


@pytest.fixture
def gmail(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGmail]:
    with FakeGmail() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake
