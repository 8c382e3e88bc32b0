"""Fixtures of the attacks: the API in this process, with the integrations of the REST tests."""

from __future__ import annotations

from support.rest import api, backend, egress, hooked, integrations  # noqa: F401  fixtures
