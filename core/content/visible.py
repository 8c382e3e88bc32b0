"""The rows that readers see: all but those of accounts whose content is hidden.

An account in the state `erasing` is listed, so that a person can restore it. Nothing else of it is
shown: content, runs, tasks, held deletions, states and figures. Each statement that reads such rows
for people has one of these conditions; `tests/integration/test_hidden_content.py` compares them
with the tables.
"""

from __future__ import annotations

from core.states import AccountState

# `user_integration_erasing` serves it. PostgreSQL reads it once for each statement, into a hash
# table.
_ERASING = f"SELECT id FROM user_integration WHERE sync_status = '{AccountState.ERASING}'"


def visible(account: str = "user_integration_id") -> str:
    """Return the condition that an account is not hidden.

    With a parameter instead of a column, PostgreSQL checks it before it reads any row. A query on
    one account needs this form, because a hidden account may have millions of rows.

    Args:
      account: The column, or the parameter, with the account's id.
    """
    return f"{account} NOT IN ({_ERASING})"


ACCOUNT_IS_VISIBLE = f"a.sync_status <> '{AccountState.ERASING}'"
"""The same condition for a query that has the account as `a`."""

OF_ACCOUNT = (
    f"user_integration_id = %(user_integration_id)s AND {visible('%(user_integration_id)s::uuid')}"
)
"""The filter on one account in a `PagedQuery`."""
