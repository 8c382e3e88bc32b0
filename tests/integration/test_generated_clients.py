"""Clients that well-known generators make from the OpenAPI document work against the API.

`nox -s clients` installs the generators and runs these tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.indexing import index_all
from support.waiting import until

from core import TaskOutput
from core.rest.app import build
from core.scopes import ALL

pytestmark = pytest.mark.clients

FOLDER = Path(__file__).parents[1] / "support" / "clients"
TOOLS = Path(os.environ.get("POLLING_NODE_TOOLS", FOLDER)) / "node_modules"
"""The packages of `package-lock.json` in this folder."""

MAX_SECONDS = 120

BYTES = b"invoice \xf0\x9f\x92\xb8\r\n\0 of May"
"""Bytes of a text item: a client that decodes and encodes them changes them."""


@pytest.fixture
def document(api, tmp_path) -> Path:
    """Write the OpenAPI document to a file."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(build(api.backend).openapi()))
    return path


@pytest.fixture
def tool(tmp_path) -> Callable[..., str]:
    """Return a function that runs a tool of Node.js, and returns its output."""
    if not TOOLS.exists():
        reason = "the tools of Node.js are not installed; run: nox -s clients"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)

    def run(name: str, *arguments: object) -> str:
        return output(tmp_path, TOOLS / ".bin" / name, *arguments)

    return run


def output(folder: Path, *command: object) -> str:
    """Run a command in a folder, and return its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, capture_output=True, text=True, timeout=MAX_SECONDS, check=False,
        env=os.environ | {"REDOCLY_TELEMETRY": "off"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_spectral_finds_nothing(document: Path, tool: Callable[..., str]) -> None:
    rules = document.with_name(".spectral.yaml")
    rules.write_text('extends: ["spectral:oas"]\n')
    tool("spectral", "lint", "--fail-severity=hint", "-r", rules, document)


def test_redocly_finds_nothing(document: Path, tool: Callable[..., str]) -> None:
    """`recommended-strict` has the recommended rules, and reports each as an error."""
    rules = document.with_name("redocly.yaml")
    rules.write_text("extends: [recommended-strict]\n")
    tool("redocly", "lint", "--config", rules, document)


@pytest.fixture
def expected(desk) -> dict[str, Any]:
    """Store items, and return the output of a correct client."""
    account = desk.account("kept", user_id="bob")
    desk.account("other", user_id="ann")
    desk.keep(
        account,
        TaskOutput("1", "an invoice", name="letter"),
        TaskOutput("2", "nothing of it"),
    )
    index_all(desk.conn)
    desk.conn.execute(
        "UPDATE user_integration_content SET content_text = NULL, content_bytes = %s, size = %s,"
        " content_type = 'text/plain' WHERE external_id = '1'",
        (BYTES, len(BYTES)),
    )
    return {
        "run": "running",
        "found": ["1"],
        "raw": BYTES.hex(),
        "exported": "change,use",
        "changes": ["created 1", "created 2"],
        "renamed": "account-changed-by-others",
        "deleted": 204,
        "gone": "account-not-found",
        "invalid": ["query.limit"],
    }


def saw(api, folder: Path, *command: object) -> dict[str, Any]:
    """Run the program of a client, and return its output."""
    query = {"params": {"q": "invoice"}}
    until(lambda: api.admin.get("/v1/user-integration-content", **query).json()["items"], "found")
    text = output(folder, *command, api.url, api.token(scopes=ALL))
    result: dict[str, Any] = json.loads(text)
    return result


def test_a_python_client_works(api, document: Path, expected: dict[str, Any]) -> None:
    """A warning of the generator would mean that the client lacks a route or a response."""
    pytest.importorskip("openapi_python_client", reason="run: nox -s clients")
    folder = document.parent
    output(
        folder,
        *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
        *("--path", document, "--meta", "none", "--output-path", "polling_client"),
    )
    assert saw(api, folder, sys.executable, FOLDER / "client.py") == {
        "listed": ["other", "python"],
        **expected,
    }


def test_a_typescript_client_works(
    api, document: Path, expected: dict[str, Any], tool: Callable[..., str]
) -> None:
    folder = document.parent
    (folder / "node_modules").symlink_to(TOOLS)
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(FOLDER / name, folder)
    tool("openapi-typescript", document, "-o", "schema.d.ts")
    tool("tsc", "-p", "tsconfig.json")
    assert saw(api, folder, "node", "client.js") == {"listed": ["other", "typescript"], **expected}
