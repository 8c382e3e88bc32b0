"""The conformance suite passes a good plugin, and finds each fault of the bad ones."""

from __future__ import annotations

import inspect
import itertools
import logging
import random
import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote_plus

import pytest
from pydantic import BaseModel, SecretStr
from support.letters import Letters

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Listing,
    Manifest,
    NoFields,
    PermanentError,
    Reader,
    StoredItem,
    Task,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)
from core.plugins import Registry
from core.testing import Faults, Harness, IntegrationConformance
from core.testing.conformance import FAULTS

SECRET = "a-secret-of-the-test"


class Credentials(BaseModel):
    token: SecretStr = SecretStr(SECRET)


class Counter(BaseModel):
    count: int = 0


class Good(BaseIntegration[NoFields, Credentials]):
    """An integration with 24 items, one task per item, and a counter of them."""

    manifest = Manifest("good", "Good")

    def initialize(self) -> None:
        self.token = self.credentials.token.get_secret_value()

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "Me")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.item.task(number=number) for number in range(24)])

    @task
    def item(self, ctx: Context, number: int) -> TaskResult:
        return self.result(ctx, number)

    def result(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult([TaskOutput(str(number), f"item {number}")])


class TestGood(IntegrationConformance):
    integration = Good
    credentials = {"token": SECRET}


class Downloads(Good):
    """An integration that lists new and changed items only by the tasks that download them."""

    source: ClassVar[Mapping[str, str]] = {}

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.page.task(number=0)])

    @task
    def page(self, ctx: Context, number: int) -> TaskResult:
        ids = sorted(self.source)[2 * number : 2 * number + 2]
        known = ctx.fingerprints(ids)
        changed = [id for id in ids if known.get(id) != self.source[id]]
        is_last = len(self.source) <= 2 * number + 2
        return TaskResult(
            tasks=[
                *(self.download.task(id=id, version=self.source[id]) for id in changed),
                *([] if is_last else [self.page.task(number=number + 1)]),
            ],
            seen=[id for id in ids if id not in changed],
            listed=[Listing()] if is_last else [],
        )

    @task
    def download(self, ctx: Context, id: str, version: str) -> TaskResult:
        return TaskResult([TaskOutput(id, version, fingerprint=version)])


class TestDownloads(IntegrationConformance):
    integration = Downloads
    credentials = {"token": SECRET}

    @pytest.fixture(autouse=True)
    def source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Downloads, "source", dict.fromkeys("abcdefg", "1"))

    @pytest.mark.parametrize("seed", range(20))
    def test_a_changed_item_stays_in_any_order(
        self, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with self.connect({}, Faults(seed, overlap=0.5, reorder=True)) as harness:
            assert harness.sync().state == "succeeded"
            changed = {**dict.fromkeys("bdefg", "1"), "a": "2", "c": "2", "h": "1"}
            monkeypatch.setattr(Downloads, "source", changed)
            assert harness.sync().state == "succeeded"
            assert {id: item.text for id, item in harness.content.items()} == changed


class Listed(Good):
    """An integration with a cursor, which lists its items again if the run must list everything."""

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.page.task(again=ctx.run.complete)])

    @task
    def page(self, ctx: Context, again: bool) -> TaskResult:
        known = ctx.state("done", Counter) is not None
        if known and not again:
            return TaskResult()
        items = [TaskOutput(str(number), f"item {number}") for number in range(24)]
        return TaskResult(items, state={"done": Counter()}, listed=[Listing()])


class Resuming(Listed):
    """An integration that lists again in a resync only."""

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.page.task(again=ctx.run.trigger == "resync")])


class TestListed(IntegrationConformance):
    integration = Listed
    credentials = {"token": SECRET}


@pytest.mark.parametrize("trigger", ["schedule", "manual"])
def test_the_suite_finds_a_plugin_whose_held_deletions_cannot_be_confirmed(trigger: str) -> None:
    class Suite(IntegrationConformance):
        integration = Resuming
        credentials = {"token": SECRET}

    with pytest.raises(AssertionError, match="did not list"):
        Suite().test_held_deletions_can_be_confirmed({}, trigger)


class Nameless(Good):
    manifest = Manifest("good", " ")


class Costly(Good):
    @task(cost={"typo": 1})
    def other(self, ctx: Context) -> TaskResult:
        return TaskResult()


class Schizophrenic(Good):
    identities: ClassVar = itertools.count()

    def check(self) -> AccountIdentity:
        return AccountIdentity(str(next(self.identities)), "Me")


class Anonymous(Good):
    def check(self) -> AccountIdentity:
        return AccountIdentity("", "Me")


class EagerStart(Good):
    def start(self, ctx: Context) -> TaskResult:
        return TaskResult([TaskOutput("a")], super().start(ctx).tasks)


class LazyStart(Good):
    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


class ConnectedStart(Good):
    def start(self, ctx: Context) -> TaskResult:
        assert self.token
        return super().start(ctx)


class Failing(Good):
    def result(self, ctx: Context, number: int) -> TaskResult:
        if number == 7:
            raise PermanentError("no")
        return super().result(ctx, number)


class Restless(Good):
    def result(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult([TaskOutput(str(number), str(random.random()))])


class Appending(Good):
    """Gives new ids to the same items."""

    def result(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult([TaskOutput(f"{ctx.run.id} {number}")])


class TuplePayload(Good):
    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[Task("pair", {"numbers": (1, 2)})])  # type: ignore[dict-item]

    @task
    def pair(self, ctx: Context, numbers: tuple[int, int]) -> TaskResult:
        return TaskResult([TaskOutput("a")])


class Forgetful(Good):
    """Assumes that a returned output was kept, which is lost when the worker dies."""

    def initialize(self) -> None:
        super().initialize()
        self.memory = _MEMORY.setdefault(id(self.config), set())

    def result(self, ctx: Context, number: int) -> TaskResult:
        first = number not in self.memory
        self.memory.add(number)
        return super().result(ctx, number) if first else TaskResult()


_MEMORY: dict[int, set[int]] = {}


class AttemptMinded(Good):
    """Keeps another output on the second attempt."""

    def result(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult([TaskOutput(str(number), str(ctx.task.attempt))])


class Ordered(Good):
    """Numbers its items in the order in which their tasks run."""

    def initialize(self) -> None:
        super().initialize()
        self.numbers = itertools.count()

    def result(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult([TaskOutput(str(number), str(next(self.numbers)))])


class Racing(Good):
    """Reads a counter in `known` and overwrites it, so that concurrent changes are lost."""

    def result(self, ctx: Context, number: int) -> TaskResult:
        known = ctx.fingerprints(map(str, range(24)))
        return TaskResult([TaskOutput(str(number), fingerprint=str(len({*known} - {str(number)})))])


def leaking(**leak: Any) -> type[Good]:
    class Leaking(Good):
        def result(self, ctx: Context, number: int) -> TaskResult:
            if leak.get("error"):
                raise RuntimeError(f"could not log in with {self.token}")
            if leak.get("log"):
                ctx.log.info("token %s", self.token)
            if write := leak.get("module_log"):
                write(self.token)
            fields = {
                name: make(self.token)
                for name, make in leak.items()
                if callable(make) and name != "module_log"
            }
            return TaskResult(**{"output": [TaskOutput(str(number))], **fields})

        @task
        def leak(self, ctx: Context, token: str) -> TaskResult:
            return TaskResult()

    return Leaking


LEAKS = {
    "content": leaking(output=lambda token: [TaskOutput("a", f"x{token}x".encode())]),
    "metadata": leaking(output=lambda token: [TaskOutput("a", metadata={"x": [token]})]),
    "id": leaking(output=lambda token: [TaskOutput(token)]),
    "state": leaking(state=lambda token: {token: Counter()}),
    "payload": leaking(tasks=lambda token: [Task("leak", {"token": token})]),
    "error": leaking(error=True),
    "log": leaking(log=True),
    "a module's logger": leaking(module_log=logging.getLogger(__name__).error),
    "a URL": leaking(
        module_log=lambda token: logging.getLogger(__name__).info(
            "GET https://shop.example/items?api_key=%s", quote_plus(token)
        )
    ),
    "a Basic header": leaking(
        module_log=lambda token: logging.getLogger(__name__).debug(
            "Authorization: Basic %s", b64encode(f"me:{token}".encode()).decode()
        )
    ),
    "a warning of an HTTP library": leaking(
        module_log=lambda token: logging.getLogger("urllib3.connectionpool").warning(
            "Retrying after /items?api_key=%s", quote_plus(token)
        )
    ),
}

NASTY = [
    (Nameless, "its_manifest_is_valid"),
    (Costly, "costs_name_limits"),
    (Schizophrenic, "check_names_one_account"),
    (Anonymous, "check_names_one_account"),
    (EagerStart, "start_only_returns_tasks"),
    (LazyStart, "start_only_returns_tasks"),
    (ConnectedStart, "start_only_returns_tasks"),
    (Failing, "the_first_sync_succeeds"),
    (LazyStart, "the_first_sync_succeeds"),
    (Restless, "the_second_sync_changes_nothing"),
    (Appending, "the_second_sync_changes_nothing"),
    (TuplePayload, "payloads_survive_json"),
    *((leaky, "secrets_stay_secret") for leaky in LEAKS.values()),
]

SHAKEN = [
    (Forgetful, "killed"),
    (Ordered, "delivered twice"),
    (Ordered, "in any order"),
    (AttemptMinded, "with transient errors"),
    (Racing, "overlapping"),
    (Forgetful, "in a storm"),
]


def run(
    integration: type[Good], test: str, caplog: pytest.LogCaptureFixture, faults: str = "killed"
) -> None:
    """Run one test of the suite, as pytest would."""

    class Suite(IntegrationConformance):
        credentials: ClassVar[Mapping[str, Any]] = {"token": SECRET}

    Suite.integration = integration
    suite = Suite()
    given = {"server": {}, "harness": suite.connect({}), "caplog": caplog, "faults": FAULTS[faults]}
    method = getattr(suite, f"test_{test}")
    method(**{name: given[name] for name in inspect.signature(method).parameters})


@pytest.mark.parametrize(("integration", "test"), NASTY)
def test_the_suite_finds_each_fault_of_a_plugin(
    integration: type[Good], test: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(Good, test, caplog)
    caplog.clear()
    with pytest.raises((AssertionError, AttributeError)):
        run(integration, test, caplog)


@pytest.mark.parametrize(("integration", "faults"), SHAKEN)
def test_the_suite_finds_plugins_that_lose_data_under_faults(
    integration: type[Good], faults: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(Good, "faults_change_nothing", caplog, faults)
    with pytest.raises(AssertionError):
        run(integration, "faults_change_nothing", caplog, faults)


def only_in_a_url(token: str) -> None:
    """Log a token whose form in a URL differs from the token."""
    if quote_plus(token) != token:
        logging.getLogger(__name__).info("GET https://shop.example/?api_key=%s", quote_plus(token))


def test_the_suite_finds_a_secret_that_is_written_only_as_in_a_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The working token has no special characters; the wrong one of the suite has."""
    with pytest.raises(AssertionError, match=r"api_key=\*\*\*"):
        run(leaking(module_log=only_in_a_url), "secrets_stay_secret", caplog)


def test_the_suite_ignores_addresses_that_an_http_library_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A provider may require the secret in the address, and the engine shows no such lines."""
    plugin = leaking(
        module_log=lambda token: logging.getLogger("httpx").info("GET /?api_key=%s", token)
    )
    run(plugin, "secrets_stay_secret", caplog)


def test_short_secrets_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Such a secret occurs in any text, so that finding it would prove nothing."""

    class Short(IntegrationConformance):
        integration = Good
        credentials = {"token": "abc"}

    with pytest.raises(AssertionError, match="8 characters"):
        Short().test_secrets_stay_secret({}, caplog)


# Rereads


class TestLetters(IntegrationConformance):
    integration = Letters
    credentials = {"token": SECRET}


class Connects(Letters):
    """A reader that asks its provider."""

    def reread(self, item: StoredItem) -> TaskResult:
        socket.create_connection(("127.0.0.1", 9), 1)
        return super().reread(item)


class AsksForCredentials(Letters):
    """A reader that uses an attribute that only `initialize` sets."""

    def initialize(self) -> None:
        self.token = self.credentials.token.get_secret_value()

    def reread(self, item: StoredItem) -> TaskResult:
        assert self.token
        return super().reread(item)


class Numbers(Letters):
    """A reader that returns something else each time."""

    count = itertools.count()

    def reread(self, item: StoredItem) -> TaskResult:
        result = super().reread(item)
        more = TaskOutput(f"{item.id}/{next(self.count)}", "x", kind="file", parent=item.id)
        return replace(result, output=[*result.output, more])


class Forgets(Letters):
    """A reader that loses the source."""

    def reread(self, item: StoredItem) -> TaskResult:
        return replace(super().reread(item), seen=[])


class ReadsNothing(Letters):
    """A reader that returns nothing."""

    def reread(self, item: StoredItem) -> TaskResult:
        return TaskResult()


class ReadsSlowly(Letters):
    """A reader that returns a task."""

    def reread(self, item: StoredItem) -> TaskResult:
        return TaskResult(tasks=[self.fetch.task(first=0)])


@pytest.mark.parametrize(
    "faulty", [Connects, AsksForCredentials, Numbers, Forgets, ReadsNothing, ReadsSlowly]
)
def test_the_suite_finds_each_fault_of_a_reader(faulty: type[Letters]) -> None:
    class Suite(IntegrationConformance):
        integration = faulty
        credentials = {"token": SECRET}

    found = []
    for name in ("test_a_reread_changes_nothing", "test_a_reread_is_deterministic"):
        with Suite().connect({}) as harness:
            try:
                getattr(Suite(), name)(harness)
            except Exception as error:  # noqa: BLE001
                found.append(type(error).__name__)
    assert found


def test_a_reader_needs_its_method_and_a_method_its_name() -> None:
    class NoMethod(Good):
        manifest = Manifest("no-method", "No method", reader=Reader(1, ["item"]))

    class Plugin:
        @hookimpl
        def integrations(self) -> list[type[BaseIntegration[Any, Any]]]:
            return [NoMethod]

    registry = Registry()
    registry._add("no-method", None, None, Plugin)
    assert "reread()" in registry.quarantined[0].error
    with pytest.raises(TypeError, match="reread"):
        type("Task", (Good,), {"reread": task(lambda self, ctx: TaskResult())})
    for wrong in ((0, ["a"]), (2**31, ["a"]), (1, []), (1, "message")):
        with pytest.raises(ValueError, match="reader"):
            Reader(*wrong)


def test_a_harness_reads_again_with_another_config() -> None:
    with Harness(Letters, {"letters": 3}) as harness:
        harness.sync()
        harness.config = Letters.config_model(letters=3, files=False)
        result = harness.reread()
        assert (result.saved, result.deleted) == (0, 6)
        assert {item.kind for item in harness.content.values()} == {"letter", "source"}
        harness.config = Letters.config_model(letters=3)
        assert harness.reread().saved == 6
