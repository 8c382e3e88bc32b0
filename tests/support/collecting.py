"""An HTTP endpoint that stands in for Sentry and an OpenTelemetry collector."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Collector(ThreadingHTTPServer):
    """A server that accepts and stores every request.

    Attributes:
      requests: The path and the decompressed body of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def dsn(self) -> str:
        """The DSN of project 1."""
        return f"http://public@127.0.0.1:{self.server_port}/1"

    def events(self) -> list[dict[str, Any]]:
        """Return the events that Sentry's client sent.

        An envelope has a header line, and for each item a header line and a content line.
        """
        found = []
        for path, body in list(self.requests):
            if path.startswith("/api/1/envelope"):
                _, *lines = body.split(b"\n")
                pairs = zip(lines[::2], lines[1::2], strict=False)
                found += [
                    json.loads(item) for head, item in pairs if json.loads(head)["type"] == "event"
                ]
        return found

    def spans(self) -> list[dict[str, Any]]:
        """Return the name, attributes, failure and resource attributes of each span."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        found = []
        for path, body in list(self.requests):
            if path != "/v1/traces":
                continue
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = _values(resource.resource.attributes)
                for scope in resource.scope_spans:
                    found += [
                        {"name": one.name, "failed": one.status.code == 2, "resource": about}
                        | _values(one.attributes)
                        for one in scope.spans
                    ]
        return found


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def log_message(self, *arguments: Any) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        packed = self.headers.get("Content-Encoding")
        body = (
            gzip.decompress(body)
            if packed == "gzip"
            else zlib.decompress(body)
            if packed == "deflate"
            else body
        )
        self.server.requests.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector during the block."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
