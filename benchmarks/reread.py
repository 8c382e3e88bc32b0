"""A reread of 20,000 kept mails of which nothing changes, against reading the same mails alone.

Reading alone is one thread that calls the plugin's reader on mails in memory: no database, no
engine. The engine reads them from PostgreSQL, compares every row, and commits its tasks. A second
figure is the pace of a sync of no-op tasks beside a reread, in the same workers.
The benchmark takes about 7 minutes on two cores.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from email.message import EmailMessage
from statistics import median
from uuid import UUID

from integration_polling_gmail import Config, Gmail
from integration_polling_gmail.fingerprint import Fingerprint

from benchmarks.engine import Engine, Testbed
from benchmarks.processes import wait_until
from benchmarks.report import Budget, Options, Report
from core.content import store
from core.content.store import Writer
from core.integration.results import Blob, TaskOutput
from core.integration.stored import StoredItem
from core.ledger import rereads
from core.results.outputs import output_row
from core.results.rows import StoredBlob
from core.testing.blobs import MemoryStore, MemoryWriter

WORDS = ["the", "report", "for", "next", "week", "is", "ready", "and", "please", "read", "it"]
FINGERPRINT = Fingerprint("1-bench", Config().policy, ("INBOX",)).text
METADATA = {"labels": ["INBOX"], "thread_id": "t", "snippet": "", "size": 1}
BATCH = 200
WITH_FILE = 5
"""The number of mails of which one has an attachment."""

BESIDE_SHARE = 4
"""The account whose reread runs beside a sync has one of this number of the mails."""

MAX_ROUNDS = 3
MAILS_PER_PAGE = 70
"""The number of mails for each page of the sync beside: the reread must outlast the sync."""


class InMemory:
    """The content of one mail in memory, as `core.integration.stored.StoredContent`."""

    def __init__(self, source: bytes) -> None:
        self._source, self._blobs = source, MemoryStore()

    def chunks(self, item: StoredItem, /) -> Iterator[bytes]:
        """Yield the source."""
        yield self._source

    def handle(self, item: StoredItem, /) -> Blob | None:
        """Return nothing: the reader does not ask for it."""
        return None

    def writer(self) -> MemoryWriter:
        """Return a writer for an attachment."""
        return MemoryWriter(bytearray(), self._blobs)


def run(bed: Testbed, options: Options) -> Report:
    """Measure mails/s of the engine and of the reader alone, and the pace of a sync beside."""
    count = options.rows or options.size(20_000, 400)
    pages = max(count // MAILS_PER_PAGE, 5)
    sources = [_source(number) for number in range(count)]
    with Engine(bed, "benchmarks.noop") as engine:
        account, other = engine.account("gmail"), engine.account("gmail")
        _fill(engine, account, sources)
        _fill(engine, other, sources[: count // BESIDE_SHARE])
        ours, alone, paces = [], [], []
        with engine.workers():
            _await_rereads(engine)
            for _ in range(min(options.rounds, MAX_ROUNDS)):
                alone.append(count / _read_alone(sources))
                ours.append(count / _reread(engine, account, count))
                paces.append(_pace(engine, other, pages))
    budgets = [
        Budget("time of a reread, relative to reading alone",
               median(theirs / mine for mine, theirs in zip(ours, alone, strict=True)),
               at_most=2.0),
        Budget("pace of a sync beside a reread", median(paces), at_least=0.9),
    ]  # fmt: skip
    return Report("reread", "mails/s", ours, alone, "the reader alone, in memory", budgets)


def _await_rereads(engine: Engine) -> None:
    """Wait for the rereads that the engine itself opens: no worker of before has named a reader."""
    reread = "SELECT count(*) FROM sync_run WHERE trigger = 'reread' AND state = 'succeeded'"
    wait_until(
        lambda: engine.conn.execute(reread).fetchall() == [(2,)],
        "the first rereads did not end",
        seconds=900,
        pause=0.1,
    )


def _source(number: int) -> bytes:
    rng = random.Random(number)
    text = "\n".join(" ".join(rng.choices(WORDS, k=12)) for _ in range(rng.randint(5, 60)))
    mail = EmailMessage()
    mail["From"], mail["To"] = f"Ann <ann{number % 50}@example.com>", "Bob <bob@example.org>"
    mail["Subject"], mail["Message-ID"] = f"Report {number}", f"<{number}@example.com>"
    mail["Date"] = "Wed, 01 May 2024 12:00:00 +0000"
    mail.set_content(text)
    mail.add_alternative(f"<html><body><p>{text}</p></body></html>", subtype="html")
    if number % WITH_FILE == 0:
        mail.add_attachment(
            rng.randbytes(20_000), maintype="application", subtype="pdf", filename="report.pdf"
        )
    return mail.as_bytes()


def _item(number: int, source: bytes) -> StoredItem:
    id, contents = f"{number:016x}", InMemory(source)
    raw = StoredItem(
        f"{id}/raw", "source", id, None, None, "message/rfc822", {}, None, len(source),
        _content=contents,
    )  # fmt: skip
    return StoredItem(
        id, "message", None, None, None, "text/plain", METADATA, FINGERPRINT, 0, (raw,),
        _content=contents,
    )  # fmt: skip


def _rows(number: int, source: bytes) -> list[TaskOutput]:
    gmail = Gmail(Config(), Gmail.credentials_model.model_construct())
    return list(gmail.reread(_item(number, source)).output)


def _read_alone(sources: list[bytes]) -> float:
    began = time.perf_counter()
    for number, source in enumerate(sources):
        _rows(number, source)
    return time.perf_counter() - began


def _fill(engine: Engine, account: UUID, sources: list[bytes]) -> None:
    """Keep the mails as a sync does."""
    writer, blobs = Writer(str(account), "gmail", str(account), 1, 1), MemoryStore()
    for first in range(0, len(sources), BATCH):
        outputs = []
        for number in range(first, min(first + BATCH, len(sources))):
            source, id = sources[number], f"{number:016x}"
            raw = StoredBlob(len(source), _hash(source), data=source)
            outputs += _rows(number, source)
            outputs.append(
                TaskOutput(
                    f"{id}/raw", raw, kind="source", parent=id, content_type="message/rfc822"
                )
            )
        store.upsert(engine.conn, [(writer, output_row(each, blobs)[0]) for each in outputs])
    engine.conn.execute("ANALYZE user_integration_content")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _reread(engine: Engine, account: UUID, count: int) -> float:
    """Reread the account; return the seconds from the request to the end of the run."""
    began = time.perf_counter()
    run, _ = rereads.request_reread(engine.conn, account)
    engine.queues.wake()
    wait_until(
        lambda: engine.ended(run) is not None, "the reread did not end", seconds=900, pause=0.05
    )
    seconds = time.perf_counter() - began
    rows = engine.conn.execute(
        "SELECT outputs_saved, outputs_unchanged FROM sync_run WHERE id = %s", (run,)
    ).fetchall()
    if rows != [(0, count + len(range(0, count, WITH_FILE)))]:
        raise RuntimeError(f"the reread did not read everything unchanged: {rows}")
    return seconds


def _pace(engine: Engine, account: UUID, pages: int) -> float:
    """Return the tasks/s of a sync beside a reread, relative to one alone, before and after."""
    before = engine.sync(engine.account(pages=pages))
    run, _ = rereads.request_reread(engine.conn, account)
    engine.queues.wake()
    beside = engine.sync(engine.account(pages=pages))
    if engine.ended(run) is not None:
        raise RuntimeError("the reread ended before the sync beside it")
    wait_until(
        lambda: engine.ended(run) is not None, "the reread did not end", seconds=900, pause=0.05
    )
    after = engine.sync(engine.account(pages=pages))
    alone = (before[0] + after[0]) / (before[1] + after[1])
    return beside[0] / beside[1] / alone
