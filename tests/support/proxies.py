"""The proxies of `deploy/`, as the benchmarks run them; a test without them is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.proxies import PROXIES, installed


@contextmanager
def caddy(upstream: int, home: Path) -> Iterator[str]:
    """Run Caddy with `deploy/Caddyfile`, without TLS."""
    with _run("caddy", upstream, home) as url:
        yield url


@contextmanager
def nginx(upstream: int, home: Path) -> Iterator[str]:
    """Run nginx with `deploy/nginx.conf`, without TLS."""
    with _run("nginx", upstream, home) as url:
        yield url


@contextmanager
def _run(name: str, upstream: int, home: Path) -> Iterator[str]:
    if installed(name) is None:
        if os.environ.get("CI") and os.uname().sysname == "Linux":
            pytest.fail(f"{name} is not installed; .ci/run installs it")
        pytest.skip(f"{name} is not installed")
    with PROXIES[name](upstream, home) as url:
        yield url
