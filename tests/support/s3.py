"""An S3 server, `moto`'s, behind a proxy that fails on request."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from support.waiting import until

Fault = Literal["refused", "slow down", "expired", "lost reply", "full"]

BUCKET = "kept"
_START = (
    "import sys; from moto.server import ThreadedMotoServer as Server;"
    " s = Server(ip_address='127.0.0.1', port=0, verbose=False);"
    " s.start(); print(s.get_host_and_port()[1], flush=True); sys.stdin.read()"
)
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"
_REPLIES: dict[Fault, tuple[int, str]] = {
    "slow down": (503, _ERROR.format("SlowDown", "Please reduce your request rate.")),
    "expired": (400, _ERROR.format("ExpiredToken", "The provided token has expired.")),
    "full": (507, _ERROR.format("XMinioStorageFull", "Storage backend has reached its limit.")),
}


class S3:
    """The server and its proxy.

    Attributes:
      fault: The fault that the proxy shows; None for none. "lost reply" does the work of a write.
      most: The number of requests that the fault meets; None for all.
      seen: Counts the requests by method and fault.
    """

    def __init__(self, server: int) -> None:
        self.fault: Fault | None = None
        self.most: int | None = None
        self.seen: Counter[tuple[str, Fault | None]] = Counter()
        self._server = server
        self._lock = threading.Lock()
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port: int = self.proxy.server_address[1]

    def url(self, bucket: str = BUCKET) -> str:
        """Return a URL for `POLLING_BLOB_URL`; `environment` has the rest."""
        return f"s3://{bucket}"

    def environment(self) -> dict[str, str]:
        """Return the variables that lead a client to the proxy."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }

    def next_fault(self, method: str) -> Fault | None:
        """Return the fault that a request meets."""
        with self._lock:
            fault = self.fault if self.most != 0 else None
            if fault in ("lost reply", "full") and method not in ("PUT", "POST"):
                fault = None
            if fault is not None and self.most is not None:
                self.most -= 1
            self.seen[method, fault] += 1
            return fault

    def ask(
        self, method: str, path: str, body: bytes, headers: Any
    ) -> tuple[int, list[Any], bytes]:
        """Pass a request on to the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server, timeout=30)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()


def _handler(s3: S3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = s3.next_fault(self.command)
            if fault in _REPLIES:
                status, text = _REPLIES[fault]
                self._send(status, [("Content-Type", "application/xml")], text.encode())
                return
            self.close_connection = fault is not None
            if fault != "refused":
                reply = s3.ask(self.command, self.path, body, dict(self.headers))
                if fault is None:
                    self._send(*reply)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815  names of the library

        def _send(self, status: int, headers: list[Any], body: bytes) -> None:
            skipped = {"connection", "transfer-encoding", "server", "date"}
            self.send_response(status)
            lengths = [name for name, _ in headers if name.lower() == "content-length"]
            for name, value in headers:
                if name.lower() not in skipped:
                    self.send_header(name, value)
            if not lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    return Handler


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run the server and its proxy during the block, with the bucket `kept`."""
    server = subprocess.Popen(
        [sys.executable, "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    try:
        s3 = S3(int(server.stdout.readline()))
        threading.Thread(target=s3.proxy.serve_forever, name="s3", daemon=True).start()
        until(lambda: s3.ask("PUT", f"/{BUCKET}", b"", {})[0] == 200, "the bucket exists")
        yield s3
        s3.proxy.shutdown()
        s3.proxy.server_close()
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()
