"""The accounts of a worker process, loaded once for each version."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from core.accounts.shared import open_credentials, seal_credentials
from core.accounts.store import Account, load
from core.accounts.vault import Vault
from core.db.pool import Database
from core.errors import ConfigurationError
from core.field_problems import first_problem
from core.integration.base import Integration
from core.integration.ceilings import within_ceilings
from core.integration.limits import Concurrency, Limit
from core.known_secrets import KNOWN, secrets_of
from core.limits.keys import account_key, limit_key, lowered, overridden, weight
from core.plugins import Registry
from core.results.signals import AccountStopped
from core.settings import LimitOverride
from core.states import AccountState

MAX_CACHED_ACCOUNTS = 2_000


@dataclass(frozen=True, slots=True)
class LoadedAccount:
    """An account with decrypted credentials. It never leaves this process.

    Attributes:
      places: The largest number of places of a `Concurrency` limit, before it was lowered.
    """

    account: Account
    integration: Integration
    config: BaseModel
    credentials: BaseModel
    limits: tuple[Limit, ...]
    redact: Callable[[str], str]
    places: int = 0

    def key(self, limit: Limit) -> str:
        """Return the key under which the fleet counts one of the account's limits."""
        account = self.account
        return limit_key(
            limit,
            domain=account.integration_domain,
            account_id=str(account.id),
            group=account.limit_group,
        )

    def block_key(self, limit: str | None) -> str:
        """Return the key that blocks the limit of this name; None: that of the complete account."""
        id = str(self.account.id)
        if limit is None:
            return account_key(id)
        keys = [self.key(each) for each in self.limits if each.name == limit]
        return keys[0] if keys else f"account/{id}/{limit}"

    @property
    def instance_limit(self) -> Concurrency | None:
        """The limit that counts the account's instances; None if there is none."""
        counts = [each for each in self.limits if isinstance(each, Concurrency)]
        return next((each for each in counts if each.per_instance), None)

    def types_of(self, name: str) -> list[str]:
        """Return the task types that use the limit of this name."""
        limits = [limit for limit in self.limits if limit.name == name]
        specs = self.integration.task_specs.items()
        return sorted(
            type for type, spec in specs if any(weight(limit, spec.cost) for limit in limits)
        )

    def heaviest(self, limit: Limit) -> int:
        """Return the largest number of units of a limit that one task takes."""
        return max(
            (weight(limit, spec.cost) for spec in self.integration.task_specs.values()), default=1
        )

    def __repr__(self) -> str:
        return f"LoadedAccount({self.account!r})"


class Accounts:
    """A cache of loaded accounts, with the latest version of each.

    An account is current until a look reports that it has changed. Then the next task loads it
    again. All loaded accounts keep redacting.

    Attributes:
      vault: The vault of this process.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        registry: Registry,
        overrides: Mapping[str, Mapping[str, LimitOverride]],
    ) -> None:
        self._database = database
        self.vault = vault
        self._registry = registry
        self._overrides = overrides
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, LoadedAccount] = OrderedDict()
        self._current: set[str] = set()
        self._invalidations = 0

    def get(self, account_id: str, version: int = 0) -> LoadedAccount:
        """Return an active account, at this version or a newer one.

        Raises:
          AccountStopped: The account is not active.
          NotFound: The account does not exist, or its integration is not installed here.
          VaultError: Its credentials cannot be decrypted.
          ConfigurationError: Its config does not fit the integration.
        """
        while True:
            with self._lock:
                loaded = self._loaded.get(account_id) if account_id in self._current else None
                invalidations = self._invalidations
            if loaded is not None and loaded.account.version >= version:
                return loaded
            with self._database.connection() as conn:
                account = load(conn, account_id)
            if account.sync_status != AccountState.ACTIVE:
                raise AccountStopped(f"the account is {account.sync_status}")
            loaded = self._keep(self._open(account))
            with self._lock:
                # An invalidation in the meantime may be for a change after this load.
                if self._invalidations == invalidations:
                    self._current.add(account_id)
                    return loaded

    def for_reread(self, account_id: str) -> LoadedAccount:
        """Return an active account without its credentials, which no key has to decrypt.

        Raises:
          AccountStopped: The account is not active.
          NotFound: The account does not exist, or its integration is not installed here.
          ConfigurationError: Its config does not fit the integration.
        """
        with self._database.connection() as conn:
            account = load(conn, account_id)
        if account.sync_status != AccountState.ACTIVE:
            raise AccountStopped(f"the account is {account.sync_status}")
        integration = self._registry.get(account.integration_domain)
        config = validated(integration.config_model, account.config)
        nothing = integration.credentials_model.model_construct()
        redact = self.redactor(account_id)
        return LoadedAccount(account, integration, config, nothing, (), redact)

    def override(self, overrides: Mapping[str, Mapping[str, LimitOverride]]) -> None:
        """Apply the operator's figures of limits. Accounts are loaded again if they differ."""
        if overrides != self._overrides:
            self._overrides = overrides
            self.invalidate(None)

    def invalidate(self, account_ids: Iterable[str] | None) -> None:
        """Load these accounts again before their next task; None stands for all accounts."""
        ids = None if account_ids is None else set(account_ids)
        with self._lock:
            if ids is None:
                self._current.clear()
            self._current -= ids or set()
            self._invalidations += ids is None or bool(ids)

    def renewed(self, loaded: LoadedAccount, ciphertext: str | None, version: int) -> LoadedAccount:
        """Return the account with newer credentials, and cache it."""
        account = replace(loaded.account, credentials=ciphertext, credentials_version=version)
        return self._keep(self._open(account))

    def credentials_version(self, account_id: str) -> int:
        """Return the stored version of an account's credentials; 0 if it does not exist."""
        with self._database.connection() as conn:
            row = conn.execute(
                "SELECT credentials_version FROM user_integration WHERE id = %s", (account_id,)
            ).fetchone()
        return row[0] if row is not None else 0

    def redactor(self, account_id: str) -> Callable[[str], str]:
        """Return a function that redacts an account's secrets, if the account is loaded here."""
        with self._lock:
            loaded = self._loaded.get(account_id)
        return loaded.redact if loaded is not None else str

    def seal(self, account: Account, credentials: BaseModel) -> str:
        """Encrypt new credentials of an account for the database."""
        return seal_credentials(self.vault, account, credentials)

    def _open(self, account: Account) -> LoadedAccount:
        integration = self._registry.get(account.integration_domain)
        config = validated(integration.config_model, account.config)
        credentials = open_credentials(self.vault, account, integration.credentials_model)
        limits = overridden(
            integration.limits(config), self._overrides.get(account.integration_domain, {})
        )
        places = max((each.tasks for each in limits if isinstance(each, Concurrency)), default=0)
        limits = lowered(limits, account.limits)
        redact = KNOWN.remember(str(account.id), secrets_of(credentials))
        return LoadedAccount(
            account, integration, config, credentials, tuple(limits), redact, places
        )

    def _keep(self, loaded: LoadedAccount) -> LoadedAccount:
        id = str(loaded.account.id)
        with self._lock:
            self._loaded[id] = loaded
            self._loaded.move_to_end(id)
            while len(self._loaded) > MAX_CACHED_ACCOUNTS:
                oldest = self._loaded.popitem(last=False)[0]
                self._current.discard(oldest)
                KNOWN.forget(oldest)
        return loaded


def validated(model: type[BaseModel], config: Mapping[str, Any]) -> BaseModel:
    """Return the stored config as the integration's model, within the operator's ceilings.

    Raises:
      ConfigurationError: The config does not fit the model; the message names the field.
    """
    try:
        return model.model_validate(within_ceilings(model, config))
    except ValidationError as error:
        problem = first_problem(error)
        raise ConfigurationError(f"{problem.place or 'config'}: {problem.message}") from None
