"""Accounts: their rows, their encrypted credentials, and the renewal of credentials."""
