"""The conformance suite: what every integration has to do, as tests that its author inherits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr

from core.integration.base import BaseIntegration
from core.integration.limits import AccountIdentity, Manifest
from core.states import RunState
from core.testing.faults import Faults
from core.testing.harness import Harness

FAULTS = {
    "killed": Faults(1, kill=0.5),
    "delivered twice": Faults(2, twice=0.5),
    "in any order": Faults(3, reorder=True),
    "with transient errors": Faults(4, transient=0.5, rate_limited=0.2),
    "overlapping": Faults(5, overlap=0.7, reorder=True),
    "in a storm": Faults.storm(6),
}
MIN_SECRET = 8
WRONG = "wrong-in-the-conformance-suite"


class IntegrationConformance:
    """Derive a test class and say what it tests.

    Attributes:
      integration: The class.
      config, credentials: Of an account that a test may sync; as JSON. Secrets are 8 characters or
        longer, so that finding one means something.
    """

    integration: ClassVar[type[BaseIntegration[Any, Any]]]
    config: ClassVar[Mapping[str, Any]] = {}
    credentials: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def server(self) -> Any:
        """Override it to start a local server: yield what the config needs to find it."""
        return {}

    @pytest.fixture
    def harness(self, server: Mapping[str, Any]) -> Iterator[Harness]:
        with self.connect(server) as harness:
            yield harness

    def connect(self, server: Mapping[str, Any], faults: Faults | None = None) -> Harness:
        """A fresh account at this server."""
        return Harness(self.integration, {**self.config, **server}, self.credentials, faults=faults)

    # What it says of itself

    def test_its_manifest_is_valid(self) -> None:
        manifest = self.integration.manifest
        assert isinstance(manifest, Manifest)
        assert manifest.name.strip(), "the manifest has no name for people"
        assert self.integration.task_specs, "it has no @task"

    def test_its_schemas_build(self) -> None:
        for model in (self.integration.config_model, self.integration.credentials_model):
            assert json.loads(json.dumps(model.model_json_schema()))["type"] == "object"

    def test_every_payload_has_a_schema(self) -> None:
        for spec in self.integration.task_specs.values():
            assert spec.parameters.model_json_schema(), spec.name

    def test_costs_name_limits(self, harness: Harness) -> None:
        limits = {limit.name for limit in self.integration.limits(harness.config)}
        for spec in self.integration.task_specs.values():
            assert set(spec.cost) <= limits, (
                f"{spec.name} costs {set(spec.cost) - limits}, which are no limits"
            )

    def test_check_names_one_account(self, harness: Harness) -> None:
        identity = harness.check()
        assert isinstance(identity, AccountIdentity)
        assert identity.id, "the identity is empty"
        assert identity == harness.check(), "check() names another account the second time"

    def test_start_only_returns_tasks(self, harness: Harness) -> None:
        """On an instance that is not initialized: it has no connection to do I/O on."""
        result = self.integration(harness.config, harness.credentials).start(harness.context())
        assert list(result.tasks), "start() returns no task"
        more = [*result.output, *result.seen, *result.state, *result.listed]
        assert not more, f"start() returns more than tasks: {more}"

    # What a sync does

    def test_the_first_sync_succeeds(self, harness: Harness) -> None:
        _succeeded(harness)
        assert harness.content, "nothing was kept"

    def test_the_second_sync_changes_nothing(self, harness: Harness) -> None:
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
        _succeeded(harness)
        for task in harness.tasks:
            assert json.loads(json.dumps(task.payload)) == task.payload, (
                f"{task} is another task after JSON"
            )
            self.integration.task_specs[task.type].arguments(task.payload)

    @pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
    def test_faults_change_nothing(
        self, server: Mapping[str, Any], harness: Harness, faults: Faults
    ) -> None:
        _succeeded(harness)
        with self.connect(server, faults) as shaken:
            _succeeded(shaken)
            assert shaken.content == harness.content, _difference(shaken, harness)
            _succeeded(shaken)
            assert shaken.content == harness.content, _difference(shaken, harness)

    # What it keeps to itself

    def test_secrets_stay_secret(
        self, server: Mapping[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither right nor wrong ones stand in content, state, payloads, errors or logs."""
        caplog.set_level("DEBUG")
        right = self.connect(server, Faults.storm(7))
        secrets = set(_secrets(right.credentials))
        if not secrets:
            pytest.skip("its credentials hold no secret")
        assert min(map(len, secrets)) >= MIN_SECRET, (
            f"give this suite secrets of {MIN_SECRET} characters or more"
        )
        wrong = self.connect(server)
        wrong.reconnect(_with_wrong_secrets(wrong.credentials))
        visible = f"{_visible_text(right)} {_visible_text(wrong)} {caplog.text}"
        assert not [secret for secret in {*secrets, WRONG} if secret in visible], (
            "a secret is in a text that people see"
        )


def _succeeded(harness: Harness) -> None:
    result = harness.sync()
    assert result.state == RunState.SUCCEEDED, [result.error, *result.parked]


def _difference(one: Harness, other: Harness) -> str:
    differs = [
        key
        for key in one.content.keys() | other.content.keys()
        if one.content.get(key) != other.content.get(key)
    ]
    return f"faults changed the content of {sorted(differs)[:10]}"


def _secrets(model: BaseModel) -> Iterator[str]:
    for _, value in model:
        if isinstance(value, BaseModel):
            yield from _secrets(value)
        elif isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, SecretBytes):
            yield value.get_secret_value().decode(errors="replace")


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
    """Everything that an account shows after a sync: content, state, payloads and errors."""
    result = harness.sync()
    items = harness.content.values()
    errors = [f"{error} {error!r}" for error in (*result.failures, *_checked(harness))]
    content = [item.content.decode(errors="replace") for item in items if item.content is not None]
    return "\n".join(
        map(str, [*items, *content, harness.state, *harness.tasks, *errors, *result.skipped])
    )


def _checked(harness: Harness) -> list[Exception]:
    try:
        harness.check()
    # A plugin may raise anything, and its text must tell nothing.
    except Exception as error:  # noqa: BLE001
        return [error]
    return []
