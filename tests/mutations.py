"""Disable one mechanism of the engine at a time, in a copy, and count the tests that fail.

`nox -s mutations` runs it. If no test fails, no test protects the mechanism. The script exits with
1 if a row is green, or if its tests cannot be run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.embedded import Servers, Urls, postgres
from core.settings import Settings

ROOT = Path(__file__).parents[1]
RAN = {0, 1}
"""Exit codes of pytest when all tests passed, and when some failed."""
COPIED = [
    "benchmarks",
    "core",
    "deploy",
    "docs",
    "migrations",
    "tests",
    "pyproject.toml",
    "README.md",
    *(path.name for path in ROOT.glob("plugins-*")),
]


@dataclass(frozen=True)
class Mutation:
    """A mechanism, the changes that disable it, and the tests that have to fail.

    Attributes:
      changes: Tuples of (file, present text, replacement).
      tests: Paths of a few test files, so that the table takes minutes.
      long: True if only a test with the mark `long` fails. Default: those tests are left out.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]
    long: bool = False


MUTATIONS = [
    Mutation(
        "content of an erased account is hidden",
        (("core/content/visible.py", "SELECT id FROM user_integration WHERE sync_status =",
          "SELECT id FROM user_integration WHERE false AND sync_status ="),),
        ("tests/integration/test_hidden_content.py",),
    ),
    Mutation(
        "a repeated request shows nothing hidden or erased",
        (("core/rest/idempotency.py", "        _require_shown(conn, path, response.body)\n", ""),),
        ("tests/integration/test_hidden_content.py",),
    ),
    Mutation(
        "recorded responses of an erased account are deleted",
        (("core/ledger/erasure.py", "        conn.execute(ERASE_RESPONSES, responses)\n", ""),),
        ("tests/integration/test_hidden_content.py",),
    ),
    Mutation(
        "a cursor names no hidden item",
        (("core/service/content/listing.py",
          'if not fetch(conn, IS_HIDDEN, {"id": account}):', "if True:"),),
        ("tests/integration/test_hidden_content.py",),
    ),
    Mutation(
        "a change compares the revision in its transaction",
        (("core/rest/routes/user_integrations.py",
          "authorize=if_known,", "authorize=authorize,"),),
        ("tests/integration/test_rest_strict.py",),
    ),
    Mutation(
        "a disconnect of a client is not an error",
        (("core/web/problems.py", "        except ClientDisconnect:", "        except KeyError:"),),
        ("tests/integration/test_client_faults.py",),
    ),
    Mutation(
        "refused sign-ins are counted",
        (("core/dashboard/pages/auth.py",
          "number, self._unrecorded = self._unrecorded, 0", "number = 1"),),
        ("tests/integration/test_audit.py",),
    ),
    Mutation(
        "items of a restored account get new places in the feed",
        (("core/accounts/store.py",
          "CASE sync_status WHEN '{AccountState.ERASING}' THEN '' ELSE",
          "CASE sync_status WHEN 'never' THEN '' ELSE"),),
        ("tests/integration/test_erasures.py",),
    ),
    Mutation(
        "an erasure waits for its delay",
        (("core/ledger/erasure.py", "(erasure_begun OR erasing_since < %s)",
          "(erasure_begun OR %s::timestamptz IS NULL OR true)"),),
        ("tests/integration/test_erasures.py",),
    ),
    Mutation(
        "an erasure that has begun cannot be undone",
        (("core/accounts/store.py",
          "WHERE id = %(id)s AND NOT erasure_begun", "WHERE id = %(id)s"),),
        ("tests/integration/test_erasures.py",),
    ),
    Mutation(
        "no delay while an API of an earlier version runs",
        (("core/accounts/store.py",
          "OR %(now)s OR {_OLD_API}", "OR %(now)s"),),
        ("tests/integration/test_erasures.py",),
    ),
    Mutation(
        "the end of runs reads no other open runs",
        (("core/ledger/completion.py", "SELECT * FROM sync_run WHERE id = candidate.id OFFSET 0",
          "SELECT * FROM sync_run WHERE id = candidate.id AND state = 'running' OFFSET 0"),),
        ("tests/integration/test_plans.py",),
    ),
    Mutation(
        "a claim reads due accounts in the order of the index",
        (("core/ledger/scheduling.py", "        conn.execute(NO_BITMAP_SCANS)\n", ""),),
        ("tests/integration/test_plans.py",),
    ),
    Mutation(
        "a claim has no anti join",
        (("core/ledger/scheduling.py", "  AND NOT ARRAY({PAUSED_DOMAINS})",
          "  AND NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id\n"
          "    AND r.state = '{RunState.RUNNING}') AND NOT ARRAY({PAUSED_DOMAINS})"),),
        ("tests/integration/test_plans.py",),
    ),
    Mutation(
        "the fence searches each task",
        (("core/ledger/fence.py", " AND t.id = ANY (%(tasks)s::bigint[])", ""),),
        ("tests/integration/test_plans.py",),
    ),
    Mutation(
        "the index of ready tasks by time serves no other search",
        (("migrations/versions/0026_ready_tasks_by_time.py", " AND dispatch_no >= 0", ""),),
        ("tests/integration/test_plans.py",),
    ),
    Mutation(
        "an index of runs does not search for open tasks",
        (("core/ledger/completion.py", "(t.run_id = r.id) IS TRUE", "t.run_id = r.id"),),
        ("tests/integration/test_plans.py",),
    ),
    Mutation(
        "an event that was stored is ignored when it is sent again",
        (("core/service/accounts/webhooks.py",
          "if response.id and _is_stored(domain, response.id):", "if False:"),),
        ("tests/integration/test_listeners.py",),
    ),
    Mutation(
        "a part that the account does not follow makes no hint",
        (("core/worker/listening.py",
          "if ledger_hints.is_waiting(conn, id, part) or _follows(conn, integration, id, part):",
          "if True:"),),
        ("tests/integration/test_listeners.py",),
    ),
    Mutation(
        "a listener has one holder",
        (("core/ledger/listeners.py", "AND (holder = %(me)s OR holder IS NULL OR",
          "AND (true OR holder = %(me)s OR"),),
        ("tests/integration/test_listeners.py",),
    ),
    Mutation(
        "a connection gives a hint to each account",
        (("core/worker/listening.py", "                ledger_hints.add_all(conn, ids)\n",
          "                pass\n"),),
        ("tests/integration/test_listeners.py",),
    ),
    Mutation(
        "a webhook occupies its place until it ends",
        (("core/service/accounts/webhooks.py", "if not place.acquire(timeout=ANSWER_SECONDS):",
          "if False:"),),
        ("tests/integration/test_listeners.py",),
    ),
    Mutation(
        "a rehearsal shows no secret",
        (("core/results/rehearsal.py", "clean = redact(str(text)", "clean = str(str(text)"),),
        ("tests/integration/test_rehearsal.py",),
    ),
    Mutation(
        "a rehearsal that refuses stores nothing",
        (("core/service/accounts/actions.py",
          "    require_accepted(integration, checked.rehearsal)\n    with", "    with"),),
        ("tests/integration/test_rehearsal.py",),
    ),
    Mutation(
        "a deadline beyond its longest span has passed",
        (("core/db/clocks.py", "<= clock_timestamp() OR {beyond(column, name)})",
          "<= clock_timestamp())"),),
        ("tests/integration/test_wrong_clocks.py",),
    ),
    Mutation(
        "polls that are too far ahead are due",
        (("core/ledger/far_ahead.py",
          "for statement in (POLL_NOW, CONTINUE_NOW)", "for statement in (CONTINUE_NOW,)"),),
        ("tests/integration/test_wrong_clocks.py",),
    ),
    Mutation(
        "ages are judged by the monotonic clock too",
        (("core/ledger/monotonic.py", "    return row[0] if row else None\n",
          "    return datetime.max.replace(tzinfo=row and row[0] and row[0].tzinfo or UTC)\n"),
         ("core/ledger/monotonic.py", "from datetime import datetime",
          "from datetime import UTC, datetime")),
        ("tests/integration/test_wrong_clocks.py",),
    ),
    Mutation(
        "a key of a request is judged by the monotonic clock too",
        (("core/rest/idempotency.py", "old_enough(conn, seconds) or", "'infinity' or"),),
        ("tests/integration/test_rest_accounts.py",),
    ),
    Mutation(
        "an erasure judges blobs by the monotonic clock too",
        (("core/service/accounts/erase.py", "before = old_enough(conn, SETTLED_SECONDS)",
          'before = "infinity"'),),
        ("tests/integration/test_rest_content.py",),
    ),
    Mutation(
        "no lease expires after the clock stepped ahead",
        (("core/dispatcher/maintenance.py", "        if self._clock_stepped(conn):\n",
          "        if self._clock_stepped(conn) and False:\n"),),
        ("tests/integration/test_wrong_clocks.py",),
    ),
    Mutation(
        "a reply has a deadline",
        (("core/db/pool.py", "return super().wait(self._bounded(gen), *args, **options)",
          "return super().wait(gen, *args, **options)"),),
        ("tests/integration/test_deadlines.py",),
    ),
    Mutation(
        "a process that is cut off takes nothing",
        (("core/worker/admission.py", "        return self._failed\n", "        return False\n"),),
        ("tests/faults/test_without_postgres.py",),
    ),
    Mutation(
        "a process that can save nothing ends",
        (("core/worker/saver.py", "QUIET_SECONDS = 12.0", "QUIET_SECONDS = 1e9"),),
        ("tests/faults/test_without_postgres.py",),
    ),
    Mutation(
        "a blob stays a day after its last row",
        (("core/content/blobs.py",
          "WHERE b.unreferenced_at <= now() - %(grace)s * interval '1 second'\n"
          "  AND b.unreferenced_at < %(before)s AND {_UNNAMED}",
          "WHERE {_UNNAMED}"),),
        ("tests/integration/test_blobs.py",),
    ),
    Mutation(
        "the leader stays while the disk is full",
        (("core/dispatcher/loop.py", "            self._led_at = now - LEAD_AGAIN_SECONDS",
          "            raise\n            self._led_at = now - LEAD_AGAIN_SECONDS"),
         ("core/dispatcher/maintenance.py",
          "                self.on_disk_full(error)  # other jobs may not need space\n",
          "                raise\n")),
        ("tests/faults/test_full_disk.py",),
        long=True,
    ),
    Mutation(
        "readyz reports a full disk",
        (("core/worker/process.py",
          "        self.database.on_disk_full = queues.note_disk_full\n", ""),
         ("core/dispatcher/loop.py", "        self._queues.note_disk_full()\n", "")),
        ("tests/faults/test_full_disk.py",),
    ),
    Mutation(
        "a lease is judged by its holder's promise",
        (("core/worker/process.py", "self._renewed >= self._shortest_lease / 3",
          "self._renewed >= self.settings.lease_seconds / 3"),
         ("core/dispatcher/loop.py", "lease = self._maintenance.leases.longest",
          "lease = self._settings.lease_seconds"),
         ("core/dispatcher/maintenance.py", "time.monotonic() - self.leases.longest",
          "time.monotonic() - self._settings.lease_seconds")),
        ("tests/faults/test_lease_lengths.py",),
    ),
    Mutation(
        "a new leader waits for the longest lease",
        (("core/dispatcher/maintenance.py", "time.monotonic() - self.leases.longest",
          "time.monotonic() - self._settings.lease_seconds"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "a demoted master ends its connections",
        (("core/transport/queues.py",
          "                self.disconnect()\n"
          "                raise redis.ConnectionError(str(error)) from None",
          "                raise"),),
        ("tests/faults/test_failover.py",),
        long=True,
    ),
    Mutation(
        "a run takes over tasks in portions",
        (("core/ledger/carry_over.py", "MAX_CARRIED_IN_CLAIM = 100",
          "MAX_CARRIED_IN_CLAIM = 10**9"),),
        ("tests/integration/test_carry_over.py",),
    ),
    Mutation(
        "a task that was retried in its run counts once",
        (("core/ledger/completion.py", "(t.retried_as IS NULL OR", "(true OR"),),
        ("tests/integration/test_controls.py",),
    ),
    Mutation(
        "a run ends after it has taken over all tasks",
        (("core/ledger/completion.py", "r.carry_until IS NULL\nAND (SELECT", "(SELECT"),),
        ("tests/integration/test_carry_over.py",),
    ),
    Mutation(
        "a body has one length",
        (("core/web/connections.py", "<= names:", "<= set():"),),
        ("tests/security/test_malformed_requests.py",),
    ),
    Mutation(
        "malformed bytes after a response are not logged",
        (("core/web/connections.py", "if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):",
          "if True:"),),
        ("tests/security/test_malformed_requests.py",),
    ),
    Mutation(
        "sessions of a token are bounded",
        (("core/service/sessions.py", "DESC OFFSET", "DESC OFFSET 1000 +"),),
        ("tests/security/test_sessions.py",),
    ),
    Mutation(
        "requests without a token have a rate",
        (("core/web/request_rates.py", "            if not self._addresses.take(key, cost):",
          "            if not self._addresses.take(key, 0):"),),
        ("tests/security/test_request_rates.py",),
    ),
    Mutation(
        "requests of a user have a rate",
        (("core/web/request_rates.py", "        if not self.users.take(user, cost):",
          "        if not self.users.take(user, 0):"),),
        ("tests/security/test_request_rates.py",),
    ),
    Mutation(
        "valid credentials pass during a flood from their address",
        (("core/web/request_rates.py",
          "if credentials is not None and credentials in self._known:", "if False:"),),
        ("tests/security/test_request_rates.py",),
    ),
    Mutation(
        "a request beyond the rate ends its connection",
        (("core/web/gate.py", '(b"connection", b"close")', '(b"x-close", b"close")'),),
        ("tests/security/test_request_rates.py",),
    ),
    Mutation(
        "responses beyond the rate wait",
        (("core/web/request_rates.py", "        if self._delayed < MAX_DELAYED:",
          "        if False:"),),
        ("tests/security/test_request_rates.py",),
    ),
    Mutation(
        "an address that opens too many connections is dropped",
        (("core/web/server.py", "            connection.close()\n",
          "            return connection, address\n"),),
        ("tests/security/test_connections.py",),
    ),
    Mutation(
        "named deletions of an account that keeps items",
        (("core/ledger/content.py", "    if run.keeps:\n", "    if False:\n"),),
        ("tests/integration/test_keeping.py",),
    ),
    Mutation(
        "searches of one user in progress",
        (("core/service/slots.py", "full = user is not None and", "full = False and"),),
        ("tests/integration/test_dashboard_attacks.py", "tests/security/test_user_slots.py"),
    ),
    Mutation(
        "requests of one user in progress",
        (("core/web/request_rates.py",
          "if principal.user_id is not None and self._slot is None:", "if False:"),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "requests of one user that wait",
        (("core/web/user_slots.py",
          "if self._count.get(user, 0) >= self._most + MAX_WAITING_PER_USER:", "if False:"),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "downloads of one user in progress",
        (("core/web/gate.py", "                await self._caller.downloads()\n",
          "                self._caller.release()\n"),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "downloads leave the slots of other requests",
        (("core/web/gate.py", "                await self._caller.downloads()\n",
          "                pass\n"),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "pages that update themselves take no slot",
        (("core/web/gate.py", "            if _has_events(message):\n",
          "            if False:\n"),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "readers that wait take no slot",
        (("core/rest/routes/changes.py", "            caller.release()", "            pass"),),
        ("tests/security/test_gate.py",),
    ),
    Mutation(
        "live pages of one user that are rendered",
        (("core/dashboard/live.py", "async with self._shares.slot(user), self._rendering:",
          "async with self._rendering:"),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "accounts of one user",
        (("core/service/accounts/actions.py", "if public_only and number >=",
          "if False and number >="),),
        ("tests/security/test_user_rows.py",),
    ),
    Mutation(
        "a config and credentials are small",
        (("core/service/accounts/validation.py", "if size_of(valid) > MAX_VALUES_BYTES:",
          "if False:"),),
        ("tests/security/test_user_rows.py",),
    ),
    Mutation(
        "a long identity fits into its index",
        (("core/service/accounts/actions.py", "if len(encoded := key.encode()) <= MAX_KEY_BYTES:",
          "if encoded := key.encode():"),),
        ("tests/security/test_user_rows.py",),
    ),
    Mutation(
        "a long word is split in linear time",
        (("core/search/words.py", "itertools.islice(_split(chunk), MAX_PARTS + 1)",
          "_split(chunk)"),
         ("core/search/words.py", "if not is_upper else", "if not chunk.isupper() else")),
        ("tests/unit/test_search_words.py",),
    ),
    Mutation(
        "the OpenAPI document is made once",
        (("core/rest/app.py", "text = cache(lambda:", "text = (lambda:"),),
        ("tests/integration/test_openapi.py",),
    ),
    Mutation(
        "unknown query parameters",
        (("core/rest/contract.py", "            if name not in known\n",
          "            if False and name not in known\n"),),
        ("tests/integration/test_rest_strict.py",),
    ),
    Mutation(
        "answers with secrets are stored encrypted",
        (("core/rest/idempotency.py", "        if path.endswith(SECRET_ANSWERS):\n",
          "        if False:\n"),),
        ("tests/integration/test_rest_strict.py",),
    ),
    Mutation(
        "acts in the audit trail",
        (("core/service/accounts/disconnect.py",
          "        if act is not None and not is_repeated:\n", "        if False:\n"),),
        ("tests/integration/test_audit.py",),
    ),
    Mutation(
        "an erased account, and one of an ended organization, is not added again",
        (("core/ledger/organizations.py",
          "            if conn.execute(LOCK_CLAIMED, params).fetchone() is None:\n",
          "            if False:\n"),),
        ("tests/integration/test_organizations.py",),
    ),
    Mutation(
        "a stolen token cannot prevent its revocation",
        (("core/ledger/audit.py", " or act in NEVER_REFUSED", ""),),
        ("tests/integration/test_audit.py",),
    ),
    Mutation(
        "acts of one user",
        (("core/ledger/audit.py", "    if user is None or act in", "    if True or act in"),),
        ("tests/integration/test_audit.py",),
    ),
    Mutation(
        "keys of requests of one user",
        (("core/rest/idempotency.py", "    if principal.user_id is None:\n", "    if True:\n"),),
        ("tests/security/test_user_rows.py",),
    ),
    Mutation(
        "runs that one user requests",
        (("core/service/runs/actions.py", "    if user is not None:\n", "    if False:\n"),),
        ("tests/security/test_user_rows.py",),
    ),
    Mutation(
        "the bytes of a page",
        (("core/db/rows.py", "if rows and used > max_bytes:", "if False:"),),
        ("tests/security/test_large_pages.py",),
    ),
    Mutation(
        "the values of a body",
        (("core/web/body_limit.py", " or values_left < 0:", ":"),),
        ("tests/security/test_large_pages.py",),
    ),
    Mutation(
        "a page of the feed that is cut ends at its last row",
        (("core/service/content/changes.py", "if is_cut else entries", "if False else entries"),),
        ("tests/security/test_large_pages.py",),
    ),
    Mutation(
        "the tasks of one bulk request",
        (("core/service/runs/parked.py", "number >= MAX_BULK_TASKS or ", ""),),
        ("tests/security/test_user_rows.py",),
    ),
    Mutation(
        "retries of one user",
        (("core/service/runs/parked.py", "if act is run_actions.retry:", "if False:"),),
        ("tests/security/test_user_rows.py",),
    ),
    Mutation(
        "checks after their deadline count for their user",
        (("core/service/accounts/deadline.py", "            self._call.hold()\n",
          "            pass\n"),
         ("core/service/accounts/deadline.py", "            self._call.leave()\n",
          "            pass\n")),
        ("tests/security/test_checks.py",),
    ),
    Mutation(
        "silent connections of a proxy",
        (("core/web/server.py", "return _has_data(connection) or self._silent.take(address)",
          "return True"),),
        ("tests/security/test_connections.py",),
    ),
    Mutation(
        "requests with invented addresses",
        (("core/web/request_rates.py",
          "            if proxy is not None and not self._proxies.take(proxy, cost):",
          "            if False:"),),
        ("tests/security/test_request_rates.py",),
    ),
    Mutation(
        "item pages count for their user",
        (("core/dashboard/pages/content.py",
          "            user=viewer.user_id,\n            parent=", "            parent="),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "tokens that have expired",
        (("core/service/tokens.py",
          "WHERE digest = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
          "WHERE digest = %s AND revoked_at IS NULL"),),
        ("tests/security/test_scopes.py",),
    ),
    Mutation(
        "checks of all users in progress",
        (("core/service/provider_slots.py", "self._total >= MAX_PROVIDER_CALLS", "False"),),
        ("tests/security/test_checks.py",),
    ),
    Mutation(
        "bodies of many addresses in memory",
        (("core/web/gate.py",
          "self._size > SMALL_BODY_BYTES and held.total() > MAX_BUFFERED_BYTES", "False"),),
        ("tests/security/test_gate.py",),
    ),
    Mutation(
        "names of cookies end where a browser ends them",
        (("core/web/session_cookie.py", 'pair.strip(" \\t").partition("=")',
          'pair.strip().partition("=")'),),
        ("tests/security/test_sessions.py",),
    ),
    Mutation(
        "clients that have left are not served",
        (("core/web/server.py", " and not _has_left(connection)", ""),),
        ("tests/security/test_connections.py",),
    ),
    Mutation(
        "a large body counts as several requests",
        (("core/web/request_rates.py", "            rate.charge(key, cost)\n",
          "            pass\n"),),
        ("tests/security/test_request_rates.py",),
    ),
    Mutation(
        "responses do not wait for acknowledgements",
        (("core/web/server.py", "kind, socket.IPPROTO_TCP,", "kind, 0,"),),
        ("tests/security/test_connections.py",),
    ),
    Mutation(
        "the key of an organization is not copied to its accounts",
        (("core/accounts/shared.py", "if not _is_shared(value, shared.get(name))", "if True"),),
        ("tests/integration/test_organizations.py",),
    ),
    Mutation(
        "the account of a member who has left is paused",
        (("core/ledger/organizations.py", "for member in known.keys() - plan.present]",
          "for member in ()]"),),
        ("tests/integration/test_organizations.py",),
    ),
    Mutation(
        "a request leaves a large organization to a worker process",
        (("core/service/organizations.py",
          "return is_over and not self._needs_active", "return False"),),
        ("tests/integration/test_organizations.py",),
    ),
    Mutation(
        "an organization whose listing hangs is left out",
        (("core/worker/members.py",
          "organizations.claim(conn, domain, list(stuck))", "organizations.claim(conn, domain)"),),
        ("tests/integration/test_member_listings.py",),
    ),
    Mutation(
        "a process that lists members renews its claim",
        (("core/worker/members.py", "        claim.renew()\n    if", "    if"),),
        ("tests/integration/test_member_listings.py",),
    ),
    Mutation(
        "no account of an organization that ends is claimed",
        (("core/ledger/scheduling.py",
          "  AND NOT ARRAY({ENDING}) @> ARRAY[a.organization_id]\n", ""),),
        ("tests/integration/test_organization_endings.py",),
    ),
    Mutation(
        "an account with an open run stays in its organization",
        (("core/accounts/store.py",
          "WHERE a.id = ANY(%(ids)s) AND NOT EXISTS (SELECT FROM sync_run r\n"
          "    WHERE r.user_integration_id = a.id AND r.state = '{RunState.RUNNING}')\n",
          "WHERE a.id = ANY(%(ids)s)\n"),),
        ("tests/integration/test_organization_endings.py",),
    ),
    Mutation(
        "an account that a person has disconnected does not return with its organization",
        (("core/accounts/store.py",
          "member = CASE WHEN a.credentials IS NOT NULL THEN a.member END", "member = a.member"),),
        ("tests/integration/test_organization_endings.py",),
    ),
    Mutation(
        "the short secrets of an organization",
        (("core/worker/member_listing.py",
          "return KNOWN.redact_all(self._redact(text))", "return KNOWN.redact_all(text)"),),
        ("tests/integration/test_member_listings.py",),
    ),
    Mutation(
        "the declared secrets of an organization",
        (("core/known_secrets.py",
          "            yield from secrets_of(declared)\n", "            yield from ()\n"),),
        ("tests/unit/test_redaction.py",),
    ),
    Mutation(
        "an event of Gmail is acknowledged after its hint is stored",
        (("plugins-gmail/src/integration_polling_gmail/push.py",
          "        for event in events:\n",
          "        subscription.acknowledge(ids)\n        for event in events:\n"),),
        ("plugins-gmail/tests/test_push.py",),
    ),
    Mutation(
        "runs renew Gmail's watch",
        (("plugins-gmail/src/integration_polling_gmail/push.py",
          "            if not is_over(watched.at, pause):\n", "            if True:\n"),),
        ("plugins-gmail/tests/test_push.py",),
    ),
    Mutation(
        "a run of hints leaves an expired history to the next poll",
        (("plugins-gmail/src/integration_polling_gmail/integration.py",
          "if history.is_listing and not _is_of_hints(ctx)", "if history.is_listing"),),
        ("plugins-gmail/tests/test_push.py",),
    ),
    Mutation(
        "an account whose own events have stopped shows it",
        (("core/ledger/listeners.py", "    if down is None:\n", "    if True:\n"),),
        ("tests/integration/test_listeners.py",),
    ),
    Mutation(
        "the parts of a mail share a budget",
        (("core/mail/budget.py", "if self.steps < steps:", "if False:"),),
        ("plugins-gmail/tests/test_hostile.py",),
    ),
    Mutation(
        "containers within containers share their room",
        (("core/mail/containers.py", "if self._shared.room < 0:", "if False:"),),
        ("plugins-gmail/tests/test_hostile.py",),
    ),
    Mutation(
        "compressed S/MIME has a maximum size",
        (("core/mail/cms.py", "if not inflater.eof and len(found) >= room:", "if False:"),),
        ("plugins-gmail/tests/test_hostile.py",),
    ),
    Mutation(
        "unknown labels of charsets are not looked up",
        (("core/mail/charsets.py", '.replace(".", "_").lower() not in _CODECS', " in ()"),),
        ("plugins-gmail/tests/test_hostile.py",),
    ),
    Mutation(
        "text of size 0 hides no element with a size of its own",
        (("core/mail/html_text.py", 'return size["zero"] is not None',
          'return around or size["zero"] is not None'),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "classes that the styles of a mail hide",
        (("core/mail/html_text.py", "return bool(names & self.hidden) and not names & self.shown",
          "return False"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "a forwarded mail and its only file have different ids",
        (("core/mail/mime.py", "if part.is_file and self._message and part.id == self._message:",
          "if False:"),),
        ("plugins-gmail/tests/test_mime.py",),
    ),
    Mutation(
        "text that no boundary divides",
        (("core/mail/mime.py", "if inner.parts or not preamble.strip()", "if True"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "the quick look for history",
        (("core/mail/replies.py", "_Message if _MAY_QUOTE.search(rest) else _WithoutHistory",
          "_WithoutHistory"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "a boundary directly behind the header",
        (("core/mail/fields.py", "elif _is_boundary(line, names, values):", "elif False:"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "a file beside a repeated multipart",
        (("core/mail/mime.py", "self._opens_multipart(fields := self._without_repeated(fields))",
          "self._opens_multipart(fields)"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "messages within TNEF",
        (("core/mail/tnef.py", "found.messages.append(message)", "pass"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "a boundary that a nested multipart repeats",
        (("core/mail/mime.py", "return self._repeats(delimiter, choice)", "return False"),),
        ("plugins-gmail/tests/test_corpora.py",),
    ),
    Mutation(
        "words behind base64 are not data",
        (("core/mail/transfer.py", "data[: max(words.start() - len(self._blank), 0)], True",
          "data, False"),),
        ("plugins-gmail/tests/test_corpora.py",),
    ),
    Mutation(
        "the size of compressed RTF",
        (("core/mail/rtf.py", "limit = min(raw_size, MAX_RTF_BYTES)", "limit = raw_size"),),
        ("plugins-gmail/tests/test_rtf.py",),
    ),
    Mutation(
        "bodies of tiny chunks",
        (("core/web/connections.py", "                self._give_up()\n", ""),),
        ("tests/security/test_connections.py",),
    ),
    Mutation(
        "all tokens of a user are one client",
        (("core/service/authorization.py",
          "return self.token_id if self.user_id is None else self.user_id",
          "return self.token_id"),),
        ("tests/security/test_gate.py", "tests/integration/test_dashboard_attacks.py"),
    ),
    Mutation(
        "sign-ins count for the user who started them",
        (("core/dashboard/pages/oauth.py",
          "provider_slot(engine, oauth.owner_of(engine, code))", "provider_slot(engine)"),),
        ("tests/security/test_oauth_sign_in.py",),
    ),
    Mutation(
        "buttons that a scope refuses",
        (("core/dashboard/templates/task.html", "{% if stopped and viewer.operates %}",
          "{% if stopped %}"),),
        ("tests/integration/test_dashboard_scopes.py",),
    ),
    Mutation(
        "a silent connection gives way",
        (("core/web/connections.py", "        if oldest is None:", "        if True:"),),
        ("tests/security/test_connections.py",),
    ),
    Mutation(
        "a request has a deadline",
        (
            (
                "core/web/connections.py",
                "self.loop.call_later(seconds, self.transport.abort)",
                "self.loop.call_later(3_600, self.transport.abort)",
            ),
        ),
        ("tests/security/test_connections.py",),
    ),
    Mutation(
        "only configured hosts are served",
        (("core/web/gate.py", "or host in self._hosts or is_loopback_name(host)", "or True"),),
        ("tests/security/test_gate.py",),
    ),
    Mutation(
        "a check has the engine's deadline",
        (
            (
                "core/service/accounts/deadline.py",
                "return self._done.wait(max(0.0, started + CHECK_SECONDS - time.monotonic()))",
                "return self._done.wait()",
            ),
        ),
        ("tests/security/test_checks.py",),
    ),
    Mutation(
        "failures to reach a host have one answer",
        (
            (
                "core/service/accounts/deadline.py",
                "return log.refused or log.unresolved() or any(",
                "return log.refused or any(",
            ),
            ("core/service/accounts/deadline.py", "map(_tells, ", "map(bool, () and "),
        ),
        ("tests/security/test_checks.py",),
    ),
    Mutation(
        "a wrong charset label does not garble a text",
        (("core/mail/charsets.py", "if _is_utf8_after_all(data, codec):", "if False:"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "a delayed follow-up waits",
        (("core/ledger/follow_ups.py", "now() + coalesce(delay, 0) * interval",
          "now() + 0 * interval"),),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "only Google's own error says that a message is gone",
        (("plugins-gmail/src/integration_polling_gmail/errors.py",
          "    return type(code) is int and code == status and not is_unrouted",
          "    return True"),),
        ("plugins-gmail/tests/test_truth.py",),
    ),
    Mutation(
        "a comparison fetches a missing message",
        (("plugins-gmail/src/integration_polling_gmail/comparison.py",
          "            if id not in requested\n",
          "            if False\n"),),
        ("plugins-gmail/tests/test_comparison.py",),
    ),
    Mutation(
        "a comparison requests a missing message once",
        (("plugins-gmail/src/integration_polling_gmail/comparison.py",
          "            if id not in requested\n",
          "            if True\n"),),
        ("plugins-gmail/tests/test_comparison.py",),
    ),
    Mutation(
        "the reason of the token endpoint reaches the person",
        (("core/service/accounts/check.py",
          "raise (error if error.remedy else refused) from None",
          "raise refused from None"),),
        ("plugins-gmail/tests/test_refusals.py",),
    ),
    Mutation(
        "only the answer with the state of this sign-in counts",
        (("core/service/accounts/loopback.py",
          'if not secrets.compare_digest(found.get("state", "").encode(), self.state.encode()):',
          'if "state" not in found:'),),
        ("tests/integration/test_gmail_connecting.py",),
    ),
    Mutation(
        "a message that is not found is requested once more",
        (("plugins-gmail/src/integration_polling_gmail/integration.py",
          "        if again:\n            return TaskResult([TaskOutput.gone(id)])",
          "        if True:\n            return TaskResult([TaskOutput.gone(id)])"),),
        ("plugins-gmail/tests/test_truth.py",),
    ),
    Mutation(
        "untrusted HTML loads nothing",
        (("core/web/sanitizer.py", "    return value if _INLINE.fullmatch(value) else None",
          "    return value"),),
        ("tests/integration/test_rest_html.py",),
    ),
    Mutation(
        "the limits of untrusted HTML apply to all parts of a mail together",
        (("core/web/sanitizer.py", '        self._tags -= shown.count("<")\n', ""),),
        ("tests/integration/test_rest_html.py",),
    ),
    Mutation(
        "what a person does not see is not text",
        (("core/mail/html_text.py", "return bool(_HIDDEN.search(style))", "return False"),),
        ("plugins-gmail/tests/test_cases.py",),
    ),
    Mutation(
        "an account is complete as of a listing, not as of a retry",
        (("core/service/accounts/owed.py", "AND trigger <> '{Trigger.RETRY}' ", ""),),
        ("tests/integration/test_owed.py",),
    ),
    Mutation(
        "an account that owes a task is not complete",
        (("core/service/accounts/owed.py", "CASE WHEN EXISTS ({_OWED_TASKS}) THEN NULL\n    WHEN",
          "CASE WHEN"),),
        ("tests/integration/test_owed.py",),
    ),
    Mutation(
        "a retried task is owed since the failure of its original",
        (("core/service/accounts/owed.py", "FROM sync_task WHERE id = history.retry_of",
          "FROM sync_task WHERE false"),),
        ("tests/integration/test_owed.py",),
    ),
    Mutation(
        "the views of content leave out deleted items",
        (("migrations/versions/0032_views_of_content.py", "WHERE c.deleted_at IS NULL AND",
          "WHERE"),),
        ("tests/integration/test_content_views.py",),
    ),
    Mutation(
        "an account in error resumes only if its provider accepts it",
        (("core/service/accounts/actions.py",
          "            check_account(backend, id)\n    statement",
          "            pass\n    statement"),),
        ("tests/integration/test_dashboard_accounts.py",),
    ),
    Mutation(
        "only operators edit the payload of a task",
        (("core/rest/routes/tasks.py", "    TO_OPERATE_ALL.check(principal)\n", ""),),
        ("tests/integration/test_rest_tasks.py",),
    ),
    Mutation(
        "an edited payload fits the parameters of its task",
        (("core/service/runs/actions.py",
          "        integration.task_specs[type].arguments(row.payload)\n", ""),),
        ("tests/integration/test_rest_tasks.py",),
    ),
    Mutation(
        "an update of a page waits while a button of the pointer is down",
        (("core/dashboard/static/live.js", "    isPressed ||\n", ""),),
        ("tests/browser/test_live_part.py",),
    ),
    Mutation(
        "an update of a page keeps the elements that stay",
        (("core/dashboard/static/live.js", "Idiomorph.morph(part, html, MORPH);",
          "part.innerHTML = html;"),),
        ("tests/browser/test_live_part.py",),
    ),
    Mutation(
        "the fence",
        (("core/ledger/fence.py",
          "WHERE CASE t.state WHEN '{TaskState.QUEUED}' THEN t.dispatch_no END"
          " = named.dispatch_no\n    AND", "WHERE"),
         ("core/ledger/fence.py", "SELECT t.id, t.dispatch_no, named.token",
          "SELECT t.id, named.dispatch_no, named.token")),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "random bits for each dispatch of a claim",
        (("core/ledger/dispatching.py", "hashint8extended(t.id,", "hashint8extended(0,"),),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "the fence against a lost time line",
        (("core/ledger/fence.py", "(named.token IS NULL OR named.token = t.token)", "true"),),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "leases of a lost time line",
        (("core/ledger/leases.py", "(h.token IS NULL OR h.token = t.token)", "true"),),
        ("tests/integration/test_leases.py",),
    ),
    Mutation(
        "a leader without Redis that hands over",
        (("core/ledger/leadership.py", "WHERE leader = %(me)s RETURNING 1",
          "WHERE false RETURNING 1"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "a leader that stays while Redis is away for everybody",
        (("core/ledger/leadership.py", "AND can_send_at > clock_timestamp() - %(away)s *",
          "AND %(away)s > -1 OR can_send_at > now() -"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "a Redis of another fleet",
        (("core/transport/queues.py", "if other then return other end", ""),),
        ("tests/integration/test_two_fleets.py",),
    ),
    Mutation(
        "messages of another fleet",
        (("core/transport/queues.py", "if nonce and nonce ~= ARGV[3] then return nonce end", ""),),
        ("tests/integration/test_two_fleets.py",),
    ),
    Mutation(
        "nonces of a copied database",
        (("core/ledger/leadership.py",
          'WHERE {recent("engine_state.nonce_at", "term.renewed_at")}',
          "WHERE term.nonce IS NOT NULL"),),
        ("tests/integration/test_two_fleets.py",),
    ),
    Mutation(
        "lost messages of tasks that run",
        (("core/dispatcher/maintenance.py", "messages.keys() & held}", "set()}"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "a process that answers too late",
        (("core/worker/admission.py", "if late and settled is not None:", "if False:"),),
        ("tests/integration/test_looks.py",),
    ),
    Mutation(
        "evicted budgets",
        (("core/limits/scripts.py", "if not marks[1] then return {-1, 0, 0} end",
          "marks[1] = marks[1] or '0'"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "budgets of other data",
        (("core/transport/queues.py", "            if self.first_script is not None and",
          "            if False and"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "budgets in use that are kept",
        (("core/limits/scripts.py", "    if full then redis", "    if true then redis"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "one woken thread at a time",
        (("core/worker/work_queue.py", "if not self._waking:", "if True:"),),
        ("tests/unit/test_work_queue.py",),
    ),
    Mutation(
        "items that wait wake the next thread",
        (("core/worker/work_queue.py", "if self._any():", "if False:"),),
        ("tests/unit/test_work_queue.py",),
    ),
    Mutation(
        "collections without loaded objects",
        (("core/worker/garbage.py", "gc.freeze()", "pass"),),
        ("tests/unit/test_middleware.py",),
    ),
    Mutation(
        "one plan for all values",
        (("core/worker/saver.py", "connection(generic_plans=generic_plans)", "connection()"),),
        ("tests/integration/test_saver.py",),
    ),
    Mutation(
        "plans of sweeps for their values",
        (("core/ledger/outcomes.py", "            self.listed\n            or", "           "),),
        ("tests/integration/test_saver.py",),
    ),
    Mutation(
        "a wake-up scans domains with open runs",
        (("core/dispatcher/loop.py",
          "for name in dispatching.domains_with_work(conn, [name for name, _ in domains]):",
          "for name in self._domains:"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "no calls of empty hooks",
        (("core/broker.py", "name, None) is not empty", "name, None) is not None"),),
        ("tests/unit/test_middleware.py",),
    ),
    Mutation(
        "commands that a Redis user may not run",
        (("core/transport/permissions.py", "found.append(name)", "continue"),),
        ("tests/faults/test_valkey.py",),
    ),
    Mutation(
        "a vacancy for those who can send",
        (("core/ledger/leadership.py", "AND (%(can_send)s OR NOT", "AND (true OR NOT"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "leases that expire without Redis",
        (("core/ledger/leases.py", "suspect = t.suspect OR %(suspect)s,",
          "suspect = true OR %(suspect)s,"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "errors without values of rows",
        (("core/db/pool.py", "                remove_values(error)", "                pass"),),
        ("tests/integration/test_database_errors.py",),
    ),
    Mutation(
        "messages that quote a value",
        (("core/db/errors.py", "if error.sqlstate[:2] in _QUOTING_NO_VALUE or", "if True or"),),
        ("tests/integration/test_database_errors.py",),
    ),
    Mutation(
        "the catalogue's fields",
        (("core/service/tokens.py",
          'NotFound("token-not-found", token=text)', 'NotFound("token-not-found", id=text)'),),
        ("tests/unit/test_error_catalog.py",),
    ),
    Mutation(
        "the expiry of leases",
        (("core/ledger/leases.py", "AND lease_until < clock_timestamp()", "AND false"),),
        ("tests/integration/test_leases.py",),
    ),
    Mutation(
        "the renewal of leases",
        (("core/ledger/leases.py",
          "UPDATE sync_task t SET {_RENEWED} WHERE t.id = ANY (ARRAY(SELECT id FROM held))",
          "UPDATE sync_task t SET {_RENEWED} WHERE false"),),
        ("tests/integration/test_leases.py",),
    ),
    Mutation(
        "resending after a flush",
        (("core/dispatcher/maintenance.py",
          "if lost and self._asked is None:", "if False:"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "completion apart from the commit",
        (("core/worker/saver.py",
          "            return commit_outcomes("
          "conn, outcomes, guard=self._guard)",
          "            with conn.transaction():\n"
          "                result = commit_outcomes("
          "conn, outcomes, guard=self._guard)\n"
          "                end_runs(conn, {o.dispatch.run_id for o in outcomes})\n"
          "            return result"),
         ("core/worker/saver.py", "return end_runs(conn, runs, self._to_settle.put)", "return []")),
        ("tests/integration/test_completion.py",),
    ),
    Mutation(
        "tasks that do not wait behind content",
        (("core/worker/saver.py",
          "self._follow_ups if outcome.tasks else self._results", "self._results"),),
        ("tests/integration/test_saver.py",),
    ),
    Mutation(
        "a leader that listens",
        (("core/dispatcher/loop.py", "min([POLL_SECONDS, *scans])",
          "min([POLL_SECONDS, *scans, self._refresh_due - time.monotonic()])"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "messages of another version",
        (("core/transport/messages.py",
          "fields.get(key, default) for key", "fields[key] for key"),),
        ("tests/unit/test_messages.py", "tests/integration/test_broker.py"),
    ),
    Mutation(
        "columns by their names",
        (("core/db/row_factory.py", "cls(*in_order(values))", "cls(*values[: len(field_names)])"),),
        ("tests/integration/test_dispatching.py",),
    ),
    Mutation(
        "due accounts with an open run that leave the due ones",
        (("core/ledger/scheduling.py", "next_sync_at = due.next_sync_at\n    FROM",
          "next_sync_at = CASE WHEN run.is_new THEN due.next_sync_at ELSE a.next_sync_at END\n"
          "    FROM"),),
        ("tests/integration/test_scheduling.py",),
    ),
    Mutation(
        "polls that became due during a run of retries",
        (("core/ledger/completion.py", "WHEN c.poll_due THEN", "WHEN false THEN"),),
        ("tests/integration/test_scheduling.py",),
    ),
    Mutation(
        "polls only in the hours of the schedule",
        (("core/dispatcher/maintenance.py", "is_frequent(settings.cron_schedule)", "True"),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "a check of health with a bound",
        (("core/service/fleet/health.py", "ANSWER_SECONDS)", "1e6)"),),
        ("tests/integration/test_liveness.py",),
    ),
    Mutation(
        "ends of polls that change no index",
        (("core/ledger/completion.py", "* 1.05 THEN a.next_sync_at",
          "* 1.05 THEN clock_timestamp() + {_INTERVAL}"),),
        ("tests/integration/test_completion.py",),
    ),
    Mutation(
        "next polls that count from the end of a long run",
        (("core/ledger/completion.py", "WHEN a.next_sync_at BETWEEN", "WHEN true OR a.next_sync_at"
          " BETWEEN"),),
        ("tests/integration/test_completion.py",),
    ),
    Mutation(
        "the place at which deleted items were removed",
        (("core/content/removal.py", "FROM last, source\n    WHERE",
          "FROM last, source\n    WHERE false AND"),),
        ("tests/integration/test_removal.py",),
    ),
    Mutation(
        "deletions that the feed has not reported",
        (("core/content/removal.py", "AND changed_xid < %(horizon)s AND deleted_at < %(at)s",
          "AND deleted_at < %(at)s"),),
        ("tests/integration/test_removal.py",),
    ),
    Mutation(
        "deletions of another cluster",
        (("core/content/removal.py", "AND deleted_at < %(at)s", ""),),
        ("tests/integration/test_removal.py",),
    ),
    Mutation(
        "removals while a page is read",
        (("core/service/content/changes.py",
          "    listed, rows = _read(conn, visible, texts=with_texts)\n", ""),
         ("core/service/content/changes.py", "    is_full = len(listed)",
          "    listed, rows = _read(conn, visible, texts=with_texts)\n    is_full = len(listed)"),),
        ("tests/integration/test_removal.py",),
    ),
    Mutation(
        "the token of each attempt at a receiver",
        (("core/ledger/subscriptions.py",
          "SET lease_until = {_LEASE}, lease_token = {_RANDOM}\nWHERE {_HOLDS}",
          "SET lease_until = {_LEASE}\nWHERE {_HOLDS}"),),
        ("tests/integration/test_deliveries.py",),
    ),
    Mutation(
        "the last check before a delivery",
        (("core/worker/deliveries/webhook.py", "        check()\n", ""),),
        ("tests/integration/test_deliveries.py",),
    ),
    Mutation(
        "the fence of the cursors of subscriptions",
        (("core/ledger/subscriptions.py", "has_more = %(more)s\nWHERE {_HOLDS}",
          "has_more = %(more)s\nWHERE s.id = %(id)s"),),
        ("tests/integration/test_deliveries.py",),
    ),
    Mutation(
        "ids of batches that name their events",
        (("core/worker/deliveries/batches.py", '*(event["id"] for event in events)',
          "str(subscription.place)"),),
        ("tests/integration/test_deliveries.py",),
    ),
    Mutation(
        "a user's share of the threads that deliver",
        (("core/ledger/subscriptions.py", "(SELECT greatest(threads / 4, 1) FROM fleet)",
          "(SELECT threads FROM fleet)"),),
        ("tests/integration/test_deliveries.py",),
    ),
    Mutation(
        "the egress rules of webhooks",
        (("core/worker/deliveries/sender.py",
          "self._egress.for_account(public_only=True) if public_only else any_host()",
          "any_host()"),),
        ("tests/integration/test_deliveries.py",),
    ),
    Mutation(
        "first readings that outlast a removal",
        (("core/content/feed.py", "AND removed_xid >= %(began)s\n", "\n"),),
        ("tests/integration/test_removal.py",),
    ),
    Mutation(
        "runs that somebody joined are kept",
        (("core/ledger/completion.py", "AND NOT r.joined AND", "AND"),),
        ("tests/integration/test_completion.py",),
    ),
    Mutation(
        "polls that retried a task are kept",
        (("core/ledger/completion.py",
          " OR t.retry_of IS NOT NULL\n               OR t.carried", ""),),
        ("tests/integration/test_completion.py",),
    ),
    Mutation(
        "old runs with a parked task are kept",
        (("core/ledger/pruning.py",
          "AND (SELECT t.id FROM sync_task t WHERE t.run_id = r.id LIMIT 1) IS NULL", ""),),
        ("tests/integration/test_controls.py",),
    ),
    Mutation(
        "the lock under which a run ends",
        (("core/ledger/completion.py",
          "ORDER BY id FOR UPDATE", "ORDER BY id"),
         ("core/ledger/completion.py", "ORDER BY a.id FOR NO KEY UPDATE", "ORDER BY a.id")),
        ("tests/integration/test_completion.py",),
    ),
    Mutation(
        "the guard against late writers",
        (("core/content/store.py",
          "OR c.content_seq < i.seq\n            AND (c.digest", "OR (c.digest"),
         ("core/content/store.py",
          "WHERE c.content_seq < excluded.content_seq\n    OR", "WHERE true OR")),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "tombstones as old as their run",
        (("core/content/store.py", "writer._replace(seq=start_seq)", "writer"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "the delete guard counts descendants",
        (("core/content/guard.py", "    UNION\n    SELECT c.external_id FROM below b JOIN",
          "    UNION\n    SELECT c.external_id FROM (SELECT * FROM below WHERE false) b JOIN"),
         ("core/content/guard.py", "    UNION\n    SELECT c.external_id, b.seq FROM below b",
          "    UNION\n    SELECT c.external_id, b.seq FROM (SELECT * FROM below WHERE false) b")),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "seen items below a missing one",
        (("core/content/guard.py", '{no_later_dispatch("b.seq")} AND {UNTOUCHED}',
          '{no_later_dispatch("b.seq")}'),),
        ("tests/integration/test_content.py", "tests/integration/test_two_judges.py"),
    ),
    Mutation(
        "the delete guard keeps the last items",
        (("core/content/guard.py", "        if remains:", "        if True:"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "the delete guard counts single deletions together",
        (("core/content/guard.py",
          "count = before + len(lost)", "count = len(lost)"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "confirmations of the shown items alone",
        (("core/content/store.py", "accepted, alone=True)", "accepted)"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "other missing items of a confirmed listing",
        (("core/content/guard.py", "    if decided.accepted or", "    if"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "held shares that wait for a decision",
        (("core/content/guard.py", "or (decided.waiting and not guard.is_off)", "or False"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "held shares that a source names",
        (("core/ledger/content.py", "decided.all | decided.waiting", "decided.all"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "held shares below a folder that a source names",
        (("core/content/store.py",
          "OR h.state = '{HeldState.HELD}' AND h.total >= b.floor", ""),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "held shares in the view of an account that keeps items",
        (("core/service/content/deletions.py",
          "WHERE (a.deletions = '{Deletions.MARK}' OR h.state", "WHERE (true OR h.state"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "refusals beside a run that began earlier",
        (("core/content/holds.py", "AND (run_id = %(run)s OR created_at <= %(began)s)", ""),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "refusals of deletions",
        (("core/content/store.py",
          "AND h.state = '{HeldState.REFUSED}' LIMIT", "AND false LIMIT"),
         ("core/content/holds.py", "('{HeldState.ACCEPTED}', '{HeldState.REFUSED}')",
          "('{HeldState.ACCEPTED}')")),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "acceptances that wait for the next run",
        (("core/content/holds.py",
          "'{HeldState.ACCEPTED}' AND h.decided_at <= %(began)s AND {UNSEEN}",
          "'{HeldState.ACCEPTED}' AND {UNSEEN}"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "items that are gone and shown again",
        (("core/ledger/content.py", "return changed | set(deleted) | shown | reread_changes, steps",
          "return changed | set(deleted) | reread_changes, steps"),
         ("core/ledger/content.py", "shown = store.show_again(conn,",
          "shown = (lambda *_: set())(conn,")),
        ("tests/integration/test_keeping.py",),
    ),
    Mutation(
        "a newer download that wins over a reread",
        (("core/content/reread.py", "if any(found.get(", "if False and any(found.get("),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "rows that a reread found unchanged",
        (("core/results/reread.py", "for row in outputs if _differs(row, kept.get(row.id))]",
          "for row in outputs]"),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "a sweep that meets a row read again",
        (("core/content/reread.py", "digest = decode(i.digest, 'hex'), deleted_at = NULL,",
          "digest = decode(i.digest, 'hex'), deleted_at = NULL, updated_at = now(),"),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "the feed without rereads",
        (("core/content/feed.py", "WHERE %(without_rereads)s AND c.synced_xid",
          "WHERE false AND %(without_rereads)s AND c.synced_xid"),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "a reread that waits for all workers",
        (("core/ledger/rereads.py", "AND count(DISTINCT readers->>domain) = 1", ""),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "a reread that waits for earlier tasks",
        (("core/worker/reread.py", "if before is None:", "if before is None or True:"),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "a reread without a network",
        (("core/egress.py", "if _offline.get():", "if False:"),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "a dead reread that gives each item its own task",
        (("core/worker/reread.py", "(dispatch.crashes or dispatch.attempts)", "False"),),
        ("tests/integration/test_rereads.py",),
    ),
    Mutation(
        "listings under another config",
        (("core/content/store.py", "if not has_same_config(conn, writer.run):", "if False:"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "portions of a sweep that ask again",
        (("core/content/portions.py",
          "      AND {MISSING}\n    ORDER",
          "      AND {LIVE_BEFORE} AND c.updated_at < %(began)s::timestamptz\n    ORDER"),
         ("core/content/portions.py", 'step.phase == "count"):', 'step.phase != "find"):')),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep below items that came back",
        (("core/content/portions.py",
          "and not top and not _is_gone(conn, params, above):", "and False:"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep that end at loops",
        (("core/content/portions.py", "{*chosen} - {step.parent}", "{*chosen}"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep of another run",
        (("core/content/portions.py", "(carried or not has_same", "(not has_same"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "sweeps that continue below deleted items",
        (("core/content/store.py", "if size > most or orphaned:", "if size > most:"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "items saved below deleted items",
        (("core/ledger/content.py", "    orphans.mark_parents(conn, parents)\n", ""),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "items below deleted items that were never kept",
        (("core/ledger/content.py",
          "    left += [(writer.account, id) for writer, id in placed]\n", ""),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions that end with their time",
        (("core/db/short_transactions.py", "elif now >= self._end:", "elif False:"),),
        ("tests/unit/test_short_transactions.py",),
    ),
    Mutation(
        "portions that continue after the last row",
        (("core/ledger/erasure.py",
          "%(part)s AND external_id > %(after)s", "%(part)s AND %(after)s::text IS NOT NULL"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "direct rows that the outcomes of a transaction share",
        (("core/ledger/content.py", "direct.count(deleted=len(lost))", "pass"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "savers that do not settle large held deletions",
        (("core/ledger/completion.py", "        later(run)\n    else:",
          "        settle(conn, run)\n    else:"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep that are counted first",
        (("core/content/portions.py",
          'return step._replace(phase="count", frames=step.top)',
          "return _to_delete(conn, step, place)"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep of a held share",
        (("core/content/portions.py", "(waiting and not step.roots)", "False"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep that is cancelled",
        (("core/content/store.py", "holds.release(conn, place, HeldState.COUNTING)",
          "holds.release(conn, place)"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "held deletions that are dropped without a search",
        (("core/content/holds.py", "WHERE id = %(hold)s AND total <= %(entries)s",
          "WHERE id = %(hold)s AND 0 < %(entries)s"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "held deletions that are empty without a search",
        (("core/content/holds.py", "(vanished <= 0 OR total <= %(entries)s", "(0 < %(entries)s"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "held deletions that had many items cover no others",
        (("core/content/holds.py", " AND h.total <= %(entries)s", ""),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "sweeps that record how much they delete",
        (("core/content/portions.py", "total = %(lost)s WHERE", "total = 0 WHERE"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "pages that a run took over and lists too",
        (("core/ledger/follow_ups.py", "UPDATE sync_task t SET carried = false FROM waiting",
          "UPDATE sync_task t SET carried = true FROM waiting"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "pages that a run took over and has read",
        (("core/ledger/follow_ups.py", "NOT IN (SELECT id FROM freed)", "IS NULL"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "pages that are retried within their run",
        (("core/ledger/carry_over.py", "t.carried OR t.run_id <> %(run)s", "true"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "portions of a sweep beside a refusal",
        (("core/content/portions.py", "taken = [id for id in taken if id not in stay]", "pass"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep of an account that keeps items",
        (("core/content/portions.py", 'if place.keeps and step.phase in ("count", "hold"):',
          "if False:"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "tombstones as old as their run, in the harness",
        (("core/testing/content.py", "self._delete(id, began, now, alone=True) for id in rest",
          "self._delete(id, 10**9, now, alone=True) for id in rest"),),
        ("tests/unit/test_harness.py", "tests/unit/test_conformance.py"),
    ),
    Mutation(
        "the suspects' lane",
        (("core/worker/inflight.py", "return self._suspect == dispatch.lease", "return True"),),
        ("tests/unit/test_inflight.py",),
    ),
    Mutation(
        "one key once in a run",
        (("core/ledger/follow_ups.py",
          "decode(key, 'hex'), priority, carried",
          "decode(md5(id::text), 'hex'), priority, carried"),),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "compare and set of state",
        (("core/ledger/state.py", "return row.read is not None and (", "return False and ("),),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "the sort before the upsert",
        (("core/content/store.py", "    ORDER BY i.account, i.id\n)\nINSERT", ")\nINSERT"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "middleware that fails closed",
        (("core/middleware/base.py",
          "raise SkipMessage(str(type(error).__name__)) from None", "return"),),
        ("tests/unit/test_middleware.py",),
    ),
    Mutation(
        "budgets shared by the fleet",
        (("core/limits/scripts.py",
          "local granted = ARGV[1] == '2' or", "wait = 0; local granted = true or"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "units of the version before count",
        (("core/limits/scripts.py", "if theirs > b.tat and theirs > since then",
          "if false then"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "the version before waits for units of this version",
        (("core/limits/scripts.py", "        b.tat = math.ceil(math.max(b.tat, tat))",
          "        b.tat = math.ceil(b.tat)"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "a reservation bounds tasks of other costs",
        (("core/limits/scripts.py", "and room_beside(b, reserved) < b.cost then",
          "and false then"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "budgets before a loss are filled up",
        (("core/limits/scripts.py", "if mark > b.used then", "if false then"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "units count where requests leave",
        (("core/limits/budgets.py", "    span = period + math.ceil",
          "    span = period + 0 * math.ceil"),),
        ("tests/unit/test_budget_log.py", "tests/integration/test_budgets.py"),
    ),
    Mutation(
        "users have equal shares of a rate limit",
        (("core/dispatcher/rations.py", "        user = min(self._open, key=self._user_score)",
          "        user = next(iter(self._open))"),),
        ("tests/unit/test_rations.py",),
    ),
    Mutation(
        "accounts of a user have equal shares of a rate limit",
        (("core/dispatcher/rations.py", "        account = min(accounts, key=self._account_score)",
          "        account = next(iter(accounts))"),),
        ("tests/unit/test_rations.py",),
    ),
    Mutation(
        "backfill has its share of a rate limit",
        (("core/dispatcher/rations.py", "        return used[Lane.BACKFILL] < share",
          "        return 0 * used[Lane.BACKFILL] > share"),),
        ("tests/unit/test_rations.py",),
    ),
    Mutation(
        "who has taken its places holds up the others",
        (("core/dispatcher/rations.py", "                self._wait_for(account)",
          "                self._close(account, name)"),),
        ("tests/unit/test_rations.py",),
    ),
    Mutation(
        "backfill is spread over the period",
        (("core/dispatcher/rations.py", "or self.pace_left > 0", "or True"),),
        ("tests/unit/test_rations.py",),
    ),
    Mutation(
        "units are reserved for a task that does not fit",
        (("core/dispatcher/rations.py", "                self._reserve(costs)",
          "                pass"),),
        ("tests/unit/test_rations.py",),
    ),
    Mutation(
        "old units are taken again",
        (("core/worker/runner.py", "            self.services.renew_units(dispatch)\n",
          "            pass\n"),),
        ("tests/integration/test_grants.py",),
    ),
    Mutation(
        "limited accounts reach public addresses only",
        (("core/egress.py", "if not inet or not is_public(str(address[0])):", "if not inet:"),),
        ("tests/security/test_private_hosts.py",),
    ),
    Mutation(
        "the limit of unknown threads",
        (("core/egress.py",
          "if public_only or (public_only is None and self._enforcing):", "if public_only:"),),
        ("tests/integration/test_egress.py",),
    ),
    Mutation(
        "a fair share of the free places",
        (("core/dispatcher/allocation.py", "turn = max(free // len(ready), 1)", "turn = free"),
         ("core/dispatcher/allocation.py", "turn = max(slots // len(accounts), 1)",
          "turn = slots")),
        ("tests/unit/test_allocation.py",),
    ),
    Mutation(
        "shares of users before shares of accounts",
        (("core/dispatcher/allocation.py", "ready[account.user].append(account)",
          "ready[account.account].append(account)"),),
        ("tests/unit/test_allocation.py",),
    ),
    Mutation(
        "slow tasks count as threads",
        (("core/dispatcher/allocation.py",
          "return int(min(quick, self.window, self.bound))",
          "return int(min(self.window, self.bound))"),),
        ("tests/unit/test_allocation.py",),
    ),
    Mutation(
        "hanging tasks keep no share",
        (("core/dispatcher/allocation.py", "tasks = flight.count - flight.hung",
          "tasks = flight.count"),),
        ("tests/unit/test_allocation.py",),
    ),
    Mutation(
        "reserved threads",
        (("core/worker/work_queue.py", "return user not in self._running.values()",
          "return True"),),
        ("tests/unit/test_work_queue.py",),
    ),
    Mutation(
        "the reserve of processes with one thread",
        (("core/dispatcher/allocation.py", "if needs_bound(self.threads, self.processes) else inf",
          "if False else inf"),),
        ("tests/unit/test_allocation.py",),
    ),
    Mutation(
        "no more runs than the quota",
        (("core/ledger/scheduling.py", "        elif left.get(user, 1) > 0:",
          "        elif True:"),),
        ("tests/integration/test_quotas.py",),
    ),
    Mutation(
        "requests for runs beside each other are counted",
        (("core/ledger/quotas.py", "    if not wanted:\n        return",
          "    return"),),
        ("tests/integration/test_quotas.py",),
    ),
    Mutation(
        "connections of one user follow each other",
        (("core/ledger/quotas.py", "    conn.execute(LOCK_USER, (user,))\n", "    pass\n"),),
        ("tests/integration/test_quotas.py",),
    ),
    Mutation(
        "tasks of a user with too much content wait",
        (("core/ledger/quotas.py", "WHERE k.user_id = u.user_id AND k.is_full",
          "WHERE k.user_id = u.user_id AND false"),),
        ("tests/integration/test_quotas.py",),
    ),
    Mutation(
        "erased content makes room",
        (("migrations/versions/0021_quotas.py", "-size AS bytes FROM before_change",
          "0 AS bytes FROM before_change"),),
        ("tests/integration/test_quotas.py",),
    ),
    Mutation(
        "an account that joins its open run takes no run of the day",
        (("core/ledger/scheduling.py", "        if account in joining:\n",
          "        if False:\n"),),
        ("tests/integration/test_quotas.py",),
    ),
    Mutation(
        "the hints of a user who may begin no run wait together",
        (("core/ledger/hints.py", "    WHERE user_id = %(user)s AND {passed",
          "    WHERE user_id = %(user)s AND false AND {passed"),),
        ("tests/integration/test_hints.py",),
    ),
    Mutation(
        "threads that were replaced keep no share",
        (("core/worker/work_queue.py", "            self._forget_ended()\n", ""),),
        ("tests/unit/test_work_queue.py",),
    ),
    Mutation(
        "messages beyond the share of a user are taken back",
        (("core/dispatcher/allocation.py", "if share.is_slow(its) and", "if False and"),),
        ("tests/unit/test_allocation.py", "tests/faults/test_shares.py"),
    ),
    Mutation(
        "a message that a process has fetched is not taken back",
        (("core/transport/queues.py",
          "    if redis.call('LREM', KEYS[1], -1, id) > 0 then\n", "    do\n"),),
        ("tests/integration/test_queues.py",),
    ),
    Mutation(
        "accounts of users that hold no place come first",
        (("core/ledger/dispatching.py", "SELECT id, -1 AS lap, live",
          "SELECT id, 3 AS lap, live"),),
        ("tests/integration/test_dispatching.py",),
    ),
    Mutation(
        "the use of users that could not be written",
        (("core/worker/process.py", "            self.counters.use.restore(used)\n", ""),),
        ("tests/integration/test_use.py",),
    ),
    Mutation(
        "a bounded number of users in the metrics",
        (("core/service/use.py", "CASE WHEN place <= %(named)s THEN user_id ELSE '' END AS",
          "user_id AS"),),
        ("tests/integration/test_use.py",),
    ),
    Mutation(
        "stored numbers above a ceiling are lowered",
        (("core/worker/accounts.py", "within_ceilings(model, config)", "config"),),
        ("tests/unit/test_ceilings.py",),
    ),
    Mutation(
        "numbers above a ceiling are refused",
        (("core/integration/ceilings.py", "Le(most), Ceiling(most)", "Ceiling(most)"),),
        ("tests/unit/test_ceilings.py",),
    ),
    Mutation(
        "the test bench of Hello World needs a setting",
        (("plugins-hello-world/src/integration_polling_hello_world/bench.py",
          "if not is_harmless and not HelloSettings().hello_world_test_bench:", "if False:"),),
        ("plugins-hello-world/tests/test_hello_world.py",),
    ),
    Mutation(
        "one set of rules for engine and kit",
        (("core/testing/ledger.py",
          "if snoozes and entry.first_failed is not None:",
          "if False:"),),
        ("tests/integration/test_two_judges.py",),
    ),
    Mutation(
        "the retries of deferred tasks",
        (("core/dispatcher/maintenance.py", "            self._continuing,\n", ""),),
        ("tests/integration/test_maintenance.py",),
    ),
    Mutation(
        "a failure that may pass is not parked",
        (("core/results/decisions.py", "if may_pass(case.error, case.policy.passing):",
          "if False:"),),
        ("tests/integration/test_two_judges.py", "tests/unit/test_decisions.py"),
    ),
    Mutation(
        "breakers that open",
        (("core/ledger/breakers.py", "OPENS_AFTER = 5", "OPENS_AFTER = 1_000_000"),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "breakers that close",
        (("core/ledger/commit.py", "closed = breakers.record(conn, passed, watched)",
          "closed = breakers.record(conn, passed, ())"),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "no attempt counts while the account is away",
        (("core/ledger/commit.py",
          "    breakers.take_back_attempts(conn, breakers.failed_accounts(passed))\n", ""),),
        ("tests/integration/test_ledger_machine.py",),
    ),
    Mutation(
        "a probe that kills its process counts no crash",
        (("core/ledger/leases.py", " AND p.probe_task IS NULL)", ")"),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "a probe may raise anything",
        (("core/worker/runner.py",
          "        except BaseException as error:  # noqa: BLE001\n            if (away",
          "        except Exception as error:  # noqa: BLE001\n            if (away"),),
        ("tests/faults/test_probes.py",),
    ),
    Mutation(
        "a rate limit postpones the probe",
        (("core/ledger/breakers.py", "        elif outcome.snooze and", "        elif False and"),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "a corrected account has a next poll",
        (("core/accounts/store.py", "        WHEN {_CORRECTED} THEN coalesce(next_sync_at, now())",
          "       "),),
        ("tests/integration/test_pauses.py",),
    ),
    Mutation(
        "one probe at a time",
        (("core/ledger/breakers.py",
          "SELECT FROM sync_task p WHERE p.id = b.probe_task AND p.state =",
          "SELECT FROM sync_task p WHERE false AND p.id = b.probe_task AND p.state ="),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "tasks of an absent account stay in their run",
        (("core/ledger/breakers.py", "                _stay_in_run(outcome)\n",
          "                pass\n"),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "the admission of tasks",
        (("core/middleware/admission.py", "            self._admission.check(dispatch)\n",
          "            pass\n"),
         ("core/worker/runner.py",
          "        self.services.admit(dispatch)\n        if dispatch.probe:",
          "        if dispatch.probe:"),
         ("core/worker/runner.py", "            self.services.admit(dispatch)\n", "")),
        ("tests/faults/test_stopping.py",),
    ),
    Mutation(
        "stopped accounts that are loaded again",
        (("core/worker/admission.py",
          "        self._accounts.invalidate(changed if complete else None)\n", ""),),
        ("tests/integration/test_looks.py",),
    ),
    Mutation(
        "the age of a look",
        (("core/worker/admission.py",
          "return time.monotonic() - self._looked <= STALE_SECONDS", "return self._looked > 0"),),
        ("tests/integration/test_looks.py",),
    ),
    Mutation(
        "changes that commit late",
        (("core/ledger/looks.py", "SELECT pg_snapshot_xmin(", "SELECT pg_snapshot_xmax("),),
        ("tests/integration/test_looks.py",),
    ),
    Mutation(
        "a first look that only announces",
        (("core/worker/admission.py", "        if announced:\n", "        if True:\n"),),
        ("tests/integration/test_looks.py",),
    ),
    Mutation(
        "tasks behind slow ones are left to others sooner",
        (("core/worker/inflight.py",
          "limit = now - (min(seconds, sooner) if is_stalled else seconds)",
          "limit = now - seconds"),),
        ("tests/unit/test_inflight.py",),
    ),
    Mutation(
        "tasks of users without a thread are left to others sooner",
        (("core/worker/inflight.py", "new_user_seconds if is_new else ", ""),),
        ("tests/unit/test_inflight.py",),
    ),
    Mutation(
        "fetched tasks that are left to others",
        (("core/worker/process.py", "    def _release_waiting(self) -> None:\n",
          "    def _release_waiting(self) -> None:\n        return\n"),),
        ("tests/faults/test_stopping.py",),
    ),
    Mutation(
        "the epoch of a restored database",
        (("core/ledger/fence.py",
          "if outcome.dispatch.epoch != epoch or task in runs:", "if task in runs:"),),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "lists of members end with the connection of their account",
        (("core/ledger/endings.py", "conn.execute(DELETE_MEMBERS, (account,))",
          "pass"),),
        ("tests/integration/test_members_and_notices.py",),
    ),
    Mutation(
        "slack: polls are short while events arrive",
        (("plugins-slack/src/integration_polling_slack/listing.py",
          'ctx.run.trigger == "schedule" and self._receives_events(ctx)', "False"),),
        ("plugins-slack/tests/test_hinted.py",),
    ),
    Mutation(
        "slack: a poll beside events ends within moments",
        (("plugins-slack/src/integration_polling_slack/looks.py", ", calls // 2), 1)",
          ", calls * 9), 1)"),),
        ("plugins-slack/tests/test_slack_looks.py",),
    ),
    Mutation(
        "slack: a channel without a look comes first",
        (("plugins-slack/src/integration_polling_slack/looks.py", "            return inf",
          "            return 0.0"),),
        ("plugins-slack/tests/test_slack_looks.py",),
    ),
    Mutation(
        "slack: the bound of a channel includes two runs",
        (("plugins-slack/src/integration_polling_slack/looks.py", "+ 2 * self.cycle)",
          "+ 0 * self.cycle)"),),
        ("plugins-slack/tests/test_slack_looks.py",),
    ),
    Mutation(
        "slack: a named channel without the bot is a reason of the run",
        (("plugins-slack/src/integration_polling_slack/listing.py",
          "for id in sorted(outside.difference(now.of(at.lost)))", "for id in ()"),),
        ("plugins-slack/tests/test_selection.py",),
    ),
    Mutation(
        "slack: a search looks back at late messages",
        (("plugins-slack/src/integration_polling_slack/searching.py", "LATE_SECONDS = 600",
          "LATE_SECONDS = 0"),),
        ("plugins-slack/tests/test_searching.py",),
    ),
    Mutation(
        "slack: the token of an organization names the workspace",
        (("plugins-slack/src/integration_polling_slack/directory.py",
          'arguments["team_id"] = self.config.team', "pass"),),
        ("plugins-slack/tests/test_organizations.py",),
    ),
    Mutation(
        "a server error of one method of Slack",
        (("plugins-slack/src/integration_polling_slack/errors.py",
          "return Unavailable(text, retry_after=retry_after(headers), limit=method)",
          "return Unavailable(text, retry_after=retry_after(headers))"),),
        ("plugins-slack/tests/test_access.py",),
    ),
    Mutation(
        "the blocks of a message that has a text",
        (("plugins-slack/src/integration_polling_slack/text.py",
          'blocks.all(message.get("blocks")) or shown(message.get("text"))',
          'shown(message.get("text"))'),),
        ("plugins-slack/tests/test_rendering.py",),
    ),
    Mutation(
        "a raw message that can be rendered again",
        (("plugins-slack/src/integration_polling_slack/raw.py",
          "        if key not in same and key not in _LEFT_OUT",
          '        if key not in same and key not in _LEFT_OUT and key != "files"'),),
        ("plugins-slack/tests/test_rendering.py",),
    ),
    Mutation(
        "one history of a channel whose id changes",
        (("plugins-slack/src/integration_polling_slack/channels.py",
          "            if len(found) == 1:\n", "            if len(found) == 2:\n"),),
        ("plugins-slack/tests/test_people.py",),
    ),
    Mutation(
        "the probe of Gmail's token endpoint",
        (("plugins-gmail/src/integration_polling_gmail/session.py",
          "            tokens.probe(self.http, self.settings)", "            pass"),),
        ("plugins-gmail/tests/test_errors.py",),
    ),
    Mutation(
        "telephone numbers in other spellings",
        (("core/search/numbers.py", "    yield _reversed(digits), True", "    return"),),
        ("tests/integration/test_search.py",),
    ),
    Mutation(
        "the bound of a query's conditions",
        (("core/search/query.py", "if self._count > MAX_QUERY_WORDS:", "if False:"),),
        ("tests/unit/test_search_words.py",),
    ),
    Mutation(
        "a word before its other forms",
        (("core/service/content/listing.py", "document, %(exact)s::tsquery, 1)",
          "document, %(ranked)s::tsquery, 1)"),),
        ("tests/integration/test_search.py",),
    ),
    Mutation(
        "secrets in log records",
        (("core/log_redaction.py", "            redact_record(record)", "            pass"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets in the encodings of URLs and JSON",
        (("core/known_secrets.py", "if self._special and _ENCODED.search(text):", "if False:"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets in lines of threads without a task",
        (("core/known_secrets.py", "        return self.redact_all(text)",
          "        return text"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "lines of a renewal that failed",
        (("core/log_redaction.py", "                _replace(record, WITHHELD)",
          "                pass"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets in spans",
        (("core/observability/traces.py",
          "super().on_end(_redacted(span, KNOWN.redact))", "super().on_end(span)"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets of exceptions that end a thread",
        (("core/log_redaction.py", "    threading.excepthook = _of_thread\n", ""),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets that the conformance suite finds in URLs",
        (("core/testing/conformance.py", "redacted = Redactor({*secrets, WRONG})(visible)",
          "redacted = visible.replace(next(iter(secrets)), '***').replace(WRONG, '***')"),),
        ("tests/unit/test_conformance.py",),
    ),
    Mutation(
        "waiting readers are authorized again",
        (("core/rest/routes/changes.py", "_current(conn, principal) if waited else principal",
          "principal"),),
        ("tests/security/test_ended_access.py",),
    ),
    Mutation(
        "requests that waited for a slot are authorized again",
        (("core/web/request_rates.py", "            return waited\n",
          "            return False\n"),),
        ("tests/security/test_ended_access.py",),
    ),
    Mutation(
        "a token that has ended creates no other",
        (("core/service/tokens.py",
          "WHERE id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())\n"
          "FOR SHARE", "WHERE id = %s FOR SHARE"),),
        ("tests/security/test_ended_access.py",),
    ),
    Mutation(
        "a revocation and a new token exclude each other",
        (("core/service/tokens.py", "FOR SHARE\n", ""),),
        ("tests/security/test_ended_access.py",),
    ),
    Mutation(
        "downloads are authorized again",
        (("core/web/downloads.py", "            if not allowed():", "            if False:"),),
        ("tests/security/test_ended_access.py",),
    ),
    Mutation(
        "secrets in metrics of Sentry",
        (("core/observability/errors.py", "        before_send_metric=_redacted,\n", ""),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets in attachments of Sentry",
        (("core/observability/errors.py", 'hint.pop("attachments", None)', "pass"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets that were pasted with spaces",
        (("core/known_secrets.py", "        yield from {secret, bare}\n",
          "        yield secret\n"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets that a serializer reveals",
        (("core/known_secrets.py", "    for item in _items(value):\n        yield",
          "    value = value.model_dump() if isinstance(value, BaseModel) else value\n"
          "    for item in _items(value):\n        yield"),),
        ("tests/security/test_log_secrets.py",),
    ),
    Mutation(
        "secrets in the lines of a dry run",
        (("core/cli/development.py", "        KNOWN.scope(secrets_of(valid_credentials)),\n", ""),),
        ("tests/security/test_plugin_log_secrets.py",),
    ),
    Mutation(
        "users take turns when the texts of files are read",
        (("core/content/document_texts.py", "AND w.user_id > %(after)s {_OLDEST}",
          "{_OLDEST}"),),
        ("tests/security/test_user_slots.py",),
    ),
    Mutation(
        "readers that fail give a file up",
        (("core/worker/documents.py", 'if row["attempts"] < document_texts.MAX_ATTEMPTS:',
          "if True:"),),
        ("tests/integration/test_documents.py",),
    ),
    Mutation(
        "processes give a file up that kills them",
        (("core/worker/documents.py", 'if row["attempts"] > document_texts.MAX_ATTEMPTS:',
          "if False:"),),
        ("tests/integration/test_documents.py",),
    ),
    Mutation(
        "an outage counts no attempt of a file",
        (("core/content/document_texts.py", "SET attempts = attempts - 1",
          "SET attempts = attempts"),),
        ("tests/integration/test_documents.py",),
    ),
    Mutation(
        "a document has no name in the file system",
        (("core/worker/documents.py", "tempfile.TemporaryFile()",
          "tempfile.NamedTemporaryFile()"),),
        ("tests/integration/test_documents.py",),
    ),
    Mutation(
        "the reader of documents is confined",
        (("core/search/extraction.py", "    sys.addaudithook(_refuse)\n", ""),),
        ("tests/unit/test_search_words.py",),
    ),
    Mutation(
        "a drain that is undone ends",
        (("core/worker/process.py", "            self.draining.clear()\n", ""),),
        ("tests/integration/test_worker_process.py",),
    ),
    Mutation(
        "a user's own credentials have a group of that user",
        (("core/service/accounts/actions.py", "    return json.dumps([user_id, group])",
          "    return group"),),
        ("tests/security/test_limit_groups.py",),
    ),
    Mutation(
        "a check is authorized again before it stores",
        (("core/service/accounts/actions.py",
          "        authorize(conn)\n        connected = _store(", "        connected = _store("),),
        ("tests/security/test_ended_access.py",),
    ),
    Mutation(
        "an erasure waits for accounts that are being stored",
        (("core/service/accounts/erase.py",
          "        conn.execute(erasure.LOCK_TOKENS, (user_id,))\n", ""),),
        ("tests/security/test_ended_access.py",),
    ),
    Mutation(
        "values of a plugin's settings",
        (("core/integration/operator.py", "problem=redact(problem.message)",
          "problem=problem.message"),),
        ("tests/security/test_setting_urls.py",),
    ),
    Mutation(
        "URLs of the settings",
        (("core/setting_urls.py", "        raise ValueError(AT)", "        pass"),),
        ("tests/security/test_setting_urls.py",),
    ),
    Mutation(
        "a rotation asks the processes",
        (("core/service/accounts/key_rotation.py", "if process.encrypts_with != newest]",
          "if False]"),),
        ("tests/security/test_key_rotation.py",),
    ),
    Mutation(
        "a missing key parks nothing",
        (("core/worker/runner.py", "if context.no_key is not None:", "if False:"),),
        ("tests/security/test_key_rotation.py",),
    ),
    Mutation(
        "the wait for a key is not a failure",
        (("core/ledger/finish.py", "WHEN f.snooze > 0 THEN t.first_failed_at",
          "WHEN false THEN t.first_failed_at"),),
        ("tests/integration/test_carry_over.py",),
    ),
    Mutation(
        "plugins that are not allowed",
        (("core/plugins.py", "if names and canonical", "if False and canonical"),),
        ("tests/security/test_plugin_names.py",),
    ),
    Mutation(
        "plugins that register nothing",
        (("core/plugins.py", "    _require_hooks(alone, plugin)\n", ""),),
        ("tests/security/test_plugin_names.py",),
    ),
    Mutation(
        "the session that started a connection finishes it",
        (
            (
                "core/service/accounts/oauth.py",
                'if flow["session"] is not None and flow["session"] != session:',
                "if False:",
            ),
        ),
        ("tests/security/test_oauth_sign_in.py",),
    ),
    Mutation(
        "a product redeems a connection for its signed-in user only",
        (("core/service/accounts/oauth.py", 'if flow["user_id"] != user_id:', "if False:"),),
        ("tests/security/test_oauth_sign_in.py",),
    ),
    Mutation(
        "the consent at the provider alone connects nothing",
        (
            (
                "core/service/accounts/oauth.py",
                """        if flow["session"] is not None:
            account""",
                """        if True:
            account""",
            ),
        ),
        ("tests/security/test_oauth_sign_in.py",),
    ),
    Mutation(
        "the query of a product cannot shadow the result",
        (("core/service/accounts/redirects.py", " & set(OUR_PARAMETERS):", " & set():"),),
        ("tests/security/test_oauth_sign_in.py",),
    ),
    Mutation(
        "the server ends a session after twelve hours",
        (("core/service/sessions.py", "AND s.expires_at > now() AND", "AND"),),
        ("tests/security/test_sessions.py",),
    ),
    Mutation(
        "signing out ends the session on the server",
        (
            (
                "core/dashboard/pages/auth.py",
                "        await run_in_threadpool(_end_session, engine, id)\n",
                "        pass\n",
            ),
        ),
        ("tests/security/test_sessions.py",),
    ),
    Mutation(
        "behind HTTPS, the cookie without the prefix names no session",
        (
            (
                "core/web/session_cookie.py",
                "if not is_loopback(request, public_url) or PREFIX + name in dict(cookies):",
                "if PREFIX + name in dict(cookies):",
            ),
        ),
        ("tests/security/test_sessions.py",),
    ),
    Mutation(
        "a token needs a scope",
        (("core/web/permissions.py", "if not principal.may(*self.any_of):", "if False:"),),
        ("tests/security/test_scopes.py",),
    ),
    Mutation(
        "a token creates no token with more scopes",
        (("core/service/tokens.py", "if not set(granted) <= set(principal.scopes):", "if False:"),),
        ("tests/security/test_scopes.py",),
    ),
    Mutation(
        "a token creates no token that outlives it",
        (("core/service/tokens.py", "(not_after,) = row", "pass"),),
        ("tests/security/test_scopes.py",),
    ),
    Mutation(
        "an ID token is for this server",
        (("core/service/sign_on/provider.py", '"aud": {"essential": True, "value": self.client_id}',
          '"aud": {"essential": True}'),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "an ID token is of this provider",
        (("core/service/sign_on/provider.py", '"iss": {"essential": True, "value": self.issuer}',
          '"iss": {"essential": True}'),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "an ID token is of this sign-in",
        (("core/service/sign_on/provider.py", '"nonce": nonce,',
          '"nonce": None,'),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "the clock tolerance is bounded",
        (("core/service/sign_on/provider.py", "claims.validate(leeway=LEEWAY_SECONDS)",
          "claims.validate(leeway=10**9)"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a discovery document names its issuer",
        (("core/service/sign_on/provider.py", 'if document.get("issuer") != self.issuer:',
          "if False:"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "an endpoint is confidential",
        (("core/service/sign_on/provider.py", "isinstance(url, str) and is_confidential(url)",
          "isinstance(url, str)"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "an answer of the provider has a bound",
        (("core/service/sign_on/provider.py", "if len(body) > MAX_ANSWER_BYTES:",
          "if False:"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a call to the provider has a deadline",
        (("core/service/sign_on/provider.py", "async with asyncio.timeout(CALL_SECONDS):",
          "async with asyncio.timeout(60):"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "keys are read again after a rotation",
        (("core/service/sign_on/provider.py", "(CACHE_SECONDS, REFETCH_SECONDS)",
          "(CACHE_SECONDS,)"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "keys are read again once",
        (("core/service/sign_on/provider.py", "REFETCH_SECONDS = 10.0",
          "REFETCH_SECONDS = -1.0"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "userinfo is about the same person",
        (("core/service/sign_on/provider.py", 'claims if claims.get("sub") == subject else {}',
          "claims"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a failed reading is not repeated",
        (("core/service/sign_on/provider.py", "_age(self._failure[0]) <= FAILURE_SECONDS",
          "False"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a sign-in belongs to its browser",
        (("core/service/sign_on/flow.py", "if not hmac.compare_digest(flow.state.encode(), ",
          "if False and (flow.state.encode(), "),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a sign-in lasts ten minutes",
        (("core/service/sign_on/flow.py", "age <= MINUTES * 60",
          "True"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "the answer names its provider",
        (("core/service/sign_on/flow.py", "if names_issuer and returned.issuer != provider.issuer:",
          "if False:"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a sign-in needs a role",
        (("core/service/sign_on/flow.py",
          '        raise Refused("sign-on-without-role", name=name_of(named))',
          "        role = next(iter(backend.settings.oidc_roles.values()))"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "an e-mail address is verified",
        (("core/service/sign_on/roles.py", 'claims.get("email_verified") in (True, "true")',
          "True"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a group is not an e-mail address",
        (("core/service/sign_on/roles.py",
          'name.casefold() == email if "@" in name else name in values',
          "name.casefold() == email or name in values"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a chosen name is followed by the subject",
        (("core/service/sign_on/roles.py", 'f"{_readable(name)} ({subject})"',
          "_readable(name)"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a session ends with the setting of its provider",
        (("core/service/sessions.py", "THEN s.issuer = %(issuer)s",
          "THEN true"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a sign-in ends the session before",
        (("core/dashboard/pages/sign_on.py", "        if before is not None:",
          "        if False:"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "no sign-in leads to another site",
        (("core/dashboard/pages/sign_on.py", "session.local_path(next), engine",
          "next, engine"),),
        ("tests/security/test_sign_on.py",),
    ),
    Mutation(
        "a viewer reads no configs and no errors",
        (("core/service/authorization.py", "    if principal.reads_texts:\n        return row",
          "    return row"),),
        ("tests/integration/test_roles.py",),
    ),
    Mutation(
        "the reasons of a wait hold no text of a plugin",
        (("core/service/accounts/blockers.py",
          "text += f\": {row['reason']}\" if shows_texts else \"\"",
          "text += f\": {row['reason']}\""),),
        ("tests/integration/test_roles.py",),
    ),
    Mutation(
        "a wait names Redis",
        (("core/service/accounts/blockers.py", "if fleet.redis_is_away:", "if False:"),),
        ("tests/faults/test_waiting.py",),
    ),
    Mutation(
        "a wait names a schedule that the leader does not serve",
        (("core/service/accounts/blockers.py", "or is_frequent(schedule):", "or True:"),),
        ("tests/faults/test_waiting.py",),
    ),
    Mutation(
        "a wait names a limit only if it paces the run",
        (("core/service/accounts/blockers.py", "if not use.is_scarce:", "if True:"),),
        ("tests/faults/test_waiting.py",),
    ),
    Mutation(
        "a limit that others use is not called the account's own",
        (("core/service/accounts/blockers.py",
          'if not use.key.startswith("account/"):', "if False:"),),
        ("tests/faults/test_waiting.py",),
    ),
    Mutation(
        "the leader reads changed limits",
        (("core/dispatcher/loop.py",
          "limit_overrides.settled(conn, self._settings.limits, self._limits)",
          "self._limits"),),
        ("tests/faults/test_waiting.py",),
    ),
    Mutation(
        "workers read changed limits",
        (("core/worker/process.py",
          "self.accounts.override(limit_overrides.effective(conn, self.settings.limits))",
          "pass"),),
        ("tests/faults/test_waiting.py",),
    ),
    Mutation(
        "the answer to a wrong token waits",
        (
            (
                "core/web/wrong_tokens.py",
                "await asyncio.sleep(DELAY_SECONDS)",
                "await asyncio.sleep(0)",
            ),
        ),
        ("tests/security/test_wrong_tokens.py",),
    ),
    Mutation(
        "one probe in a portion",
        (("core/ledger/dispatching.py", "      AND {PROBE_DUE}\n    ORDER BY 1, 2 FOR UPDATE",
          "    ORDER BY 1, 2 FOR UPDATE"),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "the failure of a task that is not the probe",
        (("core/ledger/breakers.py", "b.opened_at IS NOT NULL AND b.probe_task = %(task)s",
          "b.opened_at IS NOT NULL"),),
        ("tests/integration/test_breakers.py",),
    ),
    Mutation(
        "the end of embedded servers without users",
        (("core/embedded/watcher_program.py",
          "    if _lock(users):\n        return True\n", ""),),
        ("tests/integration/test_embedded.py::test_servers_end_within_a_minute_after_their_last_user_was"
         "_killed",),
    ),
    Mutation(
        "an outage of the blob store counts nothing",
        (("core/results/decisions.py",
          "    (StoreUnavailable, _store_away),", "    (StoreUnavailable, _failed),"),),
        ("tests/faults/test_blob_store.py", "tests/unit/test_decisions.py"),
    ),
    Mutation(
        "the users of embedded servers",
        (("core/embedded/watcher_program.py",
          "    if _lock(users):\n        return True\n", "    return True\n"),),
        ("tests/integration/test_embedded.py::test_the_watcher_leaves_servers_to_a_user_that_joins_after"
         "_the_kill",),
    ),
    Mutation(
        "a vote on the dialect of a listing",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/listing/__init__.py",
                "sorted(DIALECTS, key=lambda name: -votes[name])",
                "DIALECTS",
            ),
        ),
        ("plugins-ftp/tests/test_dialects.py",),
    ),
    Mutation(
        "commands during a transfer that pure-ftpd refuses",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/client.py",
                'if reply.code in (*NOT_IMPLEMENTED, "503"):',
                "if False:",
            ),
        ),
        ("plugins-ftp/tests/test_ftp_speed.py::test_commands_that_arrive_one_by_one_lose_nothing",),
    ),
    Mutation(
        "short walks of suspects",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/integration.py",
                "min(seconds, SUSPECT_SECONDS) if ctx.task.is_suspect else seconds",
                "seconds",
            ),
        ),
        ("plugins-ftp/tests/test_ftp_speed.py::test_a_suspect_leaves_most_of_its_work_to_follow_ups",),
    ),
    Mutation(
        "tasks that know whether they are suspects",
        (("core/worker/context.py", "attempts + 1, dispatch.suspect", "attempts + 1"),),
        ("tests/unit/test_task_context.py",),
    ),
    Mutation(
        "replies in the charsets of servers",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/replies.py",
                "if text.isascii():",
                "if True:",
            ),
        ),
        ("plugins-ftp/tests/test_replies.py",),
    ),
    Mutation(
        "files that a task leaves to few tasks",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/walking.py",
                "max(batch, int(seconds / self.pace()))",
                "batch",
            ),
        ),
        ("plugins-ftp/tests/test_ftp_speed.py",),
    ),
    Mutation(
        "racy versions of files",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/versions.py",
                "    if moment is None or settled > seconds:",
                "    if True:",
            ),
        ),
        ("plugins-ftp/tests/test_changes.py::test_a_change_in_the_same_second_is_found",),
    ),
    Mutation(
        "ids of files that must outlast a session",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/renames.py",
                "    if not witnesses or any(",
                "    if not witnesses or not any(",
            ),
        ),
        ("plugins-ftp/tests/test_changes.py::test_an_id_that_changes_with_the_connection_proves_nothing",),
    ),
    Mutation(
        "the way that a loop must repeat",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/loops.py",
                "        if below.digest != digest:",
                "        if False:",
            ),
        ),
        ("plugins-ftp/tests/test_changes.py::test_directories_that_look_like_the_ones_above_them_are_kept",),
    ),
    Mutation(
        "the hash of a server that differs",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/download.py",
                "        if found != wanted:",
                "        if False:",
            ),
        ),
        ("plugins-ftp/tests/test_server_hashes.py::test_downloads_are_proven_and_refused",),
    ),
    Mutation(
        "the range of a server's hash",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/server_hashes.py",
                "if is_complete and _fits",
                "if _fits",
            ),
        ),
        ("plugins-ftp/tests/test_server_hashes.py::test_a_reply_to_hash_that_means_something_else_is_no_hash",),
    ),
    Mutation(
        "files that the verification leaves to downloads",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/verifying.py",
                "            self._different.append(file.listed)",
                "            pass",
            ),
        ),
        ("plugins-ftp/tests/test_verifying.py::test_a_file_that_changed_in_secret_is_fetched_again",),
    ),
    Mutation(
        "the position of the verification",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/verifying.py",
                "self._progress.after if rest is not None else",
                '"" if rest is not None else',
            ),
        ),
        ("plugins-ftp/tests/test_verifying.py::test_a_position_that_is_gone_is_passed_over",),
    ),
    Mutation(
        "exact times that decide about a shifted listing",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/walking.py",
                "times.get(path) != kept[path].exact",
                "False",
            ),
        ),
        ("plugins-ftp/tests/test_changes.py::test_a_file_that_changes_an_hour_later_is_fetched",),
    ),
    Mutation(
        "the spool's file that moves into the store",
        (
            (
                "core/content/blobs.py",
                "path.replace(target)",
                "target.write_bytes(path.read_bytes())",
            ),
        ),
        ("tests/integration/test_blobs.py",),
    ),
    Mutation(
        "unreadable lines of a listing",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/listing/__init__.py",
                "        return entry\n    return Unreadable(line[:SHOWN])",
                "        return entry\n    return IGNORED",
            ),
        ),
        ("plugins-ftp/tests/test_dialects.py",),
    ),
    Mutation(
        "a file may be called busy",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/replies.py",
                '_without_path(reply[3:], "" if verb in _LOGIN else command)',
                "reply[3:]",
            ),
        ),
        ("plugins-ftp/tests/test_replies.py",),
    ),
    Mutation(
        "a check takes a connection",
        (("core/service/accounts/check_slot.py", "    if limit is None:\n", "    if True:\n"),),
        ("tests/integration/test_check_slot.py",),
    ),
    Mutation(
        "a bare LF belongs to a name of FTP",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/listing/lines.py",
                "            break\n",
                "            pass\n",
            ),
        ),
        ("plugins-ftp/tests/test_dialects.py",),
    ),
    Mutation(
        "a name of Unix may end like one of VMS",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/listing/__init__.py",
                " and not is_entry(line):",
                ":",
            ),
        ),
        ("plugins-ftp/tests/test_dialects.py",),
    ),
    Mutation(
        "a listing with a total only",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/session.py",
                "if is_empty and len(headings) < MAX_HEADINGS and _is_heading(line, headings):",
                "if False:",
            ),
        ),
        ("plugins-ftp/tests/test_quirks.py",),
    ),
    Mutation(
        "years of listings that no server has",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/listing/unix.py",
                "1900 <= full_year(year) <= MAX_YEAR",
                "full_year(year)",
            ),
        ),
        ("plugins-ftp/tests/test_dialects.py",),
    ),
    Mutation(
        "a host key of another kind",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/ssh.py",
                "not (family or are_of_one_kind)",
                "not family",
            ),
        ),
        ("plugins-ftp/tests/test_sftp.py",),
    ),
    Mutation(
        "a listing that the server cuts",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/session.py",
                '"Output truncated" in text',
                "False",
            ),
        ),
        ("plugins-ftp/tests/test_real_servers.py",),
    ),
    Mutation(
        "a listing that ends within a line",
        (
            (
                "plugins-ftp/src/integration_polling_ftp/session.py",
                "            self._check_end(command, size)\n",
                "",
            ),
        ),
        ("plugins-ftp/tests/test_control.py",),
    ),
    Mutation(
        "pages that a run took over, in the harness",
        (("core/testing/queue.py", "return self.carried or is_hint", "return is_hint"),),
        ("tests/unit/test_harness.py",),
    ),
    Mutation(
        "continued tasks without snoozes, in the harness",
        (("core/testing/ledger.py", "attempts=0, snoozes=0)", "attempts=0)"),),
        ("tests/unit/test_harness.py",),
    ),
]  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Print a row for each mutation with the number of tests that fail.

    With `words`, select the mutations whose names contain one of them.
    """
    green = 0
    # These data need not survive a power failure.
    postgres._OPTIONS["fsync"] = "off"
    with (
        tempfile.TemporaryDirectory(prefix="mutations-") as home,
        Servers(Settings(_env_file=None, **given(home))) as urls,
    ):
        for mutation in MUTATIONS:
            if words and not any(word in mutation.name for word in words):
                continue
            noticed = failures(mutation, urls)
            green += not noticed
            print(
                f"{'red  ' if noticed else 'GREEN'}  {mutation.name:36} {noticed:3} tests fail",
                flush=True,
            )
    return 1 if green else 0


def given(home: str) -> dict[str, Any]:
    """Return settings with the environment's servers, or with embedded ones for all rows."""
    return {name: os.environ.get(name.upper()) for name in ("database_url", "redis_url")} | {
        "home": Path(home)
    }


def failures(mutation: Mutation, urls: Urls) -> int:
    """Return the number of tests that fail while a mechanism is disabled.

    Raises:
      SystemExit: The mutation no longer matches the code, or the tests cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        for change in mutation.changes:
            switch_off(copy, mutation.name, *change)
        variables = {
            # Plugins too: otherwise, the tests of a plugin would import the original.
            "PYTHONPATH": os.pathsep.join([folder, *map(str, copy.glob("plugins-*/src"))]),
            "DATABASE_URL": urls.database_url,
            "REDIS_URL": urls.redis_url,
            # The copy lacks them, and the tests of real FTP servers would be skipped.
            "POLLING_TEST_FTP_SERVERS": str(ROOT / ".cache" / "ftp-servers"),
        }
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:randomly",
                *(("-m", "") if mutation.long else ()),
                *mutation.tests,
            ],
            cwd=copy,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode not in RAN:
            raise SystemExit(f"{mutation.name}: the tests did not run:\n{run.stdout}{run.stderr}")
        return sum(line.startswith(("FAILED", "ERROR")) for line in run.stdout.splitlines())


def switch_off(copy: Path, name: str, file: str, there: str, wanted: str) -> None:
    """Make one change."""
    text = (copy / file).read_text("utf-8")
    if there not in text:
        raise SystemExit(f"{name}: {file} has no longer {there!r}; correct tests/mutations.py")
    (copy / file).write_text(text.replace(there, wanted, 1), "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
