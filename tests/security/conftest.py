"""Fixtures of a real server, and of a real Chromium where a browser matters."""

from __future__ import annotations

from support.cloud import browser, product, provider  # noqa: F401  fixtures
from support.dashboard import dashboard  # noqa: F401  fixtures
from support.identity_provider import identity_provider  # noqa: F401  fixtures
from support.rest import api, backend, egress, hooked, integrations  # noqa: F401  fixtures
