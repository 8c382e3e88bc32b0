"""A dlt pipeline from the same service into the same PostgreSQL.

dlt is tuned according to its own guide (https://dlthub.com/docs/reference/performance). A
transformer yields an awaitable for each item, and dlt evaluates them in parallel.
`max_parallel_items` is twice the number of connections, so that further items are always ready. One
aiohttp session keeps its connections open.

This was up to twice as fast as calls that are deferred to dlt's thread pool (`@dlt.defer`, with
dlt's requests session). The deferred calls are measured too, with the default of 5 workers.
Normalizing stays in the main process, dlt's default: for 10,000 items, two processes took longer to
start than they saved. Rotated files help only with several such processes or with many loaders. The
write disposition is `append`, the cheapest. Only `pipeline.run` is timed, without the start of
Python and the import of dlt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

import psycopg

from benchmarks.engine import Testbed
from benchmarks.processes import ROOT


def seconds(bed: Testbed, url: str, items: int, connections: int | None = None) -> float:
    """Run the pipeline once, into a new database, and check that all items arrived.

    Args:
      bed: The servers and the folder of the measurement.
      url: The address of the source.
      items: The number of items that the source has.
      connections: The number of connections. Default: None, which uses dlt's thread pool with its
        defaults.

    Returns:
      The seconds of `pipeline.run`.
    """
    database = bed.database("dlt")
    settings = {
        "EXTRACT__MAX_PARALLEL_ITEMS": 2 * connections if connections else 20,
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "PYTHONPATH": ROOT,
    }
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    arguments = [
        sys.executable,
        "-m",
        __name__,
        url,
        database,
        str(bed.home / "dlt"),
        str(connections or 0),
    ]
    done = subprocess.run(arguments, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    with psycopg.connect(database) as conn:
        assert conn.execute("SELECT count(*), count(DISTINCT id) FROM bench.item").fetchone() == (
            items,
            items,
        )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main(url: str, database: str, folder: str, connections: int) -> None:
    """Run the pipeline in this process, and print its seconds as JSON."""
    import dlt
    from dlt.destinations import postgres
    from dlt.sources.helpers import requests

    call = _awaitable(url, connections) if connections else _deferred(url)

    @dlt.resource
    def pages() -> Iterator[list[str]]:
        number: int | None = 0
        while number is not None:
            found = requests.get(f"{url}/pages/{number}").json()
            yield found["ids"]
            number = found["next"]

    @dlt.transformer(data_from=pages, write_disposition="append")
    def item(ids: list[str]) -> Iterator[Any]:
        for id in ids:
            yield call(id)

    # dlt requires a host and a password. libpq takes the socket's folder from the query instead of
    # the host, and the server does not check the password.
    into = postgres(credentials=database.replace("postgres@/", "postgres:none@localhost/"))
    pipeline = dlt.pipeline("bench", destination=into, dataset_name="bench", pipelines_dir=folder)
    begun = perf_counter()
    pipeline.run(item)
    print(json.dumps({"seconds": perf_counter() - begun}))


def _awaitable(url: str, connections: int) -> Callable[[str], Awaitable[Any]]:
    from aiohttp import ClientSession, TCPConnector

    sessions: list[ClientSession] = []

    async def call(id: str) -> Any:
        if not sessions:  # created in dlt's own event loop
            sessions.append(ClientSession(connector=TCPConnector(limit=connections)))
        async with sessions[0].get(f"{url}/items/{id}") as response:
            return await response.json()

    return call


def _deferred(url: str) -> Callable[[str], Any]:
    import dlt
    from dlt.sources.helpers import requests

    def call(id: str) -> Any:
        return requests.get(f"{url}/items/{id}").json()

    deferred: Callable[[str], Any] = dlt.defer(call)
    return deferred


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
