"""A careless plugin in real processes: neither logs nor reports show a secret."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from support import oracle
from support.accounts import connect, sync
from support.collecting import collecting
from support.deployment import Deployment
from support.fleet import METERED, Fleet
from support.leaky import FRESH, Credentials, Leaky

SECRET = "s3cr3t-Tökén/+with?all&sorts"
LEAKY = METERED | {"POLLING_PLUGINS": "support.leaky"}
COMMAND = [sys.executable, "-c", "from core.cli import main; main()"]
SENTRY = {"SENTRY_ENVIRONMENT": "test", "OTEL_BSP_SCHEDULE_DELAY": "200"}


def assert_nothing_leaks(text: str) -> None:
    for secret in (SECRET, FRESH):
        shapes = [secret, quote(secret), quote_plus(secret), repr(secret)[1:-1]]
        shapes += [json.dumps(secret)[1:-1]]
        shapes += [base64.b64encode(secret.encode()).decode().rstrip("=")]
        found = [text[text.index(shape) - 200 :][:400] for shape in shapes if shape in text]
        assert not found, found


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_careless_plugin_shows_no_secret(
    make_fleet: Callable[..., Fleet], deployment: Deployment, form: str
) -> None:
    with collecting() as collector:
        observed = SENTRY | {
            "SENTRY_DSN": collector.dsn,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        fleet = make_fleet(**LEAKY, **observed, POLLING_LOG_FORMAT=form, POLLING_LOG_LEVEL="DEBUG")
        workers = fleet.workers(processes=1)
        sync(deployment, connect(deployment, Leaky, {}, Credentials(token=SECRET)))
        oracle.wait_for_quiet(fleet)
        assert workers.terminate() == 0
        assert deployment.value("SELECT count(*) FROM user_integration_content") == 1
        said = fleet.says()
        sent = b"\n".join(body for _, body in collector.requests).decode("utf-8", "replace")
        spans = [span for span in collector.spans() if "url.full" in span]
    assert_nothing_leaks(said)
    assert_nothing_leaks(sent)
    for text in (
        *("a template ***", "Retrying after https://leaky.example/items?api_key=***"),
        *("to a handler of its own: ***", "in a thread: ***", "a thread failed with ***"),
        *("unsafe: https://leaky.example/items?api_key=***", "the request failed"),
        *("the provider says", "ValueError: GET https://leaky.example/items?api_key=***"),
    ):
        assert text in said, text
    assert "HTTP Request" not in said
    assert "HTTP/1.1" not in said
    assert [span["url.full"] for span in spans] == ["https://leaky.example/items?api_key=***"]
    assert [event["message"] for event in collector.events()].count(
        "GET https://leaky.example/items?api_key=***"
    ) == 2


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_a_dry_run_shows_no_secret(tmp_path: Path, level: str) -> None:
    """The command needs no servers. The plugin renews its credentials."""
    (tmp_path / "credentials.json").write_text(json.dumps({"token": SECRET}))
    settings = {"POLLING_PLUGINS": "support.leaky", "POLLING_LOG_LEVEL": level}
    done = subprocess.run(
        [*COMMAND, "dry-run", "leaky", "--credentials", "@credentials.json"],
        env=os.environ | METERED | settings, cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "unsafe: https://leaky.example/items?api_key=***" in said
    assert "a thread failed with ***" in said
    assert ("the request failed" in said) is (level == "DEBUG")
    assert_nothing_leaks(said)


def test_the_log_of_the_api_and_of_commands_shows_no_secret(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """`connect` calls the plugin, which logs, and renews the given credentials."""
    fleet = make_fleet(**LEAKY, POLLING_LOG_LEVEL="DEBUG")
    credentials = fleet.log.parent / "credentials.json"
    credentials.write_text(json.dumps({"token": SECRET}))
    program = fleet.start([*COMMAND, "connect", "leaky", "--credentials", f"@{credentials}"])
    fleet.until(lambda: program.exit_code is not None, "the command ends", 60)
    said = fleet.says()
    assert program.exit_code == 0, said
    assert said.count("checking with ***") == 2
    assert 'the provider says {"access_token": "***"}' in said
    assert_nothing_leaks(said)
