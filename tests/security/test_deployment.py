"""The image, the Compose file and the proxies of `deploy/` limit what an attack can reach."""

from __future__ import annotations

import re
import socket
import threading
import tomllib
from contextlib import closing, suppress
from pathlib import Path

import httpx2
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import proxies
from support.attacks import attacking
from support.deploying import DEPLOY, ROOT, compose
from support.ports import free_port
from support.serving import polling_serve
from support.waiting import until

LOCKED = (DEPLOY / "requirements.txt").read_text("utf-8")
PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCKED, re.MULTILINE))
SERVICES = sorted(compose()["services"])


def project(path: Path) -> dict:  # type: ignore[type-arg]
    return tomllib.loads((path / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_image_installs_only_files_with_known_hashes() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert "--require-hashes --only-binary :all:" in text
    assert "!deploy/requirements.txt" in (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8")
    for block in re.split(r"\n(?=\S)", LOCKED):
        if not block.startswith("#"):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
    # pip downloads from the index that it is configured for, and compares the hashes.
    assert "://" not in LOCKED


@pytest.mark.parametrize(
    "path", [ROOT, *sorted(ROOT.glob("plugins-*"))], ids=lambda path: path.name
)
def test_the_pinned_packages_satisfy_the_engine_and_its_plugins(path: Path) -> None:
    """The build would download other versions without a hash."""
    found = project(path)
    extras = found.get("optional-dependencies", {}) if path == ROOT else {}
    needed = [*found["dependencies"], *(one for name in ("serve", "sentry", "otel")
              for one in extras.get(name, ()))]  # fmt: skip
    for requirement in map(Requirement, needed):
        name = canonicalize_name(requirement.name)
        if name != "integration-polling":
            assert requirement.specifier.contains(PINNED[name]), f"{name}: run nox -s lock"


@pytest.mark.parametrize("proxy", [proxies.caddy, proxies.nginx])
def test_the_proxies_log_no_secrets_of_requests(proxy, tmp_path) -> None:
    """They log a request that the API does not answer, such as the end of a sign-in."""
    path = "/oauth/callback?code=SECRET&state=SECRET"
    with (
        proxy(free_port(), tmp_path) as url,
        httpx2.Client(base_url=url, trust_env=False) as client,
    ):
        secrets = {"Authorization": "Bearer SECRET", "Cookie": "a=SECRET", "Referer": url + path}
        assert client.get(path, headers=secrets).status_code == 502

        def logs() -> str:
            return "".join(log.read_text("utf-8") for log in tmp_path.glob("*.log"))

        until(lambda: "/oauth/callback" in logs(), "the proxy has logged the request")
    assert "SECRET" not in logs()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_limits(name: str) -> None:
    service = compose()["services"][name]
    assert re.search(r"\d+[mg]", str(service["mem_limit"]))
    assert 0 < service["pids_limit"] <= 512
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]


def test_the_networks_are_separate() -> None:
    found = compose()
    networks = {name: set(service["networks"]) for name, service in found["services"].items()}
    assert networks["postgres"] == networks["valkey"] == {"data"}
    assert found["networks"]["data"]["internal"] is True
    assert networks["proxy"] == {"edge"}
    assert networks["api"] == {"data", "internet", "edge"}
    assert networks["worker"] == networks["scheduler"] == {"data", "internet"}
    published = [port for one in found["services"].values() for port in one.get("ports", ())]
    assert sorted(published) == ["127.0.0.1:${PORT:-8080}:8080", "443:443", "80:80"]


def test_valkey_has_a_password() -> None:
    found = compose()
    assert "requirepass ${VALKEY_PASSWORD:?" in found["configs"]["valkey"]["content"]
    for name in ("worker", "scheduler", "api", "migrate"):
        assert "redis://:${VALKEY_PASSWORD" in found["services"][name]["environment"]["REDIS_URL"]
    # Arguments are visible to every process of the host.
    assert "PASSWORD" not in str(found["services"]["valkey"]["command"])


@pytest.mark.parametrize("proxy", [proxies.caddy, proxies.nginx])
def test_browsers_are_told_to_use_https(proxy, deployment, tmp_path) -> None:
    home = tmp_path / "proxy"
    home.mkdir()
    with polling_serve(deployment, tmp_path) as served, proxy(served.port, home) as url:
        for path in ("/sign-in", "/no-such-page", "/v1/integrations"):
            with served.client(url) as client:
                sent = client.get(path).headers["strict-transport-security"]
            assert sent == "max-age=31536000", path


@pytest.mark.parametrize("proxy", [proxies.caddy, proxies.nginx])
def test_a_proxy_names_the_client_and_drops_the_client_s_own_claim(proxy, tmp_path) -> None:
    home = tmp_path / "proxy"
    home.mkdir()
    with (
        socket.create_server(("127.0.0.1", 0)) as upstream,
        proxy(upstream.getsockname()[1], home) as url,
        attacking(url) as attackers,
        closing(attackers.connect()) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
        upstream.settimeout(20)
        with closing(upstream.accept()[0]) as received:
            header = received.recv(65_536).decode().lower()
            address = client.getsockname()[0]
    assert re.findall(r"x-forwarded-for: (.*)\r", header) == [address]
    assert re.findall(r"host: 127\.0\.0\.1", header)


def test_nginx_stores_no_large_body(deployment, tmp_path) -> None:
    """Before, nginx took bodies of any size to its disk, and only then asked the API."""
    home = tmp_path / "proxy"
    home.mkdir()
    with (
        polling_serve(deployment, tmp_path) as served,
        proxies.nginx(served.port, home) as url,
        attacking(url) as attackers,
    ):
        largest, ended = 0, threading.Event()

        def watch() -> None:
            nonlocal largest
            while not ended.wait(0.01):
                for file in home.glob("client_body/**/*"):
                    with suppress(OSError):
                        largest = max(largest, file.stat().st_size if file.is_file() else 0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        answers = []
        for length in (b"Content-Length: 50000000", b"Transfer-Encoding: chunked"):
            with closing(attackers.connect()) as one, suppress(OSError):
                one.sendall(b"POST /v1/user-integrations HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n\r\n"
                            % length)  # fmt: skip
                one.settimeout(0.01)
                chunk = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)
                for _ in range(500):
                    with suppress(TimeoutError):
                        answers.append(one.recv(4_096))
                        break
                    one.settimeout(5)
                    one.sendall(chunk if b"chunked" in length else b"x" * 100_000)
                    one.settimeout(0.01)
        ended.set()
        watcher.join()
        assert largest <= 1_100_000
        assert all(answer.startswith(b"HTTP/1.1 413") for answer in answers)
        assert answers
        assert b'"code":"too-large"' in answers[0]


def test_the_api_behind_nginx_serves_its_host_only(deployment, tmp_path) -> None:
    home = tmp_path / "proxy"
    home.mkdir()
    with (
        polling_serve(deployment, tmp_path) as served,
        proxies.nginx(served.port, home) as url,
        served.client(url) as client,
    ):
        for host, status in (("evil.example", 421), ("127.0.0.1", 200)):
            assert client.get("/v1/integrations", headers={"Host": host}).status_code == status
