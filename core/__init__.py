"""The names that a plugin imports. Importing them loads neither the database nor the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    CursorExpired,
    IntegrationError,
    PermanentError,
    RateLimited,
    SkipItem,
    TransientError,
    Unavailable,
)
from core.hookspecs import hookimpl
from core.integration.base import (
    BaseIntegration,
    Destination,
    NoFields,
    RereadOnChange,
    ResyncOnChange,
)
from core.integration.context import AccountInfo, BlobWriter, Context, RunInfo, TaskInfo
from core.integration.limits import (
    AccountIdentity,
    Concurrency,
    Limit,
    Manifest,
    OAuth,
    Rate,
    Reader,
)
from core.integration.listening import (
    EVENTS,
    EventDelivery,
    Hint,
    HintedAccount,
    Hints,
    ListenableAccount,
    Listener,
    WebhookRequest,
    WebhookResponse,
)
from core.integration.members import Member
from core.integration.rehearsal import Bound, Rehearsal, RehearsalSection, Sample
from core.integration.results import (
    COMPARISON,
    MAX_ID_BYTES,
    MAX_INLINE_BYTES,
    MEMBERS,
    NOTICE,
    Blob,
    Comparison,
    Listing,
    Notice,
    Skipped,
    Task,
    TaskOutput,
    TaskResult,
)
from core.integration.stored import StoredItem
from core.integration.tasks import TaskMethod, task
from core.rate_headers import response_time, retry_after

if TYPE_CHECKING:
    from core.http_session import HttpSession

__all__ = [
    "COMPARISON",
    "EVENTS",
    "MAX_ID_BYTES",
    "MAX_INLINE_BYTES",
    "MEMBERS",
    "NOTICE",
    "AccountIdentity",
    "AccountInfo",
    "BaseIntegration",
    "Blob",
    "BlobWriter",
    "Bound",
    "Comparison",
    "Concurrency",
    "ConfigurationError",
    "Context",
    "CredentialsInvalid",
    "CursorExpired",
    "Destination",
    "EventDelivery",
    "Hint",
    "HintedAccount",
    "Hints",
    "HttpSession",
    "IntegrationError",
    "Limit",
    "ListenableAccount",
    "Listener",
    "Listing",
    "Manifest",
    "Member",
    "NoFields",
    "Notice",
    "OAuth",
    "PermanentError",
    "Rate",
    "RateLimited",
    "Reader",
    "Rehearsal",
    "RehearsalSection",
    "RereadOnChange",
    "ResyncOnChange",
    "RunInfo",
    "Sample",
    "SkipItem",
    "Skipped",
    "StoredItem",
    "Task",
    "TaskInfo",
    "TaskMethod",
    "TaskOutput",
    "TaskResult",
    "TransientError",
    "Unavailable",
    "WebhookRequest",
    "WebhookResponse",
    "hookimpl",
    "response_time",
    "retry_after",
    "task",
]


def __getattr__(name: str) -> Any:
    if name == "HttpSession":  # loaded on first use, because many plugins speak no HTTP
        from core.http_session import HttpSession

        return HttpSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
