"""Fixtures for the tests that break servers, processes and providers."""

from __future__ import annotations

from support.gmail_fleet import gmail, gmail_fleet  # noqa: F401  fixtures
