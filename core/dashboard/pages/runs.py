"""Runs: listing them, one of them as a tree of tasks, and a task."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
