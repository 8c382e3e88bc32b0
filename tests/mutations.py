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

from core.embedded import Servers, Urls
from core.settings import Settings

ROOT = Path(__file__).parents[1]
RAN = {0, 1}
"""Exit codes of pytest when all tests passed, and when some failed."""
COPIED = [
    "core",
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
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


MUTATIONS = [
    Mutation(
        "an account is complete as of a listing, not as of a retry",
        (("core/service/accounts/owed.py", "AND trigger <> '{Trigger.RETRY}' ", ""),),
        ("tests/integration/test_owed.py",),
    ),
    Mutation(
        "an account that owes a task is not complete",
        (("core/service/accounts/owed.py", "CASE WHEN NOT EXISTS ({_TASKS}) AND", "CASE WHEN"),),
        ("tests/integration/test_owed.py",),
    ),
    Mutation(
        "the fence",
        (("core/ledger/fence.py",
          "WHERE CASE t.state WHEN '{TaskState.QUEUED}' THEN t.dispatch_no END"
          " = named.dispatch_no", ""),
         ("core/ledger/fence.py", "SELECT t.id, t.dispatch_no, (SELECT",
          "SELECT t.id, named.dispatch_no, (SELECT")),
        ("tests/integration/test_commit.py",),
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
          "UPDATE sync_task t SET {_RENEWED} FROM held WHERE t.id = held.id",
          "UPDATE sync_task t SET {_RENEWED} FROM held WHERE t.id = held.id AND false"),),
        ("tests/integration/test_leases.py",),
    ),
    Mutation(
        "resending after a flush",
        (("core/dispatcher/maintenance.py",
          "            if missing:", "            if not missing:"),),
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
         ("core/worker/saver.py", "return end_runs(conn, runs)", "return []")),
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
        "the lock under which a run ends",
        (("core/ledger/completion.py",
          'SELECT id FROM sync_run WHERE id = %s FOR UPDATE"', 'SELECT %s::uuid"'),
         ("core/ledger/completion.py", "FOR NO KEY UPDATE OF a", "")),
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
        (("core/content/guard.py", "c.content_seq <= b.seq {_UNSEEN}", "c.content_seq <= b.seq"),),
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
        (("core/content/guard.py", "    if decided.accepted:", "    if False:"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "refusals of deletions",
        (("core/content/store.py",
          "AND h.state = '{HeldState.REFUSED}'\n    LIMIT", "AND false LIMIT"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "acceptances that wait for the next run",
        (("core/content/holds.py",
          "'{HeldState.ACCEPTED}' AND h.decided_at <= %(began)s\n    AND NOT EXISTS",
          "'{HeldState.ACCEPTED}'\n    AND NOT EXISTS"),),
        ("tests/integration/test_held_deletions.py",),
    ),
    Mutation(
        "items that are gone and shown again",
        (("core/ledger/content.py", "return changed | set(deleted) | shown, steps",
          "return changed | set(deleted), steps"),
         ("core/ledger/content.py", "shown = store.show_again(conn,",
          "shown = (lambda *_: set())(conn,")),
        ("tests/integration/test_keeping.py",),
    ),
    Mutation(
        "portions of a sweep that keeps items",
        (("core/content/portions.py", "if guard.is_off or place.keeps or", "if guard.is_off or"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "listings under another config",
        (("core/content/store.py", "if not has_same_config(conn, writer.run):", "if False:"),),
        ("tests/integration/test_content.py",),
    ),
    Mutation(
        "portions of a sweep that ask again",
        (("core/content/portions.py",
          "      AND NOT EXISTS (SELECT FROM sync_seen s\n"
          "          WHERE s.run_id = %(run)s::uuid AND s.external_id = c.external_id)\n    ORDER",
          "    ORDER"),),
        ("tests/integration/test_sweep_portions.py",),
    ),
    Mutation(
        "portions of a sweep below items that came back",
        (("core/content/portions.py",
          "and not top and not _is_gone(conn, given, above):", "and False:"),),
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
        "portions of a sweep that are counted first",
        (("core/content/portions.py",
          'return step._replace(phase="count", frames=step.top)',
          "return _to_delete(conn, step)"),),
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
        (("core/worker/inflight.py", "return self._suspect == dispatch.id", "return True"),),
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
        (("core/limits/budgets.py",
          "if ARGV[1] == '2' or wait <= 0 then", "wait = 0; if true then"),),
        ("tests/integration/test_budgets.py",),
    ),
    Mutation(
        "the limit of unknown threads",
        (("core/egress.py",
          "if public_only or (public_only is None and self._enforcing):", "if public_only:"),),
        ("tests/integration/test_egress.py",),
    ),
    Mutation(
        "a fair share of the free places",
        (("core/dispatcher/allocation.py", "share = max(free // len(ready), 1)", "share = free"),),
        ("tests/unit/test_allocation.py",),
    ),
    Mutation(
        "one set of rules for engine and kit",
        (("core/testing/ledger.py",
          "entry.failing_seconds = self._queue.clock - entry.first_failed",
          "entry.failing_seconds = 0.0"),),
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
        ("tests/integration/test_ledger_machine.py",),
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
        "fetched tasks that are left to others",
        (("core/worker/process.py",
          "                self.release(self.inflight.withdraw(MAX_WAIT_SECONDS))\n", ""),),
        ("tests/faults/test_stopping.py",),
    ),
    Mutation(
        "the epoch of a restored database",
        (("core/ledger/fence.py", "if outcome.dispatch.epoch != epoch:", "if False:"),),
        ("tests/integration/test_commit.py",),
    ),
    Mutation(
        "a server error of one method of Slack",
        (("plugins-slack/src/integration_polling_slack/errors.py",
          "return Unavailable(text, retry_after=seconds(retry_after), limit=method)",
          "return Unavailable(text, retry_after=seconds(retry_after))"),),
        ("plugins-slack/tests/test_access.py",),
    ),
    Mutation(
        "the probe of Gmail's token endpoint",
        (("plugins-gmail/src/integration_polling_gmail/session.py",
          "            tokens.probe(self.http, self.settings)", "            pass"),),
        ("plugins-gmail/tests/test_errors.py",),
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
        (("core/known_secrets.py", "            return self.redact_all(text)",
          "            return text"),),
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
        (("core/observability/traces.py", "[_redacted(span) for span in spans]", "spans"),),
        ("tests/security/test_plugin_log_secrets.py",),
    ),
    Mutation(
        "secrets that the conformance suite finds in URLs",
        (("core/testing/conformance.py", "redacted = Redactor({*secrets, WRONG})(visible)",
          "redacted = visible.replace(next(iter(secrets)), '***').replace(WRONG, '***')"),),
        ("tests/unit/test_conformance.py",),
    ),
    Mutation(
        "URLs of the settings",
        (("core/setting_urls.py", "        raise ValueError(AT)", "        pass"),),
        ("tests/security/test_setting_urls.py",),
    ),
    Mutation(
        "a rotation asks the processes",
        (("core/service/accounts/key_rotation.py", "if one.encrypts_with != newest]",
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
        (
            (
                "core/service/accounts/oauth.py",
                "_require_redirect(backend.settings, redirect_to)",
                "may_redirect(backend.settings, redirect_to)",
            ),
        ),
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
                "sessions.end_session(conn, id)\n    return _signed_out()",
                "pass\n    return _signed_out()",
            ),
        ),
        ("tests/security/test_sessions.py",),
    ),
    Mutation(
        "behind HTTPS, the cookie without the prefix names no session",
        (
            (
                "core/web/session_cookie.py",
                "if id is None and is_loopback(request, public_url):",
                "if id is None:",
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
        (("core/service/tokens.py", "not_after=not_after)", "not_after=None)"),),
        ("tests/security/test_scopes.py",),
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
]  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Print a row for each mutation with the number of tests that fail.

    With `words`, select the mutations whose names contain one of them.
    """
    green = 0
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
            "PYTHONPATH": folder,
            "DATABASE_URL": urls.database_url,
            "REDIS_URL": urls.redis_url,
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
