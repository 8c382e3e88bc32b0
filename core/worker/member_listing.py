"""One listing of the members of an organization, with the plugin that lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.accounts.vault import Vault
from core.egress import Egress
from core.errors import IntegrationError, PollingError
from core.integration.base import Integration
from core.integration.members import Member
from core.integration.operator import load_settings
from core.known_secrets import KNOWN, Redactor, secrets_in
from core.ledger import organizations
from core.ledger.organizations import Organization
from core.results.text import sanitize


@dataclass(frozen=True, slots=True)
class Listed:
    """The members that a plugin has listed.

    Attributes:
      is_complete: False if the listing was ended before its end.
    """

    members: list[Member]
    is_complete: bool


class MemberListing:
    """A listing of an organization's members.

    Args:
      vault: The vault.
      egress: The check of outgoing connections.
      integration: The integration.
      organization: The organization.

    Raises:
      VaultError: No key decrypts the credentials.
    """

    def __init__(
        self, vault: Vault, egress: Egress, integration: Integration, organization: Organization
    ) -> None:
        self.integration, self.organization = integration, organization
        self._egress = egress
        self._credentials = vault.open_json(organization.credentials)
        self._secrets = frozenset(secrets_in(integration.credentials_model, self._credentials))
        self._redact = Redactor(self._secrets)

    def members(self, enough: Callable[[Member], bool] = lambda _: False) -> Listed:
        """List the members.

        Args:
          enough: Called with each member. If it returns True, the listing ends. Default: it does
            not end before all members are listed.

        Raises:
          IntegrationError: The provider refuses the listing.
        """
        settings = load_settings(self.integration.manifest.settings)
        with KNOWN.scope(self._secrets), self._egress.for_account(public_only=False):
            found = self.integration.members(settings, self._credentials, self.organization.listed)
            return _checked(found, enough)

    def redact(self, text: str) -> str:
        """Remove the secrets of the organization, and all others that this process knows."""
        return KNOWN.redact_all(self._redact(text))


def problem_of(error: BaseException, redact: Callable[[str], str]) -> str:
    """Return why the members could not be listed, for people."""
    if isinstance(error, IntegrationError | PollingError):
        return " ".join((sanitize(redact(str(error))) or "").split())
    return f"the plugin failed: {type(error).__name__}"


def _checked(members: Iterable[Member], enough: Callable[[Member], bool]) -> Listed:
    found = list[Member]()
    for member in members:
        if not isinstance(member, Member):
            raise TypeError("members() returned something else than a Member")
        found.append(member)
        if len(found) > organizations.MAX_MEMBERS:
            raise ValueError(f"more than {organizations.MAX_MEMBERS:,} members")
        if enough(member):
            return Listed(found, False)
    return Listed(found, True)
