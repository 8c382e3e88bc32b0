"""Figures for Prometheus: what is so now, asked of the database, and what each worker process has counted."""

from __future__ import annotations

from core.api.backend import Backend


class Metrics:
    """Answers scrapes."""

    MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def text(self) -> str:
        return ""
