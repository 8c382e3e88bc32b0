"""Messages as Dramatiq reads them, made without its detours: they are sent by the hundred."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from dramatiq import Message
from dramatiq.broker import MessageProxy

from core.ledger.outcomes import Dispatch
from core.results.text import json_text

RUN_TASK = "run_task"
SAVE_OUTPUT = "save_output"

POLL_QUEUE = "polling"
SAVE_QUEUE = "save_output"


def encode(queue: str, actor: str, id: str, args: Sequence[Any]) -> str:
    """One message; its id is also its id in Redis."""
    return json_text(
        {
            "queue_name": queue,
            "actor_name": actor,
            "args": args,
            "kwargs": {},
            "options": {"redis_message_id": id},
            "message_id": id,
            "message_timestamp": int(time.time() * 1000),
        }
    )


def dispatch_message(dispatch: Dispatch) -> str:
    """The message of a dispatch."""
    return encode(
        dispatch.domain, RUN_TASK, dispatch.id, [getattr(dispatch, name) for name in _FIELDS]
    )


class TaskMessage(MessageProxy):
    """A message of `run_task` in a worker, with its dispatch.

    The dispatch is parsed once and shared by all middleware.

    Raises:
      TypeError: Its arguments are no dispatch.
    """

    def __init__(self, message: Message[Any]) -> None:
        super().__init__(message)
        self.dispatch = Dispatch(*message.args)


_FIELDS = [field.name for field in dataclasses.fields(Dispatch)]
