"""Runs and tasks: request, list, follow, cancel, retry and discard them."""
