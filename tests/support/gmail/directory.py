"""The Directory API: the users of a Google Workspace.

Written from https://developers.google.com/workspace/admin/directory/reference/rest/v1/users/list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.gmail.answers import Answer, error

ADMINISTRATOR = "administrator@example.com"
SCOPE = "https://www.googleapis.com/auth/admin.directory.user.readonly"


@dataclass
class Directory:
    """The users of a Workspace, by their ID.

    Attributes:
      users: The fields of each user.
      page_size: The maximum number of users in a page.
      enabled: The Admin SDK API is enabled in the project.
      refuses: The status with which it answers every request; 0: it works.
      other: The answer of another server to every request, if it is set.
      calls: The number of requests so far.
      before: A function called with the number of each request before its answer.
    """

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    page_size: int = 500
    enabled: bool = True
    refuses: int = 0
    other: Answer | None = None
    calls: int = 0
    before: Callable[[int], None] = lambda number: None

    def add(self, address: str, **fields: Any) -> str:
        """Add a user, and return the ID."""
        id = str(10**20 + len(self.users))
        self.users[id] = {"id": id, "primaryEmail": address, "isMailboxSetup": True} | fields
        return id

    def answer(self, params: Mapping[str, list[str]], subject: str) -> Answer:
        """Answer `users.list`.

        Args:
          params: The parameters of the query.
          subject: The user for whom the service account acts.
        """
        self.calls += 1
        self.before(self.calls)
        if self.other is not None:
            return self.other
        if self.refuses:
            return error(self.refuses, "Backend Error", "backendError")
        if not self.enabled:
            return error(403, "Admin SDK API has not been used", "accessNotConfigured")
        if subject != ADMINISTRATOR:
            return error(403, "Not Authorized to access this resource/api", "forbidden")
        if params.get("customer") != ["my_customer"]:
            return error(400, "Bad Request", "badRequest")
        start = int(params.get("pageToken", ["0"])[0])
        size = min(int(params.get("maxResults", ["100"])[0]), 500, self.page_size)
        users = list(self.users.values())
        found: dict[str, Any] = {"kind": "admin#directory#users"}
        if start < len(users):
            found["users"] = users[start : start + size]
        if start + size < len(users):
            found["nextPageToken"] = str(start + size)
        return 200, found
