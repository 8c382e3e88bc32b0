"""Sentry and OpenTelemetry, as a receiver sees them.

Errors and spans of real processes arrive, and secrets do not.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from integration_polling_hostile import Credentials, Hostile
from support import oracle
from support.accounts import connect, sync
from support.collecting import Collector, collecting
from support.deployment import Deployment
from support.fleet import HOSTILE, METERED, Fleet
from support.metered import Metered
from support.waiting import until

SECRET = "s3cr3t-Tökén/+with?all&sorts"
CLIENT_SECRET = "the-operators-client-secret"
BODY = "what-a-person-has-written"
NOT_IMPORTED = """
import sys
from core import actors
import core.dispatcher, core.middleware.tracing
from core.observability.traces import span
with span("save", {}): pass
import core.rest.app, core.web.tracing
# redis-py and FastAPI always load parts of OpenTelemetry if they are installed.
assert not {"sentry_sdk", "opentelemetry.exporter", "opentelemetry.sdk.trace"} & set(sys.modules)
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as server:
        yield server


@pytest.fixture
def observed(collector: Collector) -> dict[str, str]:
    """Return the variables that enable Sentry and OpenTelemetry."""
    otel = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": "our-polling",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    return {
        "SENTRY_DSN": collector.dsn,
        "SENTRY_ENVIRONMENT": "test",
        "GMAIL_CLIENT_SECRET": CLIENT_SECRET,
    } | otel


def test_the_error_of_a_parked_task_arrives_without_its_secret(
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
    collector: Collector,
    observed: dict[str, str],
) -> None:
    fleet = make_fleet(**HOSTILE, **observed)
    workers = fleet.workers(processes=1, POLLING_MAX_ATTEMPTS="1")
    account = connect(
        deployment, Hostile, {"deeds": ["leak"], "neighbours": 3}, Credentials(token=SECRET)
    )
    run = sync(deployment, account)
    oracle.wait_for_quiet(fleet)
    assert workers.terminate() == 0  # workers send the rest before they end
    [event] = collector.events()
    tags = event["tags"]
    assert (tags["domain"], tags["type"], tags["process"]) == ("hostile", "misbehave", "worker")
    assert (tags["account"], tags["run"]) == (str(account), str(run))
    assert event["environment"] == "test"
    *_, last = event["exception"]["values"]
    [kept] = deployment.rows("SELECT errors->-1->>'error' FROM sync_task WHERE state = 'parked'")
    assert f"{last['type']}: {last['value']}" == kept[0]
    assert "leak" in {frame["function"] for frame in last["stacktrace"]["frames"]}
    assert not any("vars" in frame for frame in last["stacktrace"]["frames"])
    spans = collector.spans()
    tasks = {span["polling.task.type"]: span for span in spans if "polling.task.type" in span}
    assert tasks["misbehave"]["failed"]
    assert tasks["misbehave"]["error.type"] == last["type"]
    assert (tasks["misbehave"]["polling.account.id"], tasks["misbehave"]["polling.run.id"]) == (
        str(account),
        str(run),
    )
    assert not tasks["start"]["failed"]
    assert sum("polling.task.type" in span for span in spans) == deployment.value(
        "SELECT count(*) FROM sync_task"
    )
    assert sum(span["polling.tasks"] for span in spans if span["name"] == "save") == sum(
        "polling.task.type" in span for span in spans
    )
    assert {span["resource"]["service.name"] for span in spans} == {"our-polling"}
    assert_nothing_leaks(collector)


def assert_nothing_leaks(collector: Collector) -> None:
    """Assert that nothing contains a secret, neither as text nor in the form that JSON gives it."""
    sent = b"\n".join(body for _, body in collector.requests)
    for secret in (SECRET, CLIENT_SECRET, BODY):
        for shape in (
            secret.encode(),
            json.dumps(secret)[1:-1].encode(),
            secret.split("?")[0].encode(),
        ):
            assert shape not in sent


def test_errors_of_the_engine_arrive_without_exception_messages(
    deployment: Deployment, collector: Collector, observed: dict[str, str], tmp_path: Path
) -> None:
    program = f"""
import logging
from core import observability
from core.accounts.redaction import remember_operator
from core.environment import get_environment
from core.plugins import get_registry
remember_operator(get_environment(), get_registry())
observability.start("worker")
try:
    raise ValueError({BODY!r})
except ValueError as error:
    saver = logging.getLogger("core.worker.saver")
    saver.exception("the saver could not save with %s", {CLIENT_SECRET!r})
    error.add_note({BODY!r})
    logging.getLogger("core.task").error("a plugin says %s", {BODY!r}, exc_info=True)
    logging.getLogger("some.library").error("%s", {BODY!r})
logging.getLogger("core.worker").warning("no error: %s", {BODY!r})
observability.stop()
"""
    environment = deployment.environment() | observed
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=True)
    [event] = collector.events()
    assert event["message"] == "the saver could not save with ***"
    assert [(one["type"], one["value"]) for one in event["exception"]["values"]] == [
        ("ValueError", "")
    ]
    assert_nothing_leaks(collector)


def test_a_collector_in_a_private_network_is_reached_though_plugins_may_not(
    deployment: Deployment, collector: Collector, observed: dict[str, str], tmp_path: Path
) -> None:
    program = """
import logging
from core import observability
from core.egress import Egress
from core.observability import traces
observability.start("worker")
with Egress().for_account(public_only=True):
    logging.getLogger("core.worker").error("the first thing that is sent")
    with traces.span("save"): pass
observability.stop()
"""
    environment = deployment.environment() | observed
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=True)
    assert "the first thing that is sent" in [event["message"] for event in collector.events()]
    assert [span["name"] for span in collector.spans()] == ["save"]


def test_the_dispatcher_reports_its_errors_too(
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
    collector: Collector,
    observed: dict[str, str],
) -> None:
    """A limit that is not a rate makes the dispatcher report an error."""
    limits = json.dumps({"metered": {"calls": {"tasks": 1}}})
    fleet = make_fleet(**METERED, **observed, POLLING_LIMITS=limits)
    fleet.workers(processes=1)
    sync(deployment, connect(deployment, Metered, {}))
    [event, *_] = fleet.until(collector.events, "the event arrives", 40)
    assert (event["tags"]["process"], event["logger"]) == ("dispatcher", "core.dispatcher.loop")
    assert "cannot dispatch tasks of metered" in event["message"]


def test_the_class_name_of_an_exception_is_redacted(
    collector: Collector, observed: dict[str, str]
) -> None:
    program = f"""
from core import observability
from core.observability import errors, traces
from core.known_secrets import KNOWN
KNOWN.remember("an account", [{SECRET!r}])
observability.start("worker")
error = type({SECRET!r}, (Exception,), {{}})("x")
try:
    with traces.span("task"):
        raise error
except Exception:
    errors.report_task(error, "x", {{"domain": "hostile", "type": "step"}})
observability.stop()
"""
    subprocess.run([sys.executable, "-c", program], env=os.environ | observed, check=True)
    assert [span["error.type"] for span in collector.spans()] == ["other"]
    assert [event["exception"]["values"][0]["type"] for event in collector.events()] == ["***"]
    assert_nothing_leaks(collector)


def test_requests_have_spans_by_route(
    deployment: Deployment, collector: Collector, observed: dict[str, str], fleet: Fleet
) -> None:
    api = fleet.start(
        [sys.executable, "-c", "from core.cli import main; main()", "serve", "--port", "0"],
        **observed,
    )
    found = fleet.until(
        lambda: re.search(r"at (http://127\.0\.0\.1:\d+)", fleet.says()), "the API starts", 40
    )
    with httpx2.Client(base_url=found[1], trust_env=False) as client:
        until(lambda: client.get("/healthz").status_code == 200, "the API answers")
        client.get(f"/v1/tasks/4711?q={BODY}")
        client.get(f"/accounts/{BODY}")
        client.get(f"/nowhere/{BODY}")
        client.post("/v1/user-integrations", json={"config": BODY})
    assert api.terminate() == 143
    spans = {span["name"]: span for span in collector.spans()}
    assert spans["GET /v1/tasks/{task_id}"]["http.response.status_code"] == 422
    assert spans["GET /healthz"]["http.response.status_code"] == 200
    assert spans["GET /healthz"]["resource"]["polling.process"] == "api"
    routes = {
        "GET /healthz",
        "GET /v1/tasks/{task_id}",
        "POST /v1/user-integrations",
        "GET /accounts/{user_integration_id}",
    }
    assert spans.keys() == routes | {"GET"}
    assert_nothing_leaks(collector)


def test_the_operator_decides_which_spans_are_sampled(
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
    collector: Collector,
    observed: dict[str, str],
) -> None:
    fleet = make_fleet(**HOSTILE, **observed, OTEL_TRACES_SAMPLER="always_off")
    workers = fleet.workers(processes=1)
    sync(deployment, connect(deployment, Hostile, {"deeds": [], "neighbours": 3}))
    oracle.wait_for_quiet(fleet)
    assert workers.terminate() == 0
    assert collector.requests == []


def test_nothing_is_imported_when_observability_is_off(
    deployment: Deployment, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOT_IMPORTED],
        env=deployment.environment(),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_silent_collector_does_not_keep_a_process_from_ending(
    deployment: Deployment, tmp_path: Path
) -> None:
    program = """
from core import observability
from core.observability import traces
observability.start("worker")
for _ in range(2_000):
    with traces.span("save"): pass
observability.stop()
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        patient = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        environment = deployment.environment() | patient
        subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=tmp_path, check=True, timeout=90
        )


def test_a_variable_without_its_package_is_logged(
    deployment: Deployment, collector: Collector, observed: dict[str, str], tmp_path: Path
) -> None:
    program = (
        "import sys; sys.modules |= {'sentry_sdk': None, 'opentelemetry': None}; from core import"
        " actors"
    )
    environment = deployment.environment() | observed
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install -e '.[sentry]'" in done.stderr
    assert "pip install -e '.[otel]'" in done.stderr
