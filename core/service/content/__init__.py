"""Content: list, search, read, and follow its changes."""
