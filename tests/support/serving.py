"""`polling serve` as a process of its own, and clients of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from core.scopes import ALL
from core.service import tokens
from support.deployment import Deployment
from support.forks import POLLING, start
from support.waiting import until


@dataclass
class Served:
    """A running `polling serve`.

    Attributes:
      url: Its address.
      token: An operator's token.
    """

    url: str
    token: str
    process: psutil.Process
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def client(self, url: str | None = None, token: str | None = None) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx2.Client(
            base_url=url or self.url, headers=headers, timeout=10, trust_env=False, verify=False
        )


@contextmanager
def polling_serve(
    deployment: Deployment, folder: Path, *, files: int | None = None, **variables: str
) -> Iterator[Served]:
    """Run `polling serve` with further settings, on a free port.

    Args:
      deployment: The deployment.
      folder: The folder of the process.
      files: The number of files that the process may open. Default: that of the tests.
      **variables: The settings.
    """
    log = folder / "serve.log"
    environment = deployment.environment() | variables
    with deployment.connection() as conn:
        token = tokens.create(conn, user_id=None, scopes=ALL).secret
    argv = [*POLLING, "serve", "--port", "0"]
    if files is not None:
        argv = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *argv]
    with log.open("w") as file, Path(os.devnull).open() as nothing:
        streams = [nothing.fileno(), file.fileno(), file.fileno()]
        program = start(argv, environment, folder, streams)
    process = psutil.Process(program.pid)
    try:
        found = until(
            lambda: re.search(r"The dashboard is at (http://[\d.:]+\d)", log.read_text()),
            "the API listens",
        )
        served = Served(found[1], token, process, log)
        with served.client() as client:
            until(lambda: client.get("/healthz").status_code == 200, "the API answers")
        yield served
    finally:
        process.kill()
        program.wait()
        print(log.read_text()[-20_000:])
