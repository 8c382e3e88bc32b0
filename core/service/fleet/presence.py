"""The row of a process that serves the API, with which it names the keys that it encrypts with."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

from core.db.clocks import HEARTBEAT_SECONDS
from core.db.errors import describe
from core.ledger import processes
from core.ledger.processes import Process
from core.service.backend import Backend

log = logging.getLogger(__name__)


@contextmanager
def registered(backend: Backend) -> Iterator[None]:
    """Register this process as one that serves the API, during the block.

    `polling keys rotate` and `polling doctor` read with which keys it encrypts.
    """
    host, keys = socket.gethostname(), backend.vault.fingerprints
    process = Process(uuid4(), "api", host, os.getpid(), [], 0, keys)
    ended = threading.Event()
    _beat(backend, process)
    heart = threading.Thread(
        target=_keep_beating, args=(backend, process, ended), name="heartbeat", daemon=True
    )
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join(timeout=HEARTBEAT_SECONDS)
        try:
            with backend.database.connection() as conn:
                processes.deregister(conn, process.id)
        except Exception as error:  # noqa: BLE001  the row expires by itself
            log.warning("could not deregister this process: %s", describe(error))


def _keep_beating(backend: Backend, process: Process, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        _beat(backend, process)


def _beat(backend: Backend, process: Process) -> None:
    try:
        with backend.database.connection() as conn:
            processes.heartbeat(conn, process, datetime.now(UTC))
    except Exception as error:  # noqa: BLE001  requests report an unavailable database
        log.warning("the heartbeat failed; retrying in 5 s: %s", describe(error))
