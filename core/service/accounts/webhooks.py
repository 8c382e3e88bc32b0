"""Requests of providers to a plugin's webhook.

Anyone can send them, so they are bounded: an integration answers `MAX_CONCURRENT` at a time in a
process. A call that exceeds `ANSWER_SECONDS` is answered, and occupies its place until it ends.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

from core.egress import any_host
from core.errors import NotFound, PollingError, ServerUnavailable
from core.integration.base import has_own
from core.integration.listening import WebhookRequest, WebhookResponse
from core.integration.operator import load_settings
from core.results.listeners import checked_response
from core.service.backend import Backend
from core.worker.listening import add, operator_text

MAX_CONCURRENT = 4
ANSWER_SECONDS = 5.0

MAX_REMEMBERED = 10_000
"""The number of stored events that a process remembers, to ignore them when they are repeated."""

T = TypeVar("T")

log = logging.getLogger(__name__)

_places: Mapping[str, threading.Semaphore] = defaultdict(
    lambda: threading.BoundedSemaphore(MAX_CONCURRENT)
)

_stored = OrderedDict[tuple[str, str], None]()
_stored_lock = threading.Lock()


def receive(
    backend: Backend,
    domain: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    query: Mapping[str, str],
) -> WebhookResponse:
    """Let a plugin answer a request of its provider, and store the hints of its answer.

    Raises:
      NotFound: The integration does not exist, or has no webhook.
      ServerUnavailable: Too many requests are in progress, or the plugin took too long.
      SettingsError: A setting of the operator is invalid.
      PollingError: The plugin failed. Its log line has the reason; the sender gets none.
    """
    integration = backend.registry.get(domain)
    if not has_own(integration, "webhook"):
        raise NotFound("webhook-not-offered", domain=domain)
    settings = load_settings(integration.manifest.settings)
    request = WebhookRequest(body, headers, query, settings)

    def answer() -> WebhookResponse:
        with any_host():
            response = checked_response(integration.webhook(request))
        if response.id and _is_stored(domain, response.id):
            return response
        for hint in response.hints:
            add(backend.database, backend.queues, integration, hint.account, hint.part)
        if response.id:
            _remember(domain, response.id)
        return response

    try:
        return _bounded(domain, answer)
    except PollingError:
        raise
    except Exception as error:  # noqa: BLE001  plugin code
        log.error("the webhook of %s failed: %s", domain, operator_text(error))
        raise PollingError("webhook-failed", domain=domain) from None


def _is_stored(domain: str, event: str) -> bool:
    with _stored_lock:
        return (domain, event) in _stored


def _remember(domain: str, event: str) -> None:
    with _stored_lock:
        _stored[domain, event] = None
        while len(_stored) > MAX_REMEMBERED:
            _stored.popitem(last=False)


def _bounded(domain: str, work: Callable[[], T]) -> T:
    place = _places[domain]
    if not place.acquire(timeout=ANSWER_SECONDS):
        raise ServerUnavailable("webhooks-busy", domain=domain)
    done, results, errors = threading.Event(), list[T](), list[Exception]()

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001  raised again in the request's thread
            errors.append(error)
        finally:
            place.release()
            done.set()

    thread = threading.Thread(target=run, name=f"webhook {domain}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system has no more threads
        place.release()
        raise
    if not done.wait(ANSWER_SECONDS):
        raise ServerUnavailable("webhook-timed-out", domain=domain)
    if errors:
        raise errors[0]
    return results[0]
