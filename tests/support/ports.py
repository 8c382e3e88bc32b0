"""Ports for servers that a test starts itself."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a free TCP port for a server that another process will start.

    The port is below the ports that systems give to connections (32768 on Linux, 49152 on macOS).
    So no connection takes it before the server listens.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("", port)):
            return port
