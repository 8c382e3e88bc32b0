"""The SQL in the documentation fits the schema: PostgreSQL plans every statement."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.db.pool import Conn

ROOT = Path(__file__).parents[2]
STATEMENTS = [
    (path.relative_to(ROOT).as_posix(), statement.strip())
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    for block in re.findall(
        r"^```sql\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    for statement in re.sub(r"--.*", "", block).split(";")
    if statement.strip()
]
SAMPLES = {"'…'": "'00000000-0000-0000-0000-000000000000'"}
"""Values that stand for a reader's own."""


def test_the_documents_have_statements_to_plan() -> None:
    assert len(STATEMENTS) > 10


@pytest.mark.parametrize(("page", "statement"), STATEMENTS, ids=[page for page, _ in STATEMENTS])
def test_postgres_plans_each_statement(conn: Conn, page: str, statement: str) -> None:
    for written, value in SAMPLES.items():
        statement = statement.replace(written, value)
    conn.execute(f"EXPLAIN {statement}")
