"""The members of an organization, as a plugin lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an organization, for whom the engine keeps one account.

    Attributes:
      id: The id of the member, which stays if the address changes. At most 500 characters.
      identity: The `id` of the `AccountIdentity` of the member's account.
      name: The name of the account. Default: the identity.
      credentials: The fields of the credentials that only this member has, as JSON. The engine adds
        the organization's fields. Default: none.
      group: The `group` of the `AccountIdentity`. Default: none.
      is_active: False for a member whose account must not be read, such as a suspended user.
        Default: True.
    """

    id: str
    identity: str
    name: str = ""
    credentials: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    is_active: bool = True
