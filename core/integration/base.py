"""The class that a plugin author derives from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeVar

from core.errors import CredentialsInvalid, TaskUnfit
from core.integration.context import Context
from core.integration.limits import AccountIdentity, Limit, Manifest
from core.integration.results import Task, TaskResult
from core.integration.tasks import TaskDescriptor, TaskSpec

START = "start"
"""The type of every run's first task, which calls `BaseIntegration.start`."""


class NoFields(BaseModel):
    """The config or credentials of an integration that has none."""


class ResyncOnChange:
    """Mark a config field whose change starts a resync.

    For example: `query: Annotated[str, ResyncOnChange()]`.
    """


class Destination:
    """Marks a config field that decides where the account's credentials are sent: `host:
    Annotated[str, Destination()]`.

    Who has a user's token may change it only together with the credentials, and so never send
    stored ones somewhere else.
    """


ConfigT = TypeVar("ConfigT", bound=BaseModel, default=NoFields)
CredentialsT = TypeVar("CredentialsT", bound=BaseModel, default=NoFields)


class BaseIntegration(Generic[ConfigT, CredentialsT]):
    """One kind of service. An instance belongs to one account and runs one task at a time.

    `config` and `credentials` are set before `initialize` is called. Instances are kept for the
    next task of their account and closed when idle; nothing may be remembered in them that a
    restart must not lose.
    """

    manifest: ClassVar[Manifest]
    config_model: ClassVar[type[BaseModel]] = NoFields
    credentials_model: ClassVar[type[BaseModel]] = NoFields
    task_specs: ClassVar[Mapping[str, TaskSpec]] = {}

    config: ConfigT
    credentials: CredentialsT

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        specs = dict(cls.task_specs)
        specs.update(
            {
                name: value.spec
                for name, value in vars(cls).items()
                if isinstance(value, TaskDescriptor)
            }
        )
        if START in specs:
            raise TypeError(
                f"{cls.__name__}: `start` is the run's first task already; give the @task another"
                " name"
            )
        cls.task_specs = specs
        for base in getattr(cls, "__orig_bases__", ()):
            if isinstance(get_origin(base), type) and issubclass(get_origin(base), BaseIntegration):
                models = [
                    arg
                    for arg in get_args(base)
                    if isinstance(arg, type) and issubclass(arg, BaseModel)
                ]
                cls.config_model = models[0] if models else cls.config_model
                cls.credentials_model = models[1] if len(models) > 1 else cls.credentials_model

    def __init__(self, config: ConfigT, credentials: CredentialsT) -> None:
        self.config = config
        self.credentials = credentials

    def initialize(self) -> None:
        """Connect.

        Called once, before the first task; what it raises counts as raised by that task.
        """

    def close(self) -> None:
        """Let go of connections.

        Called when idle, after a failure, and when credentials or config have changed.
        """

    def check(self) -> AccountIdentity:
        """Do the credentials work, and whose account is it?

        Raises:
          CredentialsInvalid, ConfigurationError, TransientError: It cannot be connected, and why.
        """
        raise NotImplementedError(f"{type(self).__name__} has no check()")

    def refresh(self) -> CredentialsT:
        """Renew tokens and return the new credentials.

        The engine calls it, one at a time per account.

        Raises:
          CredentialsInvalid: The provider refuses; the account waits for someone to reconnect it.
        """
        raise CredentialsInvalid("these credentials cannot be renewed")

    @classmethod
    def credentials_from_oauth(cls, token: Mapping[str, Any]) -> Mapping[str, Any]:
        """The credentials in the answer of a provider's token endpoint.

        `manifest.oauth` describes the request.

        Default: those of its fields that the credentials have too, such as `access_token` and
        `refresh_token`.
        """
        return {name: token[name] for name in cls.credentials_model.model_fields if name in token}

    def start(self, ctx: Context) -> TaskResult:
        """The first tasks of a run, from `ctx.state`. Does no I/O of its own."""
        raise NotImplementedError(f"{type(self).__name__} has no start()")

    @classmethod
    # For those who answer by configuration.
    def limits(cls, config: ConfigT) -> Sequence[Limit]:  # noqa: ARG003
        """The limits of an account with this config. Default: the manifest's."""
        return cls.manifest.limits

    def run_task(self, task: Task, ctx: Context) -> TaskResult:
        """Run one task.

        The default calls the `@task` method of that name with the payload as its arguments.

        Raises:
          TaskUnfit: There is no such task, or the payload does not fit its parameters.
        """
        if task.type == START:
            return self.start(ctx)
        spec = self.task_specs.get(task.type)
        if spec is None:
            raise TaskUnfit(f"{self.manifest.domain} has no task {task.type!r}")
        try:
            arguments = spec.arguments(task.payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise TaskUnfit(f"payload of {task.type}: {place}: {first['msg']}") from None
        result: TaskResult = spec.fn(self, ctx, **arguments)
        return result


Integration = type[BaseIntegration[Any, Any]]
