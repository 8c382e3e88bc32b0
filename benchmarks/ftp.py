"""Copies of FTP and SFTP servers, against rclone, lftp, curl and sftp on the same servers.

Each round copies a tree with the engine and with the peer, one after the other, with the same
number of connections. The engine's account is new, so its time contains the logins. Its files are
rows of PostgreSQL, and large ones files of the blob store; the peers write files.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
from integration_polling_ftp import Config, Ftp

from benchmarks.distance import FAR, NEAR, distance
from benchmarks.engine import Engine, Testbed
from benchmarks.ftp_servers import SERVERS, SSH, Server, Watcher, serve
from benchmarks.peers import ftp as peers
from benchmarks.processes import family
from benchmarks.report import Budget, Options, Report, ratio

CONNECTIONS = 4
LIMIT = 2
ROUND_TRIP = 0.1
MAX_WORKER_MIB = 250
MIB = 1024**2
HUGE = "huge directory"
SAMPLE_SECONDS = 0.5
"""A sample walks through all pages of the workers, which cannot allocate memory until its end."""

FILES = """
SELECT count(*) FILTER (WHERE kind = 'file'), coalesce(sum(size) FILTER (WHERE kind = 'file'), 0)
FROM user_integration_content WHERE user_integration_id = %s AND deleted_at IS NULL
"""

Peer = Callable[[Server, int, Path], float]


@dataclass(frozen=True, slots=True)
class Tree:
    """Files to copy; see `tree`."""

    name: str
    files: int
    directories: int
    size: int = 0

    def written(self, folder: Path, options: Options) -> Path:
        """Return the path of the tree, which is written on first use."""
        home = folder / self.name
        if not home.exists():
            files = options.size(self.files, min(self.files, 40))
            directories = min(self.directories, options.size(self.directories, 5))
            tree(home, files, directories, size=min(self.size, options.size(self.size, 8 * MIB)))
        return home


@dataclass(slots=True)
class Case:
    """One kind of server and tree, measured with the engine and a peer.

    Attributes:
      most: The bound on the ratio of the times.
      limit: The number of connections that the server allows; 0 for many.
      tls: True for FTPS.
      is_far: True for a round trip of `ROUND_TRIP` seconds.
    """

    name: str
    server: str
    tree: Tree
    peer: Peer
    most: float
    limit: int = 0
    tls: bool = False
    is_far: bool = False
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    connections: int = 0

    @property
    def allowed(self) -> int:
        return self.limit or CONNECTIONS

    @property
    def budget(self) -> Budget:
        peer = self.peer.__name__
        what = f"{self.name}: time, relative to {peer}"
        return Budget(what, ratio(self.ours, self.theirs), at_most=self.most)

    def row(self) -> dict[str, Any]:
        return {
            "": self.name,
            "ours, s": round(statistics.median(self.ours), 2),
            "peer": self.peer.__name__,
            "peer, s": round(statistics.median(self.theirs), 2),
            "ratio": round(ratio(self.ours, self.theirs), 2),
            "connections": f"{self.connections} of {CONNECTIONS}",
        }


def cases() -> Iterator[Case]:
    """Yield each kind of tree on each server."""
    many, some, few = Tree("many", 5_000, 50), Tree("some", 160, 8), Tree("few", 400, 10)
    large = Tree("large", 4, 1, 256 * MIB)
    for name in SERVERS:
        yield Case(f"small files, {name}", name, many, peers.rclone, 1.5)
    for name in SERVERS:
        text = f"small files, {ROUND_TRIP * 1000:g} ms latency, {name}"
        yield Case(text, name, some, peers.lftp, 1.0, is_far=True)
    for name in SERVERS:
        text = f"server with {LIMIT} connections, {name}"
        yield Case(text, name, few, peers.lftp, 2.0, LIMIT)
    for name in SERVERS:
        yield Case(f"large files, {name}", name, large, peers.curl, 1.3)
    for name in SERVERS:
        yield Case(f"small files, FTPS, {name}", name, many, peers.rclone, 1.5, tls=True)
    yield Case("small files, SFTP", SSH, Tree("most", 20_000, 200), peers.rclone, 1.5)
    text = f"small files, {ROUND_TRIP * 1000:g} ms latency, SFTP"
    yield Case(text, SSH, some, peers.lftp, 1.0, is_far=True)
    yield Case("1 GiB, SFTP", SSH, Tree("one", 1, 1, 1024 * MIB), peers.sftp, 1.3)


def run(bed: Testbed, options: Options) -> Report:
    """Measure the seconds of both sides in each case, and the memory of the workers."""
    with Engine(bed) as engine, tempfile.TemporaryDirectory(prefix="ftp-trees-") as folder:
        Path(folder).chmod(0o755)
        engine.environment = {**engine.environment, "POLLING_ALLOW_PRIVATE_HOSTS": "true"}
        with engine.workers() as pid, Memory(pid) as memory:
            done = [
                _measure(engine, case, Path(folder), options)
                for case in cases()
                if options.only in case.name
            ]
        with_huge = options.only in HUGE
        huge = _huge(engine, Path(folder), options) if with_huge else 0.0
    budgets = [
        *(case.budget for case in done),
        Budget(
            "connections above the limit",
            max([case.connections - CONNECTIONS for case in done], default=0), at_most=0,
        ),
        Budget("MiB of a worker, largest", memory.peak_mib, at_most=MAX_WORKER_MIB),
    ]  # fmt: skip
    if with_huge:
        budgets.append(Budget(f"MiB of a worker, {HUGE}", huge, at_most=MAX_WORKER_MIB))
    first = done[0] if done else None
    return Report(
        "ftp", "s", first.ours if first else [huge], first.theirs if first else (), "rclone",
        budgets, {"cases": [case.row() for case in done], "all processes, MiB": memory.total_mib},
    )  # fmt: skip


def tree(home: Path, files: int, directories: int, *, size: int = 0) -> Path:
    """Write files with seeded random bytes.

    Args:
      home: The folder to fill.
      files: The number of files.
      directories: Their number; with 1, the files are in the root.
      size: The size of each. Default: up to 4 KiB.
    """
    dice = random.Random(files)
    for number in range(files):
        place = home / f"d{number % directories % 7}" / f"e{number % directories}"
        path = (home if directories == 1 else place) / f"file {number}.bin".replace(" ", "_")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            left = size or dice.randint(0, 4_096)
            while left > 0:
                file.write(dice.randbytes(min(left, 1 << 20)))
                left -= 1 << 20
    return home


def _measure(engine: Engine, case: Case, folder: Path, options: Options) -> Case:
    home = case.tree.written(folder, options)
    listen, host = (NEAR, FAR) if case.is_far else ("", "")

    def run() -> AbstractContextManager[Server]:
        """Start a server, so that neither side meets idle connections of the one before."""
        return serve(case.server, home, limit=case.limit, tls=case.tls, listen=listen, host=host)

    with distance(ROUND_TRIP, engine.home) if case.is_far else nullcontext():
        for _ in range(options.rounds):
            with run() as server, Watcher(server.port) as watcher:
                case.ours.append(_sync(engine, server))
            case.connections = max(case.connections, watcher.peak)
            with run() as server:
                case.theirs.append(case.peer(server, case.allowed, engine.home / "copy"))
    print(case.row(), flush=True)
    return case


def _sync(engine: Engine, server: Server, *, timeout: float = 900.0) -> float:
    """Copy a server with a new account; return the seconds from the request to the end."""
    # The peers copy files that have just been written, too.
    config = Config(**server.config, max_connections=CONNECTIONS, settle_seconds=0)
    account = engine.account(
        "ftp", limits=Ftp.limits(config), credentials=server.credentials,
        **config.model_dump(mode="json"),
    )  # fmt: skip
    _, seconds = engine.sync(account, timeout=timeout)
    files = [path.stat().st_size for path in server.home.rglob("*") if path.is_file()]
    kept = engine.conn.execute(FILES, (account,)).fetchone()
    if kept != (len(files), sum(files)):
        raise RuntimeError(f"kept {kept} of {len(files)} files with {sum(files)} bytes")
    engine.settle()
    return seconds


def _huge(engine: Engine, folder: Path, options: Options) -> float:
    """Return the peak of a worker's memory in MiB, with one directory of many empty files."""
    home = folder / "huge"
    home.mkdir()
    for number in range(options.size(100_000, 2_000)):
        (home / f"a file with a name of usual length {number}.txt").touch()
    with (
        serve(SERVERS[0], home) as server,
        engine.workers() as pid,
        Memory(pid) as memory,
    ):
        _sync(engine, server)
    return memory.peak_mib


class Memory:
    """The memory of a worker command, in proportional pages.

    Attributes:
      peak_mib: The largest memory of one of its processes.
      total_mib: The largest memory of all of them together.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self.peak_mib = self.total_mib = 0.0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            try:
                sizes = [each.memory_full_info().pss / MIB for each in family(self._pid)]
            except psutil.Error:
                continue
            self.peak_mib = max(self.peak_mib, *sizes)
            self.total_mib = max(self.total_mib, sum(sizes))
