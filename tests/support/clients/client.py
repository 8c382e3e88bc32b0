"""A program that uses the API through the package that openapi-python-client generates.

`python client.py URL TOKEN` prints the results as JSON, as client.ts does. The package
`polling_client` is in the current folder.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TypeVar

sys.path.insert(0, ".")

from polling_client import AuthenticatedClient
from polling_client.api.changes import export_content, read_changes
from polling_client.api.content import get_raw_content, list_content
from polling_client.api.runs import get_run, list_all_runs
from polling_client.api.user_integrations import (
    change_user_integration,
    create_user_integration,
    delete_user_integration,
    get_user_integration,
    list_user_integrations,
    sync_user_integration,
)
from polling_client.models import (
    Changes,
    DeleteUserIntegrationContent,
    Format,
    NewUserIntegration,
    PageFoundContent,
    PageUserIntegration,
    Problem,
    Requested,
    RunInFull,
    UserIntegration,
    UserIntegrationChanges,
)
from polling_client.types import UNSET, File

T = TypeVar("T")


def of(kind: type[T], answer: Any) -> T:
    """Return an answer of this type."""
    assert isinstance(answer, kind), answer
    return answer


def main(url: str, token: str) -> dict[str, Any]:
    """Use the API, and return the results."""
    client = AuthenticatedClient(url, token, raise_on_unexpected_status=True)
    new = NewUserIntegration.from_dict(
        {
            "integration_domain": "locked",
            "user_id": "ann",
            "config": {"name": "python"},
            "credentials": {"password": "fine"},
        }
    )
    connected = of(
        UserIntegration,
        create_user_integration.sync(client=client, body=new, idempotency_key="python"),
    )
    listed: list[str] = []
    after: Any = UNSET
    while after is not None:
        page = of(
            PageUserIntegration,
            list_user_integrations.sync(client=client, user_id="ann", limit=1, after=after),
        )
        listed += [item.name for item in page.items]
        after = page.cursor
    requested = of(Requested, sync_user_integration.sync(connected.id, client=client))
    run = of(RunInFull, get_run.sync(requested.run_id, client=client))
    found = of(PageFoundContent, list_content.sync(client=client, q="invoice")).items
    raw = of(File, get_raw_content.sync(found[0].id, client=client)).payload.read()
    exported = of(File, export_content.sync(client=client, format_=Format.CSV)).payload.read()
    changes: list[str] = []
    cursor: Any = UNSET
    more = True
    while more:
        feed = of(
            Changes,
            read_changes.sync(client=client, after=cursor, limit=1, include="content"),
        )
        changes += [
            f"{one.change} {one.content.external_id if one.content else None}"
            for one in feed.changes
        ]
        cursor, more = feed.cursor, feed.more
    renamed = change_user_integration.sync(
        connected.id,
        client=client,
        body=UserIntegrationChanges(name="new"),
        if_match='"another"',
    )
    deleted = delete_user_integration.sync_detailed(
        connected.id, client=client, content=DeleteUserIntegrationContent.DELETE, now=True
    )
    gone = get_user_integration.sync(connected.id, client=client)
    invalid = of(Problem, list_all_runs.sync(client=client, limit=100_000))
    return {
        "listed": listed,
        "run": str(run.state),
        "found": [one.external_id for one in found],
        "raw": raw.hex(),
        "exported": exported[:10].decode(),
        "changes": changes,
        "renamed": of(Problem, renamed).code,
        "deleted": deleted.status_code,
        "gone": of(Problem, gone).code,
        "invalid": [one.where for one in invalid.errors or ()],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
