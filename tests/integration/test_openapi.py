"""The API follows its OpenAPI document, request by request and along its links."""

from __future__ import annotations

import warnings

import httpx2
import pytest

with warnings.catch_warnings():  # schemathesis imports deprecated parts of its dependencies
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

from hypothesis import HealthCheck, Phase, given, settings
from support.rest import SECRET, serving

from core import TaskOutput
from core.rest.app import build

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
LEFT_OUT = {"erase_user", "finish_authorization"}
"""Operations that other tests cover.

The first deletes the token of its caller, and the second makes requests to other hosts.
"""

LINKED = {
    "get_user_integration", "pause_user_integration", "resume_user_integration",
    "sync_user_integration", "check_user_integration", "delete_user_integration",
    "list_runs", "get_state", "get_run", "list_tasks", "cancel_run",
}  # fmt: skip
"""Operations that take the id of a created object, so that only a link lets them succeed."""

BOUNDS = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def document(api):
    """Return the document without the routes that would end the test."""
    made = build(api.backend).openapi()
    for methods in made["paths"].values():
        for method in [
            name for name, operation in methods.items() if operation["operationId"] in LEFT_OUT
        ]:
            del methods[method]
    return made


@pytest.fixture
def there(api, desk):
    """Store an object of every kind, and return the headers of an operator."""
    account = desk.account("somebody", user_id="u", credentials=None)
    desk.keep(account, TaskOutput("1", "text", kind="message"), TaskOutput("2", b"\0", parent="1"))
    desk.run(account)
    return {"Authorization": f"Bearer {api.token()}"}


def test_every_route_answers_as_its_document_specifies(api, document, there) -> None:
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @settings(BOUNDS, max_examples=5)
        @given(case=operation.as_strategy())
        def conforms(case) -> None:
            case.query.pop("wait", None)  # the test has no time to wait
            case.call_and_validate(base_url=api.url, headers=there, checks=CHECKS)

        conforms()


def test_every_link_of_the_document_can_be_followed(api, document, there) -> None:
    """Create accounts and follow the links, in any order."""
    linked = {
        path: what
        for path, what in document["paths"].items()
        if path.startswith(("/v1/user-integrations", "/v1/runs"))
    }
    schema = schemathesis.openapi.from_dict(document | {"paths": linked})
    account = {"integration_domain": "locked", "user_id": "u", "credentials": {"password": SECRET}}
    done: list[tuple[str, int]] = []

    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case):
            return {"headers": there, "base_url": api.url}

        def before_call(self, case) -> None:
            if case.operation.definition.raw["operationId"] == "create_user_integration":
                case.body = account | {"config": {"name": f"n{len(done) % 3}"}}
                case.headers.pop("idempotency-key", None)
            case.query.pop("wait", None)

        def validate_response(self, response, case, additional_checks=None, **more) -> None:
            done.append((case.operation.definition.raw["operationId"], response.status_code))
            case.validate_response(response, checks=CHECKS)

    Machine.run(settings=settings(BOUNDS, max_examples=10, stateful_step_count=8))
    succeeded = {name for name, status in done if status < 300}
    assert len(succeeded & LINKED) >= 2, sorted(succeeded)


def test_the_document_is_made_once(backend, monkeypatch) -> None:
    """Everybody may read it. Made for each request, it occupied the event loop for milliseconds."""
    made = []

    def described(document):
        made.append(document)
        return document()

    monkeypatch.setattr("core.rest.app._described", described)
    with serving(backend) as url, httpx2.Client(base_url=url, trust_env=False) as client:
        answers = [client.get("/openapi.json") for _ in range(3)]
    assert len(made) == 1
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}
    assert all(answer.json() == made[0]() for answer in answers)


def test_the_openapi_document_contains_no_secret(document) -> None:
    assert SECRET not in str(document)
