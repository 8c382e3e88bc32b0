"""Checks of the secret keys: what they decrypt, which processes have them, and which are unused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.accounts.vault import Vault
from core.db.pool import Conn
from core.db.rows import fetch
from core.errors import Advice, PollingError
from core.ledger import processes
from core.ledger.processes import KeyHolder
from core.service.accounts import key_rotation
from core.service.accounts.key_rotation import listed
from core.service.fleet.doctor.check import Check, failed
from core.service.formatting import counted, span

SEALED_SAMPLE = """
SELECT id, name, credentials FROM user_integration
WHERE credentials IS NOT NULL ORDER BY updated_at DESC, id LIMIT 50
"""


def examine(conn: Conn, secret_keys: Sequence[str]) -> Iterator[Check]:
    """Check the keys. With several keys, also which of them are in use: this reads all accounts."""
    try:
        vault = Vault(secret_keys)
    except PollingError as error:
        yield failed("keys", error)
        return
    yield _decrypted(conn, vault)
    holders = processes.key_holders(conn)
    yield from _processes([holder for holder in holders if holder.alive], vault.fingerprints[0])
    if len(vault.fingerprints) > 1:
        yield from _older_keys(conn, vault, holders)


def _decrypted(conn: Conn, vault: Vault) -> Check:
    """Check that the keys decrypt the credentials of the 50 accounts that changed last."""
    rows = fetch(conn, SEALED_SAMPLE, {})
    for row in rows:
        if vault.key_of(row["credentials"]) is None:
            message = f"no secret key can decrypt the credentials of account {row['id']}"
            return Check("keys", "fail", message, Advice("add-old-key"))
    return Check(
        "keys",
        "ok",
        f"the credentials of {counted(len(rows), 'account')} can be decrypted"
        if rows
        else "no credentials are stored yet",
    )


def _processes(live: Sequence[KeyHolder], first: str) -> Iterator[Check]:
    """Yield a warning for processes that lack the first key, or encrypt with another one."""
    unknown = [holder for holder in live if holder.encrypts_with is None]
    lacking = [holder for holder in live if first not in (holder.decrypts_with or (first,))]
    others = [
        holder
        for holder in live
        if holder not in (*unknown, *lacking) and holder.encrypts_with != first
    ]
    for holders, code, text in (
        (unknown, "restart-for-keys", "an older version, which does not report its keys"),
        (lacking, "append-key", f"without the key {first}, the first one here"),
        (others, "move-key-first", f"encrypting with another key than {first}, the first one here"),
    ):
        if holders:
            yield Check("keys", "warn", f"{listed(holders)}: {text}", Advice(code))


def _older_keys(conn: Conn, vault: Vault, holders: Sequence[KeyHolder]) -> Iterator[Check]:
    """Yield for each key but the first whether it is in use."""
    used = key_rotation.keys_in_use(conn, vault)
    if used[None]:
        message = f"no secret key can decrypt {used[None]} of {used.total()} values"
        yield Check("keys", "fail", message, Advice("add-old-key"))
    for number, key in enumerate(vault.fingerprints[1:], 2):
        name = f"key {number} of POLLING_SECRET_KEYS ({key})"
        # A process that is silent may be stopped, and encrypt with the key when it resumes.
        writers = [holder for holder in holders if holder.encrypts_with in (key, None)]
        if used[key]:
            message = f"{name} is needed to decrypt {counted(used[key], 'value')}"
            yield Check("keys", "warn", message, Advice("rotate-keys"))
        elif writers:
            message = f"nothing is encrypted with {name} now, but {_named(writers)} may still do so"
            yield Check("keys", "warn", message, Advice("stop-old-key"))
        else:
            message = f"nothing is encrypted with {name}, and no process encrypts with it"
            yield Check("keys", "ok", message, Advice("remove-old-key"))


def _named(holders: Sequence[KeyHolder]) -> str:
    return listed(
        [
            f"{holder}" if holder.alive else f"{holder} (silent for {_silent(holder)})"
            for holder in holders
        ]
    )


def _silent(holder: KeyHolder) -> str:
    return span(holder.silent_seconds)
