"""A database of many accounts and years of content, for the benchmark `reading`.

The rows have real kinds, sizes and order. They arrived over three years, and the items of all
accounts lie between each other. One account has a fifth of the items, and ten others have another
fifth. Each text comes from one of 5,000 texts of made-up words: a few words are in a third of the
texts, and most words are rare. The engine's own code makes the search documents.

The steps insert rows without indexes and then create the indexes, so that 5 million items take some
minutes. A call that ends early continues with the next step.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.search.documents import FORM, IndexedItem, document

ITEMS, ACCOUNTS, RUNS, TASKS_OF_ONE_RUN = 5_000_000, 200_000, 2_000_000, 1_000_000

TEMPLATES = 5_000
CHUNK_ROWS = 50_000
"""The rows of a transaction, so that the change feed has many positions."""

COMMON, FREQUENT, SELDOM, ABSENT = "that", "tula", "bandersnatch", "jabberwocky"
"""Words in about 30 % of the texts, in 5 %, in one of 5,000, and in none."""

PHRASE = "quarterly report"
ORDINARY = (
    "the and of to in is for that with on this we are you not it be as at have by from our will"
)
"""The most frequent words. They tell the engine the language of a text."""

PERSON, PLACE = "Ann Arbor", "projects"
TABLES = ("user_integration", "user_integration_content", "content_search", "sync_run", "sync_task",
    "user_day", "account_day")  # fmt: skip

# The indexes are dropped, and created when all rows exist.
INDEXES = """
SELECT c.relname, i.relname, pg_get_indexdef(i.oid), k.conname, pg_get_constraintdef(k.oid)
FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.contype = 'u'
WHERE c.relname = ANY(%s) AND NOT x.indisprimary ORDER BY 1, 2
"""

FILL_ACCOUNTS = """
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config,
    next_sync_at, last_sync_at, created_at, reader_version)
SELECT md5('account-' || n)::uuid,
    CASE WHEN n BETWEEN 1000 AND 1999 THEN 'user-many' ELSE 'user-' || n / 4 END,
    (ARRAY['gmail', 'slack', 'ftp'])[1 + n %% 3], 'Account ' || n, 'identity-' || n, '{}',
    now() + interval '365 days' + n * interval '1 second', now() - n %% 900 * interval '1 second',
    now() - interval '1100 days' + n * interval '1 second', 1000000
FROM generate_series(0, %(accounts)s - 1) n
"""

# Ten items in sequence: two belong to the largest account, two to one of ten large accounts, and
# six to three small ones. The second of two is a file of the first, or one more item.
FILL_CONTENT = """
WITH item AS (
    SELECT n, n / 2 AS pair, n %% 2 = 1 AND n / 2 %% 4 = 0 AS is_file, t.*,
        CASE n %% 10 / 2 WHEN 0 THEN 0 WHEN 1 THEN 1 + n / 10 %% 10
            ELSE 11 + n / 2 * 7919 %% (%(accounts)s - 11) END AS account
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
    JOIN template t ON t.number = n * 31 %% %(templates)s
), named AS (
    SELECT *, account %% 3 AS domain,
        now() - interval '1095 days' * (1 - n::float / %(items)s) AS at,
        CASE account %% 3 WHEN 0 THEN lpad(to_hex(1500000000000 + pair * 37), 16, '0')
            WHEN 1 THEN 'C' || pair %% 20 || '/' || 1600000000 + pair || '.000100'
            ELSE '/projects/' || pair %% 50 || '/' || pair || '.pdf' END AS above
    FROM item
)
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    parent, name, external_timestamp, content_type, content_text, blob_key, size, metadata, hash,
    digest, content_seq, metadata_seq, created_at, updated_at, deleted_at, gone_at_source)
SELECT md5('account-' || account)::uuid, (ARRAY['gmail', 'slack', 'ftp'])[1 + domain],
    CASE WHEN is_file THEN above || '/1' WHEN n %% 2 = 1 THEN above || '-b' ELSE above END,
    CASE WHEN is_file THEN CASE domain WHEN 0 THEN 'attachment' ELSE 'file' END
        WHEN n %% 9973 = 0 THEN CASE domain WHEN 0 THEN 'label' WHEN 1 THEN 'channel'
            ELSE 'directory' END
        WHEN domain = 2 THEN 'file' ELSE 'message' END,
    CASE WHEN is_file AND domain < 2 THEN above WHEN domain = 1 THEN 'C' || pair %% 20
        WHEN domain = 2 THEN '/projects/' || pair %% 50 END,
    title, at, CASE WHEN domain = 2 OR is_file THEN 'application/pdf' ELSE 'text/plain' END,
    CASE WHEN domain < 2 AND NOT is_file THEN body END, NULL, length(body), metadata,
    md5(n::text), decode(md5(n::text), 'hex'), 1, 1, at, at,
    CASE WHEN n %% 100 = 57 THEN at END, CASE WHEN n %% 200 = 36 THEN at END
FROM named ORDER BY n
"""

FILL_SEARCH = f"""
INSERT INTO content_search (content_id, document, form, user_integration_id, moment)
SELECT c.id, t.document || format($$'@%%s' '@kind:%%s' '@thread:%%s' 'number%%s':1$$,
    replace(c.user_integration_id::text, '-', ''), c.kind, c.id / 8, c.id / 50)::tsvector,
    {FORM}, c.user_integration_id, c.external_timestamp
FROM user_integration_content c
JOIN template t ON t.number = (c.id - 1) * 31 %% %(templates)s
WHERE c.id BETWEEN %(first)s + 1 AND %(last)s + 1
"""

# The channels of the large accounts of Slack, with a twentieth of the account's messages each.
FILL_CHANNELS = f"""
WITH channel AS (
    INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id,
        kind, name, digest, content_seq, metadata_seq)
    SELECT md5('account-' || account)::uuid, 'slack', 'C' || n, 'channel', 'general' || n, '', 1, 1
    FROM generate_series(1, 10, 3) account, generate_series(0, 19) n
    ON CONFLICT DO NOTHING RETURNING *
)
INSERT INTO content_search (content_id, document, form, user_integration_id, moment)
SELECT id, format($$'@%s' '@kind:channel' '%s':1A$$,
    replace(user_integration_id::text, '-', ''), name)::tsvector,
    {FORM}, user_integration_id, created_at
FROM channel
"""

FILL_RUNS = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    started_at, finished_at, tasks_done, outputs_saved)
SELECT md5('run-' || n)::uuid, a.id, a.integration_domain, 'live', 'schedule',
    CASE WHEN n %% 1000 = 7 THEN 'partial' ELSE 'succeeded' END, 0, at, at, 1, 1
FROM (SELECT n, now() - interval '30 days' * (1 - n::float / %(runs)s) AS at,
        md5('account-' || n * 7919 %% %(accounts)s)::uuid AS account
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) run
JOIN user_integration a ON a.id = run.account
"""
# The latest runs of two days, with a task each.
FILL_TASKS = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, state, created_at, started_at, finished_at, outputs_saved)
SELECT r.id, r.user_integration_id, r.integration_domain, 'live', 'start', '{}', '', 'done',
    r.started_at, r.started_at, r.started_at, 1
FROM (SELECT md5('run-' || n)::uuid AS id
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) numbered
JOIN sync_run r USING (id)
"""
LARGE_RUN = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    started_at, finished_at, tasks_done, outputs_saved)
SELECT md5(%(name)s)::uuid, id, integration_domain, 'backfill', 'manual', %(state)s, 0,
    now() - interval '29 days',
    CASE WHEN %(state)s <> 'running' THEN now() - interval '28 days' END, %(tasks)s, %(tasks)s
FROM user_integration WHERE id = md5(%(account)s)::uuid
"""
# A root task, pages one after the other, and a hundred downloads of each page.
FILL_LARGE_RUN = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, parent_id, type,
    payload, dedup_key, state, created_at, started_at, finished_at, outputs_saved)
SELECT r.id, r.user_integration_id, r.integration_domain, 'backfill', %(before)s
        + CASE WHEN n = 0 THEN NULL WHEN n %% 101 = 1 THEN greatest(n - 101, 1)
            ELSE n - (n - 1) %% 101 + 1 END,
    CASE WHEN n = 0 THEN 'start' WHEN n %% 101 = 1 THEN 'page' ELSE 'download' END,
    jsonb_build_object('n', n), decode(md5(n::text), 'hex'),
    CASE WHEN r.state = 'running' AND n > %(tasks)s - 10 THEN 'ready' ELSE 'done' END,
    now() - interval '28 days', now() - interval '28 days', now() - interval '28 days', 1
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
JOIN sync_run r ON r.id = md5(%(name)s)::uuid
"""
NEXT_TASK = "SELECT coalesce(max(id), 0) FROM sync_task"
FILL_DAYS = """
INSERT INTO user_day (user_id, day, polls, tasks, thread_seconds, bytes_in, bytes_kept)
SELECT user_id, current_date - d, 96, 100, 10, 10000, 1000
FROM (SELECT DISTINCT user_id FROM user_integration) u, generate_series(0, 2) d;
INSERT INTO account_day (user_integration_id, day, runs, empty_runs, outputs_saved)
SELECT id, current_date - d, 96, 90, 6 FROM user_integration, generate_series(0, 6) d;
INSERT INTO user_kept (user_id, bytes)
SELECT user_id, 1000000 FROM (SELECT DISTINCT user_id FROM user_integration) u
ON CONFLICT DO NOTHING
"""
# Everything is searchable, and only the benchmark reads.
SETTLE = """
UPDATE search_progress SET (changed_xid, content_id) = (
    SELECT changed_xid, id FROM user_integration_content ORDER BY changed_xid DESC, id DESC LIMIT 1)
"""
LARGE_RUNS = {"the large run": "succeeded", "the open run": "running"}


@dataclass(frozen=True, slots=True)
class Size:
    """The numbers of rows, relative to the full ones."""

    scale: float

    @property
    def items(self) -> int:
        return round(ITEMS * self.scale)

    @property
    def accounts(self) -> int:
        return max(round(ACCOUNTS * self.scale), 3_000)

    @property
    def runs(self) -> int:
        return round(RUNS * self.scale)

    @property
    def tasks(self) -> int:
        """The tasks of one large run."""
        return round(TASKS_OF_ONE_RUN * self.scale)


def account(number: int) -> UUID:
    """Return the id of an account: 0 has the most items, then those from 1 to 10."""
    return _md5(f"account-{number}")


def run(name: str) -> UUID:
    """Return the id of a run, by its name."""
    return _md5(name)


def _md5(name: str) -> UUID:
    return UUID(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())


Step = tuple[str, Callable[[Conn], Any]]


def steps(size: Size) -> Iterator[Step]:
    """Yield the steps that fill an empty database, in this order. Each can be repeated."""
    filled = {
        "user_integration_content": (FILL_CONTENT, size.items),
        "content_search": (FILL_SEARCH, size.items),
    }
    yield "dropped indexes", drop_indexes
    yield "templates", _templates
    yield "accounts", lambda conn: conn.execute(FILL_ACCOUNTS, {"accounts": size.accounts})
    for table, (statement, rows) in filled.items():
        yield f"{table} rows", _filler(table, statement, rows, size)
    yield "runs", _filler("sync_run", FILL_RUNS, size.runs, size)
    yield "tasks", lambda conn: _fill_tasks(conn, size)
    yield "days", lambda conn: conn.execute(FILL_DAYS)
    for table in TABLES:
        yield f"{table} indexes", _indexer(table)
    yield "channels", lambda conn: conn.execute(FILL_CHANNELS)
    yield "vacuum", _vacuum


def _filler(table: str, statement: str, rows: int, size: Size) -> Callable[[Conn], Any]:
    return lambda conn: _fill(conn, table, statement, rows, size)


def _indexer(table: str) -> Callable[[Conn], Any]:
    return lambda conn: create_indexes(conn, table)


def drop_indexes(conn: Conn) -> None:
    """Drop the indexes of all tables, and keep their definitions in the table `dropped_index`."""
    conn.execute("CREATE TABLE IF NOT EXISTS dropped_index (on_table text, statement text UNIQUE)")
    for table, index, definition, constraint, columns in conn.execute(
        INDEXES, (list(TABLES),)
    ).fetchall():
        created, dropped = definition, f"DROP INDEX {index}"
        if constraint is not None:
            created = f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {columns}"
            dropped = f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"
        with conn.transaction():
            conn.execute(
                "INSERT INTO dropped_index VALUES (%s, %s) ON CONFLICT DO NOTHING", (table, created)
            )
            conn.execute(dropped)


def create_indexes(conn: Conn, table: str) -> None:
    """Create the dropped indexes of a table."""
    conn.execute("SET maintenance_work_mem = '1GB'")
    for (statement,) in conn.execute(
        "SELECT statement FROM dropped_index WHERE on_table = %s ORDER BY 1", (table,)
    ).fetchall():
        with conn.transaction():
            conn.execute(statement)
            conn.execute("DELETE FROM dropped_index WHERE statement = %s", (statement,))


def _fill(conn: Conn, table: str, statement: str, rows: int, size: Size) -> None:
    """Insert rows in transactions of `CHUNK_ROWS`, from where an earlier call ended."""
    params: dict[str, Any] = {
        "accounts": size.accounts,
        "items": size.items,
        "runs": size.runs,
        "templates": TEMPLATES,
    }
    # Without foreign keys and triggers.
    conn.execute("SET session_replication_role = replica")
    name = f"filled_{table}"
    conn.execute(f"CREATE TABLE IF NOT EXISTS {name} (next bigint)")
    row = conn.execute(f"SELECT max(next) FROM {name}").fetchone()
    first = (row and row[0]) or 0
    while first < rows:
        last = min(first + CHUNK_ROWS, rows) - 1
        with conn.transaction():
            conn.execute(statement, params | {"first": first, "last": last})
            conn.execute(f"INSERT INTO {name} VALUES (%s)", (last + 1,))
        first = last + 1


def _fill_tasks(conn: Conn, size: Size) -> None:
    """Insert tasks of ended runs, then those of two large runs, and more of ended runs."""
    conn.execute("SET session_replication_role = replica")
    conn.execute("TRUNCATE sync_task")
    conn.execute("DELETE FROM sync_run WHERE lane = 'backfill'")
    few = min(size.runs, size.tasks) // 2
    for first, last in ((0, few), (few, 2 * few)):
        if first:
            for number, (name, state) in enumerate(LARGE_RUNS.items()):
                params = {"name": name, "state": state, "account": f"account-{5 * number}"}
                row = conn.execute(NEXT_TASK).fetchone()
                before = {"before": row[0] if row else 0, "tasks": size.tasks}
                conn.execute(LARGE_RUN, params | before)
                bounds = {"first": 0, "last": size.tasks - 1}
                conn.execute(FILL_LARGE_RUN, params | before | bounds)
        conn.execute(FILL_TASKS, {"first": first, "last": last - 1})


def _vacuum(conn: Conn) -> None:
    conn.execute(SETTLE)
    conn.execute("SET maintenance_work_mem = '1GB'")
    conn.execute("VACUUM ANALYZE")
    conn.execute("CHECKPOINT")


def _templates(conn: Conn) -> None:
    conn.execute("DROP TABLE IF EXISTS template")
    conn.execute(
        "CREATE TABLE template (number bigint PRIMARY KEY, title text, body text, metadata jsonb,"
        " document tsvector)"
    )
    with (
        conn.cursor() as cursor,
        cursor.copy("COPY template (number, title, body, metadata, document) FROM STDIN") as copy,
    ):
        for row in templates():
            copy.write_row(row)


def templates() -> Iterator[tuple[int, str, str, str, str]]:
    """Yield number, title, text, metadata and search document of each text."""
    chance = random.Random(19)
    vocabulary = [*ORDINARY.split(), *_vocabulary(chance)]
    weights = [1 / (rank + 5) for rank in range(len(vocabulary))]
    people = [
        {"name": f"{word.title()} Smith", "address": f"{word}@example.com"}
        for word in vocabulary[100:300]
    ] + [{"name": PERSON, "address": "ann@example.com"}]
    for number in range(TEMPLATES):
        length = (60, 10, 25)[number % 3]
        words = chance.choices(vocabulary, weights, k=length)
        for word, is_in in (
            (SELDOM, number == 7),
            (PHRASE, number % 50 == 1),
        ):
            if is_in:
                words.insert(chance.randrange(len(words)), word)
        body = " ".join(words)
        title = " ".join(chance.choices(vocabulary, weights, k=5))
        sender, recipient = people[number % len(people)], people[number * 7 % len(people)]
        places = ["INBOX", "C1", f"/{PLACE}"][: 1 + number % 3]
        item = IndexedItem(
            "",
            "",
            title,
            body,
            people={"from": [sender], "to": [recipient]},
            places=places,
            has=("file",) if number % 5 == 0 else (),
        )
        text = document(item).replace(" '@'", "").replace(" '@kind:'", "").replace("'@kind:'", "")
        metadata = json.dumps({"from": [sender], "to": [recipient], "labels": places})
        yield number, title, body, metadata, text


def _vocabulary(chance: random.Random) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    made = {
        "".join(chance.choices(syllables, k=chance.choice((2, 3, 3, 4)))) for _ in range(20_000)
    }
    return sorted(made, key=lambda word: (len(word), chance.random()))
