"""The names that a plugin imports. Importing them loads neither the database nor the broker."""

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
from core.integration.results import (
    COMPARISON,
    Blob,
    Comparison,
    Listing,
    Task,
    TaskOutput,
    TaskResult,
)
from core.integration.stored import StoredItem
from core.integration.tasks import TaskMethod, task

__all__ = [
    "COMPARISON",
    "AccountIdentity",
    "AccountInfo",
    "BaseIntegration",
    "Blob",
    "BlobWriter",
    "Comparison",
    "Concurrency",
    "ConfigurationError",
    "Context",
    "CredentialsInvalid",
    "CursorExpired",
    "Destination",
    "IntegrationError",
    "Limit",
    "Listing",
    "Manifest",
    "NoFields",
    "OAuth",
    "PermanentError",
    "Rate",
    "RateLimited",
    "Reader",
    "RereadOnChange",
    "ResyncOnChange",
    "RunInfo",
    "SkipItem",
    "StoredItem",
    "Task",
    "TaskInfo",
    "TaskMethod",
    "TaskOutput",
    "TaskResult",
    "TransientError",
    "Unavailable",
    "hookimpl",
    "task",
]
