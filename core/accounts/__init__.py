"""Accounts: whose they are, their credentials under lock and key, and what limits them."""
