"""Sign in to a provider through the browser, for `polling connect` (RFC 8252).

The command listens on 127.0.0.1, and the provider redirects the browser there. Without a browser on
this machine, a person opens the address elsewhere, and pastes the address at which that browser
ended.
"""

from __future__ import annotations

import html
import sys
import threading
import webbrowser
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from core.cli.output import fail_with, note
from core.errors import InvalidInput, PollingError

if TYPE_CHECKING:
    from core.integration.base import Integration
    from core.service.accounts.loopback import LoopbackSignIn

SIGN_IN_SECONDS = 600.0
"""The time that a person has for the sign-in."""

MAX_ADDRESS_CHARS = 8_000
DONE = "Return to the terminal: it shows whether the account is connected."


def sign_in(integration: Integration, *, headless: bool, port: int = 0) -> Mapping[str, Any]:
    """Let a person sign in, and return the account's credentials.

    Args:
      integration: The integration.
      headless: True to open no browser, and to read the address at which one ended.
      port: The port of 127.0.0.1. Default: any free port.

    Raises:
      InvalidInput: The provider does not accept the client, or refuses; or nobody signed in.
      PollingError: The provider is unavailable.
    """
    from core.service.accounts import loopback

    answers: Queue[str | PollingError] = Queue()
    with _Listener(port) as listener:
        begun = loopback.begin(integration, listener.server_port)
        listener.listen(begun, answers)
        is_pasted = headless or not webbrowser.open(begun.url)
        if is_pasted:
            _explain(begun, listener.server_port)
            threading.Thread(target=_read, args=(begun, answers), daemon=True).start()
        else:
            note(
                f"Sign in to {integration.manifest.name} in the browser. If it does not open, open:"
            )
            _address(begun.url)
        code = _first(answers, is_pasted=is_pasted)
    return begun.credentials(code)


def _first(answers: Queue[str | PollingError], *, is_pasted: bool) -> str:
    try:
        answer = answers.get(timeout=SIGN_IN_SECONDS)
    except Empty:
        minutes = round(SIGN_IN_SECONDS / 60)
        raise InvalidInput(
            "sign-in-not-pasted" if is_pasted else "sign-in-timed-out", minutes=minutes
        ) from None
    if isinstance(answer, PollingError):
        raise answer
    return answer


def _explain(begun: LoopbackSignIn, port: int) -> None:
    note("Open this address in a browser, and sign in:")
    _address(begun.url)
    note(
        f"The browser ends at an address that begins with {begun.redirect_uri}. If it shows no page"
        " there, copy this address from the browser, and paste it here."
    )
    note(f"Or tunnel the port before you sign in: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE")


def _address(url: str) -> None:
    """Print an address in one piece: a terminal must not wrap it."""
    sys.stderr.write(f"\n{url}\n\n")
    sys.stderr.flush()


def _read(begun: LoopbackSignIn, answers: Queue[str | PollingError]) -> None:
    """Read addresses from standard input until one is the answer."""
    from core.service.accounts.loopback import is_another

    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            answers.put(begun.code_in(line[:MAX_ADDRESS_CHARS]))
        except PollingError as error:
            if is_another(error):
                fail_with(error)
                continue
            answers.put(error)
        return


class _Listener(ThreadingHTTPServer):
    """Receives the redirect, on 127.0.0.1 only."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.begun: LoopbackSignIn | None = None
        self.answers: Queue[str | PollingError] = Queue()

    def listen(self, begun: LoopbackSignIn, answers: Queue[str | PollingError]) -> None:
        """Start to answer requests."""
        self.begun, self.answers = begun, answers
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *exception: object) -> None:
        if self.begun is not None:
            self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that breaks off: this does not answer the sign-in."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    timeout = 10

    def do_GET(self) -> None:
        """Take the answer of the provider. Any other request changes nothing."""
        from core.service.accounts.loopback import is_another

        begun = self.server.begun
        if begun is None or len(self.path) > MAX_ADDRESS_CHARS:
            return self._page(404, "Not found.")
        try:
            code = begun.code_in(self.path)
        except PollingError as error:
            if is_another(error):
                return self._page(404, "This is not the answer to the open sign-in.")
            self._page(400, f"{error.message}. {error.next_step('cli')}.")
            self.server.answers.put(error)
            return None
        self._page(200, DONE)
        self.server.answers.put(code)
        return None

    def _page(self, status: int, text: str) -> None:
        body = f"<!doctype html><meta charset=utf-8><title>polling</title><p>{html.escape(text)}"
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        # The address contains a code.
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: the address contains a code."""
