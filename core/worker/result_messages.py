"""Results as messages, for workers that only fetch (`dramatiq core.actors -Q gmail`)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from threading import Event
from typing import Any

from core.accounts.redaction import describe_redis
from core.content.blobs import Blobs
from core.errors import StoreUnavailable
from core.ledger.outcomes import Dispatch, Outcome
from core.ledger.serialization import from_fields
from core.transport.messages import SAVE_OUTPUT, SAVE_QUEUE, encode
from core.transport.queues import REDIS_UNAVAILABLE, Queues
from core.worker.inflight import InflightTasks

MAX_INLINE_RESULT_BYTES = 256 * 1024
"""The largest result, in bytes of JSON, that travels through Redis; larger ones become blobs."""

log = logging.getLogger(__name__)


class ResultForwarder:
    """A forwarder that atomically replaces a task's message by one for `save_output`."""

    def __init__(self, queues: Queues, inflight: InflightTasks, blobs: Blobs) -> None:
        self._queues = queues
        self._inflight = inflight
        self._blobs = blobs

    def hand_over(self, outcome: Outcome) -> None:
        """Send an outcome.

        Retry for some seconds while Redis is unavailable. If that fails, the task runs again when
        its lease expires.
        """
        id = outcome.dispatch.id
        body = json.dumps(outcome.to_json())
        fields: Any = (
            {"blob": self._blobs.put(body.encode())}
            if len(body) > MAX_INLINE_RESULT_BYTES
            else json.loads(body)
        )
        message = encode(SAVE_QUEUE, SAVE_OUTPUT, id, fields)
        for pause in (0.1, 0.5, 1.0, 2.0, 4.0):
            try:
                self._queues.hand_over(id, outcome.dispatch.domain, SAVE_QUEUE, message)
                break
            except REDIS_UNAVAILABLE as error:
                log.warning(
                    "could not send the result of task %s; retrying in %.1f s: %s",
                    outcome.dispatch.task_id,
                    pause,
                    describe_redis(error),
                )
                time.sleep(pause)
        else:
            log.error(
                "could not send the result of task %s; the task runs again when its lease expires",
                outcome.dispatch.task_id,
            )
        self._inflight.release([outcome.dispatch])


def unpack(
    fields: Mapping[str, Any], blobs: Blobs, inflight: InflightTasks, stopping: Event
) -> Outcome:
    """Return the outcome that a message of `save_output` carries.

    Unknown fields are ignored, and missing optional fields have their defaults. If the outcome
    cannot be read, its task is released: otherwise this process would renew its lease forever.

    While the blob store is unavailable, wait for it: the result is not lost, and the process
    renews the leases of its tasks.

    Raises:
      Exception: The outcome cannot be read, or the process stops.
    """
    try:
        data = json.loads(_blob(fields["blob"], blobs, stopping)) if "blob" in fields else fields
        outcome = Outcome.from_json(data)
    except Exception:
        if (dispatch := dispatch_of_result(fields)) is not None:
            inflight.release([dispatch], done=False)
        raise
    outcome.queue = SAVE_QUEUE
    return outcome


def _blob(key: str, blobs: Blobs, stopping: Event) -> bytes:
    while True:
        try:
            return blobs.get(key)
        except StoreUnavailable as error:
            log.warning("waiting to read a result: %s", error)
            if stopping.wait(min(error.seconds, 5.0)):
                raise


def dispatch_of_result(fields: Mapping[str, Any]) -> Dispatch | None:
    """Return the dispatch whose result a message of `save_output` carries.

    Returns:
      The dispatch; None if the message carries only the key of a blob.

    Raises:
      TypeError: A required field is missing.
    """
    if not isinstance(fields, Mapping):
        raise TypeError("a result has no named fields")
    return None if "blob" in fields else from_fields(Dispatch, fields.get("dispatch", {}))
