"""Readers during a sync: the API refuses no reader, and the sync completes.

`nox -s bench -- readers` measures their cost.
"""

from __future__ import annotations

import re
import sys

from integration_polling_hello_world import HelloWorld
from support import oracle
from support.accounts import connect, sync

from benchmarks.clients import readers
from core.service import tokens

SERVE = [sys.executable, "-c", "from core.cli import main; main()", "serve", "--port", "0"]
TREE = {"pages": 10, "items": 8, "fanout_depth": 1, "delay_ms": 10}


def test_no_reader_is_refused_while_a_sync_runs(fleet, deployment) -> None:
    fleet.workers(processes=1)
    fleet.start(SERVE)
    found = fleet.until(
        lambda: re.search(r"the API at (http://[\d.:]+\d)", fleet.says()), "the API starts", 60
    )
    fleet.ready(60)
    account = connect(deployment, HelloWorld, TREE)
    with deployment.connection() as conn:
        token = tokens.create(conn, user_id=None).secret
    with readers(found[1], token, 20, 0.2) as seen:
        sync(deployment, account)
        oracle.wait_for_quiet(fleet, 60)
        oracle.assert_synced(fleet, account, TREE)
    assert seen["errors"] == {}
    assert seen["requests"] > 20
    assert seen["events"] > 0
