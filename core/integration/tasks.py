"""The `@task` decorator: it makes a method a task that the engine can run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, Generic, TypeVar, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, JsonValue, create_model
from pydantic_core import to_jsonable_python
from typing_extensions import ParamSpec

from core.integration.context import Context
from core.integration.results import Task, TaskResult

if TYPE_CHECKING:
    from core.integration.base import BaseIntegration

P = ParamSpec("P")
# The integration's type, used in signatures only.
I = TypeVar("I", bound="BaseIntegration[Any, Any]")  # noqa: E741


@dataclass(frozen=True)
class TaskSpec:
    """The description of one type of task.

    Attributes:
      name: The method's name, which is the task's type.
      fn: The function.
      cost: Units that the task takes of each limit before it runs. Default: none.
      time_limit: The maximum duration in seconds. Default: `POLLING_TASK_TIMEOUT_SECONDS`.
    """

    name: str
    fn: Callable[..., TaskResult]
    cost: Mapping[str, int] = field(default_factory=dict)
    time_limit: float | None = None

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the function."""
        return inspect.signature(self.fn)

    @cached_property
    def parameters(self) -> type[BaseModel]:
        """A model of the method's parameters after `self` and `ctx`."""
        hints = get_type_hints(self.fn, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in list(self.signature.parameters.items())[2:]:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
        return create_model(f"{self.name}_payload", __config__=config, **fields)

    def arguments(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Validate a payload against the method's parameters, and return the arguments.

        Raises:
          pydantic.ValidationError: The payload does not fit.
        """
        model = self.parameters.model_validate(payload)
        return {name: getattr(model, name) for name in self.parameters.model_fields}


class TaskMethod(Generic[P]):
    """A task method of an integration: call it to run it, or use `.task(…)` to make a `Task`."""

    __slots__ = ("_run", "_spec")

    def __init__(self, spec: TaskSpec, run: Callable[Concatenate[Context, P], TaskResult]) -> None:
        self._spec = spec
        self._run = run

    @property
    def name(self) -> str:
        """The task's type."""
        return self._spec.name

    def __call__(self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs) -> TaskResult:
        """Run the task."""
        return self._run(ctx, *args, **kwargs)

    def task(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Return a task that will call this method with these arguments.

        Use `dataclasses.replace` to set its `key`, `priority`, `background` or `delay`.

        Raises:
          TypeError: Positional arguments do not fit the method.
        """
        payload: Mapping[str, Any] = kwargs
        if args:
            payload = self._spec.signature.bind(None, None, *args, **kwargs).arguments
            payload = dict(list(payload.items())[2:])
        return Task(self._spec.name, cast(Mapping[str, JsonValue], _plain(payload)))


def _plain(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a payload as JSON values; convert models, dates and the like."""
    if all(
        value is None or isinstance(value, str | int | float | bool) for value in payload.values()
    ):
        return payload
    return {name: to_jsonable_python(value) for name, value in payload.items()}


class TaskDescriptor(Generic[I, P]):
    """The class attribute that `@task` makes of a method."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.__doc__ = spec.fn.__doc__

    def __get__(self, instance: I | None, owner: type[I] | None = None) -> TaskMethod[P]:
        run: Any = self.spec.fn if instance is None else self.spec.fn.__get__(instance, owner)
        return TaskMethod(self.spec, run)


_Method = Callable[Concatenate[I, Context, P], TaskResult]


@overload
def task(fn: _Method[I, P], /) -> TaskDescriptor[I, P]: ...


@overload
def task(
    *, cost: Mapping[str, int] | None = None, time_limit: float | None = None
) -> Callable[[_Method[I, P]], TaskDescriptor[I, P]]: ...


def task(
    fn: Callable[..., TaskResult] | None = None,
    /,
    *,
    cost: Mapping[str, int] | None = None,
    time_limit: float | None = None,
) -> Any:
    """Make a method of an integration a task.

    Its parameters after `self` and `ctx` are the task's payload. Give new parameters a default,
    because tasks stay open across upgrades.

    Args:
      fn: The method, if the decorator is used without arguments.
      cost: Units that the task takes of each limit before it runs, such as `{"quota": 20}`.
        Default: 0 units of a `Rate`, and one place of each `Concurrency`.
      time_limit: The maximum duration in seconds. Default: `POLLING_TASK_TIMEOUT_SECONDS`, 300.
    """

    def decorate(fn: Callable[..., TaskResult]) -> TaskDescriptor[Any, Any]:
        return TaskDescriptor(TaskSpec(fn.__name__, fn, dict(cost or {}), time_limit))

    return decorate if fn is None else decorate(fn)
