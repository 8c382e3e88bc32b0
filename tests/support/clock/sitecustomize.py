"""Give a process a wrong clock.

Python imports this module when it starts, if this folder is on its path. `CLOCK_AHEAD_SECONDS` is
added to the time of day in Python code. Timers and waits use other clocks and stay correct, as does
the clock of the servers.
"""

import datetime as dt
import os
import time

AHEAD = float(os.environ.get("CLOCK_AHEAD_SECONDS", "0"))

_real_time = time.time
_real = dt.datetime


def _time() -> float:
    return _real_time() + AHEAD


class _Kind(type):
    """The type of `_Datetime`: objects that C code created are instances too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real)


class _Datetime(_real, metaclass=_Kind):
    __slots__ = ()

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
        return _real.fromtimestamp(_time(), tz)

    @classmethod
    def utcnow(cls) -> dt.datetime:
        return _real.fromtimestamp(_time(), dt.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> dt.datetime:
        return _real.fromtimestamp(_time())


time.time = _time
time.time_ns = lambda: int(_time() * 1e9)
dt.datetime = _Datetime  # type: ignore[misc]
