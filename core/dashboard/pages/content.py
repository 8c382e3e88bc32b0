"""Content: searching it, and showing it safely."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
