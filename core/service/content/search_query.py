"""Search queries: words, and the operators `from:`, `to:`, `cc:`, `bcc:` and `thread:`.

The search document of an item has a word for each of these, such as `from:ann`. PostgreSQL's parser
would split such a word. So it parses the query with a placeholder in place of each operator, and
the placeholder is then replaced by the words of the operator. `or`, `-` and quotation marks work
with operators as they do with words.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from core.db.pool import Conn

ROLES = ("from", "to", "cc", "bcc")
"""Operators for participants: the keys of an item's metadata with lists of names and addresses."""

THREAD = "thread"
"""The operator for the `thread_id` of an item's metadata."""

MAX_LEXEME_CHARS = 200
"""The characters of a participant's or a thread's word; the search document has the same limit."""

# A quoted phrase is skipped: it may contain the name of an operator.
_OPERATOR = re.compile(
    rf'"[^"]*"|(?<![^\s-])({"|".join((*ROLES, THREAD))}):(?:"([^"]*)"|([^\s"]+))', re.IGNORECASE
)

# `simple` neither removes nor stems words, as in the search documents.
PARSE = """
SELECT websearch_to_tsquery('simple', %(words)s)::text,
    ARRAY(SELECT array_to_string(tsvector_to_array(to_tsvector('simple', value)), ' ')
          FROM unnest(%(values)s::text[]) WITH ORDINALITY AS v(value, n) ORDER BY n)
"""


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of a query, such as `from:ann`."""

    name: str
    value: str


def parse(conn: Conn, query: str) -> str:
    """Return a query in the syntax of `tsquery`.

    Raises:
      psycopg.Error: PostgreSQL cannot parse the words.
    """
    operators: list[Operator] = []
    mark = f"operator{secrets.token_hex(8)}x"  # no word of the query

    def replaced(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        operators.append(Operator(match[1].lower(), match[2] if match[3] is None else match[3]))
        return f"{mark}{len(operators) - 1}"

    words = _OPERATOR.sub(replaced, query)
    params = {"words": words, "values": [operator.value for operator in operators]}
    ((parsed, lexemes),) = conn.execute(PARSE, params)
    text: str = parsed
    return re.sub(
        rf"'{mark}(\d+)'", lambda match: _of(operators[int(match[1])], lexemes[int(match[1])]), text
    )


def thread_query(thread: str) -> str:
    """Return the query for the items of a thread, in the syntax of `tsquery`."""
    return _quoted(f"{THREAD}:{thread}"[:MAX_LEXEME_CHARS])


def _of(operator: Operator, lexemes: str) -> str:
    if operator.name == THREAD:
        return thread_query(operator.value)
    words = lexemes.split() or [""]
    named = (_quoted(f"{operator.name}:{word}"[:MAX_LEXEME_CHARS]) for word in words)
    return f"( {' & '.join(named)} )"


def _quoted(lexeme: str) -> str:
    doubled = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
