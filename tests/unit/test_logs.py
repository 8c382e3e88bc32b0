"""Log levels of the engine and of libraries."""

from __future__ import annotations

import subprocess
import sys

SERVICE = """
import logging
from core.cli import session
from core.logs import configure
session.settings()
logging.getLogger("uvicorn.error").error("in silence")
logging.getLogger("httpx").error("in silence, too")
configure("INFO", "json")
logging.getLogger("uvicorn.error").error("an error of a library")
logging.getLogger("httpx").info("its chatter")
logging.getLogger("httpx").warning("its warning")
logging.getLogger("core.rest").info("ours")
"""


def test_a_command_that_becomes_a_service_logs_errors_of_libraries() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE], capture_output=True, text=True, check=True
    )
    assert "an error of a library" in done.stderr
    assert "ours" in done.stderr
    assert "its warning" in done.stderr
    assert "in silence" not in done.stderr
    assert "chatter" not in done.stderr
