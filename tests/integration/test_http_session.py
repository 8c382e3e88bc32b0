"""`ctx.http`: requests of plugins to a real server."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest
from integration_polling_hello_world import HelloWorld

from core import BaseIntegration, Context, Manifest, Rate, TaskOutput, TaskResult, task
from core import http_session as module
from core.accounts.vault import Vault, new_key
from core.content.blobs import Blobs
from core.db.pool import Conn, Database
from core.egress import Egress, EgressRefused
from core.errors import PermanentError, RateLimited, Unavailable
from core.http_session import HttpSession
from core.ledger.outcomes import Dispatch
from core.plugins import Registry
from core.testing import Harness
from core.worker.accounts import Accounts
from core.worker.context import Services
from core.worker.instance_pool import InstancePool
from core.worker.runner import Runner

SECRET = "s3cret-in-the-address"


@dataclass
class Server:
    """A web server whose answers the test sets, with the requests that it has received.

    Attributes:
      answers: Status, headers and body, by path.
      once: The same for the first request only.
      cut: Paths whose connection is cut after half of the body.
    """

    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    once: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    url: str = ""

    def answer(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> str:
        """Set the answer of a path, and return its address."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, named, body)
        return self.url + path


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.paths.append(path)
            state.connections.add(self.client_address)
            answer = state.once.pop(path, None) or state.answers.get(path, (404, {}, b""))
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if path in state.cut:
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield state
        httpd.shutdown()


@pytest.fixture
def http() -> Iterator[HttpSession]:
    with HttpSession() as session:
        yield session


def test_connections_are_reused(server: Server, http: HttpSession) -> None:
    url = server.answer("/", body=b"hello")
    assert [http.get(url).text for _ in range(5)] == ["hello"] * 5
    assert len(server.paths) == 5
    assert len(server.connections) == 1


def test_a_pause_of_the_provider_is_a_rate_limit(server: Server, http: HttpSession) -> None:
    url = server.answer("/", 429, Retry_After="7")
    with pytest.raises(RateLimited) as caught:
        http.get(url, extensions={"limit": "quota"})
    assert (caught.value.retry_after, caught.value.limit) == (7, "quota")


@pytest.mark.parametrize(
    ("headers", "is_pause"),
    [({}, False), ({"Retry_After": "9"}, True), ({"X_RateLimit_Remaining": "0"}, True)],
)
def test_a_refusal_is_a_pause_only_if_it_says_so(
    server: Server, http: HttpSession, headers: dict[str, str], is_pause: bool
) -> None:
    url = server.answer("/", 403, **headers)
    if is_pause:
        with pytest.raises(RateLimited):
            http.get(url)
    else:
        assert http.get(url).status_code == 403


def test_an_exhausted_limit_sends_no_further_request(server: Server) -> None:
    noted: list[tuple[Any, ...]] = []
    now = [100.0]
    url = server.answer("/", body=b"last", RateLimit_Remaining="0", RateLimit_Reset="20")
    with HttpSession(lambda *pause: noted.append(pause[:2]), lambda: now[0]) as http:
        assert http.get(url, extensions={"limit": "quota"}).text == "last"
        assert noted == [("quota", 20.0)]
        with pytest.raises(RateLimited) as caught:
            http.get(url, extensions={"limit": "quota"})
        assert (caught.value.retry_after, caught.value.limit) == (20, "quota")
        assert len(server.paths) == 1
        other = server.answer("/other", body=b"free")
        assert http.get(other).text == "free"  # another limit
        now[0] += 20
        assert http.get(url, extensions={"limit": "quota"}).text == "last"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_is_away_may_come_back(
    server: Server, http: HttpSession, status: int
) -> None:
    url = server.answer("/", status, Retry_After="3")
    with pytest.raises(Unavailable) as caught:
        http.get(url)
    assert caught.value.retry_after == 3


def test_no_connection_may_come_back(http: HttpSession) -> None:
    with pytest.raises(Unavailable, match=r"GET 127\.0\.0\.1: no response"):
        http.get("http://127.0.0.1:9/")


def read_streamed(http: HttpSession, url: str) -> bytes:
    with http.stream("GET", url) as response:
        return b"".join(response.iter_bytes())


@pytest.mark.parametrize("read", [HttpSession.get, read_streamed])
def test_a_body_that_ends_early_is_no_body(
    server: Server, http: HttpSession, read: Callable[[HttpSession, str], object]
) -> None:
    url = server.answer("/", body=b"x" * 100_000)
    server.cut.add("/")
    with pytest.raises(Unavailable):
        read(http, url)


def test_other_answers_are_the_plugins(server: Server, http: HttpSession) -> None:
    for status in (200, 204, 304, 400, 401, 404, 410, 500):
        assert http.get(server.answer("/", status)).status_code == status


def test_redirects_are_not_followed(server: Server, http: HttpSession) -> None:
    url = server.answer("/", 302, Location=server.answer("/elsewhere"))
    assert http.get(url, headers={"Authorization": "Bearer x"}).status_code == 302
    assert server.paths == ["/"]


def test_a_compressed_body_is_decoded(server: Server, http: HttpSession) -> None:
    url = server.answer("/", body=gzip.compress(b"hello" * 1000), Content_Encoding="gzip")
    assert http.get(url).text == "hello" * 1000


def test_a_huge_body_must_be_streamed(
    server: Server, http: HttpSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 2**20)
    url = server.answer("/", body=gzip.compress(b"x" * 2**24), Content_Encoding="gzip")
    with pytest.raises(PermanentError, match="must stream it"):
        http.get(url)
    with http.stream("GET", url) as response:
        assert sum(map(len, response.iter_bytes())) == 2**24


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/?token={}", "ftp://127.0.0.1/{}", "http://127.0.0.1:{}/"],
)
def test_no_error_repeats_the_address(http: HttpSession, address: str) -> None:
    with pytest.raises((Unavailable, PermanentError)) as caught:
        http.get(address.format(SECRET), headers={"Authorization": f"Bearer {SECRET}"})
    assert SECRET not in f"{caught.value} {caught.value!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_error_repeats_a_header(server: Server, http: HttpSession) -> None:
    with pytest.raises(PermanentError) as caught:
        http.get(server.answer("/"), headers={"Authorization": f"{SECRET}\nx: y"})
    assert SECRET not in f"{caught.value} {caught.value!r}"


def test_no_address_is_logged(
    server: Server, http: HttpSession, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        http.get(f"{server.answer('/')}?token={SECRET}")
    assert SECRET not in caplog.text


def test_limited_accounts_reach_only_public_addresses(server: Server, egress: Egress) -> None:
    url = server.answer("/", body=b"private")
    with (
        egress.for_account(public_only=True),
        HttpSession() as http,
        pytest.raises(EgressRefused),
    ):
        http.get(url)
    assert not server.paths


class Web(BaseIntegration):
    """An integration that fetches one address."""

    manifest = Manifest("web", "Web", limits=[Rate("quota", 100, 60)])
    url = ""

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.fetch.task()])

    @task(cost={"quota": 1})
    def fetch(self, ctx: Context) -> TaskResult:
        """Fetch the address."""
        answer = ctx.http.get(self.url, extensions={"limit": "quota"})
        return TaskResult([TaskOutput("page", answer.text)])


@pytest.fixture
def runner(conn: Conn, database: Database, tmp_path: Any) -> Iterator[Runner]:
    registry = Registry({"web": Web}, {})
    vault = Vault([new_key()])
    pool = InstancePool(Egress())
    services: Any = Services(
        database,
        Accounts(database, vault, registry, {}),
        Blobs(database, str(tmp_path / "blobs"), tmp_path / "spool"),
        budgets=None,  # type: ignore[arg-type]  # the task charges nothing
        stopping=lambda _: False,
        egress=Egress(),
    )
    yield Runner(services, pool, registry)
    pool.close_idle(older_than=0)


def fetches(desk: Any, account: UUID, number: int) -> list[Dispatch]:
    """Return this number of dispatched tasks of an account."""
    desk.add(desk.run(account), *(f"fetch-{each}" for each in range(number)), type="fetch")
    return [each for each in desk.claim(domain="web") if each.type == "fetch"]


def test_an_exhausted_limit_is_blocked_for_all_workers(
    server: Server, runner: Runner, desk: Any
) -> None:
    """The block is there when the response arrives; the task itself succeeds."""
    Web.url = server.answer("/", body=b"x", RateLimit_Remaining="0", RateLimit_Reset="600")
    account = desk.account(domain="web", credentials=None)
    (dispatch,) = fetches(desk, account, 1)
    outcome = runner.run(dispatch)
    assert [row.id for row in outcome.outputs] == ["page"]
    blocked = desk.value(
        "SELECT extract(epoch FROM until - blocked_at)::int FROM limit_block WHERE key = %s",
        f"account/{account}/quota",
    )
    assert blocked == 600


def test_the_next_task_of_the_account_uses_its_connection(
    server: Server, runner: Runner, desk: Any
) -> None:
    Web.url = server.answer("/", body=b"x")
    account = desk.account(domain="web", credentials=None)
    for dispatch in fetches(desk, account, 3):
        runner.run(dispatch)
    assert len(server.connections) == 1
    other = desk.account("other", domain="web", credentials=None)
    runner.run(*fetches(desk, other, 1))
    assert len(server.connections) == 2


def test_the_harness_waits_for_the_reset_of_a_limit(server: Server) -> None:
    Web.url = server.answer("/", body=b"now", X_RateLimit_Remaining="0", X_RateLimit_Reset="70")
    server.once["/"] = (429, {"Retry-After": "50"}, b"")
    with Harness(Web) as harness:
        began = harness.now
        assert harness.sync().state == "succeeded"
        assert harness.content["page"].content == b"now"
        assert harness.clock == 50
        assert harness.sync().state == "succeeded"
        assert harness.clock == 50 + 70
        assert (harness.now - began).total_seconds() == harness.clock


def test_hello_world_fetches_greetings(server: Server) -> None:
    url = server.answer("/greetings", body=b"Hello Ada\nHello Grace\n")
    with Harness(HelloWorld, {"pages": 0, "url": url}) as harness:
        assert harness.sync().state == "succeeded"
        fetched = {id: item.content for id, item in harness.content.items()}
        assert fetched == {"fetched-1": b"Hello Ada", "fetched-2": b"Hello Grace"}
        server.answer("/greetings", 404)
        assert harness.sync().tasks_parked == 1
