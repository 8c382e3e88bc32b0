"""Test tools for plugin authors: a harness in memory, fault injection and a conformance suite.

    class TestMine(IntegrationConformance):
        integration = Mine

`IntegrationConformance` needs pytest; `Harness` and `Faults` do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.testing.content import Item
from core.testing.faults import Faults
from core.testing.harness import Harness
from core.testing.listening import RecordedHints, listening
from core.testing.outcome import Parked, SyncResult

if TYPE_CHECKING:
    from core.testing.conformance import IntegrationConformance

__all__ = [
    "Faults",
    "Harness",
    "IntegrationConformance",
    "Item",
    "Parked",
    "RecordedHints",
    "SyncResult",
    "listening",
]


def __getattr__(name: str) -> Any:
    if name == "IntegrationConformance":
        from core.testing.conformance import IntegrationConformance

        return IntegrationConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
