"""Integrations, and connecting accounts by forms made from their schemas."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
