"""Fixtures for dispatches and accounts without a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from pydantic import BaseModel, SecretStr

from core import BaseIntegration, Concurrency, Context, Manifest, NoFields, Rate, TaskResult, task
from core.accounts.redaction import redactor
from core.accounts.store import Account
from core.ledger.outcomes import Dispatch
from core.worker.accounts import LoadedAccount

ACCOUNT = UUID("11111111-1111-4111-8111-111111111111")


class Credentials(BaseModel):
    password: SecretStr = SecretStr("hunter-2-hunter")


class Shop(BaseIntegration[NoFields, Credentials]):
    """An integration whose tasks the tests never run."""

    manifest = Manifest(
        "shop", "Shop", limits=[Rate("quota", 100, 60.0, by="group"), Concurrency("connections", 4)]
    )

    @task
    def step(self, ctx: Context, number: int = 0) -> TaskResult:
        return TaskResult()


@pytest.fixture
def shop() -> type[Shop]:
    return Shop


@pytest.fixture
def dispatch() -> Callable[..., Dispatch]:
    """Return a function that makes dispatches: `dispatch(attempts=2)`."""
    plain = Dispatch(
        epoch=7, task_id=1, dispatch_no=1, dispatch_seq=1, run_id="run", account_id=str(ACCOUNT),
        account_version=1, domain="shop", lane="live", trigger="schedule", type="step", payload={},
        attempts=0, crashes=0, snoozes=0, suspect=False,
    )  # fmt: skip
    return lambda **given: replace(plain, **given)


@pytest.fixture
def loaded() -> LoadedAccount:
    """Return an account whose credentials have version 3."""
    account = Account(
        id=ACCOUNT, user_id="u", integration_domain="shop", name="n", identity="i",
        limit_group="acme", config={}, credentials=None, credentials_version=3, version=5,
        limits=[], sync_status="active", status_reason=None, status_detail=None,
    )  # fmt: skip
    credentials = Credentials()
    return LoadedAccount(
        account, Shop, NoFields(), credentials, tuple(Shop.manifest.limits), redactor(credentials)
    )
