"""Accounts: connect, check, list, change, disconnect and erase them."""
