"""What a result comes to once it has been through JSON and the engine's checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import BaseModel, JsonValue

from core.errors import ResultInvalid
from core.integration.base import BaseIntegration
from core.integration.results import Listing, Task, TaskOutput, TaskResult
from core.testing.blobs import MemoryBlob

MAX_ID_BYTES = 2048
MAX_PAYLOAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Effects:
    """A `TaskResult` with evaluated generators and checked values.

    `returned` holds its tasks before JSON.
    """

    output: Sequence[TaskOutput]
    tasks: Sequence[Task]
    returned: Sequence[Task]
    state: Mapping[str, JsonValue]
    seen: Sequence[str]
    listed: Sequence[Listing]

    @classmethod
    def of(cls, result: TaskResult, integration: type[BaseIntegration[Any, Any]]) -> Effects:
        """Run the generators and check everything.

        Raises:
          ResultInvalid: It cannot be kept, and why.
        """
        if not isinstance(result, TaskResult):
            raise ResultInvalid(f"a task returns a TaskResult, not {type(result).__name__}")
        output = [_output(output) for output in result.output]
        tasks = list(result.tasks)
        return cls(
            output,
            [_task(task, integration) for task in tasks],
            tasks,
            {partition: _state(partition, value) for partition, value in result.state.items()},
            [_id(seen) for seen in result.seen],
            list(result.listed),
        )


def through_json(value: Any, what: str) -> Any:
    """The value as it comes back from JSON.

    Raises:
      ResultInvalid: It is no JSON, or holds text that UTF-8 cannot encode.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise ResultInvalid(f"{what} is no JSON: {error}") from error
    return json.loads(text)


def _output(output: TaskOutput) -> TaskOutput:
    if not isinstance(output, TaskOutput):
        raise ResultInvalid(f"output holds {type(output).__name__}, which is no TaskOutput")
    _id(output.id)
    if output.content is not None and not isinstance(output.content, str | bytes | MemoryBlob):
        raise ResultInvalid(f"the content of {output.id!r} is {type(output.content).__name__}")
    if output.timestamp is not None and output.timestamp.tzinfo is None:
        raise ResultInvalid(f"the timestamp of {output.id!r} has no time zone")
    texts = [output.kind, output.parent, output.name, output.content_type, output.fingerprint]
    through_json(
        [*texts, output.content if isinstance(output.content, str) else None], f"{output.id!r}"
    )
    return replace(
        output, metadata=through_json(dict(output.metadata), f"the metadata of {output.id!r}")
    )


def _task(task: Task, integration: type[BaseIntegration[Any, Any]]) -> Task:
    if not isinstance(task, Task):
        raise ResultInvalid(f"tasks hold {type(task).__name__}, which is no Task")
    if task.type not in integration.task_specs:
        raise ResultInvalid(f"{integration.manifest.domain} has no task {task.type!r}")
    payload = through_json(dict(task.payload), f"the payload of {task.type}")
    if len(json.dumps(payload)) > MAX_PAYLOAD_BYTES:
        raise ResultInvalid(f"the payload of {task.type} is over {MAX_PAYLOAD_BYTES} bytes")
    return replace(task, payload=payload)


def _state(partition: str, value: BaseModel | None) -> JsonValue:
    if value is None:
        return None
    if not isinstance(value, BaseModel):
        raise ResultInvalid(
            f"the state of {partition!r} is {type(value).__name__}, which is no pydantic model"
        )
    return cast(
        JsonValue, through_json(value.model_dump(mode="json"), f"the state of {partition!r}")
    )


def _id(id: str) -> str:
    if not isinstance(id, str) or not id or "\0" in id:
        raise ResultInvalid(f"{id!r} cannot be an id")
    through_json(id, "an id")
    if len(id.encode()) > MAX_ID_BYTES:
        raise ResultInvalid(f"an id is over {MAX_ID_BYTES} bytes: {id[:40]!r}…")
    return id
