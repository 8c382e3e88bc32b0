"""Next steps for findings that are not errors: checks of `doctor`, and reasons why a run waits."""

from __future__ import annotations

from collections.abc import Mapping

from core.error_catalog.entry import Steps

RESTART_WORKERS = "Restart the workers"

STEPS: Mapping[str, Steps] = {
    "start-engine": Steps("Start the workers and the scheduler", cli="Run: polling up"),
    "start-scheduler": Steps("Start the scheduler", cli="Run: polling up, or periodiq core.actors"),
    "check-scheduler": Steps("Check that `periodiq core.actors` runs"),
    "start-worker-with-plugin": Steps("Start a worker where a plugin for {domain} is installed"),
    "start-worker-for-texts": Steps("Start a worker with the queue polling-extract"),
    "restart-draining-workers": Steps(
        RESTART_WORKERS, cli="Restart the workers, or run: polling drain --all --undo"
    ),
    "restart-workers-for-plugin": Steps(
        "Restart the workers: they started before the plugin was installed"
    ),
    "wait-for-leader": Steps("A process takes over within 20 s; if not, restart the workers"),
    "synchronize-clocks": Steps("Synchronize the clocks (NTP)"),
    "review-stopped-accounts": Steps(
        "Review the stopped accounts", cli="List them: polling accounts --state error"
    ),
    "review-parked-tasks": Steps(
        "Review the parked tasks", cli="List them: polling tasks --state parked"
    ),
    "review-held-deletions": Steps(
        "Review the held deletions, and accept or refuse them",
        cli="Review: polling deletions. Decide: polling deletions accept ID, or"
        " polling deletions refuse ID",
    ),
    "review-overdue-accounts": Steps(
        "Check that the scheduler runs",
        cli="Check that the scheduler runs. List runs: polling runs",
    ),
    "wait-for-provider": Steps(
        "Wait: the engine tries again by itself",
        cli="Wait: the engine tries again by itself. Try one account now: polling sync ID",
    ),
    "wait-for-limit": Steps(
        "Wait, or ask an operator to raise the limit {limit}",
        cli="Wait, or raise the limit: polling limits set {domain} {limit}",
        dashboard="Wait, or raise the limit on the page of limits",
    ),
    "wait-for-threads": Steps("Wait, or start more workers"),
    "wait-for-backfill": Steps("Wait: new items arrive in the meantime"),
    "wait-for-run": Steps(
        "Wait for the open run, or cancel it",
        cli="Wait for the open run, or cancel it: polling runs cancel {run}",
        rest="Wait for the open run, or cancel it: POST /v1/runs/{run}/cancel",
    ),
    "start-run": Steps(
        "Wait, or start a run now",
        cli="Wait, or start a run now: polling sync {account}",
        rest="Wait, or start a run now: POST /v1/user-integrations/{account}/sync",
        dashboard="Wait, or press Sync now on the account's page",
    ),
    "check-redis": Steps(
        "Check the Redis server and the network to it", cli="Check the Redis server: polling doctor"
    ),
    "resume-integration": Steps(
        "Resume the integration when it may continue",
        cli="Resume it: polling integrations resume {domain}",
        dashboard="Resume it on the page of integrations",
    ),
    "free-quota": Steps(
        "Erase content that is not needed, or ask the operator for a larger quota",
        cli="Erase an account: polling disconnect ID --delete-content --now. Or raise the quota:"
        " polling users USER --quota bytes=SIZE",
    ),
    "raise-quota": Steps(
        "Wait for the next day, or ask the operator for a larger quota",
        cli="Wait for the next day, or raise the quota: polling users USER --quota runs=NUMBER",
    ),
    "add-old-key": Steps("Add the key that encrypted them to POLLING_SECRET_KEYS"),
    "append-key": Steps("Append this key to their POLLING_SECRET_KEYS and restart them"),
    "move-key-first": Steps("Move this key to the front of their keys and restart them"),
    "restart-for-keys": Steps("Restart them with this version"),
    "rotate-keys": Steps(
        "Move the new key to the front of the keys of all processes, and rotate the keys",
        cli="With the new key at the front in all processes, run: polling keys rotate",
    ),
    "stop-old-key": Steps("Restart them with the new key at the front, or check that they ended"),
    "remove-old-key": Steps(
        "If it is the old key, remove it; if it is a new one, move it to the front"
    ),
    "repair-plugin": Steps("Repair or reinstall its package"),
    "install-plugin": Steps("Install a plugin: docs/how-to/install-plugins.md"),
    "allow-plugin": Steps("Add its distribution to POLLING_PLUGINS_ALLOWED, or uninstall it"),
    "correct-limits": Steps("Correct the domain, or install its plugin"),
    "correct-ceilings": Steps(
        "Correct the domain and the field", cli="See the fields: polling integrations show DOMAIN"
    ),
    "correct-allowed": Steps("Correct the name, or install the distribution"),
    "set-client-settings": Steps(
        "Set them, unless the accounts' credentials contain their own OAuth client"
    ),
    "correct-blob-url": Steps("Correct POLLING_BLOB_URL"),
    "correct-redis-url": Steps("Use redis://, rediss://, unix:// or redis+sentinel://"),
    "grant-redis-commands": Steps(
        "Allow the Redis user to run these commands on the keys {namespace}:*, with ACL SETUSER"
    ),
    "set-own-namespace": Steps(
        "Set another POLLING_REDIS_NAMESPACE for one of the deployments, and restart its workers"
    ),
    "set-noeviction": Steps("Set maxmemory-policy to noeviction"),
    "migrate-database": Steps("Migrate the database", cli="Run: polling migrate"),
    "try-again": Steps("Try again"),
}
