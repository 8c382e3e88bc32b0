"""A network device that delays each packet, so that a server on this machine seems far away.

`python -m benchmarks.distance SECONDS` makes the device, prints `ready`, and moves packets until it
ends. It needs Linux, root and `/dev/net/tun`. A packet to `FAR` comes back as one from `FAR` to
`NEAR` after half of the round trip. So a server that listens on `NEAR` is reached at `FAR`, and
each handshake is delayed too. Exchanging two addresses changes no checksum.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import program, wait_until

NEAR, FAR, PREFIX = "10.213.77.1", "10.213.77.2", 30
DEVICE = b"polling-far"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
QUEUE_PACKETS = 10_000


@contextmanager
def distance(round_trip: float, home: Path) -> Iterator[None]:
    """Make a server on `NEAR` reachable at `FAR`, with this round trip in seconds."""
    log = home / "distance.log"
    log.unlink(missing_ok=True)
    with program([sys.executable, "-m", "benchmarks.distance", str(round_trip)], {}, log):
        wait_until(
            lambda: log.exists() and "ready" in log.read_text(),
            f"see {log}: the device was not made; it needs root and /dev/net/tun",
            seconds=10,
        )
        yield


def main(round_trip: float) -> None:
    """Make the device, and move packets."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE, IFF_TUN | IFF_NO_PI))
    name = DEVICE.decode()
    for words in (
        ["addr", "add", f"{NEAR}/{PREFIX}", "dev", name],
        ["link", "set", name, "up", "txqueuelen", str(QUEUE_PACKETS)],
    ):
        subprocess.run(["ip", *words], check=True)
    print("ready", flush=True)
    _move(tun, round_trip / 2)


def _move(tun: int, delay: float) -> None:
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        pause = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
        select.select([tun], [], [], pause)
        try:
            while True:
                packet = os.read(tun, 65_535)
                waiting.append((time.monotonic() + delay, _returned(packet)))
        except BlockingIOError:
            pass
        while waiting and waiting[0][0] <= time.monotonic():
            os.write(tun, waiting.popleft()[1])


def _returned(packet: bytes) -> bytes:
    """Exchange the addresses of an IPv4 packet; others stay as they are, and are dropped."""
    if packet[0] >> 4 != 4:
        return packet
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


if __name__ == "__main__":
    main(float(sys.argv[1]))
