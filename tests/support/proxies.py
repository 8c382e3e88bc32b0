"""The proxies of `deploy/`: their configurations, with ports and certificates of a test."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.ports import free_port
from support.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy"
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def program(name: str) -> str:
    """Return the path of a proxy. `.ci/run` installs it."""
    found = shutil.which(name, path=PATH)
    if found is None:
        if os.environ.get("CI") and os.uname().sysname == "Linux":
            pytest.fail(f"{name} is not installed; .ci/run installs it")
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def caddy(upstream: int, home: Path) -> Iterator[str]:
    """Run Caddy with `deploy/Caddyfile`, without TLS."""
    url = f"http://127.0.0.1:{free_port()}"
    variables = {
        "PATH": PATH,
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "POLLING_PUBLIC_URL": url,
        "POLLING_UPSTREAM": f"127.0.0.1:{upstream}",
    }
    file = home / "Caddyfile"
    # Caddy's port for administration is fixed, and several tests run at the same time.
    text = (DEPLOY / "Caddyfile").read_text("utf-8")
    file.write_text(text.replace("\n\tservers {", "\n\tadmin off\n\tservers {", 1))
    assert "admin off" in file.read_text()
    command = [program("caddy"), "run", "--config", str(file)]
    with _running([*command, "--adapter", "caddyfile"], variables, home, url):
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
    """Run nginx with `deploy/nginx.conf`, without TLS."""
    port = free_port()
    file = home / "nginx.conf"
    file.write_text(nginx_configuration(upstream, port, home))
    command = [program("nginx"), "-p", str(home), "-c", str(file), "-e", str(home / "error.log")]
    with _running(command, {"PATH": PATH}, home, url := f"http://127.0.0.1:{port}"):
        yield url


@contextmanager
def _running(command: list[str], variables: dict[str, str], home: Path, url: str) -> Iterator[None]:
    log = home / "proxy.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=variables, cwd=home, stdout=file, stderr=file)
    port = int(url.rsplit(":", 1)[1])

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        until(answers, f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
