"""The OpenAPI document keeps its word: requests made from it are answered as it says, one by one
and along its links.
"""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():  # it imports what its own dependencies have deprecated
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
from support.rest import SECRET

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
"""The first ends the token that asks; the second is sent to other hosts.

They have tests of their own.
"""

LINKED = {
    "get_user_integration", "pause_user_integration", "resume_user_integration",
    "sync_user_integration", "check_user_integration", "delete_user_integration",
    "list_runs", "get_state", "get_run", "list_tasks", "cancel_run",
}  # fmt: skip
"""What takes the id of something that was made: it succeeds by a link, or not at all."""

BOUNDS = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def document(api):
    """What the document says, but for routes that would end the test."""
    made = build(api.backend).openapi()
    for methods in made["paths"].values():
        for method in [
            name for name, operation in methods.items() if operation["operationId"] in LEFT_OUT
        ]:
            del methods[method]
    return made


@pytest.fixture
def there(api, desk):
    """Something of everything, so that ids can be met."""
    account = desk.account("somebody", user_id="u", credentials=None)
    desk.keep(account, TaskOutput("1", "text", kind="message"), TaskOutput("2", b"\0", parent="1"))
    desk.run(account)
    return {"Authorization": f"Bearer {api.token()}"}


def test_every_route_answers_as_the_document_says(api, document, there) -> None:
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @settings(BOUNDS, max_examples=5)
        @given(case=operation.as_strategy())
        def conforms(case) -> None:
            case.query.pop("wait", None)  # nobody has that much time
            case.call_and_validate(base_url=api.url, headers=there, checks=CHECKS)

        conforms()


def test_its_links_lead_where_they_say(api, document, there) -> None:
    """Accounts are made, and what is linked is done with them, in any order."""
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


def test_the_document_has_no_secret_in_it(document) -> None:
    assert SECRET not in str(document)
