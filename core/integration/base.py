"""The base class of every integration."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeVar

from core.errors import (
    AccountPart,
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    TaskUnfit,
)
from core.field_problems import first_problem
from core.integration.context import Context
from core.integration.limits import AccountIdentity, Limit, Manifest
from core.integration.listening import (
    HintedAccount,
    Hints,
    ListenableAccount,
    Listener,
    WebhookRequest,
    WebhookResponse,
)
from core.integration.members import Member
from core.integration.rehearsal import Rehearsal
from core.integration.results import Task, TaskResult
from core.integration.stored import StoredItem
from core.integration.tasks import TaskDescriptor, TaskSpec

START = "start"
"""The type of a run's root task, which calls `BaseIntegration.start`."""

REREAD = "reread"
"""The type of the engine's tasks that call `BaseIntegration.reread`."""

RESERVED = {
    START: "is the name of a run's root task",
    REREAD: "is the method that reads stored sources again",
}
"""Names that a `@task` method cannot have."""


class NoFields(BaseModel):
    """The default config and credentials model: a model without fields."""


class ResyncOnChange:
    """Marks a config field whose change starts a resync.

    Example: `query: Annotated[str, ResyncOnChange()]`.
    """


class RereadOnChange:
    """Marks a config field whose change reads all kept items again, without the provider.

    The next task that lists or downloads something uses the new value anyway.

    Example: `attachments: Annotated[bool, RereadOnChange()]`.
    """


class Destination:
    """Marks a config field that decides where the account's credentials are sent.

    The holder of a user's token may change such a field only together with the credentials. So
    stored credentials are never sent to a host that the token's holder chose.

    Example: `host: Annotated[str, Destination()]`.
    """


ConfigT = TypeVar("ConfigT", bound=BaseModel, default=NoFields)
CredentialsT = TypeVar("CredentialsT", bound=BaseModel, default=NoFields)


class BaseIntegration(Generic[ConfigT, CredentialsT]):
    """One kind of service; an instance belongs to one account and runs one task at a time.

    The engine keeps an instance for the next task of its account and closes it when it is idle.
    Instance attributes are a cache: they must not hold anything that a restart may not lose.

    Attributes:
      manifest: The integration's name, limits and settings. Every subclass sets it.
      config_model, credentials_model: The models given in `BaseIntegration[Config, Credentials]`.
        Default: `NoFields`.
      task_specs: The class's `@task` methods, by name.
      idle_seconds: Seconds that the engine keeps an idle instance. An instance may set it, for
        example to a multiple of the duration of its login. Default: 5.
      config: The account's config, set before `initialize`.
      credentials: The account's credentials, set before `initialize` and replaced after a refresh.

    Raises:
      TypeError: A subclass names a `@task` method `start` or `reread`.
    """

    manifest: ClassVar[Manifest]
    config_model: ClassVar[type[BaseModel]] = NoFields
    credentials_model: ClassVar[type[BaseModel]] = NoFields
    task_specs: ClassVar[Mapping[str, TaskSpec]] = {}

    idle_seconds: float = 5.0

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
        for name in RESERVED.keys() & specs.keys():
            raise TypeError(f"{cls.__name__}: `{name}` {RESERVED[name]}; rename this @task method")
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
        """Connect to the provider. Default: do nothing.

        The engine calls it once for an instance, before the first task. It treats an exception from
        here like one from that task.
        """

    def close(self) -> None:
        """Release connections. Default: do nothing.

        The engine calls it when the instance is idle, after a failed task, and when the account's
        credentials or config have changed.
        """

    def check(self) -> AccountIdentity:
        """Test the credentials, and return the account that they belong to.

        The method may complete `self.config`, for example with a protocol that it has found. When
        an account is connected or its config is changed, the engine stores that config.

        Returns:
          The account's identity. Two accounts with the same `id` are one account.

        Raises:
          CredentialsInvalid: The provider rejects the credentials.
          ConfigurationError: The config cannot work. If one field is wrong, name it in `field`.
          TransientError: The provider cannot be reached now.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement check()")

    def probe(self) -> None:
        """Find out whether the account answers, with one cheap call.

        The engine calls it while the account's breaker is open: after five failures in a row that
        may pass. Default: `check`.

        Raises:
          TransientError: The account does not answer. A connection error means the same, and so
            does a call that exceeds the time limit of the task.
          RateLimited: The probe is repeated after the pause. Any other exception counts as an
            answer.
        """
        self.check()

    def rehearse(self) -> Rehearsal:
        """Describe the copy of this account before it is stored. Default: describe nothing.

        The engine calls it after `check`, on the same instance, before it stores a new account. It
        shows the result to the person who connects the account. Only look at the provider, and look
        at little: `check` and this call share 30 seconds.

        Returns:
          Facts, warnings, a sample, or a refusal. The engine shows a bounded part of them, in plain
          lines without the account's secrets.

        Raises:
          ConfigurationError, CredentialsInvalid: The account is not stored. Other exceptions have
            the same effect.
        """
        return Rehearsal()

    def refresh(self) -> CredentialsT:
        """Renew the account's tokens.

        The engine calls it for one task of an account at a time, and stores the result.

        Returns:
          The complete new credentials.

        Raises:
          CredentialsInvalid: The provider refuses, or the integration does not override this
            method. The account stops until someone reconnects it.
        """
        raise CredentialsInvalid("the integration cannot renew these credentials")

    @classmethod
    def credentials_from_oauth(cls, token: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the credentials contained in the response of a provider's token endpoint.

        `Manifest.oauth` describes the request. The default takes those fields of the response that
        `credentials_model` has too, such as `access_token` and `refresh_token`.

        Args:
          token: The JSON response of the token endpoint (RFC 6749, section 5.1).

        Returns:
          The credentials, as JSON for `credentials_model`.
        """
        return {name: token[name] for name in cls.credentials_model.model_fields if name in token}

    @classmethod
    # Subclasses read `config`.
    def oauth_parameters(cls, config: ConfigT) -> Mapping[str, str]:  # noqa: ARG003
        """Return parameters of the authorization request for an account with this config.

        They replace the manifest's parameters with the same names, such as `scope`. So people grant
        only the permissions that the account needs.

        Args:
          config: The config of the account that a person connects.
        """
        return {}

    @classmethod
    # Subclasses read `answer`.
    def explain_oauth_error(cls, answer: Mapping[str, Any]) -> IntegrationError | None:  # noqa: ARG003
        """Explain why the provider refused to connect an account in a browser.

        Args:
          answer: The error of the consent screen or of the token endpoint, with `error` and maybe
            `error_description` (RFC 6749, sections 4.1.2.1 and 5.2). Or, before a person signs in,
            the consent screen's answer to the client: `redirect`, the address to which it
            redirects, and `page`, the text of an error page. `redirect_uri` is always there.

        Returns:
          A `CredentialsInvalid` or `ConfigurationError` with a reason and a remedy. Do not repeat
          the provider's text in it. None if the refusal is unknown. Default: None; the
          engine then shows the code of the error.
        """
        return None

    @classmethod
    def listeners(
        cls,
        settings: BaseModel | None,  # noqa: ARG003  subclasses read it
        accounts: Iterable[ListenableAccount],  # noqa: ARG003
    ) -> Sequence[Listener]:
        """Name the sources of events. Default: none.

        One process of the fleet calls it about every 15 seconds; less often if it takes long. It
        does no I/O.

        Args:
          settings: The operator's settings: an instance of `Manifest.settings`, or None.
          accounts: The active accounts of the integration, which can be iterated once. There may be
            many: return before, if the operator has not set the source of events.
        """
        return ()

    @classmethod
    def listen(cls, listener: Listener, hints: Hints, stopping: threading.Event) -> None:
        """Receive the events of one listener, and turn them into hints, until `stopping` is set.

        It runs in a thread of its own, in one worker process of the fleet. Check `stopping` at
        least every second. If the method raises or returns early, the engine calls it again after
        a pause that grows from 1 to 60 seconds. Two processes may listen for a moment.

        Args:
          listener: The listener, with its accounts at the time of the call.
          hints: Receives the hints. Call `hints.connected()` once events arrive.
          stopping: Set when this process has to stop listening.
        """
        raise NotImplementedError(f"{cls.__name__} does not implement listen()")

    @classmethod
    def members(
        cls,
        settings: BaseModel | None,
        credentials: Mapping[str, Any],
        listed: Sequence[str] | None,
    ) -> Iterable[Member]:
        """List the members of an organization, for whom the engine keeps one account each.

        A worker process calls this method each hour. A person can also ask for it. A member who is
        no longer listed has left, and the engine pauses the account. If not all members can be
        listed, raise an exception. Yield each member as soon as it is known: the engine may end the
        listing after the first ones. It ignores a listing that takes longer than ten minutes.

        Args:
          settings: The operator's settings: an instance of `Manifest.settings`, or None.
          credentials: The credentials of the organization, as JSON. A member's account uses them
            together with `Member.credentials`.
          listed: The members that a person has named. None: list them all at the provider.

        Raises:
          CredentialsInvalid, ConfigurationError: The provider refuses the listing. The engine shows
            the reason. Other exceptions have the same effect.
        """
        raise NotImplementedError(f"{cls.__name__} does not implement members()")

    @classmethod
    def follows(cls, part: str, account: HintedAccount) -> bool:  # noqa: ARG003
        """Return True if an account needs a run for this part. Default: it does.

        The engine calls it before it stores a hint that names a part. So events of parts that the
        account does not copy open no run. Return True in doubt, as for a part that may be new. It
        does no I/O besides `account.state`. If it raises, the engine stores the hint.

        Args:
          part: The part that the hint names.
          account: The account.
        """
        return True

    @classmethod
    def webhook(cls, request: WebhookRequest) -> WebhookResponse:
        """Answer `POST /v1/hints/{integration_domain}`. Do no I/O here: providers wait.

        The engine does not authenticate the request. Check its signature before anything else. An
        exception answers the request with status 500, and a call that takes longer than 5 seconds
        with status 503.

        Args:
          request: The request.

        Returns:
          The hints and the answer. The hints are stored before the answer is sent.
        """
        raise NotImplementedError(f"{cls.__name__} does not implement webhook()")

    def start(self, ctx: Context) -> TaskResult:
        """Return the first tasks of a run, chosen from `ctx.state`. Do no I/O here.

        Args:
          ctx: The context of the run's root task.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement start()")

    def reread(self, item: StoredItem) -> TaskResult:
        """Read a kept item again, from its stored source. Do no I/O here.

        The engine calls it for each kept item of `Manifest.reader.kinds`: after an upgrade that
        increased the version of the reader, after a change of a `RereadOnChange` field, and on
        request. The instance has its config, and it has neither credentials nor a network:
        connections are refused, and `initialize` was not called. The result depends on nothing but
        the item, the config and the account's state, see `StoredItem.state`.

        The engine writes only rows that differ, and nothing if the item has changed since it was
        read. Such a change is marked as a reread in the change feed.

        Args:
          item: The kept item, with the items below it.

        Returns:
          Complete items (code 200) and deletions (code 410), of the item and of items below it. An
          item that is not returned stays. With `listed=[Listing(item.id)]`, the kept items below
          it that are neither in `output` nor in `seen` are marked deleted.

        Raises:
          SkipItem: The item stays as it is.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement reread()")

    @classmethod
    # Subclasses may read `config`.
    def limits(cls, config: ConfigT) -> Sequence[Limit]:  # noqa: ARG003
        """Return the limits of an account with this config. Default: `manifest.limits`."""
        return cls.manifest.limits

    def run_task(self, task: Task, ctx: Context) -> TaskResult:
        """Run one task: call the `@task` method of its type, with its payload as arguments.

        Args:
          task: The task. Type `start` calls `start`.
          ctx: The task's context.

        Returns:
          The method's result.

        Raises:
          TaskUnfit: The integration has no such task, or the payload does not fit its parameters.
        """
        if task.type == START:
            return self.start(ctx)
        spec = self.task_specs.get(task.type)
        if spec is None:
            raise TaskUnfit(f"{self.manifest.domain} has no task {task.type!r}")
        try:
            arguments = spec.arguments(task.payload)
        except ValidationError as error:
            raise TaskUnfit(f"payload of {task.type}: {first_problem(error)}") from None
        result: TaskResult = spec.fn(self, ctx, **arguments)
        return result


Integration = type[BaseIntegration[Any, Any]]


def has_own(integration: Integration, method: str) -> bool:
    """Return True if an integration overrides this class method of `BaseIntegration`."""
    return getattr(integration, method).__func__ is not getattr(BaseIntegration, method).__func__


def refused_field(
    integration: Integration, error: ConfigurationError | CredentialsInvalid
) -> tuple[AccountPart, str]:
    """Return the part of the account that an error refuses, and the field of it that it names.

    The field is empty if the error names none, or one that this part does not have.
    """
    is_config = isinstance(error, ConfigurationError)
    model = integration.config_model if is_config else integration.credentials_model
    known = model.model_json_schema().get("properties", {}) if error.field else ()
    return "config" if is_config else "credentials", error.field if error.field in known else ""
