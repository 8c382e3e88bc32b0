"""Parked tasks: their errors, retrying and discarding one or many."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
