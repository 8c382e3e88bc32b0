"""The fake Gmail server: quotas, errors in Gmail's format, latency, and a log of calls.

Tests check budgets with the log.
"""

from __future__ import annotations

import base64
import bisect
import json
import secrets
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from support.gmail.answers import Answer, error
from support.gmail.directory import Directory
from support.gmail.mailbox import Mailbox, Stored
from support.gmail.parts import body, payload
from support.gmail.pubsub import PubSub
from support.gmail.search import matches
from support.gmail.service_accounts import KEY_ID, public_key, service_account
from support.gmail.tokens import CLIENT_ID, CLIENT_SECRET, Tokens

UNITS = {
    "profile": 1, "labels": 1, "history": 2, "messages": 5, "message": 20, "attachment": 20,
    "watch": 100, "stop": 50,
}  # fmt: skip
MOST_ATTACHMENT_IDS = 10_000
SNIPPET = 80
Params = dict[str, list[str]]


@dataclass(frozen=True)
class Call:
    """A request, its cost in units, and its result.

    `at` and `seconds` are from the monotonic clock.
    """

    kind: str
    path: str
    params: Params
    units: int
    status: int
    at: float
    seconds: float


UNAUTHORIZED = error(
    401, "Request had invalid authentication credentials.", "authError", "UNAUTHENTICATED"
)
NOT_FOUND = error(404, "Requested entity was not found.", "notFound", "NOT_FOUND")
TOO_MANY_AT_ONCE = error(
    429,
    "Too many concurrent requests for user.",
    "rateLimitExceeded",
    "RESOURCE_EXHAUSTED",
    "usageLimits",
)
POLICY = error(
    403, "The domain administrators have disabled Gmail apps.", "domainPolicy", domain="global"
)
SCOPE = error(
    403, "Request had insufficient authentication scopes.", "insufficientPermissions",
    "PERMISSION_DENIED",
    details=[{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
    }],
)  # fmt: skip
BAD_PAGE = error(400, "Invalid pageToken", "invalidArgument", "INVALID_ARGUMENT")


def rate_limited(code: int, until: str | None) -> Answer:
    """Build a rate limit error in one of its two forms, 403 and 429."""
    after = f"  Retry after {until}" if until else ""
    reason = "userRateLimitExceeded" if code == 403 else "rateLimitExceeded"
    return error(
        code,
        f"User-rate limit exceeded.{after}",
        reason,
        "RESOURCE_EXHAUSTED" if code == 429 else "",
        "usageLimits",
    )


@dataclass(frozen=True)
class Reply:
    """An answer that need not be Gmail's, with its headers."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Rule:
    """An answer to all requests whose address contains a text, as the cases describe it.

    Args:
      case: `path` and `status`; and either the `text` of the answer, or `reason`, `message` and
        `state` of an error in Gmail's format. `headers` and `times` are optional.
    """

    def __init__(self, case: Mapping[str, Any]) -> None:
        self._path, self._left = str(case["path"]), int(case.get("times", 1_000_000))
        status = int(case["status"])
        body = case.get("text")
        if body is None:
            _, found = error(status, case.get("message", ""), case["reason"], case.get("state", ""))
            body = json.dumps(found)
        self._answer = status, Reply(body.encode(), case.get("headers", {}))

    def answer(self, path: str, params: Params) -> Any:
        """Return the answer to a request; None if the rule does not apply to it."""
        query = "&".join(f"{name}={value}" for name, values in params.items() for value in values)
        if self._left <= 0 or self._path not in f"/gmail/v1/users/me/{path}?{query}":
            return None
        self._left -= 1
        return self._answer


class FakeGmail:
    """A server for one mailbox. Use it as a context manager.

    Args:
      latency: The seconds that every answer takes. Default: 0.
      page_size: The maximum number of entries in a page. Default: 500.

    Attributes:
      calls: All requests, in the order in which they ended.
      at_once: The maximum number of concurrent requests of the user.
      units_per_minute: The user's quota. The server refuses further requests as Gmail does. 0 means
        unlimited.
      failing: A function called with the kind and path of each request. If it returns an answer,
        the server sends that answer.
      rules: Rules that decide before `failing`; the first that applies.
      chat_raw: The source of every chat. Default: a chat has none.
      before: A function called with the kind and path before each request.
      bare_history: The history has only the fields of messages that the reference promises.
      mailboxes: The mailboxes that service accounts read, by their address.
      directory: The users of the Workspace.
      pubsub: The Pub/Sub to which Gmail publishes changes.
      empty_pages: Every second page of the history has a token and no `history`.
    """

    def __init__(
        self, mailbox: Mailbox | None = None, *, latency: float = 0.0, page_size: int = 500
    ) -> None:
        self._mailbox, self._asked = mailbox or Mailbox(), threading.local()
        self.mailboxes: dict[str, Mailbox] = {}
        self.directory = Directory()
        self.tokens = Tokens(certificates={KEY_ID: public_key()})
        self.pubsub = PubSub()
        self.mailbox.changed = self._publish
        self.latency, self.page_size = latency, page_size
        self.calls: list[Call] = []
        self.at_once, self.peak, self.units_per_minute = 10_000, 0, 0
        self.failing: Callable[[str, str], Answer | None] = lambda kind, path: None
        self.rules: list[Rule] = []
        self.chat_raw: bytes | None = None
        self.before: Callable[[str, str], None] = lambda kind, path: None
        self.bare_history = self.empty_pages = False
        self._lock = threading.Lock()
        self._now = 0
        self._spent: deque[tuple[float, int]] = deque()
        self._attachments: OrderedDict[str, tuple[str, str]] = OrderedDict()

    # The side of the tests

    @property
    def mailbox(self) -> Mailbox:
        """The mailbox. While the server answers for a user in `mailboxes`, that of the user."""
        return getattr(self._asked, "mailbox", None) or self._mailbox

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pubsub.close()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings that make the plugin use this server."""
        return {
            "GMAIL_API_URL": self.url,
            "GOOGLE_TOKEN_URL": f"{self.url}/token",
            "GOOGLE_AUTHORIZE_URL": f"{self.url}/authorize",
            "GOOGLE_DIRECTORY_URL": self.url,
            "GMAIL_CLIENT_ID": CLIENT_ID,
            "GMAIL_CLIENT_SECRET": CLIENT_SECRET,
            "NO_PROXY": "*",
        }

    @property
    def push_environment(self) -> dict[str, str]:
        """The settings that make the plugin receive events from this server."""
        return {
            "GOOGLE_PUBSUB_URL": self.url,
            "GMAIL_PUBSUB_SUBSCRIPTION": self.pubsub.subscription,
            "GMAIL_PUBSUB_CREDENTIALS": json.dumps(service_account()),
        }

    def _publish(self, history_id: int) -> None:
        self.pubsub.changed(self.mailbox.address, history_id)

    def credentials(self) -> dict[str, str]:
        """Return the credentials of a newly connected account."""
        return {
            "refresh_token": self.tokens.new_refresh_token(),
            "access_token": self.tokens.new_access_token(),
        }

    def count(self) -> Counter[str]:
        """Return the number of answered requests, by kind."""
        with self._lock:
            return Counter(call.kind for call in self.calls)

    def fail(self, answer: Answer, kind: str, times: int = 1) -> None:
        """Answer the next requests of this kind with this answer."""
        left = [times]

        def failing(asked: str, path: str) -> Answer | None:
            with self._lock:
                if asked != kind or left[0] <= 0:
                    return None
                left[0] -= 1
                return answer

        self.failing = failing

    # The side of the server

    def answer(self, path: str, params: Params, authorization: str) -> Answer:
        """Answer a request, subject to failures, tokens, concurrency and quota."""
        kind = _kind(path)
        self._asked.mailbox = self.mailboxes.get(self.tokens.subject(authorization))
        began = time.monotonic()
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
            is_crowded = self._now > self.at_once
        try:
            self.before(kind, path)
            code, found = self._decided(kind, path, params, authorization, is_crowded)
            time.sleep(self.latency)
        finally:
            with self._lock:
                self._now -= 1
        ended = time.monotonic()
        with self._lock:
            self.calls.append(
                Call(kind, path, params, UNITS.get(kind, 0), code, ended, ended - began)
            )
        return code, found

    def _decided(
        self, kind: str, path: str, params: Params, authorization: str, is_crowded: bool
    ) -> Answer:
        with self._lock:
            replies = [rule.answer(path, params) for rule in self.rules]
        if ruled := [reply for reply in replies if reply is not None]:
            return ruled[0]
        if (failure := self.failing(kind, path)) is not None:
            return failure
        if not self.tokens.admits(authorization):
            return UNAUTHORIZED
        if is_crowded:
            return TOO_MANY_AT_ONCE
        if not self._has_units(UNITS.get(kind, 0)):
            return rate_limited(403, None)
        return self._found(kind, path, params)

    def _has_units(self, units: int) -> bool:
        now = time.monotonic()
        with self._lock:
            while self._spent and self._spent[0][0] < now - 60:
                self._spent.popleft()
            if (
                self.units_per_minute
                and sum(spent for _, spent in self._spent) + units > self.units_per_minute
            ):
                return False
            self._spent.append((now, units))
        return True

    def _found(self, kind: str, path: str, params: Params) -> Answer:
        mailbox, parts = self.mailbox, path.split("/")
        match kind:
            case "profile":
                with mailbox.lock:
                    total = len(mailbox.messages)
                    return 200, {
                        "emailAddress": mailbox.address,
                        "messagesTotal": total,
                        "historyId": str(mailbox.history_id),
                    }
            case "labels" if len(parts) > 1:
                with mailbox.lock:  # spam and trash included
                    total = sum(parts[1] in each.labels for each in mailbox.messages.values())
                return 200, {"id": parts[1], "name": parts[1], "messagesTotal": total}
            case "labels":
                return 200, {"labels": mailbox.labels()}
            case "messages":
                return self._list(params)
            case "history":
                return self._history(params)
            case "message":
                message = mailbox.messages.get(parts[1])
                return (
                    NOT_FOUND
                    if message is None
                    else (200, self._resource(message, params.get("format", ["full"])[0]))
                )
            case "attachment":
                return self._attachment(parts[1], parts[3])
            case "watch":
                with mailbox.lock:
                    topic = params.get("topicName", [""])[0]
                    return self.pubsub.watch(mailbox.address, mailbox.history_id, topic)
            case "stop":
                return self.pubsub.stop(mailbox.address)
        return NOT_FOUND

    def _list(self, params: Params) -> Answer:
        q, labels = params.get("q", [""])[0], set(params.get("labelIds", []))
        hidden = set() if "true" in params.get("includeSpamTrash", []) else {"SPAM", "TRASH"}
        last = _place(params.get("pageToken", [""])[0], q)
        if last is None:
            return BAD_PAGE
        size = min(int(params.get("maxResults", ["100"])[0]), 500, self.page_size)
        entries: list[dict[str, str]] = []
        places = self.mailbox.listed()
        for at in range(bisect.bisect_right(places, last) if last else 0, len(places)):
            message = self.mailbox.messages.get(places[at][1])
            if (
                message is None
                or not labels <= message.labels
                or message.labels & hidden
                or not matches(message, q)
            ):
                continue
            if len(entries) == size:
                token = _token(places[at - 1], q)
                return 200, {"messages": entries, "nextPageToken": token, "resultSizeEstimate": 201}
            entries.append({"id": message.id, "threadId": message.thread})
        found: dict[str, Any] = {"resultSizeEstimate": len(entries)}
        return 200, found | ({"messages": entries} if entries else {})

    def _history(self, params: Params) -> Answer:
        start = int(params["startHistoryId"][0])
        if start < self.mailbox.oldest_history_id or start > self.mailbox.history_id:
            return NOT_FOUND
        token = params.get("pageToken", [""])[0]
        after, _, page = token.partition("-") if token else (str(start), "", "0")
        found: dict[str, Any] = {"historyId": str(self.mailbox.history_id)}
        if self.empty_pages and int(page) % 2 == 0:
            return 200, found | {"nextPageToken": f"{after}-{int(page) + 1}"}
        size = min(int(params.get("maxResults", ["100"])[0]), 500, self.page_size)
        records = list(self.mailbox.since(int(after)))
        if len(records) > size:
            found["nextPageToken"] = f"{records[size - 1].id}-{int(page) + 1}"
        if records:
            found["history"] = [
                record.resource(bare=self.bare_history) for record in records[:size]
            ]
        return 200, found

    def _resource(self, message: Stored, format: str) -> dict[str, Any]:
        with self.mailbox.lock:
            found: dict[str, Any] = {
                "id": message.id,
                "threadId": message.thread,
                "labelIds": sorted(message.labels),
                "snippet": f"It&#39;s {message.id}"[:SNIPPET],
                "historyId": str(message.history_id),
                "internalDate": str(message.internal_date),
                "sizeEstimate": len(message.raw) if format != "minimal" else 1000,
            }
        if format == "raw" and "CHAT" in message.labels:
            # Gmail has no source of a chat, or only a line.
            if self.chat_raw is not None:
                found["raw"] = base64.urlsafe_b64encode(self.chat_raw).decode()
        elif format == "raw":
            found["raw"] = base64.urlsafe_b64encode(message.raw).decode()
        elif format in ("full", "metadata"):
            found["payload"] = payload(
                message.raw,
                lambda part: self._new_attachment_id(message.id, part),
                with_bodies=format == "full",
            )
        return found

    def _new_attachment_id(self, message: str, part: str) -> str:
        """Create a new attachment id at each call, as Gmail does."""
        id = f"ANGjdJ{secrets.token_urlsafe(40)}"
        with self._lock:
            self._attachments[id] = (message, part)
            while len(self._attachments) > MOST_ATTACHMENT_IDS:
                self._attachments.popitem(last=False)
        return id

    def _attachment(self, message: str, id: str) -> Answer:
        asked, part = self._attachments.get(id, ("", ""))
        if asked != message or message not in self.mailbox.messages:
            return NOT_FOUND
        data = body(self.mailbox.messages[message].raw, part)
        return 200, {"size": len(data), "data": base64.urlsafe_b64encode(data).decode()}


def _kind(path: str) -> str:
    parts = path.split("/")
    if parts[0] == "messages" and len(parts) > 1:
        return "attachment" if len(parts) == 4 else "message"
    return parts[0]


def _token(place: tuple[int, str], q: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([*place, q]).encode()).decode()


def _place(token: str, q: str) -> tuple[int, str] | tuple[()] | None:
    """Return the end of the previous page, () for the first page, or None for an invalid token."""
    if not token:
        return ()
    try:
        at, id, asked = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        return None
    return (at, id) if asked == q else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeGmail

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Close the connections that clients keep open."""
        for connection in list(self._connections):
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnected clients, because tests kill them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/authorize":
            return self._redirect(self.server.fake.tokens.consent(dict(parse_qsl(url.query))))
        if url.path.startswith("/v1/projects/"):
            return self._pubsub("GET", url.path, {})
        if url.path == "/admin/directory/v1/users":
            return self._directory(parse_qs(url.query))
        path = unquote(url.path).removeprefix("/gmail/v1/users/me/")
        self._send(
            *self.server.fake.answer(
                path, parse_qs(url.query), self.headers.get("Authorization", "")
            )
        )

        return None

    def do_POST(self) -> None:
        fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path.startswith("/v1/projects/"):
            return self._pubsub("POST", self.path, json.loads(body))
        if self.path.startswith("/gmail/"):
            path = self.path.removeprefix("/gmail/v1/users/me/")
            given = {name: [value] for name, value in json.loads(body or "{}").items()}
            return self._send(*fake.answer(path, given, self.headers.get("Authorization", "")))
        form = parse_qs(body)
        tokens = fake.tokens
        status, found = tokens.answer({name: values[0] for name, values in form.items()})
        answer = found if isinstance(found, bytes) else json.dumps(found).encode()
        self._send(status, Reply(answer, tokens.headers))
        return None

    def _directory(self, params: Params) -> None:
        fake, authorization = self.server.fake, self.headers.get("Authorization", "")
        if not fake.tokens.admits(authorization):
            return self._send(*UNAUTHORIZED)
        return self._send(*fake.directory.answer(params, fake.tokens.subject(authorization)))

    def _pubsub(self, method: str, path: str, body: Any) -> None:
        fake = self.server.fake
        if not fake.tokens.admits(self.headers.get("Authorization", "")):
            return self._send(*UNAUTHORIZED)
        return self._send(*fake.pubsub.answer(method, path.removeprefix("/v1/"), body))

    def _redirect(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, code: int, found: Any) -> None:
        reply = found if isinstance(found, Reply) else None
        found = reply.body if reply is not None else found
        data = found if isinstance(found, bytes) else json.dumps(found).encode()
        headers = reply.headers if reply is not None else {}
        if "Date" in headers:
            self.send_response_only(code)
        else:
            self.send_response(code)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log, because `FakeGmail.calls` has all requests."""
