"""Accounts: their rows, their encrypted credentials, and the renewal of credentials."""

MAX_POLL_INTERVAL_MINUTES = 525_600
"""The longest time between two runs of an account: a year."""
