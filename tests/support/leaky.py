"""A plugin that writes its secret wherever an author might, without meaning harm."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from pydantic import BaseModel, SecretStr

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    CredentialsInvalid,
    Manifest,
    NoFields,
    PermanentError,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)
from support.waiting import until

FRESH = "f?esh/Tökén+of-a-renewal"
log = logging.getLogger(__name__)


class Credentials(BaseModel):
    """The secret. A renewal replaces it by `FRESH`."""

    token: SecretStr


class Leaky(BaseIntegration[NoFields, Credentials]):
    """An integration that logs as careless plugins and their libraries do."""

    manifest = Manifest("leaky", "Leaky")

    def check(self) -> AccountIdentity:
        """Renew the credentials before they work, and log on the way."""
        token = self.credentials.token.get_secret_value()
        log.error("checking with %s", token)
        if token != FRESH:
            raise CredentialsInvalid("expired")
        return AccountIdentity("leaky", "Leaky")

    def refresh(self) -> Credentials:
        """Log the body of the answer, as an SDK in its debug mode does."""
        log.error('the provider says {"access_token": "%s"}', FRESH)
        return Credentials(token=SecretStr(FRESH))

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.write.task()])

    @task
    def write(self, ctx: Context) -> TaskResult:
        """Write the secret to every place, renew it, and do so again."""
        self._write()
        self._wait_at_the_gate()
        try:
            ctx.refresh_credentials()
        except Exception as error:
            raise PermanentError("could not renew the credentials") from error
        self._write()
        return TaskResult([TaskOutput("done", "done")])

    def _wait_at_the_gate(self) -> None:
        """Wait until a test has created the file that the environment names."""
        if (name := os.environ.get("LEAKY_WAITS_FOR")) is not None:
            Path(name).with_suffix(".reached").touch()
            until(Path(name).exists, "the test opens the gate")

    def _write(self) -> None:
        token = self.credentials.token.get_secret_value()
        url = f"https://leaky.example/items?api_key={quote_plus(token)}"
        log.error(token)
        log.error("a template %s", token, extra={"account": token, "body": token})
        _log_as_libraries_do(url)
        _log_to_a_handler_of_its_own(token)
        _log_in_a_thread(token)
        _report(url, token)
        warnings.warn(f"unsafe: {url}", stacklevel=1)
        try:
            raise ValueError(f"GET {url}")
        except ValueError:
            log.exception("the request failed")


def _log_as_libraries_do(url: str) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET %s", url)
    logging.getLogger("urllib3.connectionpool").debug('"GET %s HTTP/1.1"', url)
    logging.getLogger("urllib3.connectionpool").warning("Retrying after %s", url)


def _log_to_a_handler_of_its_own(token: str) -> None:
    own = logging.getLogger(f"{__name__}.own")
    own.propagate = False
    own.addHandler(handler := logging.StreamHandler(io.StringIO()))
    own.error("to a handler of its own: %s", token)
    own.removeHandler(handler)
    sys.stderr.write(handler.stream.getvalue())


def _log_in_a_thread(token: str) -> None:
    def fail() -> None:
        log.error("in a thread: %s", token)
        raise RuntimeError(f"a thread failed with {token}")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def _report(url: str, token: str) -> None:
    """Use the packages of the operator's observability directly, as some SDKs do."""
    import sentry_sdk
    from opentelemetry import trace

    sentry_sdk.set_tag("token", token)
    sentry_sdk.set_context("request", {"url": url, token: "as a key"})
    sentry_sdk.add_breadcrumb(message=f"GET {url}")
    sentry_sdk.capture_message(f"GET {url}")
    span = trace.get_current_span()
    span.set_attribute("url.full", url)
    span.set_attribute("tokens", [token])
    span.add_event("request", {"url": url})
    span.record_exception(ValueError(token))
    span.set_status(trace.Status(trace.StatusCode.ERROR, url))
    span.update_name(f"GET {url}")


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Leaky]
