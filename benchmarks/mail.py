"""Time and memory of reading one mail, against CPython's own parser on the same mail.

The peer is `email.message_from_bytes`, which only splits the mail into parts; it decodes nothing.
The reader decodes everything: text, HTML, people, headers, dates and files. Each mail must take at
most `TIMES` the time of the parser plus `CONSTANT_SECONDS`, and at most `MAX_MIB` of memory beyond
its own size. The mails are ordinary ones, mutants, and pathological ones.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from email import message_from_bytes
from pathlib import Path

from benchmarks.engine import Testbed
from benchmarks.letters import MIB, letters
from benchmarks.report import Budget, Options, Report
from core.mail import Part, read, split_reply

TIMES = 3
CONSTANT_SECONDS = 0.75
"""The constant of the bound: 150,000 tags become text, which no parser of mail does."""

MAX_MIB = 64
TRIES = 3
"""The number of tries for a mail that misses its bound: the fastest counts."""


def run(bed: Testbed, options: Options) -> Report:
    """Measure mails/s of both, and the worst mail's time and memory relative to its bound."""
    del bed  # no server is needed
    sizes = {"ordinary_count": options.size(300, 10), "mutants": options.size(500, 10),
             "max_bytes": options.size(1 << 30, 700_000)}  # fmt: skip
    ours, theirs, slow, big = [], [], [], []
    for number in range(options.rounds):
        rates = {"ordinary": (0.0, 0.0)}
        for name, source in letters(**sizes):
            mine, peer = _times(source)
            if name == "ordinary":
                rates[name] = rates[name][0] + mine, rates[name][1] + peer
            slow.append((mine / (TIMES * peer + CONSTANT_SECONDS), name, mine, peer))
            if number == 0 and (len(source) > MIB or name.startswith("mutant")):
                big.append((_memory(source) / MAX_MIB, name))
        ours.append(sizes["ordinary_count"] / rates["ordinary"][0])
        theirs.append(sizes["ordinary_count"] / rates["ordinary"][1])
    worst = [{"mail": name, "share of the bound": round(share, 2), "seconds": round(mine, 3),
              "parser, seconds": round(peer, 3)}
             for share, name, mine, peer in sorted(slow, reverse=True)[:10]]  # fmt: skip
    largest = [{"mail": name, "MiB": round(share * MAX_MIB, 1)}
               for share, name in sorted(big, reverse=True)[:10]]  # fmt: skip
    budgets = [
        Budget(f"time of the slowest mail, relative to {TIMES} x the parser's + "
               f"{CONSTANT_SECONDS} s", max(slow)[0], at_most=1.0),
        Budget("memory of the largest mail beyond its own size, in MiB", max(big)[0] * MAX_MIB,
               at_most=MAX_MIB),
    ]  # fmt: skip
    return Report("mail", "mails/s", ours, theirs, "CPython's parser, which decodes nothing",
                  budgets, {"slowest": worst, "largest": largest})  # fmt: skip


def whole(source: bytes) -> None:
    """Read everything that a plugin reads of a mail."""

    def opened(_: Part) -> object:
        return _ignore

    mail = read(source, opened)  # type: ignore[arg-type]
    for name in ("from", "to", "cc", "bcc", "reply-to"):
        mail.people(name)
    mail.headers(), mail.subject, mail.date, split_reply(mail.text), mail.reading()


def _ignore(data: bytes) -> None:
    """Take the bytes of a file."""


def _times(source: bytes) -> tuple[float, float]:
    """Return the seconds of the reader and of the parser, alternating; the fastest try counts."""
    best = float("inf"), float("inf")
    for _ in range(TRIES):
        best = min(best[0], _timed(whole, source)), min(best[1], _timed(message_from_bytes, source))
        if best[0] <= TIMES * best[1] + CONSTANT_SECONDS / 2:
            break
    return best


def _timed(function: Callable[[bytes], object], source: bytes) -> float:
    gc.collect()
    began = time.process_time()
    with suppress(RecursionError):  # CPython's parser has no bound for nested parts
        function(source)
    return time.process_time() - began


def _memory(source: bytes) -> float:
    """Return the MiB that a process of its own takes to read a mail, beyond the mail's size."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # free memory of earlier mails would hide what this one takes
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        before = _resident()
        whole(source)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(writing, str(max(peak - before, 0)).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    taken = int(os.read(reading, 100) or b"-1")
    os.close(reading)
    if taken < 0:
        raise RuntimeError("the process that read the mail has failed")
    return max(taken - len(source), 0) / MIB


def _resident() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
