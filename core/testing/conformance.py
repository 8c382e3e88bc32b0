"""The conformance suite: tests that every integration has to pass, for its author to inherit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr

from core.integration.base import BaseIntegration, has_own
from core.integration.limits import AccountIdentity, Manifest
from core.integration.listening import WebhookRequest
from core.integration.rehearsal import Rehearsal
from core.integration.results import Listing
from core.known_secrets import Redactor, secrets_of
from core.logs import HTTP_LIBRARIES
from core.results.listeners import checked_response
from core.states import RunState, Trigger
from core.testing.content import Item
from core.testing.faults import Faults
from core.testing.harness import Harness
from core.testing.outcome import SyncResult
from core.testing.rereading import reread_items

FAULTS = {
    "killed": Faults(1, kill=0.5),
    "delivered twice": Faults(2, twice=0.5),
    "in any order": Faults(3, reorder=True),
    "with transient errors": Faults(4, transient=0.5, rate_limited=0.2),
    "overlapping": Faults(5, overlap=0.7, reorder=True),
    "in a storm": Faults.storm(6),
}
MIN_SECRET = 8
WRONG = "wrong/in+the&conformance=suite"
"""A secret that does not work. URLs, JSON and HTML write its special characters in other forms."""


class IntegrationConformance:
    """The conformance suite: derive a test class from it, and set its class attributes.

        class TestMine(IntegrationConformance):
            integration = Mine
            config = {"host": "localhost"}

    Attributes:
      integration: The integration's class.
      config: The config of a test account, as JSON; the value of `server` is merged into it.
        Default: empty.
      credentials: The credentials of the test account, as JSON. Secrets have at least 8 characters,
        so that a search for them finds nothing else. Default: empty.
    """

    integration: ClassVar[type[BaseIntegration[Any, Any]]]
    config: ClassVar[Mapping[str, Any]] = {}
    credentials: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def server(self) -> Any:
        """Start a local server, and yield its config fields. Override it; default: none."""
        return {}

    @pytest.fixture
    def harness(self, server: Mapping[str, Any]) -> Iterator[Harness]:
        """A fresh account at the test's server."""
        with self.connect(server) as harness:
            yield harness

    def connect(
        self, server: Mapping[str, Any], faults: Faults | None = None, **options: Any
    ) -> Harness:
        """Return the harness of a fresh account at this server.

        Args:
          server: The value of the `server` fixture.
          faults: Faults to inject. Default: none.
          **options: Further arguments of `Harness`.
        """
        return Harness(
            self.integration, {**self.config, **server}, self.credentials, faults=faults, **options
        )

    # The integration's description

    def test_its_manifest_is_valid(self) -> None:
        """The manifest has a name for people, and the integration has a `@task` method."""
        manifest = self.integration.manifest
        assert isinstance(manifest, Manifest)
        assert manifest.name.strip(), "the manifest has no name for people"
        assert self.integration.task_specs, "the integration has no @task method"

    def test_its_schemas_build(self) -> None:
        """The config and credentials models can be written as JSON schemas."""
        for model in (self.integration.config_model, self.integration.credentials_model):
            assert json.loads(json.dumps(model.model_json_schema()))["type"] == "object"

    def test_every_payload_has_a_schema(self) -> None:
        """The parameters of every `@task` method can be written as a JSON schema."""
        for spec in self.integration.task_specs.values():
            assert spec.parameters.model_json_schema(), spec.name

    def test_costs_name_limits(self, harness: Harness) -> None:
        """The `cost` of every task names limits that the integration has."""
        limits = {limit.name for limit in self.integration.limits(harness.config)}
        for spec in self.integration.task_specs.values():
            assert set(spec.cost) <= limits, (
                f"the cost of {spec.name} names unknown limits: {set(spec.cost) - limits}"
            )

    def test_check_names_one_account(self, harness: Harness) -> None:
        """`check()` returns an identity with an id, and the same one the second time."""
        identity = harness.check()
        assert isinstance(identity, AccountIdentity)
        assert identity.id, "check() returned an identity with an empty id"
        assert identity == harness.check(), "the second check() returned another identity"

    def test_its_rehearsal_accepts_the_account(self, harness: Harness) -> None:
        """`rehearse()` returns a valid rehearsal of the test account, and does not refuse it."""
        refusal = harness.rehearse().refusal
        assert refusal is None, f"rehearse() refused the test account: {refusal}"

    def test_its_listeners_are_stable(self, harness: Harness) -> None:
        """`listeners()` returns valid listeners with unique keys, and the same the second time."""
        assert harness.listeners() == harness.listeners(), "listeners() returned something else"

    def test_its_webhook_refuses_a_request_without_a_signature(self) -> None:
        """`webhook()` answers an unsigned request with a status from 400, and without a hint."""
        if not has_own(self.integration, "webhook"):
            pytest.skip("the integration has no webhook")
        settings = self.integration.manifest.settings
        values = settings() if settings else None
        for body in (b"", b"{}", b"null", b"\xff"):
            response = self.integration.webhook(WebhookRequest(body, {}, {}, values))
            checked_response(response)
            assert response.status >= 400, f"webhook() accepted the unsigned body {body!r}"
            assert not response.hints, "webhook() returned hints of an unsigned request"

    def test_start_only_returns_tasks(self, harness: Harness) -> None:
        """`start()` returns at least one task, and nothing else.

        The instance is not initialized, so it has no connection for I/O.
        """
        result = self.integration(harness.config, harness.credentials).start(harness.context())
        assert list(result.tasks), "start() returned no tasks"
        more = [*result.output, *result.seen, *result.state, *result.listed]
        assert not more, f"start() returned more than tasks: {more}"

    # Syncs

    def test_the_first_sync_succeeds(self, harness: Harness) -> None:
        """The first sync succeeds, and keeps at least one item."""
        _succeeded(harness)
        assert harness.content, "the sync kept no content"

    def test_the_second_sync_changes_nothing(self, harness: Harness) -> None:
        """A second sync of an unchanged source saves and deletes nothing."""
        _succeeded(harness)
        before = harness.content
        again = harness.sync()
        assert (again.state, again.outputs_saved, again.outputs_deleted) == (
            RunState.SUCCEEDED,
            0,
            0,
        ), again
        assert harness.content == before

    def test_payloads_survive_json(self, harness: Harness) -> None:
        """Every payload survives JSON unchanged, and fits the parameters of its task."""
        _succeeded(harness)
        for task in harness.tasks:
            assert json.loads(json.dumps(task.payload)) == task.payload, (
                f"the payload of {task} changes when it is written and read as JSON"
            )
            self.integration.task_specs[task.type].arguments(task.payload)

    @pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
    def test_faults_change_nothing(
        self, server: Mapping[str, Any], harness: Harness, faults: Faults
    ) -> None:
        """Syncs with injected faults succeed, and keep the same content as one without."""
        _succeeded(harness)
        with self.connect(server, faults) as shaken:
            _succeeded(shaken)
            assert shaken.content == harness.content, _difference(shaken, harness)
            _succeeded(shaken)
            assert shaken.content == harness.content, _difference(shaken, harness)

    # Rereads

    def test_a_reread_changes_nothing(self, harness: Harness) -> None:
        """Reading the kept items again changes nothing: the same reader read them.

        It happens without a network, without credentials and without `initialize`.
        """
        _succeeded(harness)
        self._require_reader()
        before = harness.content
        result = harness.reread()
        assert result.unchanged, "reread() returned no item"
        assert harness.content == before, _differing(before, harness.content)
        assert (result.saved, result.deleted) == (0, 0), result

    def test_a_reread_is_deterministic(self, harness: Harness) -> None:
        """Reading the kept items twice returns the same, in the same order."""
        _succeeded(harness)
        self._require_reader()
        first, second = (
            [rows for rows, _ in reread_items(self.integration, harness.config, harness._account)]
            for _ in range(2)
        )
        assert first == second, "reread() returned something else the second time"

    def _require_reader(self) -> None:
        if self.integration.manifest.reader is None:
            pytest.skip("the integration has no reader")

    # Deletions

    @pytest.mark.parametrize("trigger", ["schedule", "manual"])
    def test_held_deletions_can_be_confirmed(self, server: Mapping[str, Any], trigger: str) -> None:
        """A run that confirms held deletions lists everything, with any trigger.

        The guard holds every deletion here. The suite adds items that the source does not have,
        wherever the integration lists completely. The run after the acceptance deletes exactly
        these.
        """
        with self.connect(server, max_deleted_share=0.0) as harness:
            before, planted = _planted(harness)
            _succeeded(harness, "resync")
            assert planted <= harness.held, (
                f"a resync did not list the place of {_few(planted - harness.held)}"
            )
            assert harness.content.keys() == before.keys() | planted
            harness.accept_deletions()
            _succeeded(harness, trigger)
            assert not planted & harness.content.keys(), (
                "a run with ctx.run.complete did not list the place of"
                f" {_few(planted & harness.content.keys())}"
            )
            assert harness.content == before

    def test_a_hint_deletes_nothing_that_is_missing(self, server: Mapping[str, Any]) -> None:
        """A run that a hint made succeeds, and keeps items that the source lacks."""
        with self.connect(server) as harness:
            before, _ = _planted(harness)
            kept = harness.content
            result = harness.hint()
            assert result.state == RunState.SUCCEEDED, result
            assert harness.content == kept, "a run with the trigger `hint` swept"
            _succeeded(harness, "resync")
            assert harness.content == before

    def test_refused_deletions_stay(self, server: Mapping[str, Any]) -> None:
        """Items whose deletion a person refused stay, in a resync too."""
        with self.connect(server, max_deleted_share=0.0) as harness:
            before, planted = _planted(harness)
            _succeeded(harness, "resync")
            harness.refuse_deletions()
            _succeeded(harness, "resync")
            assert harness.content.keys() == before.keys() | planted
            assert not harness.held

    def test_an_account_may_keep_what_is_gone(self, server: Mapping[str, Any]) -> None:
        """With `deletions = keep`, items that are gone stay, and the guard holds nothing."""
        with self.connect(server, deletions="keep", max_deleted_share=0.0) as harness:
            before, planted = _planted(harness)
            _succeeded(harness, "resync")
            assert harness.gone == planted
            assert harness.content.keys() == before.keys() | planted
            assert not harness.held

    # Secrets

    def test_secrets_stay_secret(
        self, server: Mapping[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """No secret, valid or wrong, appears in content, state, payloads, errors or logs.

        The suite finds it plain, and as URLs, Base64, JSON, `repr` and HTML write it. It reads the
        lines of all loggers, before the engine redacts them. HTTP libraries log warnings and errors
        only, as in the engine.
        """
        right = self.connect(server, Faults.storm(7))
        secrets = set(secrets_of(right.credentials))
        if not secrets:
            pytest.skip("the test account's credentials have no secret")
        assert min(map(len, secrets)) >= MIN_SECRET, (
            f"the suite needs credentials whose secrets have at least {MIN_SECRET} characters"
        )
        wrong = self.connect(server)
        wrong.reconnect(_with_wrong_secrets(wrong.credentials))
        with _all_lines(caplog):
            visible = f"{_visible_text(right)} {_visible_text(wrong)} {caplog.text}"
        redacted = Redactor({*secrets, WRONG})(visible)
        assert redacted == visible, (
            f"a text that people see contains a secret, written as *** here: {_around(redacted)}"
        )


@contextmanager
def _all_lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Capture the lines of all loggers, from DEBUG on, and the warnings of HTTP libraries."""
    libraries = [logging.getLogger(name) for name in HTTP_LIBRARIES]
    before = [library.level for library in libraries]
    with caplog.at_level("DEBUG"):
        for library in libraries:
            library.setLevel(max(library.level, logging.WARNING))
        try:
            yield
        finally:
            for library, level in zip(libraries, before, strict=True):
                library.setLevel(level)


def _around(redacted: str) -> str:
    at = redacted.find("***")
    return " ".join(redacted[max(at - 80, 0) : at + 80].split())


def _succeeded(harness: Harness, trigger: str = Trigger.MANUAL) -> SyncResult:
    result = harness.sync(trigger)
    assert result.state == RunState.SUCCEEDED, [result.error, *result.parked]
    return result


def _planted(harness: Harness) -> tuple[Mapping[str, Item], set[str]]:
    """Sync an account, and add an item that the source does not have to every complete listing.

    Returns:
      The content of the source, and the ids of the added items.
    """
    _succeeded(harness)
    listed = _succeeded(harness, "resync").listed
    if not listed:
        pytest.skip("the integration never lists a part of the account completely")
    before = harness.content
    items = [_missing(f"not-there-{number}", place) for number, place in enumerate(listed)]
    harness.plant(*items)
    return before, {item.id for item in items}


def _missing(id: str, place: Listing) -> Item:
    last = place.until - timedelta(microseconds=1) if place.until is not None else None
    moment = place.since or last or datetime.now(UTC)
    return Item(id, b"", True, "item", place.parent, id, moment, None, {}, None)


def _few(ids: Iterable[str]) -> list[str]:
    return sorted(ids)[:10]


def _difference(one: Harness, other: Harness) -> str:
    return f"faults changed the content: {_differing(one.content, other.content)}"


def _differing(one: Mapping[str, Item], other: Mapping[str, Item]) -> str:
    ids = one.keys() | other.keys()
    return f"these items differ: {_few(id for id in ids if one.get(id) != other.get(id))}"


def _with_wrong_secrets(model: BaseModel) -> BaseModel:
    wrong: dict[str, Any] = {}
    for name, value in model:
        if isinstance(value, BaseModel):
            wrong[name] = _with_wrong_secrets(value)
        elif isinstance(value, SecretStr):
            wrong[name] = SecretStr(WRONG)
        elif isinstance(value, SecretBytes):
            wrong[name] = SecretBytes(WRONG.encode())
    return model.model_copy(update=wrong)


def _visible_text(harness: Harness) -> str:
    """Sync the account, and return all text that it shows: content, state, payloads and errors."""
    result = harness.sync()
    items = harness.content.values()
    rehearsal, refused = _rehearsed(harness)
    errors = [f"{error} {error!r}" for error in (*result.failures, *refused)]
    content = [item.content.decode(errors="replace") for item in items if item.content is not None]
    return "\n".join(
        map(
            str,
            [*items, *content, harness.state, *harness.tasks, *errors, *result.skipped, rehearsal],
        )
    )


def _rehearsed(harness: Harness) -> tuple[Rehearsal | None, list[Exception]]:
    """Return the plugin's own rehearsal after a check, or the exception of either."""
    try:
        instance = harness._worker.open()
        instance.check()
        return instance.rehearse(), []
    # A plugin may raise any exception, and none may show a secret.
    except Exception as error:  # noqa: BLE001
        return None, [error]
    finally:
        harness.close()
