"""Accounts: listing them, one of them, and what a person does with it."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
