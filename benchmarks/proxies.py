"""The proxies of `deploy/`, with their own configurations on ports and in folders of this run."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from benchmarks.processes import ROOT, ended, program, wait_until

DEPLOY = ROOT / "deploy"
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def installed(name: str) -> str | None:
    """Return the path of a proxy; None if it is not installed."""
    return shutil.which(name, path=PATH)


def free_port() -> int:
    """Return a free TCP port below those that systems give to connections."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("", port)):
            return port


@contextmanager
def caddy(upstream: int, home: Path) -> Iterator[str]:
    """Run Caddy with `deploy/Caddyfile`, without TLS; yield its address."""
    url = f"http://127.0.0.1:{free_port()}"
    variables = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "POLLING_PUBLIC_URL": url,
        "POLLING_UPSTREAM": f"127.0.0.1:{upstream}",
    }
    file = home / "Caddyfile"
    # Caddy's port for administration is fixed, and several proxies may run at the same time.
    text = (DEPLOY / "Caddyfile").read_text("utf-8")
    file.write_text(text.replace("\n\tservers {", "\n\tadmin off\n\tservers {", 1))
    assert "admin off" in file.read_text()
    command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    with _running(command, variables, home, url):
        yield url


def nginx_configuration(upstream: int, port: int, home: Path) -> str:
    """Return `deploy/nginx.conf` for one port without TLS, with all files in a folder."""
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    text = re.sub(r"^\s*listen \[::\].*;\n", "", text, flags=re.MULTILINE)
    text = text.replace("listen 80 default_server;", f"listen {free_port()} default_server;")
    text = re.sub(
        r"^\s*(listen 443 ssl default_server|ssl_\w+ .*);\n", "", text, flags=re.MULTILINE
    )
    text = text.replace("listen 80;", f"listen {free_port()};")
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = text.replace("polling.example.org", "127.0.0.1").replace(
        "127.0.0.1:8080", f"127.0.0.1:{upstream}"
    )
    text = re.sub(r"^(user|include) .*;\n", "", text, flags=re.MULTILINE)
    text = text.replace("/run/nginx.pid", str(home / "nginx.pid"))
    text = text.replace("/var/log/nginx", str(home))
    folders = "".join(
        f"    {name}_temp_path {home / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return "daemon off;\nmaster_process off;\n" + text.replace("http {\n", f"http {{\n{folders}", 1)


@contextmanager
def nginx(upstream: int, home: Path) -> Iterator[str]:
    """Run nginx with `deploy/nginx.conf`, without TLS; yield its address."""
    port = free_port()
    file = home / "nginx.conf"
    file.write_text(nginx_configuration(upstream, port, home))
    command = ["nginx", "-p", str(home), "-c", str(file), "-e", str(home / "error.log")]
    with _running(command, {}, home, url := f"http://127.0.0.1:{port}"):
        yield url


Proxy = Callable[[int, Path], AbstractContextManager[str]]

PROXIES: dict[str, Proxy] = {"caddy": caddy, "nginx": nginx}
"""The proxies by the name of their program. Each takes the port of the API and a folder."""


@contextmanager
def _running(command: list[str], variables: dict[str, str], home: Path, url: str) -> Iterator[None]:
    name, *arguments = command
    path, log = installed(name), home / "proxy.log"
    if path is None:
        raise RuntimeError(f"{name} is not installed")
    port = int(url.rsplit(":", 1)[1])
    with program([path, *arguments], variables, log) as process:

        def answers() -> bool:
            if ended(process):
                raise RuntimeError(log.read_text())
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        wait_until(answers, f"{name} did not listen; see {log}")
        yield
