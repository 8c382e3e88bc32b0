"""A wrong clock. Python imports this module as it starts, wherever this folder is on its path.

`CLOCK_AHEAD_SECONDS` is added to what Python code takes for the time of day. Timers and waits,
which every system measures otherwise, are left alone; so is the clock of the servers.
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
    """What C code made is one of them as well."""

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
