"""The fake's HTTP server: tokens, rate limits, faults, files, and a log of calls."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64decode
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fake_slack.methods import METHODS, SlackError, needed
from fake_slack.socket_mode import APP_TOKEN, SocketMode
from fake_slack.workspace import Workspace

LOGIN_PAGE = b"<!DOCTYPE html><html><body>Sign in to Acme</body></html>"
BOT, USER = "xoxb-fake-token-1", "xoxp-fake-token-1"
CLIENT_ID, CLIENT_SECRET = "1111.2222", "fake-client-secret"


@dataclass(frozen=True)
class Call:
    """One request, with the HTTP `status` and the Slack `error` of its response.

    `method` is `file` for downloads.
    """

    method: str
    arguments: dict[str, str]
    token: str
    at: float
    status: int
    error: str


@dataclass
class Fault:
    """A response that replaces the method's own, for the next `times` calls."""

    status: int
    body: bytes
    headers: dict[str, str]
    times: int
    when: Callable[[dict[str, str]], bool]


@dataclass
class Fake:
    """The state of the server.

    Attributes:
      scopes: The granted scopes, separated by commas; empty grants all.
      tokens: `bot`, `user`, `expired` or any error code, by token.
      refresh_tokens: The kind of token that each valid refresh token returns.
      codes: The tokens that each authorization code returns: `bot`, `user` or both, joined with
        `+`.
      is_rotating: True if tokens of installations expire.
      teams: The names of an organization's workspaces that have the app, by id. Empty for tokens
        of one workspace.
      unindexed: The timestamps of messages that the search does not find yet.
      limits: (calls, seconds) by method.
      page_cap: The maximum number of objects on a page.
      short_by: The number of objects by which a page is shorter than requested.
      before: Called with method and arguments before each response; it may change the workspace.
      file_mode: `direct`, `redirect` (same host), `elsewhere` (another host, which gets no token),
        `login`, `cut` or `insecure`.
      socket_mode: The connections of the app; None without Socket Mode.
    """

    workspace: Workspace = field(default_factory=Workspace)
    tokens: dict[str, str] = field(default_factory=lambda: {BOT: "bot", USER: "user"})
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    is_rotating: bool = True
    scopes: str = ""
    teams: dict[str, str] = field(default_factory=dict)
    unindexed: set[str] = field(default_factory=set)
    limits: dict[str, tuple[int, float]] = field(default_factory=dict)
    page_cap: int = 1000
    short_by: int = 0
    is_limited: bool = False
    cursor_epoch: int = 0
    before: Callable[[str, dict[str, str]], None] | None = None
    file_mode: str = "direct"
    socket_mode: SocketMode | None = None
    origin: str = ""
    calls: list[Call] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    _times: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _rotations: int = 0

    @property
    def api_url(self) -> str:
        return f"{self.origin}/api/"

    def called(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    def fail(
        self,
        method: str,
        error: str = "",
        *,
        status: int = 200,
        body: bytes | None = None,
        times: int = 1,
        when: Callable[[dict[str, str]], bool] = lambda arguments: True,
        **headers: str,
    ) -> None:
        """Let the next calls of a method fail, with an error code or with any body."""
        told = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        answer = json.dumps({"ok": False, "error": error}).encode() if body is None else body
        self.faults[method].append(Fault(status, answer, told, times, when))

    def rotate(self, kind: str = "bot") -> tuple[str, str]:
        """Return a new access token and a new refresh token."""
        self._rotations += 1
        token, refresh = f"xoxe.xoxb-access-{self._rotations}", f"xoxe-1-refresh-{self._rotations}"
        self.tokens[token], self.refresh_tokens[refresh] = kind, kind
        return token, refresh

    def filled(self, value: Any) -> Any:
        """Return the value with this server's address instead of the placeholder."""
        return json.loads(json.dumps(value).replace("{origin}", self.origin))

    def answer(
        self, method: str, arguments: dict[str, str], authorization: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Answer a call of the Web API."""
        token = authorization.removeprefix("Bearer ")
        if self.before is not None:
            self.before(method, arguments)
        with self.workspace.lock:
            status, body, headers = self._answer(method, arguments, token, authorization)
            error = "" if b'"ok": true' in body[:20] else body[:60].decode("utf-8", "replace")
            self.calls.append(Call(method, arguments, token, time.monotonic(), status, error))
        return status, body, headers

    def _answer(
        self, method: str, arguments: dict[str, str], token: str, authorization: str
    ) -> tuple[int, bytes, dict[str, str]]:
        headers = {"Content-Type": "application/json", "X-OAuth-Scopes": self.scopes}
        for fault in self.faults[method]:
            if fault.times > 0 and fault.when(arguments):
                fault.times -= 1
                return fault.status, fault.body, fault.headers
        if (wait := self._wait(method)) > 0:
            return (
                429,
                b'{"ok": false, "error": "ratelimited"}',
                {**headers, "Retry-After": str(int(wait) + 1)},
            )
        try:
            found = (
                self._oauth(arguments, authorization)
                if method == "oauth.v2.access"
                else self._call(method, arguments, token)
            )
        except SlackError as error:
            return 200, json.dumps({"ok": False, "error": str(error)}).encode(), headers
        return 200, json.dumps({"ok": True, **found}).encode(), headers

    def _call(self, method: str, arguments: dict[str, str], token: str) -> dict[str, Any]:
        if method == "apps.connections.open":
            if token != APP_TOKEN or self.socket_mode is None:
                raise SlackError("invalid_auth")
            return self.socket_mode.ticket()
        kind = self.tokens.get(token, "invalid_auth" if token else "not_authed")
        if kind == "expired":
            raise SlackError("token_expired")
        if kind not in ("bot", "user"):
            raise SlackError(kind)
        if method not in METHODS:
            raise SlackError("unknown_method")
        if self.scopes and not needed(self, method, arguments) <= set(self.scopes.split(",")):
            raise SlackError("missing_scope")
        return METHODS[method](self, arguments, kind)

    def _oauth(self, arguments: dict[str, str], authorization: str) -> dict[str, Any]:
        """Install an app, or rotate a token, which revokes the refresh token used."""
        given = b64decode(authorization.removeprefix("Basic ")).decode().partition(":")[::2]
        if not authorization:
            given = (arguments.get("client_id", ""), arguments.get("client_secret", ""))
        if given != (CLIENT_ID, CLIENT_SECRET):
            raise SlackError("invalid_client_id" if given[0] != CLIENT_ID else "bad_client_secret")
        if arguments.get("grant_type") == "authorization_code":
            return self._installed(arguments)
        kind = self.refresh_tokens.pop(arguments.get("refresh_token", ""), None)
        if arguments.get("grant_type") != "refresh_token" or kind is None:
            raise SlackError("invalid_refresh_token")
        token, refresh = self.rotate(kind)
        return {
            "access_token": token,
            "refresh_token": refresh,
            "expires_in": 43_200,
            "token_type": kind,
        }

    def _installed(self, arguments: dict[str, str]) -> dict[str, Any]:
        """Return the tokens of an installation.

        An app that has not enabled PKCE must not send a verifier.
        """
        if "code_verifier" in arguments:
            raise SlackError("internal_error")
        kinds = self.codes.pop(arguments.get("code", ""), "").split("+")
        if kinds == [""]:
            raise SlackError("invalid_code")
        person: dict[str, Any] = {"id": "U1"}
        found: dict[str, Any] = {
            "app_id": "A1", "authed_user": person,
            "team": {"name": "Acme", "id": self.workspace.team}, "enterprise": None,
            "is_enterprise_install": False,
        }  # fmt: skip
        for kind in kinds:
            token, refresh = self.rotate(kind)
            given = {"access_token": token, "token_type": kind, "scope": self.scopes}
            if self.is_rotating:
                given |= {"refresh_token": refresh, "expires_in": 43_200}
            (found if kind == "bot" else person).update(given)
        return found | ({"bot_user_id": "UBOT"} if "bot" in kinds else {})

    def _wait(self, method: str) -> float:
        """Return the seconds until the method may be called again; for 0, count a call."""
        if method not in self.limits:
            return 0.0
        (most, per), times, now = self.limits[method], self._times[method], time.monotonic()
        while times and times[0] <= now - per:
            times.popleft()
        if len(times) >= most:
            return times[0] + per - now
        times.append(now)
        return 0.0

    def file(self, path: str, headers: Any, host: str) -> tuple[int, bytes, dict[str, str]]:
        """Answer a download."""
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        status, body, answered = self._file(path, token, headers.get("Range", ""))
        arguments = {"path": path, "host": host, "range": headers.get("Range", "")}
        self.calls.append(Call("file", arguments, token, time.monotonic(), status, ""))
        return status, body, answered

    def _file(self, path: str, token: str, wanted: str) -> tuple[int, bytes, dict[str, str]]:
        kind, _, rest = path.strip("/").partition("/")
        id = rest.partition("/")[0].rpartition("-")[2]
        file, data = self.workspace.files.get(id, ({}, None))
        if data is None:
            return 404, b"", {}
        may_read = self.tokens.get(token) in ("bot", "user") and "files:read" in (
            self.scopes or "files:read"
        )
        if kind == "files-pri" and (self.file_mode == "login" or not may_read):
            return 200, LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"}
        modes = {
            "redirect": self.origin,
            "elsewhere": self.origin.replace("127.0.0.1", "localhost"),
            "insecure": "ftp://host",
        }
        if kind == "files-pri" and self.file_mode in modes:
            return 302, b"", {"Location": f"{modes[self.file_mode]}/cdn/{rest}"}
        headers = {"Content-Type": file["mimetype"]}
        if wanted and (start := int(wanted.removeprefix("bytes=").rstrip("-"))) < len(data):
            return (
                206,
                data[start:],
                {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"},
            )
        if self.file_mode == "cut":
            self.file_mode = "direct"
            return 200, data[: len(data) // 2], {**headers, "X-Length": str(len(data))}
        return 200, data, headers


HANGS_UP = 0
"""A status for a connection that is closed without a response."""


class _Handler(BaseHTTPRequestHandler):
    fake: Fake

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        method = urlsplit(self.path).path.removeprefix("/api/")
        self._send(
            *self.fake.answer(method, dict(parse_qsl(body)), self.headers.get("Authorization", ""))
        )

    def do_GET(self) -> None:
        self._send(
            *self.fake.file(urlsplit(self.path).path, self.headers, self.headers.get("Host", ""))
        )

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if status == HANGS_UP:
            return
        self.send_response(status)
        # A truncated response announces more bytes than it has.
        length = headers.pop("X-Length", str(len(body)))
        for name, value in {**headers, "Content-Length": length}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that a killed client has broken."""


@contextmanager
def serve(workspace: Workspace | None = None) -> Iterator[Fake]:
    """Run a fake that listens until the block ends."""
    fake = Fake(workspace or Workspace())
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    fake.origin = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="fake-slack")
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
