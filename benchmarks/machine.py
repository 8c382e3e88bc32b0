"""A description of the machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil
import psycopg
import redis

from core.embedded import Urls

PACKAGES = ("dramatiq", "psycopg", "redis", "hiredis", "procrastinate", "celery", "kombu", "dlt")


def describe(urls: Urls) -> dict[str, str]:
    """Return the CPU, cores, memory, and the versions of servers and packages."""
    with psycopg.connect(urls.database_url) as conn, redis.Redis.from_url(urls.redis_url) as client:
        postgres = conn.info.parameter_status("server_version") or "unknown"
        server = client.info("server")
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "PostgreSQL": postgres.split()[0],
        "Valkey": str(server.get("valkey_version") or server["redis_version"]),
    } | _versions()


def one_line(machine: Mapping[str, str]) -> str:
    """Format the description for a terminal."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def _versions() -> dict[str, str]:
    installed = {
        distribution.name: distribution.version for distribution in metadata.distributions()
    }
    return {name: installed[name] for name in PACKAGES if name in installed}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
