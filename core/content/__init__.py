"""Stored content: its rows, the items that a listing has seen, and the blobs of large items."""
